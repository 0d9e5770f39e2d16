"""docs/migrate/huey.md: its example is run by Huey, then what waits there moves over to pgq and nothing is lost."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import huey
from huey import crontab, exceptions
from huey import signals as signals_of_huey
from huey.api import Huey, Result, ResultGroup, Task, TaskWrapper
from huey.consumer_options import OptionParserHandler, config_keys

from pgq import recurrence
from tests.support.deploy import running
from tests.support.moving import code, missing, old_project, receipts, unknown
from tests.support.pools import wait_for
from tests.support.projects import Project

PAGE = "docs/migrate/huey.md"
#: What one order leaves, by either.
PAID = [(1, ""), (1, "2 EUR"), (1, "copy")]


def consumer(shop: Project):
    return running(sys.executable, "manage.py", "run_huey", folder=shop.folder, log=shop.folder / "huey.log")


def test_the_example_does_the_same_in_both_and_what_waits_moves_over(project: Callable[..., Project]) -> None:
    shop = old_project(project, PAGE)
    shop.write("calls.py", code(PAGE)["calls.py"])
    found = shop.run(sys.executable, "calls.py", "shop").stdout.splitlines()
    assert [line.partition(": ")[2] for line in found] == ["send_receipt(order)", "price(order, 3)"]

    shop.python("from shop.orders import pay\npay(1)")
    with consumer(shop):
        wait_for(lambda: len(receipts(shop)) == 3, "Huey has done it")
    assert receipts(shop) == PAID

    # Three more wait in Huey, one of them for its time, when the new release comes.
    calls = "send_receipt(2); send_receipt(3); send_receipt.schedule((4,), delay=1)"
    shop.python(f"from shop.tasks import send_receipt\n{calls}")
    shop.configure(code(PAGE)["project/settings.py, before"] + "INSTALLED_APPS += ['shop.forward']\n")
    for path in ("shop/tasks.py", "shop/orders.py"):
        shop.write(path, code(PAGE)[f"{path}, after"])
    shop.write("shop/forward/tasks.py", code(PAGE)["shop/forward/tasks.py"])
    shop.manage("migrate", "--verbosity=0")
    with consumer(shop):
        wait_for(lambda: shop.sql("SELECT count(*) FROM pgq_queue") == [(3,)], "all are forwarded")
    assert receipts(shop) == PAID, "Huey has run none of them"
    shop.python("from shop.orders import pay\nassert pay(5).created")
    wait_for(
        lambda: shop.sql("SELECT 1 FROM pgq_queue HAVING bool_and(run_after < now()) IS NOT FALSE"),
        "the delayed one is due",
    )
    shop.manage("pgq_worker", "--run-once", "--workers=1")
    assert receipts(shop) == [*PAID, (2, ""), (3, ""), (4, ""), *[(5, text.replace("2", "10")) for _, text in PAID]]
    assert shop.sql("SELECT name, cron, time_zone FROM pgq_schedule") == [("shop.tasks.nightly", "30 3 * * *", "UTC")]


def test_a_call_that_was_forgotten_is_loud(project: Callable[..., Project]) -> None:
    tasks = "from pgq.tasks import task\nfrom shop.guard import only_in_a_worker\n"
    tasks += "@task\n@only_in_a_worker\ndef add(a, b): return a + b\n"
    tasks += "@task\n@only_in_a_worker\ndef wrong(): return add(1, 2)\n"
    shop = project(apps={"shop": {"tasks.py": tasks, "guard.py": code(PAGE)["shop/guard.py"]}}, warm=True)
    assert "to enqueue it, call its enqueue()" in shop.python("from shop.tasks import add; add(1, 2)", code=1).stderr
    shop.python("from shop.tasks import add, wrong; add.enqueue(1, 2); wrong.enqueue()")
    shop.manage("pgq_worker", "--run-once", "--workers=1")
    assert shop.sql("SELECT func, success FROM pgq_task ORDER BY 1") == [
        ("shop.tasks.add", True), ("shop.tasks.wrong", False),
    ]  # fmt: skip


def test_crontabs_mean_the_same() -> None:
    """Over three weeks each minute that Huey fires is a slot here, and no other."""
    first = datetime(2026, 2, 20, tzinfo=UTC)
    for given, expression in [
        ({"minute": "30", "hour": "3"}, "30 3 * * *"),
        ({"minute": "0", "hour": "*/8"}, "0 */8 * * *"),
        ({"minute": "0", "hour": "9", "day_of_week": "0,6"}, "0 9 * * 0,6"),
        ({"minute": "15", "hour": "9-17", "day_of_week": "1-5"}, "15 9-17 * * 1-5"),
        ({"minute": "0", "hour": "0", "day": "1,15"}, "0 0 1,15 * *"),
    ]:
        fits = crontab(**given, strict=True)
        theirs = [at for at in (first + timedelta(minutes=n) for n in range(1, 21 * 1440)) if fits(at)]
        ours, at = [], first
        for _ in theirs:
            at = recurrence.next_slot(recurrence.Recurrence("C", cron=expression), at)
            ours.append(at)
        assert ours == theirs, expression


def test_every_name_of_huey_has_a_row() -> None:
    names: set[str] = set(config_keys)
    for kind in (Huey, TaskWrapper, Result, ResultGroup, Task):
        names |= {name for name, of in vars(kind).items() if not name.startswith("_") and callable(of)}
    for function in (Huey.__init__, Huey.task, Huey.periodic_task, TaskWrapper.schedule, Result.get, crontab):
        names |= set(inspect.signature(function).parameters)
    names |= {name for name in vars(signals_of_huey) if name.startswith("SIGNAL_")}
    names |= {name for name, of in vars(exceptions).items() if inspect.isclass(of)}
    names |= {name for name, of in vars(huey).items() if inspect.isclass(of)}
    options = OptionParserHandler()
    for group in (options.get_worker_options(), options.get_scheduler_options(), options.get_logging_options()):
        names |= {full for _, full, _ in group}
    own = {
        "self",
        "args",
        "kwargs",
        "storage_kwargs",
        "data",
        "extend_data",
        "create_id",
        "create_consumer",
        "task_base",
    }
    assert missing(PAGE, names - own) == []


def test_every_name_of_the_page_is_one_of_pgq() -> None:
    assert unknown(PAGE) == []
