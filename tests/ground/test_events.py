"""Events in one process: who is called with what, and that nothing a listener does changes what happens."""

from __future__ import annotations

import contextlib
import logging
import time

import pytest
from django.db import connection, transaction

from pgq.codec import signing
from pgq.conf import get_settings
from pgq.execution.inline import drain
from pgq.ground import events
from pgq.models import QueuedTask, Schedule, Task
from pgq.records import NewTask
from pgq.schedules.fire import fire_due
from pgq.tasks import async_chain, async_iter, async_task, enqueue_from, enqueue_many, schedule
from tests.app.models import Note
from tests.functions import listening
from tests.support.hand import MARK

pytestmark = pytest.mark.django_db(transaction=True)

REGISTERED = "tests.functions.oracle.registered"
EVENTS = (events.enqueue, events.claim, events.start, events.end, events.settle, events.rescue, events.fire)


def _trace(row):
    return row.options["trace"]["traceparent"]


@pytest.fixture
def heard():
    """What was sent, by the name of the event."""
    heard: dict[str, list[object]] = {}
    listeners = [(event, heard.setdefault(event.name, []).append) for event in EVENTS]
    for event, listener in listeners:
        event.listen(listener)
    yield heard
    for event, listener in listeners:
        event.forget(listener)


@pytest.fixture
def traced():
    """A hook around each enqueue, which gives a trace; what it was called with."""
    calls: list[tuple[NewTask, ...]] = []

    @contextlib.contextmanager
    def hook(tasks):
        calls.append(tasks)
        yield {"traceparent": f"t{len(calls)}"}

    events.around_enqueue.add(hook)
    yield calls
    events.around_enqueue.remove(hook)


def test_a_listener_is_registered_once_and_what_it_raises_is_logged(caplog):
    event, heard = events.Event("of this test"), []

    def raises(record):
        raise LookupError(record)

    event.listen(raises)
    event.listen(raises)
    listener = heard.append
    event.listen(listener)
    event.listen(listener)
    with caplog.at_level(logging.ERROR, "pgq"):
        event.tell(1)
    assert heard == [1]
    assert [record.exc_info[0] for record in caplog.records] == [LookupError]
    event.forget(listener)
    event.forget(raises)
    assert event.listeners == ()


def test_hooks_surround_and_change_no_exception(caplog):
    around, seen = events.Around("of this test"), []

    @contextlib.contextmanager
    def swallows(what):
        with contextlib.suppress(ValueError):
            seen.append(what)
            yield what
            return
        seen.append("swallowed")

    class RaisesAtTheEnd:
        def __enter__(self):
            return None

        def __exit__(self, *error):
            raise LookupError("at the end")

    around.add(swallows)
    around.add(lambda what: RaisesAtTheEnd())
    around.add(lambda what: None)  # no context manager

    def raises_inside():
        with around.entered(3) as given:
            assert given == [3]
            raise ValueError("mine")

    with caplog.at_level(logging.ERROR, "pgq"), pytest.raises(ValueError, match="mine"):
        raises_inside()
    assert seen == [3, "swallowed"]
    assert len(caplog.records) == 2


def test_before_exit_is_bounded(caplog, monkeypatch):
    monkeypatch.setattr(events, "EXIT_SECONDS", 0.2)
    called = []
    for function in (lambda: 1 / 0, lambda: called.append(1), lambda: time.sleep(5), lambda: called.append(2)):
        events.before_exit(function)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "pgq"):
        events.run_before_exit()
    assert time.monotonic() - began < 2
    assert called == [1]
    assert any("takes longer" in record.message for record in caplog.records)
    events.run_before_exit()
    assert called == [1]


def test_each_way_in_tells_what_it_wrote(heard, traced, oracle):
    async_task(MARK, 1)
    enqueue_many(MARK, [(1,), (2,), (3,)])
    async_iter(MARK, [1, 2])
    Note.objects.bulk_create([Note(text="a"), Note(text="b")])
    enqueue_from(REGISTERED, Note.objects.all(), ["id"])
    assert [(len(record.tasks), record.number) for record in heard["enqueue"]] == [(1, 1), (1, 3), (3, 3), (1, 2)]
    # Once for each writing, and each row has the trace of its own.
    assert [len(tasks) for tasks in traced] == [1, 1, 3, 1]
    rows = QueuedTask.objects.order_by("position")
    assert [_trace(row) for row in rows] == ["t1", *["t2"] * 3, *["t3"] * 3, *["t4"] * 2]
    # It is signed with the row: the tasks run.
    assert all(report.outcome.__class__.__name__ == "Succeeded" for report in drain())


def test_a_trace_goes_on_with_what_follows(traced, oracle):
    async_chain([(MARK, ("a",)), (MARK, ("b",))])
    async_task(MARK, "c", hook=REGISTERED)
    drain()
    assert sorted(map(_trace, Task.objects.all())) == ["t1", "t1", "t2", "t2"]


def test_claim_to_settle_are_told_in_order(heard):
    async_task("tests.functions.listening.succeed")
    async_task("tests.functions.listening.succeed_on_loop")
    async_task("tests.functions.listening.fail")
    reports = drain()
    assert [call.claim.func for call in heard["start"]] == [report.claim.func for report in reports]
    assert [type(report.error) for report in heard["end"]] == [type(None), type(None), ValueError]
    assert [len(record.accepted) for record in heard["settle"]] == [1, 1, 1]


def test_a_fired_schedule_is_told(heard, traced):
    schedule("tests.functions.listening.succeed", name="often", schedule_type=Schedule.ONCE)
    with transaction.atomic(), connection.cursor() as cursor:
        assert fire_due(cursor, get_settings()) == 1
    [fired] = heard["fire"]
    assert (fired.name, fired.task.func) == ("often", "tests.functions.listening.succeed")
    [row] = QueuedTask.objects.all()
    assert _trace(row) == "t1"
    assert signing.signed(fired.task).signature == bytes(row.signature)


def test_without_a_listener_nothing_is_made(monkeypatch, oracle):
    """The record is made only for a listener: this is what keeps an event free."""
    monkeypatch.setattr(events.Event, "tell", lambda self, record: pytest.fail(self.name))
    monkeypatch.setattr(events.Around, "entered", lambda self, what: pytest.fail(self.name))
    async_task("tests.functions.listening.succeed")
    enqueue_many(MARK, [(1,)])
    assert len(drain()) == 2
    assert listening.succeed() == 1
