"""A project moves from the real procrastinate, whose worker runs meanwhile, by the statements of the page."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.blocks import texts
from tests.support.projects import Project
from tests.support.strangers import running, wait_for

PAGE = "docs/migrate/procrastinate.md"
#: The same functions as on the page, as they were.
OLD = """
import time
from procrastinate import RetryStrategy
from procrastinate.contrib.django import app


@app.task(name="send", queue="mail", retry=RetryStrategy(max_attempts=3, wait=3600))
def send_receipt(order):
    time.sleep(0.05)
    if order < 0:
        raise ValueError(order)


@app.task
def sync_customer(customer):
    time.sleep(0.05)


@app.task(queueing_lock="nightly file")
def import_file(path): ...
"""
DEFER = """
from shop.tasks import import_file, send_receipt, sync_customer

send_receipt.configure(priority=2000).defer(order=-1)
send_receipt.configure(priority=1000).batch_defer(*[{"order": number} for number in range(40)])
sync_customer.configure(lock="customer 7").batch_defer(*[{"customer": number} for number in range(20)])
send_receipt.configure(schedule_in={"hours": 1}, priority=-3).defer(order=99)
import_file.defer(path="x.csv")
"""
STATES = "SELECT status::text, array_agg(id ORDER BY id) FROM procrastinate_jobs GROUP BY 1"
HERE = "SELECT substr(name, 15)::bigint, func, queue, priority, key, unique_key, max_attempts FROM pgq_queue ORDER BY 1"


def test_what_waits_moves_while_both_run(project: Callable[..., Project]) -> None:
    shop = project(apps={"shop": {"tasks.py": OLD}}, installed=("pgq", "procrastinate.contrib.django", "shop"))
    shop.python(DEFER)
    move, back = texts(PAGE, "sql")
    [new] = [text for text in texts(PAGE, "python") if text.startswith("# shop/tasks.py")]
    with running(shop, "manage.py", "procrastinate", "worker", "-c", "1"):
        wait_for(lambda: len(dict(shop.sql(STATES)).get("succeeded", [])) > 3, "the old worker has run some")
        shop.sql(move)
        (shop.folder / "shop/tasks.py").write_text(new)
    # What it had in hand may have failed, and waits for its retry.
    shop.sql(move)
    states = dict(shop.sql(STATES))
    assert set(states) == {"succeeded", "cancelled"}, states
    rows = {id: row for id, *row in shop.sql(HERE)}
    assert sorted(rows) == states["cancelled"], "each is here that was taken there, and no other"
    assert 0 < len(rows) < 63
    assert rows[1] == ["shop.tasks.send_receipt", "mail", 100, None, None, 4], "it waits for its retry, here as there"
    assert rows[62] == ["shop.tasks.send_receipt", "mail", -3, None, None, 4]
    assert rows[63] == ["shop.tasks.import_file", "default", 0, None, "nightly file", 4]
    assert rows[61] == ["shop.tasks.sync_customer", "default", 0, "lock:customer 7", None, 4]

    shop.manage("pgq_worker", "--run-once", "--workers", "2")
    done = shop.sql("SELECT substr(name, 15)::bigint, success FROM pgq_task")
    assert all(success for _, success in done)
    assert sorted([*states["succeeded"], *(id for id, _ in done), 1, 62]) == list(range(1, 64)), "once each"
    order = shop.sql("SELECT substr(name, 15)::bigint FROM pgq_task WHERE func ~ 'sync' ORDER BY started")
    assert order == sorted(order), "one after the other, in their order"

    shop.sql(back)
    assert dict(shop.sql(STATES))["todo"] == [1, 62]
    assert shop.sql("SELECT count(*) FROM pgq_queue") == [(0,)]

    # A release that has both: the new functions, registered there as well.
    there = "app.task(name='shop.tasks.import_file')(import_file.func)"
    (shop.folder / "shop/tasks.py").write_text(f"{new}\nfrom procrastinate.contrib.django import app\nold = {there}\n")
    shop.python("from shop.tasks import old; print(old.defer(path='y.csv'))")
    shop.manage("procrastinate", "worker", "--one-shot")
    assert 64 in dict(shop.sql(STATES))["succeeded"]
