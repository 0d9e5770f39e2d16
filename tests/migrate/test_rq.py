"""docs/migrate/rq.md: its example is run by django-rq's own worker; what waits in Redis is run by it after the move.

The Redis is that of fakeredis, a server of its own process.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import django_rq
import pytest
import rq
from django.core.management import load_command_class
from rq import exceptions, registry
from rq.cli.cli import main
from rq.job import Job, JobStatus
from rq.queue import Queue

from tests.support.deploy import running
from tests.support.moving import MODELS, code, missing, receipts, unknown, write
from tests.support.pools import wait_for
from tests.support.projects import Project

pytest.importorskip("fakeredis", reason="fakeredis is not installed on Python 3.15")

PAGE = "docs/migrate/rq.md"
#: What one order leaves, by either.
PAID = [(1, ""), (1, "2 EUR"), (1, "copy")]
REDIS = """
import pathlib
from fakeredis import TcpFakeServer

server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
pathlib.Path("port").write_text(str(server.server_address[1]))
server.serve_forever()
"""
#: Two jobs of rq-scheduler that repeat, and one that does not, move over; twice.
SCHEDULER = """
from datetime import UTC, datetime
import django_rq
from shop import from_rq_scheduler

scheduler = django_rq.get_scheduler("default")
scheduler.cron("30 3 * * *", func="shop.nightly.nightly")
scheduler.schedule(datetime(2040, 1, 1), func="shop.nightly.refresh", args=["a"], interval=90, repeat=4)
scheduler.enqueue_at(datetime(2040, 1, 1), "shop.nightly.nightly")
from_rq_scheduler.move()
from_rq_scheduler.move()
assert scheduler.count() == 1
"""


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start a Redis; yields its port."""
    port = folder / "port"
    with running(sys.executable, "-c", REDIS, folder=folder, log=folder / "redis.log"):
        yield wait_for(lambda: port.exists() and port.read_text(), "the port")


def test_the_example_does_the_same_in_both_and_what_waits_is_run(
    project: Callable[..., Project], tmp_path: Path
) -> None:
    shop = project("import os", migrate=False, apps={"shop": {"models.py": MODELS}}, warm=True)
    write(shop, PAGE, "before")
    shop.configure("import os\n" + code(PAGE)["project/settings.py, before"])
    with redis(tmp_path) as port:
        env = {"REDIS_PORT": port}

        def drained_to(expected: list[tuple[int, str]]) -> bool:
            # In a burst RQ does not wait for what is due later.
            def are_there() -> bool:
                shop.manage("rqworker", "--burst", "--with-scheduler", env=env)
                return receipts(shop) == expected

            return wait_for(are_there, "RQ has run what is due", pause=0.3)

        shop.manage("migrate", "--run-syncdb", "--verbosity=0", env=env)
        shop.python("from shop.orders import pay\npay(1)", env=env)
        assert drained_to(PAID)

        # More wait in Redis, one of them for its time, when the new release comes.
        calls = "django_rq.get_queue().enqueue_in(timedelta(seconds=2), send_receipt, 4); send_receipt.delay(2)"
        imports = "import django_rq\nfrom datetime import timedelta\nfrom shop.tasks import send_receipt\n"
        shop.python(imports + calls, env=env)
        write(shop, PAGE, "after")
        shop.python("from shop.orders import pay\nassert pay(5).created", env=env)
        # Those of Redis, by the new functions.
        assert drained_to([*PAID, (2, ""), (4, "")])
        due = "SELECT 1 FROM pgq_queue HAVING coalesce(max(run_after) < now(), true)"
        wait_for(lambda: shop.sql(due), "the delayed one is due")
        shop.manage("pgq_worker", "--run-once", "--workers=1", env=env)
        left = [(5, text.replace("2", "10")) for _, text in PAID]
        assert receipts(shop) == [*PAID, (2, ""), (4, ""), *sorted(left)]
        shop.python(SCHEDULER, env=env)
    assert shop.sql("SELECT func, cron, seconds, repeats, args FROM pgq_schedule ORDER BY seconds") == [
        ("shop.nightly.refresh", None, 90.0, 4, ["a"]),
        ("shop.nightly.nightly", "30 3 * * *", None, -1, []),
    ]
    schedules = "from shop import nightly, urgent\nfrom pgq.schedules import code\n"
    shop.python(schedules + "assert len(code.read().schedules) == 2 and not code.read().findings", env=env)


def test_every_name_of_rq_has_a_row() -> None:
    names = {*rq.__all__, *django_rq.__all__} - {"__version__"}
    for function in (rq.job.Job.create, Queue.enqueue_call, rq.decorators.job.__init__):
        names |= set(inspect.signature(function).parameters)
    names |= {name for name in vars(registry) if name.endswith("JobRegistry")}
    names |= {f"is_{status.value}" for status in JobStatus if hasattr(Job, f"is_{status.value}")}
    names |= {name for name in vars(exceptions) if name.startswith(("NoSuchJob", "Duplicate", "Shut", "Abandoned"))}
    names -= {"self", "func", "status", "DuplicateSchedulerError"}
    for command in main.commands["worker"].params + main.commands["worker-pool"].params:
        names |= {option for option in command.opts if option.startswith("--")}
    names |= {"rqworker", "rqworker-pool", "rqstats", "rqenqueue", "rqsuspend", "rqresume", "rqscheduler", "rqcron"}
    parser = load_command_class("django_rq", "rqworker").create_parser("manage.py", "rqworker")
    own = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    django = {"--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color"}
    names |= own - django - {"--force-color", "--skip-checks"}
    assert missing(PAGE, names) == []


def test_every_name_of_the_page_is_one_of_pgq() -> None:
    assert unknown(PAGE) == []
