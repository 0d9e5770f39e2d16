"""pgq.testing, in Django's TestCase and with pytest."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections
from django.test import TestCase, override_settings
from django.utils import timezone

from pgq import testing
from pgq.conf import get_settings
from pgq.models import QueuedTask, Schedule, Task
from pgq.tasks import async_task, enqueue_many, pause, result, schedule
from tests.app.models import Note
from tests.functions import common as functions
from tests.functions.common import TaskError

MULTIPLY = "tests.functions.common.multiply"


class InTestCase(TestCase):
    """Everything is in the test's transaction, and gone with it."""

    def test_drain(self):
        id = async_task(functions.note, "a")
        [ran] = testing.drain()
        assert (ran.id, ran.func) == (id, "tests.functions.common.note")
        assert (ran.state, ran.attempt) == ("succeeded", 1)
        assert Note.objects.get().pk == ran.result

    def test_drain_goes_on_after_a_failure(self):
        async_task(functions.note_and_fail, "kept, as in a worker")
        async_task(functions.note, "kept")
        bad, good = testing.drain()
        assert (bad.state, good.state) == ("failed", "succeeded")
        assert isinstance(bad.error, TaskError)
        assert [note.text for note in Note.objects.order_by("id")] == ["kept, as in a worker", "kept"]

    def test_another_test_leaves_nothing(self):
        assert (Task.objects.count(), QueuedTask.objects.count(), Note.objects.count()) == (0, 0, 0)

    @testing.inline()
    def test_inline_decorator(self):
        assert result(async_task(functions.multiply, 2, 3)) == 6

    def test_inline(self):
        with testing.inline():
            async_task(functions.note, "a", hook=functions.hook)
            assert len(functions.seen) == 2
            with pytest.raises(TaskError):
                async_task(functions.fail)
            assert Note.objects.count() == 2
            functions.registered.enqueue(1)
            assert testing.enqueued() == []
            async_task(functions.nothing, sync=False)
            assert len(testing.enqueued()) == 1
        async_task(functions.nothing)
        assert len(testing.enqueued()) == 2

    def test_a_coroutine_sees_the_rows_of_the_test(self):
        Note.objects.create(text="the test's")
        async_task(count_notes)
        [ran] = testing.drain()
        assert (ran.state, ran.result) == ("succeeded", 1)
        assert result(async_task(count_notes, sync=True)) == 1
        assert result(async_task(call_count_notes, sync=True)) == 1

    def test_on_commit(self):
        from django.db import transaction

        with self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: async_task(functions.note, "committed"))
        testing.drain()
        assert functions.seen == ["committed"]


pytestmark = pytest.mark.django_db


async def count_notes():
    return await Note.objects.acount()


def call_count_notes():
    return count_notes()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("func", [count_notes, call_count_notes])
def test_sync_in_asynchronous_code(func, monkeypatch):
    Note.objects.create(text="a")

    async def in_a_thread():
        return await sync_to_async(lambda: result(async_task(func, sync=True)))()

    async def on_the_loop():
        return result(async_task(func, sync=True))

    assert async_to_sync(in_a_thread)() == asyncio.run(closing(in_a_thread)) == 1
    # As Jupyter has it.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    assert asyncio.run(closing(on_the_loop)) == 1


async def closing(main):
    """Leave no connection of another thread behind, which would keep the test's database."""
    try:
        return await main()
    finally:
        connections.close_all()
        await sync_to_async(connections.close_all)()


def test_inline_keeps_the_other_settings():
    with override_settings(PGQ={"name": "shop", "timeout": 9}), testing.inline():
        assert (get_settings().name, get_settings().timeout, get_settings().sync) == ("shop", 9, True)
    assert get_settings().sync is False
    with override_settings(Q_CLUSTER={"name": "old", "redis": {}}), testing.inline():
        assert (get_settings().name, get_settings().sync) == ("old", True)


def test_inline_may_be_nested():
    once = testing.inline()
    with once, once:
        pass
    assert get_settings().sync is False


def test_drain_stops_tasks_that_enqueue_each_other():
    async_task(again)
    with pytest.raises(RuntimeError, match="more than 20 tasks ran"):
        testing.drain(limit=20)


def again():
    async_task(again)


