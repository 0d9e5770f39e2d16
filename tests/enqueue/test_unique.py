"""Unique, debounced and expiring tasks: the key, who gets it, and what becomes of a call whose key is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError
from django.utils import timezone

from pgq import testing
from pgq.errors import EnqueueError, NotUnique
from pgq.ground import events
from pgq.models import QueuedTask, Task, UniqueKey
from pgq.records import Blame, Fired
from pgq.store import leases
from pgq.store import queue as store_queue
from pgq.store import unique as store_unique
from pgq.store.caller import callers_cursor
from pgq.tasks import (
    Debounce,
    TaskId,
    Unique,
    async_chain,
    async_iter,
    async_task,
    cancel,
    enqueue_from,
    enqueue_many,
    fetch,
    retry,
    schedule,
)
from pgq.testing import drain, fire_schedules
from tests.app.models import Note
from tests.functions import common, unique
from tests.support.hand import WORKER, claim, run, settle, until_waiting

pytestmark = pytest.mark.django_db

HERE = "tests.functions.unique."


def keys() -> list[str]:
    return [row.unique_key.removeprefix(HERE) for row in QueuedTask.objects.exclude(unique_key=None).order_by("id")]


# ------------------------------------------------------------------------------------------------- the key


def test_what_a_key_is_made_of():
    first = unique.by_name.enqueue(7)
    assert first.created
    second = unique.by_name.enqueue(order=7, note="other")
    assert (second, second.created, type(second).__mro__[1]) == (first, False, TaskId)
    assert unique.by_name.enqueue(8).created
    assert unique.by_name.enqueue("7").created
    assert unique.by_two.enqueue(1).created
    assert not unique.by_two.enqueue(1, kind="plain", note="x").created
    assert unique.by_two.enqueue(1, "fancy").created
    assert unique.by_all.enqueue(1).created
    assert not unique.by_all.enqueue(order=1, kind="plain").created
    assert unique.by_all.enqueue(1, "plain", 2, x=3).created
    assert not unique.by_all.enqueue(1, "plain", 2, x=3).created
    assert [unique.by_function.enqueue(n).created for n in (11, 19, 20, -1, -1)] == [True, False, True, True, True]
    assert unique.with_context.enqueue(5).created
    assert not unique.with_context.enqueue(order=5).created
    # One call of a function that says nothing of it; by each door.
    assert async_task(common.echo, 1, q_options={"unique": True}).created
    assert not async_task("tests.functions.common.echo", 1, q_options={"unique": True}).created
    # Among the keyword arguments of a call they are the function's.
    assert async_task(common.echo, unique=True, expires=5, debounce=1).created
    assert unique.any_number.using(unique=Unique("order", name="shared")).enqueue(7).created
    assert not unique.by_name.using(unique=Unique("order", name="shared")).enqueue(7).created
    long = unique.by_name.enqueue("x" * 1000)
    assert len(QueuedTask.objects.get(pk=long).unique_key) < 150
    assert not unique.by_name.enqueue("x" * 1000).created
    # What `@task` says does not hold for this call.
    assert unique.by_name.using(unique=None).enqueue(7).created
    assert unique.by_name.using(unique=False).enqueue(7).created
    assert async_task(unique.by_name, 7, q_options={"unique": False}).created
    assert keys()[:3] == ["by_name:7", "by_name:8", 'by_name:"7"']


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unique": "odrer"}, "unique: must name an argument (order, note), True or a function, got 'odrer'"),
        ({"unique": 5}, "unique: key must be the name of an argument"),
        ({"unique": lambda order, note="": 1 / 0}, "unique: its function fails for this call: ZeroDivisionError"),
        ({"unique": lambda order, note="": object()}, "unique"),
        ({"debounce": 0}, "debounce: quiet must be a number of seconds"),
        ({"debounce": (5, 1)}, "debounce: longest must not be less than quiet"),
        ({"debounce": (1, 2, 3)}, "debounce: must be (quiet, longest)"),
        ({"debounce": 5, "run_after": 9}, "debounce: says when the task may run"),
        ({"debounce": 5, "unique": Unique("order", until="end")}, "debounce: says what becomes of another call"),
        ({"expires": -1}, "expires: must be a datetime, or a length of time"),
        ({"expires": "soon"}, "expires: must be a datetime, or a length of time"),
        ({"expires": datetime(9999, 6, 1, tzinfo=UTC)}, "expires: must be in the years"),
        ({"run_after": 60, "expires": timezone.now()}, "expires: is not after run_after"),
    ],
)  # fmt: skip
def test_wrong_input_names_the_option(options, said):
    with pytest.raises(EnqueueError) as raised:
        async_task(unique.any_number, 7, q_options=options)
    assert said in str(raised.value)
    assert raised.value.field in options
    assert not QueuedTask.objects.exists()


def test_wrong_parts_of_unique():
    for given in ({"until": "never"}, {"conflict": "drop"}, {"name": ""}, {"key": ["a", 1]}):
        with pytest.raises(ValueError, match="must be"):
            Unique(**{"key": "order", **given})
    with pytest.raises(ValueError, match="args must be"):
        Debounce(5, args="both")


def test_links_of_chains_and_parts_of_an_iter_are_not_unique():
    for _ in range(2):
        async_chain([unique.by_name.call_of(7), unique.by_name.call_of(7)])
        async_iter(unique.by_name, [7, 7])
    assert keys() == []
    assert len(drain()) == 10
    with pytest.raises(EnqueueError, match="unique: is not for links"):
        async_iter(common.echo, [1], q_options={"unique": True})


# ------------------------------------------------------------------------------------------------- until


def test_until_start_end_and_for_a_time():
    first = unique.by_name.enqueue(7)
    assert not unique.by_name.enqueue(7).created
    drain()
    assert unique.by_name.enqueue(7).created
    assert fetch(first).success
    # Until its end: its retries are part of it.
    ends = unique.until_end.enqueue(7, "fail")
    assert [ran.state for ran in drain()] == ["succeeded", "retried"]
    assert not unique.until_end.enqueue(7).created
    drain(due=True)
    assert fetch(ends).attempt_count == 3
    assert unique.until_end.enqueue(7).created
    # For a time, whatever becomes of it.
    first = unique.for_an_hour.enqueue(7)
    drain()
    assert fetch(first).success
    again = unique.for_an_hour.enqueue(7)
    assert (again, again.created) == (first, False)
    UniqueKey.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert unique.for_an_hour.enqueue(7).created
    cancelled = unique.for_an_hour.enqueue(8)
    cancel(cancelled)
    assert unique.for_an_hour.enqueue(8) == cancelled
    # Upkeep deletes what is over.
    UniqueKey.objects.filter(task=cancelled).update(until=timezone.now())
    with callers_cursor("default") as cursor:
        assert [store_unique.prune_keys(cursor, limit=10) for _ in range(2)] == [1, 0]
    assert UniqueKey.objects.count() == 1


def test_an_attempt_that_follows_goes_on_without_the_key():
    """Whatever has the key by then: no change of a task's state can fail on it."""
    failing = async_task(common.fail, "why", q_options={"unique": True}, max_attempts=3)
    drain()
    assert async_task(common.fail, "why", q_options={"unique": True}, max_attempts=3).created
    row = QueuedTask.objects.get(pk=failing)
    assert (row.unique_key, row.unique_until, row.history[-1]["unique"]) == (None, "start", False)
    assert retry(failing)
    [*_, last] = drain(due=True)
    assert last.state == "failed"
    again = async_task(common.fail, "why", q_options={"unique": True})
    assert again.created
    assert retry(failing)
    assert QueuedTask.objects.get(pk=failing).history[-1]["unique"] is False
    assert QueuedTask.objects.get(pk=again).unique_key


