"""A task that does not run ends when it is cancelled, without a worker, and whatever waits for it hears of it once."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from pgq.conf import Settings
from pgq.execution import ending
from pgq.models import Failure, QueuedTask, Task
from pgq.signals import post_execute
from pgq.tasks import async_chain, async_task, cancel, cancel_many, enqueue_many, fetch, pause, result
from pgq.testing import drain
from pgq.upkeep.chores import Upkeep
from tests.functions import common as functions
from tests.support.hand import claim, expire, run, settle, value
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

CANCELLED = "pgq.errors.TaskCancelled"


def ends(*ids: str) -> list[str | None]:
    return [task and task.exception for task in map(fetch, ids)]


def upkeep(**settings: Any) -> Upkeep:
    chosen = Settings(tick=0.01, **settings)
    return Upkeep(chosen, "default", partial(ending.for_upkeep, chosen))


def test_it_ends_in_the_callers_transaction_whatever_it_waits_for():
    ready, later = async_task(functions.nothing), async_task(functions.nothing, run_after=3600)
    paused, parked = async_task(functions.nothing, queue="paused"), async_task(functions.nothing, timeout=5)
    pause("paused")
    QueuedTask.objects.filter(pk=parked).update(parked="odd")
    collecting = enqueue_many(functions.nothing, [()], then=functions.falsy, group="g")
    waits = QueuedTask.objects.get(remaining=1)
    five = [ready, later, paused, parked, waits.pk]
    with transaction.atomic():
        assert {cancel(id) for id in five} == {"queued"}
        assert ends(*five) == [CANCELLED] * 5
        transaction.set_rollback(True)
    assert QueuedTask.objects.filter(cancelled=False).count() == 6
    assert ends(*five) == [None] * 5
    assert {cancel(id) for id in five} == {"queued"}
    assert ends(*five) == [CANCELLED] * 5
    assert [row.pk for row in QueuedTask.objects.all()] == collecting
    finished = fetch(later)
    assert (finished.attempt_count, finished.history, finished.success) == (0, [], False)
    assert cancel(ready) == "finished"


def test_hook_chain_and_collector_hear_of_it_once():
    told = []
    post_execute.connect(lambda task, **kwargs: told.append(task["id"]), weak=False, dispatch_uid="told")
    try:
        hooked = async_task(functions.nothing, hook=functions.hook)
        members = enqueue_many(functions.nothing, [(), ()], then=functions.echo, group="g")
        async_chain([functions.nothing, (functions.echo, ("after",))], continue_on_failure=True)
        [link] = QueuedTask.objects.exclude(pk__in=[hooked, *members]).filter(remaining=None)
        assert set(cancel_many([hooked, members[0], link.pk]).values()) == {"queued"}
        assert sorted(told) == sorted([hooked, members[0], link.pk])
        # The collector waits for the other one.
        assert QueuedTask.objects.get(remaining__isnull=False).remaining == 1
        with transaction.atomic():
            assert cancel(members[1]) == "queued"
            assert len(told) == 3
        assert len(told) == 4
    finally:
        post_execute.disconnect(dispatch_uid="told")
    assert cancel_many([hooked, *members]) == dict.fromkeys([hooked, *members], "finished")
    assert sorted(ran.func.rpartition(".")[2] for ran in drain()) == ["echo", "echo", "hook"]
    assert functions.seen == [(hooked, False, fetch(hooked).result)]


def test_from_psql_it_ends_at_once_or_by_upkeep(session):
    own = session()
    plain, hooked = async_task(functions.nothing), async_task(functions.nothing, queue="q", hook=functions.hook)
    cached = async_task(functions.nothing, queue="q", cached=True)
    pause("q")
    ids = enqueue_many(functions.nothing, [(), ()], group="g", then=functions.echo, queue="q")
    for id in (plain, hooked, cached, *ids):
        assert value(own, "SELECT pgq_cancel(%s)", UUID(id)) == "queued"
    assert ends(plain, hooked, cached, *ids) == [CANCELLED, None, None, None, None]
    assert fetch(plain).message == "the task was cancelled"
    upkeep().tick(own)
    assert ends(hooked, *ids) == [CANCELLED] * 3
    assert "the task was cancelled" in result(cached, cached=True)
    # In the paused queue.
    assert {row.func.rpartition(".")[2]: row.remaining for row in QueuedTask.objects.all()} == {
        "hook": None, "echo": None,
    }  # fmt: skip


def test_a_role_without_workers_marks_a_row_and_drain_ends_it():
    async_task(functions.nothing, run_after=3600)
    QueuedTask.objects.update(cancelled=True)
    [ran] = drain()
    assert (ran.state, ran.attempt) == ("failed", 0)


def test_many_in_opposite_orders(session):
    ids = enqueue_many(functions.nothing, [()] * 1200, hook=functions.hook)
    found: list[dict[str, str]] = []

    def other(order: list[str]) -> None:
        from django.db import connection

        found.append(cancel_many(order))
        connection.close()

    threads = [threading.Thread(target=other, args=(order,)) for order in (ids, ids[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert sorted({(one[id], two[id]) for one, two in [found] for id in ids}) in (
        [("queued", "finished")], [("finished", "queued")],
    )  # fmt: skip
    assert (Failure.objects.count(), QueuedTask.objects.count()) == (1200, 1200)
    with pytest.raises(ValueError, match="task_id: must be an id"):
        cancel_many([ids[0], "x"])


def test_races_with_claim_settle_and_rescue(session):
    """Whoever has the row first is the one that counts."""
    one, two = session(autocommit=False), session()
    # A claim whose commit is still to come.
    id = async_task(functions.nothing, hook=functions.hook)
    [claimed] = claim(one)
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(_cancel_elsewhere(id)))
    thread.start()
    wait_for(lambda: value(two, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    one.commit()
    thread.join()
    assert answers == ["running"]
    # It returned all the same: the result stands.
    settle(two, run(claimed))
    assert (fetch(id).success, cancel(id)) == (True, "finished")
    # A cancel whose commit is still to come: a claim leaves it out, and its receipt is good no more.
    id = async_task(functions.nothing, queue="other")
    with transaction.atomic():
        assert cancel(id) == "queued"
        assert claim(two, queues=["other"]) == []
    assert ends(id) == [CANCELLED]
    # A task whose lease was lost, and whose worker reports late.
    id = async_task(functions.nothing, queue="other")
    [claimed] = claim(two, queues=["other"])
    report = run(claimed)
    assert expire(two, since=claimed.enqueued_at) == [UUID(id)]
    assert cancel(id) == "queued"
    settle(two, report)
    assert ends(id) == [CANCELLED]
    assert Task.objects.filter(pk=id).count() == 1


def _cancel_elsewhere(id: str) -> str:
    from django.db import connection

    try:
        return cancel(id)
    finally:
        connection.close()


def test_what_a_row_from_psql_holds_keeps_no_other_from_ending(session):
    own = session()
    good = [async_task(functions.nothing, hook=functions.hook) for _ in range(2)]
    odd = [
        '{"collector": 5}', '{"chain": 7}', '{"chain": [{}], "chain_on_failure": true}', '{"cached": "x"}',
        '{"chain": [{"func": "f", "args": "no json", "kwargs": "{}", "options": "{}", "queue": "q", "priority": 99999,'
        ' "name": null, "group": null, "hook": null, "timeout": null, "max_attempts": 1}], "chain_on_failure": true}',
        '{"x": ' + "9" * 5000 + "}",
    ]  # fmt: skip
    for options in odd:
        own.execute("INSERT INTO pgq_queue (func, options, max_attempts) VALUES ('x', %s, 3)", (options,))
    rows = [row.hex for (row,) in own.execute("SELECT id FROM pgq_queue").fetchall()]
    assert set(cancel_many(rows).values()) == {"queued"}
    assert ends(*rows) == [CANCELLED] * len(rows)
    assert [row.func.rpartition(".")[2] for row in QueuedTask.objects.all()] == ["hook", "hook"]
    assert set(good) < set(rows)
