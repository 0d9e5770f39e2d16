"""Numbers over time, for charts, tables and programs that watch. See docs/operate/metrics.md for what is counted.

    with callers_cursor(alias) as cursor:
        now = metrics.now(cursor)
        [chart] = metrics.series(cursor, "failed", start=now - timedelta(hours=6), end=now)

All of it is read from tables that upkeep keeps: nothing is counted in pgq_queue or pgq_task, so it costs the same with
ten million rows. It is some 25 seconds behind what happens. Times are aware; the clock is the database's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgq.ground import histogram
from pgq.status.counted import Counts, Times
from pgq.status.series import COUNTS, GAUGES, TIMES, Point, Series, floor, series
from pgq.store import overview
from pgq.store import series as store
from pgq.store.caller import aware_cursor
from pgq.store.connection import Cursor
from pgq.store.metrics import OUTCOMES, SPANS
from pgq.store.series import Counted, Gauge, KeptFinding, Mark, Wanted

__all__ = [
    "COUNTS",
    "GAUGES",
    "TIMES",
    "Counts",
    "Forecast",
    "FunctionStats",
    "Gauge",
    "KeptFinding",
    "Mark",
    "Point",
    "Rate",
    "Series",
    "Times",
    "TotalCounts",
    "findings",
    "forecast",
    "functions",
    "gauges",
    "marks",
    "now",
    "rates",
    "series",
    "summary",
    "totals",
]

#: Functions and counters that are returned, at most.
_FUNCTIONS, _TOTALS, _QUEUES, _MARKS = 1000, 5000, 1000, 500
#: Hours that rows of a span, in minutes, are added up for at most: some ten thousand with 200 functions.
_LONGEST = {1: 6, 10: 24, 60: 7 * 24}
#: Seconds until what workers have counted is added up: what is younger is not complete.
LAG = 30.0


def now(cursor: Cursor) -> datetime:
    """Return the database's time, aware."""
    return overview.now(aware_cursor(cursor))


# ------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """What was settled of one function in one queue."""

    #: The queue.
    queue: str
    #: Dotted path of the function; (other): those that are not told apart.
    func: str
    #: How the reports ended.
    counts: Counts
    #: How long the runs took.
    run: Times
    #: From ready to claimed.
    wait: Times


def functions(
    cursor: Cursor,
    *,
    start: datetime,
    end: datetime,
    queue: str | None = None,
    func: str | None = None,
) -> tuple[FunctionStats, ...]:
    """Return what was settled from a time to another, by queue and function: those with the most failures first.

    Of times shorter than 6 hours minutes are looked at, of longer ones ten minutes, hours or days, so both ends are as
    exact.

    Args:
        start, end: Aware times.
        queue, func: Only of these; None: of all.
    """
    length = (end - start).total_seconds()
    age = (now(cursor) - start).total_seconds()
    span = next((span for span, hours in _LONGEST.items() if length <= 3600 * hours and age < 3600 * SPANS[span]), 1440)
    wanted = Wanted(span, floor(start, 60 * span), end, queue, func)
    key = "queue and func"
    rows = store.counts(cursor, wanted, key=key, step=0, limit=_FUNCTIONS)
    runs, waits = store.histograms(cursor, wanted, "run", "wait", key=key, step=0, limit=_FUNCTIONS)
    found = []
    for row in rows:
        name, _, path = row.key.partition(store.BETWEEN)
        run = Times.of(runs.get((row.at, row.key), {}), row.run_sum, row.run_max)
        wait = Times.of(waits.get((row.at, row.key), {}), row.wait_sum, row.wait_max)
        found.append(FunctionStats(name, path, Counts.of(row), run, wait))
    return tuple(sorted(found, key=lambda one: (-one.counts.failures, -one.counts.all, one.queue, one.func)))


def summary(cursor: Cursor, *, start: datetime, end: datetime, queue: str | None = None) -> FunctionStats:
    """Return the same of all functions together; `queue` and `func` are empty where they are all.

    Args:
        start, end, queue: As for `functions`.
    """
    rows = functions(cursor, start=start, end=end, queue=queue)
    counts = Counts(**{name: sum(getattr(row.counts, name) for row in rows) for name in OUTCOMES})
    return FunctionStats(
        queue or "", "", counts, _together(row.run for row in rows), _together(row.wait for row in rows)
    )


def _together(times: Iterable[Times]) -> Times:
    """Return number, total, average and longest of several; their quantiles cannot be told."""
    all_times = list(times)
    number, total = sum(one.number for one in all_times), sum(one.total for one in all_times)
    longest = max((one.longest for one in all_times if one.longest is not None), default=None)
    return Times(number, total, total / number if number else None, None, None, None, longest)


@dataclass(frozen=True, slots=True)
class TotalCounts:
    """Counters of one queue and function that only grow, for programs that compute rates themselves."""

    #: The queue.
    queue: str
    #: Dotted path of the function; (other): those that are not told apart.
    func: str
    #: How the reports ended.
    counts: Counts
    #: Seconds of all runs.
    run_seconds: float
    #: Seconds of all waits.
    wait_seconds: float
    #: How many runs took as long as each bucket of `pgq.ground.histogram` says.
    runs: Mapping[int, int]
    #: The same of the waits.
    waits: Mapping[int, int]
    #: When counting began.
    since: datetime
    #: When it was added to last.
    updated_at: datetime