@pytest.mark.parametrize("how", ["worker", "host", "unknown"])
def test_a_task_that_starts_anew_after_its_worker_died_says_that_it_has_no_key(how):
    first, plain = async_task(unique.by_name, 7), async_task(common.echo, 1)
    with callers_cursor("default") as cursor:
        claims = store_queue.claim(cursor, limit=2, worker=WORKER, receipt=uuid4())
        since, later = leases.BEFORE_ALL_LEASES, timezone.now() + timedelta(hours=1)
        if how == "worker":
            leases.release_worker(cursor, WORKER, Blame(None, crash=True, error="{}"), since=since)
        elif how == "host":
            leases.rescue_expired(cursor, since=since, before=later, age=-60, error="{}")
        else:
            store_queue.postpone(cursor, [(each.id, each.receipt, 1.0, '{"postponed": 1}') for each in claims])
    row, other = (QueuedTask.objects.get(pk=id) for id in (first, plain))
    assert (row.unique_key, row.history[-1]["unique"]) == (None, False)
    assert "unique" not in other.history[-1]


# ------------------------------------------------------------------------------------------------- conflicts


def call(conflict: str, until: Any = "start", **options: Any) -> Any:
    return unique.any_number.using(unique=Unique("order", until=until, conflict=conflict), **options)


