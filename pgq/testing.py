"""For the tests of projects that use pgq, in Django's TestCase as well as with pytest. No worker is needed.

Everything happens in the test's own process and transaction, by the statements that workers use, and is rolled back
with the test::

    from pgq import testing

    class OrderTest(TestCase):
        def test_receipt_is_sent(self):
            place_order(7)
            testing.assert_enqueued(send_receipt, args=(7,), count=1)     # it is in the queue
            [ran] = testing.drain()                                       # now it has run
            self.assertEqual(ran.state, "succeeded")

        @testing.inline()
        def test_with_tasks_run_at_once(self):
            place_order(7)                                                # ... and the receipt is sent

        def test_report_comes_daily(self):
            with testing.freeze(datetime(2031, 3, 1, 6, tzinfo=UTC)) as clock:
                schedule(daily_report, schedule_type=Schedule.DAILY, name="report")
                testing.fire_schedules()
                clock.tick(days=1)
                testing.fire_schedules()
            testing.assert_enqueued(daily_report, count=2)
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from pgq.conf import get_settings, places
from pgq.enqueue import options
from pgq.execution import context as contexts
from pgq.execution import inline as inlining
from pgq.models import QueuedTask
from pgq.records import Failed, Parked, Postponed, Report, Retried, Succeeded
from pgq.recurrence import moments
from pgq.schedules import fire
from pgq.store import lanes
from pgq.store.caller import callers_cursor
from pgq.tasks import control

__all__ = ["Clock", "Ran", "adrain", "assert_enqueued", "drain", "enqueued", "fire_schedules", "freeze", "inline"]


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt of a task that `drain` has run."""

    #: Of the task, 32 hex digits.
    id: str
    #: Its dotted path.
    func: str
    #: succeeded, failed, retried (it waits for its next attempt) or parked (the row cannot be run as it is).
    state: str
    #: What the function returned.
    result: Any = None
    #: What it raised.
    error: BaseException | None = None
    #: Number of this attempt, from 1.
    attempt: int = 1
    #: What it said last of how far it is: done, total and text. None: nothing.
    progress: tuple[float, float | None, str | None] | None = None
    #: The messages that it has logged by its context, oldest first.
    log: tuple[str, ...] = ()


class inline(contextlib.ContextDecorator):
    """Run tasks at once in the caller, as ``PGQ["sync"]`` does; a context manager and a decorator.

    What a task raises is raised in the caller. A task with ``sync=False`` is enqueued all the same.
    """

    def __init__(self) -> None:
        self._overrides: list[override_settings] = []

    def __enter__(self) -> inline:
        override = override_settings(PGQ={**_plain_settings(), "sync": True})
        override.enable()
        self._overrides.append(override)
        return self

    def __exit__(self, *error: object) -> None:
        self._overrides.pop().disable()

    def __call__(self, func: Any) -> Any:
        """Return a function, or an ``async def``, that is run inside of it."""
        if not inspect.iscoroutinefunction(func):
            return super().__call__(func)

        @functools.wraps(func)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            # contextlib's own would be left before the coroutine begins.
            with self:
                return await func(*args, **kwargs)

        return inside


def _plain_settings() -> dict[str, Any]:
    """The settings in force as a dict for settings.PGQ, also if they come from Q_CLUSTER."""
    settings = get_settings()
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


# ------------------------------------------------------------------------------------------------- running


def drain(limit: int = 1000, *, due: bool = False) -> list[Ran]:
    """Run what is ready until nothing is, in the order in which a worker would; return what ran.

    A task that raises fails, or waits for its next attempt, as in a worker; nothing is raised here.

    Args:
        limit: More than so many tasks are taken to enqueue each other without end.
        due: Also run what waits for a time, such as ``run_after`` or the next attempt, soonest first. Without it only
            what has come due, by the database's clock or the one that `freeze` has stopped.

    Raises:
        RuntimeError: More than `limit` tasks ran.
    """
    reports: list[Report] = []
    while True:
        found = places.each(functools.partial(_drain_here, limit - len(reports)))
        ran = [report for reports_here in found for report in reports_here]
        reports += ran
        if len(reports) > limit:
            raise RuntimeError(f"drain: more than {limit} tasks ran; they seem to enqueue each other without end")
        if not ran and not (due and any(places.each(_hurry))):
            return [_ran(report) for report in reports]


def _drain_here(limit: int) -> list[Report]:
    """Run what is ready in the database at hand."""
    _make_ready()
    return inlining.drain(max(limit, 0))


async def adrain(limit: int = 1000, *, due: bool = False) -> list[Ran]:
    """Do the same as `drain` in an async test, in the thread that has the test's connection."""
    return await sync_to_async(drain)(limit, due=due)


def _waiting() -> Any:
    rows = QueuedTask.objects.using(get_settings().database)
    return rows.filter(run_after__isnull=False, parked=None, lock=None).order_by("run_after")