def totals(cursor: Cursor) -> tuple[TotalCounts, ...]:
    """Return all counters, by queue and function. A function of which nothing was settled for 90 days has none."""
    found = []
    for row in store.totals(cursor, limit=_TOTALS):
        queue, func, *numbers = row[:10]
        run_seconds, _, wait_seconds, _, run_from, runs, wait_from, waits, since, updated_at = row[10:]
        counts = Counts(**dict(zip(OUTCOMES, numbers, strict=True)))
        run, wait = histogram.merged([(run_from, runs)]), histogram.merged([(wait_from, waits)])
        found.append(TotalCounts(queue, func, counts, run_seconds, wait_seconds, run, wait, since, updated_at))
    return tuple(found)


def gauges(cursor: Cursor) -> tuple[Gauge, ...]:
    """Return how many tasks each queue had when that was last looked at, of all queues together first."""
    return tuple(store.latest_gauges(cursor, limit=_QUEUES))


def marks(cursor: Cursor, *, start: datetime, end: datetime) -> tuple[Mark, ...]:
    """Return the marks from `start` to before `end`, newest first."""
    return tuple(store.marks(cursor, start=start, end=end, limit=_MARKS))


def findings(cursor: Cursor) -> tuple[KeptFinding, ...]:
    """Return what the checks found when upkeep last ran them, within the last minute, the worst first."""
    return tuple(store.findings(cursor))


# ------------------------------------------------------------------------------------------------- rates


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a queue went, in tasks a second, over some whole minutes."""

    #: Its name; empty: of all queues.
    queue: str
    #: Tasks that ended, however.
    ended: float
    #: Tasks that returned.
    succeeded: float
    #: Tasks that failed, but those that were cancelled.
    failures: float
    #: Attempts that failed and were followed by another one.
    retried: float
    #: Seconds of a run, on average; None: none ended.
    average: float | None


def rates(cursor: Cursor, *, minutes: int = 5) -> dict[str, Rate]:
    """Return how fast each queue went over the last whole minutes that are complete; "": all queues together.

    A queue of which nothing was settled is left out.
    """
    end = floor(now(cursor) - timedelta(seconds=LAG), 60)
    wanted = Wanted(1, end - timedelta(minutes=minutes), end)
    seconds = 60.0 * minutes
    rows = store.counts(cursor, wanted, key="queue", step=0, limit=_QUEUES)
    found = {row.key: _rate(row.key, [row], seconds) for row in rows}
    found[""] = _rate("", rows, seconds)
    return found


def _rate(queue: str, rows: Sequence[Counted], seconds: float) -> Rate:
    counts = [Counts.of(row) for row in rows]
    ran = sum(one.all - one.parked - one.cancelled - one.crashed for one in counts)

    def per_second(name: str) -> float:
        return float(sum(getattr(one, name) for one in counts)) / seconds

    average = sum(row.run_sum for row in rows) / ran if ran > 0 else None
    return Rate(
        queue, per_second("ended"), per_second("succeeded"), per_second("failures"), per_second("retried"), average
    )


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a queue will be empty, if all goes on as in the last five minutes."""

    #: Its name; empty: of all queues.
    queue: str
    #: Tasks that wait to be claimed.
    ready: int
    #: Whether `ready` was counted; else it is an estimate.
    exact: bool
    #: Tasks a second that end.
    ended: float
    #: Tasks a second that come: what has ended, and by how much the queue has grown.
    arrived: float
    #: Seconds until it is empty; None: it does not become shorter.
    seconds: float | None

    @property
    def growing(self) -> bool:
        """Whether there are tasks, and they do not become fewer."""
        return self.seconds is None


def forecast(cursor: Cursor, queue: str | None = None, *, minutes: int = 5) -> Forecast:
    """Return when a queue, or all of them together (None), will be empty.

    Args:
        queue: Its name; None: all together.
        minutes: How far back is looked.
    """
    latest = next((gauge for gauge in gauges(cursor) if gauge.queue == (queue or "")), None)
    end = floor(now(cursor) - timedelta(seconds=LAG), 60)
    start, seconds = end - timedelta(minutes=minutes), 60.0 * minutes

    def per_second(metric: str) -> float:
        [one] = series(cursor, metric, start=start, end=end, step=60, queue=queue)
        return one.total / seconds

    ended, arrived = per_second("ended"), per_second("arrived")
    ready = latest.ready if latest is not None else 0
    left = 0.0 if not ready else ready / (ended - arrived) if ended > arrived else None
    return Forecast(queue or "", ready, latest.exact if latest is not None else True, ended, arrived, left)


def as_json(record: Any) -> Any:
    """Return a record of this module as what JSON has: objects, lists, numbers, and times as texts."""
    if isinstance(record, datetime):
        return record.isoformat()
    if isinstance(record, tuple | list):
        return [as_json(one) for one in record]
    if isinstance(record, Mapping):
        return {str(key): as_json(value) for key, value in record.items()}
    if hasattr(type(record), "__dataclass_fields__"):
        return {name: as_json(getattr(record, name)) for name in type(record).__dataclass_fields__}
    return record