def test_drain_due():
    async_task(functions.note, "late", run_after=3600)
    async_task(functions.note, "soon", run_after=60)
    async_task(functions.note, "now")
    testing.drain()
    assert functions.seen == ["now"]
    testing.drain(due=True)
    assert functions.seen == ["now", "soon", "late"]


def test_drain_runs_attempts_that_have_come_due():
    async_task(functions.fail_first, 2, max_attempts=3, retry_backoff=0)
    assert [ran.state for ran in testing.drain()] == ["retried", "retried", "succeeded"]


def test_drain_due_ends_with_a_task_that_fails_for_ever():
    async_task(functions.fail, max_attempts=0)
    with pytest.raises(RuntimeError):
        testing.drain(limit=10, due=True)


def test_drain_leaves_paused_queues_and_parked_rows():
    async_task(functions.note, "a", queue="mail")
    pause("mail")
    QueuedTask.objects.create(func="tests.functions.common.note")
    assert [ran.state for ran in testing.drain(due=True)] == ["parked"]
    assert len(testing.enqueued()) == 2


def test_drain_leaves_the_session_as_it_was():
    def show():
        with connection.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            return cursor.fetchone()

    before = show()
    async_task(functions.nothing)
    testing.drain()
    async_task(functions.nothing, sync=True)
    assert show() == before


def test_enqueued():
    first = async_task(functions.multiply, 1, 2)
    second = async_task(functions.note, "x", run_after=60)
    assert [row.id for row in testing.enqueued()] == [first, second]
    assert [row.id for row in testing.enqueued(functions.note)] == [second]
    assert [row.args for row in testing.enqueued(MULTIPLY)] == [(1, 2)]
    functions.registered.enqueue(1)
    assert len(testing.enqueued(functions.registered)) == 1


def test_assert_enqueued():
    enqueue_many(functions.multiply, [(1, 2), (1, 2), (3, 4)], queue="math")
    async_task(functions.echo, x=1)
    assert len(testing.assert_enqueued(functions.multiply)) == 3
    assert len(testing.assert_enqueued(MULTIPLY, (1, 2), {}, "math", count=2)) == 2
    testing.assert_enqueued(functions.multiply, [3, 4], queue="math", count=1)
    testing.assert_enqueued(functions.echo, kwargs={"x": 1})
    testing.assert_enqueued(functions.note, count=0)


def test_assert_enqueued_says_what_is_there():
    with pytest.raises(AssertionError, match="The queue is empty"):
        testing.assert_enqueued(functions.multiply)
    async_task(functions.multiply, 1, y=2, queue="math")
    with pytest.raises(AssertionError) as caught:
        testing.assert_enqueued(functions.multiply, (9,), count=2)
    assert str(caught.value) == (
        f"expected 2 of {MULTIPLY}(9) in the queue, found 0. The queue holds:\n  {MULTIPLY}(1, y=2) on 'math'"
    )


def test_freeze():
    noon = datetime(2040, 1, 1, 12, tzinfo=UTC)
    with testing.freeze(noon) as clock:
        assert timezone.now() == clock.now == noon
        assert clock.tick(hours=1) == timezone.now() == noon + timedelta(hours=1)
        clock.tick(timedelta(days=1))
        assert timezone.now() == noon + timedelta(days=1, hours=1)
        async_task(functions.note, "x", run_after=timedelta(minutes=10))
        assert testing.drain() == []
        clock.tick(minutes=11)
        assert len(testing.drain()) == 1
    assert abs(timezone.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_freeze_at_a_naive_time():
    with override_settings(TIME_ZONE="Asia/Tokyo"), testing.freeze(datetime(2040, 1, 1, 9)) as clock:
        assert clock.now == datetime(2040, 1, 1, 0, tzinfo=UTC)


def test_fire_schedules():
    begin = datetime(2040, 1, 1, 12, tzinfo=UTC)
    schedule(functions.note, "x", schedule_type=Schedule.DAILY, next_run=begin)
    assert testing.fire_schedules() == 0
    assert testing.fire_schedules(begin) == 1
    assert testing.fire_schedules(begin) == 0
    assert testing.fire_schedules(datetime(2040, 1, 3, 12)) == 2
    testing.assert_enqueued(functions.note, ("x",), count=3)


def test_fire_schedules_now():
    schedule(functions.note, "x")
    assert testing.fire_schedules() == 1
