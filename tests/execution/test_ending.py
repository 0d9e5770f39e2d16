"""A task that does not run ends when it is cancelled, without a worker, and whatever waits for it hears of it once."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.utils import timezone

from pgq import testing
from pgq.conf import Settings
from pgq.execution import ending
from pgq.models import Failure, QueuedTask, Task
from pgq.signals import post_execute
from pgq.store import lanes, leases
from pgq.tasks import async_chain, async_task, cancel, cancel_many, enqueue_many, fetch, pause, result, retry
from pgq.testing import drain
from pgq.upkeep.chores import Upkeep
from tests.functions import common as functions
from tests.functions import unique
from tests.support.hand import claim, expire, run, settle, until_waiting, value

pytestmark = pytest.mark.django_db(transaction=True)

CANCELLED, EXPIRED = "pgq.errors.TaskCancelled", "pgq.errors.Expired"


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
    until_waiting(two)
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


# ------------------------------------------------------------------------------------------------- expiry


def late(id: str) -> None:
    QueuedTask.objects.filter(pk=id).update(expires_at=timezone.now() - timedelta(seconds=1))


def test_a_task_that_has_not_started_in_time_ends_as_failed(session):
    own = session()
    ready = unique.in_time.using(hook=functions.hook, expires=60).enqueue("ready")
    waits = unique.in_time.using(run_after=3600, queue="q").enqueue("waits")
    members = unique.in_time.enqueue_many([("a",), ("b",)], then=functions.echo, group="g", queue="q")
    good = unique.in_time.using(queue="q").enqueue("good")
    never = unique.in_time.using(queue="q", expires=None).enqueue("never")
    rows = {row.pk: row for row in QueuedTask.objects.all()}
    assert timedelta(seconds=50) < rows[ready].expires_at - timezone.now() < timedelta(seconds=61)
    # The length of time begins when the task may run.
    assert rows[waits].expires_at - rows[waits].run_after == timedelta(hours=1)
    assert rows[never].expires_at is None
    pause("q")
    for id in (ready, waits, *members):
        late(id)
    # A worker that claims it does not run it.
    [claimed] = claim(own)
    assert (claimed.id.hex, claimed.expired) == (ready, True)
    settle(own, run(claimed))
    assert (ends(ready), fetch(ready).attempt_count) == ([EXPIRED], 0)
    # Upkeep ends the others, and those that it cannot run for any reason.
    upkeep().tick(own)
    assert ends(waits, *members, good, never) == [EXPIRED] * 3 + [None] * 2
    assert {row.func.rpartition(".")[2] for row in QueuedTask.objects.filter(run_after=None)} == {
        "in_time",
        "echo",
        "hook",
    }
    assert QueuedTask.objects.get(func__endswith="echo").remaining is None
    assert functions.seen == []


def test_a_task_that_has_started_does_not_expire(session):
    own = session()
    id = async_task(functions.fail, q_options={"expires": 60}, max_attempts=2)
    # Given back, it has not started.
    [claimed] = claim(own)
    leases.release(own.cursor(), [claimed])
    late(id)
    [claimed] = claim(own)
    assert claimed.expired
    leases.release(own.cursor(), [claimed])
    QueuedTask.objects.filter(pk=id).update(expires_at=timezone.now() + timedelta(hours=1))
    [claimed] = claim(own)
    settle(own, run(claimed))
    late(id)
    upkeep().tick(own)
    assert QueuedTask.objects.get().attempts == 1
    drain(due=True)
    assert fetch(id).exception.endswith("TaskError")
    # Nor one that is run again by hand.
    expired = async_task(functions.nothing, q_options={"expires": 60})
    late(expired)
    drain()
    assert ends(expired) == [EXPIRED]
    assert retry(expired)
    assert [ran.state for ran in drain()] == ["succeeded"]
    # Nor one that runs here.
    with testing.inline():
        assert fetch(unique.in_time.enqueue("x")).success
        over = unique.in_time.using(expires=timezone.now() - timedelta(seconds=1)).enqueue("y")
    assert ends(over) == [EXPIRED]
    assert functions.seen == ["x"]


def test_upkeep_is_due_when_a_task_expires(session):
    own = session()
    unique.in_time.using(run_after=3600, expires=timezone.now() + timedelta(hours=2)).enqueue()
    QueuedTask.objects.update(expires_at=timezone.now() + timedelta(seconds=5))
    outlook = lanes.outlook(own.cursor())
    assert (outlook.tasks_ended, outlook.tasks_due) == (False, False)
    assert 0 < outlook.next_in < 5
    late(QueuedTask.objects.get().pk)
    assert lanes.outlook(own.cursor()).tasks_ended


def test_in_a_pool(pool, session):
    """Of tasks that no worker may claim; and a key that a retry has let go."""
    own = session()
    pause("q")
    held = [
        unique.in_time.using(queue="q", expires=0.2).enqueue(),
        unique.in_time.using(run_after=60, queue="q").enqueue(),
    ]
    hooked = async_task(functions.nothing, queue="q", hook=functions.hook)
    late(held[1])
    unique.until_end.using(max_attempts=2, retry_backoff=0.01).enqueue(7, "fail")
    running = pool(workers=1)
    value(own, "SELECT pgq_cancel(%s)", UUID(hooked))
    running.wait_for(lambda: None not in ends(*held, hooked), "they have ended")
    assert ends(*held, hooked) == [EXPIRED, EXPIRED, CANCELLED]
    running.wait_for(lambda: Task.objects.filter(func__endswith="until_end").exists(), "its attempts are over")
    assert unique.until_end.enqueue(7).created
    [hook] = QueuedTask.objects.filter(func__endswith="hook")
    assert hook.options["hook_of"] == hooked