def _make_ready() -> None:
    """Make ready the rows whose time has come, as upkeep does."""
    if _clock is None:
        database = get_settings().database
        with transaction.atomic(using=database), callers_cursor(database) as cursor:
            lanes.due(cursor, limit=10_000)
        return
    for id in _waiting().filter(run_after__lte=_clock.now).values_list("id", flat=True):
        control.retry(id)


def _hurry() -> bool:
    """Make the task ready that would be the next; return whether there was one."""
    id = _waiting().values_list("id", flat=True).first()
    return id is not None and control.retry(id)


_STATES: Mapping[type, str] = {
    Succeeded: "succeeded",
    Failed: "failed",
    Retried: "retried",
    Parked: "parked",
    Postponed: "postponed",
}


def _ran(report: Report) -> Ran:
    claim = report.claim
    state = _STATES[type(report.outcome)]
    ran = Ran(claim.id.hex, claim.func, state, report.value, report.error, claim.attempts)
    context = report.context
    if context is None:
        return ran
    return replace(ran, progress=contexts.last_progress(context), log=tuple(contexts.messages(context)))


# ------------------------------------------------------------------------------------------------- looking


def enqueued(func: str | Callable[..., Any] | None = None) -> list[QueuedTask]:
    """Return the tasks in the queue, oldest first: ready, waiting and parked ones.

    Args:
        func: Only calls of this function: itself or its path.
    """
    path = None if func is None else options.path("func", func)

    def here() -> list[QueuedTask]:
        rows = QueuedTask.objects.using(get_settings().database).order_by("position")
        return list(rows if path is None else rows.filter(func=path))

    return [row for rows in places.each(here) for row in rows]


def assert_enqueued(
    func: str | Callable[..., Any],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    count: int | None = None,
) -> list[QueuedTask]:
    """Assert that calls of a function are in the queue; return them.

    Args:
        func: The function itself, or its path.
        args, kwargs, queue: What they must have been called with; None: anything.
        count: Exactly so many; None: at least one. 0 asserts that there is none.

    Raises:
        AssertionError: There are not; the message lists what is in the queue.
    """
    path = options.path("func", func)
    found = [
        row
        for row in enqueued(path)
        if (args is None or tuple(row.args) == tuple(args))
        and (kwargs is None or row.kwargs == dict(kwargs))
        and (queue is None or row.queue == queue)
    ]
    if len(found) == count or (count is None and found):
        return found
    wanted = _call(path, args, kwargs, queue)
    rows = [_call(row.func, row.args, row.kwargs, row.queue) for row in enqueued()]
    there = "\n".join(["The queue holds:", *(f"  {row}" for row in rows)]) if rows else "The queue is empty."
    number = "at least one" if count is None else str(count)
    raise AssertionError(f"expected {number} of {wanted} in the queue, found {len(found)}. {there}")


def _call(path: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, queue: str | None) -> str:
    given = [repr(arg) for arg in args] if args is not None else ["..."]
    given += [f"{name}={value!r}" for name, value in (kwargs or {}).items()]
    return f"{path}({', '.join(given)})" + (f" on {queue!r}" if queue is not None else "")


# ------------------------------------------------------------------------------------------------- time


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    @property
    def now(self) -> datetime:
        """What ``timezone.now()`` returns: naive if USE_TZ is off."""
        return moments.as_project(self.instant)

    @now.setter
    def now(self, now: datetime) -> None:
        # In UTC: a local time would be moved by the wall clock, wrongly across its changes.
        self.instant = moments.aware(now).astimezone(UTC) if timezone.is_naive(now) else now

    def tick(self, delta: timedelta | None = None, **units: float) -> datetime:
        """Move on by a timedelta, or by its arguments: ``clock.tick(hours=1)``; return the new time."""
        self.instant += delta if delta is not None else timedelta(**units)
        return self.now


#: The clock that `freeze` has stopped. Process-wide because the patch of django.utils.timezone.now is.
_clock: Clock | None = None


@contextlib.contextmanager
def freeze(now: datetime) -> Iterator[Clock]:
    """Stop the clock for schedules, for `drain` and for ``django.utils.timezone.now``; yield it.

    The database's own clock goes on: a time that has passed there is no reason for a task to wait, so freeze a moment
    in the future when ``run_after`` matters.

    Args:
        now: A naive time is in the current time zone.
    """
    global _clock
    before, _clock = _clock, Clock(now)
    clock = _clock
    try:
        with mock.patch("django.utils.timezone.now", lambda: clock.now):  # noqa: PT008  # it moves
            yield clock
    finally:
        _clock = before


def fire_schedules(now: datetime | None = None) -> int:
    """Fire the schedules that are due, as upkeep does; return how many tasks that has enqueued.

    Args:
        now: The moment it is taken to be; None: that of `freeze`, or else now.
    """
    if now is not None:
        now = moments.aware(now)
    elif _clock is not None:
        now = _clock.instant
    return sum(places.each(lambda: _fire_here(now)))


def _fire_here(now: datetime | None) -> int:
    settings, fired = get_settings(), 0
    with transaction.atomic(using=settings.database), callers_cursor(settings.database) as cursor:
        while count := fire.fire_due(cursor, settings, now):
            fired += count
    return fired