def test_raise():
    first = call("raise").enqueue(7)
    with pytest.raises(NotUnique) as raised:
        call("raise").enqueue(7)
    assert (raised.value.task_id, raised.value.key) == (first, f"{HERE}any_number:7")
    with pytest.raises(NotUnique), transaction.atomic():
        call("raise").enqueue_many([(8,), (7,)])
    assert QueuedTask.objects.count() == 1


def test_replace_keeps_id_and_place():
    first = call("replace").enqueue(7, "old")
    unique.any_number.enqueue(1)
    before = QueuedTask.objects.get(pk=first)
    again = call("replace", max_attempts=5, hook=common.hook).enqueue(7, "new")
    assert (again, again.created) == (first, False)
    after = QueuedTask.objects.get(pk=first)
    assert (after.position, after.enqueued_at, after.max_attempts) == (before.position, before.enqueued_at, 5)
    later = call("replace", run_after=60, priority=7, queue="new", key="k").enqueue(7, "newer")
    assert later == first
    row = QueuedTask.objects.get(pk=first)
    assert (row.queue, row.priority, row.task_key, row.run_after > timezone.now()) == ("new", 7, "k", True)
    call("replace").enqueue(7, "newest")
    # The signature is that of the new arguments.
    assert [ran.state for ran in drain()] == ["succeeded"] * 2
    assert common.seen == [(1, ""), (7, "newest")]
    running = call("replace", until="end").enqueue(9, "runs")
    QueuedTask.objects.filter(pk=running).update(lock=timezone.now(), worker=UUID(int=1), receipt=UUID(int=2))
    assert call("replace", until="end").enqueue(9, "too late") == running
    assert QueuedTask.objects.get(pk=running).args == (9, "runs")


def test_reschedule():
    first = call("reschedule", run_after=60).enqueue(7, "old")
    then = QueuedTask.objects.get(pk=first)
    assert call("reschedule", run_after=600).enqueue(7, "new") == first
    row = QueuedTask.objects.get(pk=first)
    assert row.run_after > then.run_after + timedelta(seconds=500)
    assert call("reschedule").enqueue(7) == first
    row = QueuedTask.objects.get(pk=first)
    assert (row.run_after, row.args, row.position > then.position) == (None, (7, "old"), True)


def test_cancel_a_waiting_one_and_a_running_one():
    first = call("cancel").enqueue(7, "old")
    second = call("cancel").enqueue(7, "new")
    assert second.created
    assert fetch(first).exception == "pgq.errors.TaskCancelled"
    drain()
    assert common.seen == [(7, "new")]
    running = call("cancel", until="end").enqueue(9, "runs")
    QueuedTask.objects.filter(pk=running).update(lock=timezone.now(), worker=UUID(int=1), receipt=UUID(int=2))
    anew = call("cancel", until="end").enqueue(9, "anew")
    assert anew.created
    old, new = QueuedTask.objects.get(pk=running), QueuedTask.objects.get(pk=anew)
    assert (old.cancelled, old.unique_key, new.unique_key) == (True, None, f"{HERE}any_number:9")
    timed = call("cancel", until=60).enqueue(3)
    other = call("cancel", until=60).enqueue(3)
    assert other.created
    assert UniqueKey.objects.get().task == other
    assert fetch(timed).exception == "pgq.errors.TaskCancelled"


# ------------------------------------------------------------------------------------------------- many


def test_many_are_skipped_row_by_row():
    first = unique.by_name.enqueue(2)
    ids = unique.by_name.enqueue_many([(1,), (2,), (3,), (1, "again")], then=common.echo, group="g")
    assert [id.created for id in ids] == [True, False, True, False]
    assert (ids[1], ids[3]) == (first, ids[0])
    assert QueuedTask.objects.get(remaining__isnull=False).remaining == 2
    assert [id.created for id in unique.for_an_hour.enqueue_many([(1,), (1,)])] == [True, False]
    assert [id.created for id in call("replace").enqueue_many([(1, "a"), (1, "b")])] == [True, False]
    assert QueuedTask.objects.get(func=HERE + "any_number").args == (1, "b")
    mixed = enqueue_many(unique.by_name, [(1,)], unique=False)
    assert mixed[0].created
    ran = drain()
    assert [r.func.rpartition(".")[2] for r in ran].count("echo") == 1


def test_what_a_collector_waits_for_is_not_replaced_and_counts_once():
    waits = call("replace").enqueue(1, "before")
    ids = call("replace").enqueue_many([(1, "in"), (2, "in")], then=common.echo, group="g")
    assert [id.created for id in ids] == [False, True]
    assert call("replace").enqueue(2, "after") == ids[1]
    assert {row.pk: row.args[1] for row in QueuedTask.objects.filter(remaining=None)} == {waits: "in", ids[1]: "in"}
    assert QueuedTask.objects.get(remaining=1)
    cancel(waits)
    assert QueuedTask.objects.get(remaining=1)
    assert [ran.func.rpartition(".")[2] for ran in drain()] == ["any_number", "echo"]


def test_from_a_query():
    Note.objects.bulk_create(Note(text=text) for text in "aab")
    assert enqueue_from(unique.by_name, Note.objects.order_by("id"), ["text"]) == 2
    assert enqueue_from(unique.by_name, Note.objects.all(), ["text"]) == 0
    assert enqueue_from(unique.in_time, Note.objects.all(), ["text"]) == 3
    assert QueuedTask.objects.filter(expires_at__gt=timezone.now()).count() == 3


def test_a_plain_column_for_psql():
    with connection.cursor() as cursor:
        insert = "INSERT INTO pgq_queue (func, args, unique_key) VALUES (%s, '[7]', 'mine')"
        cursor.execute(insert, (HERE + "by_name",))
        cursor.execute(insert + " ON CONFLICT DO NOTHING", (HERE + "by_name",))
        assert cursor.rowcount == 0
        with pytest.raises(IntegrityError), transaction.atomic():
            cursor.execute(insert, (HERE + "by_name",))
    drain()
    assert common.seen == [(7, "")]


def test_schedules():
    schedule(unique.by_name, 7, name="a", schedule_type="D")
    schedule(unique.by_name, 7, name="b", schedule_type="D")
    schedule(unique.any_number, 7, name="c", schedule_type="D", q_options={"unique": True, "expires": "1h"})
    fire_schedules()
    rows = {row.func.removeprefix(HERE): row for row in QueuedTask.objects.all()}
    assert set(rows) == {"by_name", "any_number"}
    assert rows["by_name"].unique_key == HERE + "by_name:7"
    assert timedelta(minutes=50) < rows["any_number"].expires_at - timezone.now() <= timedelta(hours=1)
    assert len(drain()) == 2
    with pytest.raises(EnqueueError, match="expires: of a schedule's tasks"):
        schedule(unique.any_number, q_options={"expires": timezone.now() + timedelta(days=1)})


@pytest.mark.parametrize("options", [{}, {"unique": Unique("order", until="1h")}])
def test_a_slot_whose_key_is_taken_names_the_task_that_has_it(options, monkeypatch):
    """It has made none, so nothing is told of it; a task that is not there would be no help to who looks."""
    waiting = unique.by_name.using(**options).enqueue(7)
    told: list[Fired] = []
    made = schedule(unique.by_name, 7, name="a", schedule_type="D", q_options=options)
    monkeypatch.setattr(events.fire, "listeners", (told.append,))
    assert fire_schedules() == 0
    made.refresh_from_db()
    assert (made.task, told) == (waiting, [])
    assert made.last_slot is not None
    drain()
    UniqueKey.objects.all().delete()
    made.next_run = timezone.now()
    made.save()
    assert fire_schedules() == 1
    made.refresh_from_db()
    assert made.task == QueuedTask.objects.get().id


def test_inline_and_sync():
    with testing.inline():
        assert unique.by_name.enqueue(7, "a").created
        assert unique.by_name.enqueue(7, "b").created
        first = unique.for_an_hour.enqueue(7, "c")
        assert unique.for_an_hour.enqueue(7, "d") == first
        unique.debounced.enqueue(7, "e")
    waiting = unique.by_name.enqueue(7, "f")
    assert async_task(unique.by_name, 7, "g", sync=True) == waiting
    assert common.seen == [(7, "a"), (7, "b"), (7, "c"), (7, "e")]
    assert keys() == ["by_name:7"]


# ------------------------------------------------------------------------------------------------- debounce


def test_debounce_runs_once_with_the_last_arguments():
    first = unique.debounced.enqueue(7, "a")
    began = QueuedTask.objects.get()
    assert timedelta(seconds=50) < began.run_after - timezone.now() <= timedelta(seconds=60)
    again = unique.debounced.enqueue(7, "b")
    assert (again, again.created) == (first, False)
    assert QueuedTask.objects.get().run_after > began.run_after
    # The longest wait counts from the first call.
    QueuedTask.objects.update(enqueued_at=timezone.now() - timedelta(seconds=290))
    unique.debounced.enqueue(7, "c")
    assert QueuedTask.objects.get().run_after < timezone.now() + timedelta(seconds=20)
    assert unique.debounced.enqueue(8, "other").created
    # One that is due is left, and there is a new one.
    QueuedTask.objects.filter(pk=first).update(run_after=None)
    assert unique.debounced.enqueue(7, "d").created
    drain(due=True)
    assert sorted(common.seen) == [(7, "c"), (7, "d"), (8, "other")]


def test_debounce_with_the_first_arguments_writes_only_what_moves_it():
    first = unique.debounced_all.enqueue("a")
    [before] = QueuedTask.objects.values_list("run_after", flat=True)
    assert unique.debounced_all.enqueue("b") == first
    assert list(QueuedTask.objects.values_list("run_after", flat=True)) == [before]
    QueuedTask.objects.update(run_after=before - timedelta(seconds=30))
    assert unique.debounced_all.enqueue("c") == first
    assert QueuedTask.objects.get().run_after > before - timedelta(seconds=1)
    drain(due=True)
    assert common.seen == ["a"]


# ------------------------------------------------------------------------------------------------- sessions


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("until", ["start", "end", 60])
@pytest.mark.parametrize("conflict", ["skip", "raise", "replace", "reschedule", "cancel"])
def test_the_second_of_two_transactions_waits_for_the_first(conflict, until, session):
    own = session()
    for commits in (True, False):
        with transaction.atomic():
            first = call(conflict, until).enqueue(7, "first")
            thread, found = in_thread(lambda: call(conflict, until, run_after=60).enqueue(7, "second"))
            until_waiting(own)
            transaction.set_rollback(not commits)
        thread.join()
        [second] = found
        rows = {row.pk: (row.args[1], row.run_after is not None) for row in QueuedTask.objects.all()}
        if not commits:
            assert (second.created, rows) == (True, {second: ("second", True)})
        elif conflict == "raise":
            assert (type(second), second.task_id, rows) == (NotUnique, first, {first: ("first", False)})
        elif conflict == "cancel":
            assert (second.created, rows) == (True, {second: ("second", True)})
            assert fetch(first).exception == "pgq.errors.TaskCancelled"
        else:
            left = {"skip": ("first", False), "replace": ("second", True), "reschedule": ("first", True)}[conflict]
            assert (second, second.created, rows) == (first, False, {first: left})
        QueuedTask.objects.all().delete()
        UniqueKey.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_bulk_producers_in_opposite_orders_do_not_deadlock(session):
    """A third holds a key of the middle, so that both have begun, each at its end, when they meet."""
    own = session()
    orders = [(number,) for number in range(300)]
    runs = []
    for conflict, until in (("skip", "start"), ("replace", "end"), ("skip", 60)):
        with transaction.atomic():
            call(conflict, until).enqueue(150)
            runs += [in_thread(lambda c=conflict, u=until, o=given: call(c, u).enqueue_many(o, chunk=300))
                     for given in (orders, orders[::-1])]  # fmt: skip
            until_waiting(own, 2)
            transaction.set_rollback(True)
        for thread, _ in runs:
            thread.join()
        for _, found in runs:
            assert isinstance(found[0], list), found
        (_, [one]), (_, [two]) = runs[-2:]
        assert sum(id.created for id in [*one, *two]) == 300
        assert set(one) == set(two)
        QueuedTask.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_many_producers_of_one_key():
    """Half of them roll back; there is one at a time, and at the end one."""

    def produce(number: int) -> bool:
        with transaction.atomic():
            id = unique.by_name.enqueue(7, str(number))
            transaction.set_rollback(number % 2 == 1)
            return id.created

    runs = [in_thread(lambda n=number: produce(n)) for number in range(12)]
    for thread, _ in runs:
        thread.join()
    assert QueuedTask.objects.filter(unique_key__isnull=False).count() == 1
    assert sum(found == [True] for number, (_, found) in enumerate(runs) if number % 2 == 0) == 1


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_is_being_committed(session):
    """The key is free with the claim: a call that waits for it becomes a task of its own."""
    worker, own = session(autocommit=False), session()
    first = call("replace").enqueue(7, "first")
    claimed = claim(worker)
    assert [task.id.hex for task in claimed] == [first]
    thread, found = in_thread(lambda: call("replace").enqueue(7, "second"))
    until_waiting(own)
    worker.commit()
    thread.join()
    assert found[0].created
    settle(own, run(claimed[0]))
    assert fetch(first).success
    assert Task.objects.count() == 1
