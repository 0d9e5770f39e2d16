"""Metrics over time, for charts: one value for each step, for all together or by queue, function or outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgq.status.counted import Counts, Times
from pgq.store import overview
from pgq.store import series as store
from pgq.store.caller import aware_cursor
from pgq.store.connection import Cursor
from pgq.store.metrics import ENDS, OTHER, OUTCOMES, SPANS
from pgq.store.series import Counted, Wanted

#: Metrics of `series` that count tasks in a step, see docs/operate/metrics.md.
COUNTS = (*OUTCOMES, "ended", "failures", "arrived")
#: Metrics of `series` that say how a queue was at the begin of a step.
GAUGES = ("ready", "running", "waiting", "parked", "oldest_ready", "workers", "busy")
#: Metrics of `series` in seconds.
TIMES = tuple(f"{which}_{what}" for which in ("run", "wait") for what in ("average", "median", "p95", "p99", "longest"))

#: Points of a series, at most: a longer time has longer steps.
POINTS = 400
#: Series that are returned at most, those with the most; the others are added up as "(other)".
KEYS = 20
#: Rows that one statement returns, at most.
ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Point:
    """A value of the time that begins at `at`; None: there is none."""

    #: When the step begins.
    at: datetime
    #: None: there is none.
    value: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """A metric over time."""

    #: One of COUNTS, TIMES or GAUGES.
    metric: str
    #: The queue, function or outcome; "": of all; "(other)": of those that are not told apart.
    key: str
    #: Seconds from one point to the next.
    step: int
    #: One for each step, in order, without gaps.
    points: tuple[Point, ...]

    @property
    def total(self) -> float:
        """All values together, for metrics that count."""
        return sum(point.value or 0 for point in self.points)

    @property
    def largest(self) -> float | None:
        """The largest value; None: there is none."""
        return max((point.value for point in self.points if point.value is not None), default=None)


def series(
    cursor: Cursor,
    metric: str,
    *,
    start: datetime,
    end: datetime,
    by: str | None = None,
    step: int | None = None,
    queue: str | None = None,
    func: str | None = None,
) -> tuple[Series, ...]:
    """Return a metric over time, one series for each key, those with the most first; KEYS of them at most.

    Args:
        metric: One of COUNTS (tasks in a step), TIMES (seconds) or GAUGES (as of the begin of a step).
        start, end: Aware times; `start` is moved down to the begin of its step.
        by: None: one series of all; "queue"; "func", not for GAUGES; "outcome", for COUNTS only.
        step: Seconds from one point to the next: 60, 600, 3600 or a multiple; longer ones are taken if there would be
            more than POINTS. None: as short as fits.
        queue, func: Only of that queue, or function.

    Raises:
        ValueError: There is no such metric, or it cannot be had by that; the message names what there is.
    """
    _check(metric, by, func)
    span, seconds = _step(cursor, start, end, step)
    begin = floor(start, seconds)
    wanted = Wanted(span, begin, end, queue, func)
    times = [begin + timedelta(seconds=seconds * at) for at in range(max(_steps(begin, end, seconds), 0))]
    if by in ("queue", "func") and (metric in TIMES or metric in COUNTS[:-1]):
        wanted = wanted._replace(keys=_most(cursor, metric, wanted, by))
    if metric in GAUGES:
        found = _gauge_values(cursor, metric, wanted, by, seconds)
    elif metric == "arrived":
        found = _arrivals(cursor, wanted, by, seconds)
    elif metric in TIMES:
        found = _time_values(cursor, metric, wanted, by, seconds)
    else:
        found = _count_values(cursor, metric, wanted, by, seconds)
    if not found and by is None:
        found = {"": {}}
    empty = 0.0 if metric in COUNTS else None
    kept = found if metric in TIMES or metric in GAUGES else _largest(found)
    made = [
        Series(metric, key, seconds, tuple(Point(at, values.get(at, empty)) for at in times))
        for key, values in kept.items()
    ]
    return tuple(sorted(made, key=lambda one: (one.key == OTHER, -one.total, one.key))[: KEYS + 1])


def _most(cursor: Cursor, metric: str, wanted: Wanted, by: str) -> list[str] | None:
    """Return the queues or functions with the most if not all are told apart: the database adds up the others."""
    rows = store.counts(cursor, wanted, key=by, step=0, limit=ROWS)
    if len(rows) <= KEYS:
        return None
    name = metric if metric in COUNTS else "all"
    return [row.key for row in sorted(rows, key=lambda row: (-getattr(Counts.of(row), name), row.key))[: KEYS - 1]]


def _check(metric: str, by: str | None, func: str | None) -> None:
    known = (*COUNTS, *TIMES, *GAUGES)
    if metric not in known:
        raise ValueError(f"metric: there is no {metric!r}; there are {', '.join(known)}")
    of_queues = metric in GAUGES or metric == "arrived"
    allowed = (None, "queue") if of_queues else (None, "queue", "func") if metric in TIMES else _BY
    if by not in allowed:
        raise ValueError(f"by: {metric} cannot be had by {by!r}, but by {', '.join(str(one) for one in allowed)}")
    if func is not None and of_queues:
        raise ValueError(f"func: {metric} is known of queues only")


_BY = (None, "queue", "func", "outcome")


def _step(cursor: Cursor, start: datetime, end: datetime, step: int | None) -> tuple[int, int]:
    """Return the span (minutes) of the rows to read, and the seconds from one point to the next."""
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("start, end: must be aware datetimes")
    if step is not None and (step < 60 or step % 60):
        raise ValueError(f"step: must be whole minutes in seconds, got {step!r}")
    age, length = (overview.now(aware_cursor(cursor)) - start).total_seconds(), (end - start).total_seconds()
    for span, hours in SPANS.items():
        seconds = 60 * span
        is_last = span == max(SPANS)
        if (age <= 3600 * hours and length <= POINTS * seconds and (step is None or step <= seconds)) or is_last:
            break
        if step is not None and step % seconds == 0 and age <= 3600 * hours and length <= POINTS * step:
            return span, step
    seconds = 60 * span if step is None else -(-step // (60 * span)) * 60 * span
    while length > POINTS * seconds:
        seconds += 60 * span
    return span, seconds


def floor(at: datetime, seconds: int) -> datetime:
    """Return the begin of the step that a moment is in, in UTC: so do the statements, over changes of the clock."""
    past = int(at.timestamp())
    return datetime.fromtimestamp(past - past % seconds, UTC)


def _steps(begin: datetime, end: datetime, seconds: int) -> int:
    return -int(-(end - begin).total_seconds() // seconds)


_Values = dict[str, dict[datetime, float]]


def _count_values(cursor: Cursor, metric: str, wanted: Wanted, by: str | None, step: int) -> _Values:
    rows = store.counts(cursor, wanted, key=None if by == "outcome" else by, step=step, limit=ROWS)
    found: _Values = {}
    for row in rows:
        counts = Counts.of(row)
        if by == "outcome":
            parts = OUTCOMES if metric in OUTCOMES else ENDS
            for name in parts if metric not in OUTCOMES else (metric,):
                if metric != "failures" or name in ("failed", "timed_out", "discarded"):
                    found.setdefault(name, {})[row.at] = getattr(counts, name)
        else:
            found.setdefault(row.key, {})[row.at] = getattr(counts, metric)
    return found


def _time_values(cursor: Cursor, metric: str, wanted: Wanted, by: str | None, step: int) -> _Values:
    which, _, what = metric.partition("_")
    found: _Values = {}
    longest: dict[tuple[datetime, str], Counted] = {
        (row.at, row.key): row for row in store.counts(cursor, wanted, key=by, step=step, limit=ROWS)
    }
    if what == "longest":
        for (at, key), row in longest.items():
            found.setdefault(key, {})[at] = getattr(row, f"{which}_max")
        return found
    (histograms,) = store.histograms(cursor, wanted, which, key=by, step=step, limit=ROWS)
    for (at, key), counts in histograms.items():
        row = longest[at, key]
        times = Times.of(counts, getattr(row, f"{which}_sum"), getattr(row, f"{which}_max"))
        value = getattr(times, what)
        if value is not None:
            found.setdefault(key, {})[at] = value
    return found


def _gauge_values(cursor: Cursor, metric: str, wanted: Wanted, by: str | None, step: int) -> _Values:
    if by is None and wanted.queue is None:
        wanted = wanted._replace(queue="")
    elif wanted.queue is None and wanted.keys is None:
        # Of a thousand queues not all fit into ROWS, and the newest would be left out.
        wanted = wanted._replace(keys=store.most_gauged(cursor, wanted, metric, limit=KEYS + 1))
    found: _Values = {}
    for gauge in store.gauge_series(cursor, wanted, limit=ROWS):
        if by == "queue" and not gauge.queue:
            continue
        value = getattr(gauge, metric)
        if value is not None:
            # The first one of a step.
            found.setdefault(gauge.queue if by else "", {}).setdefault(floor(gauge.at, step), float(value))
    return found


def _arrivals(cursor: Cursor, wanted: Wanted, by: str | None, step: int) -> _Values:
    """Tasks that came, derived: what has ended, and by how many more there are at the end of the step."""
    told = _most(cursor, "ended", wanted, by) if by == "queue" and wanted.queue is None else None
    ended = _count_values(cursor, "ended", wanted._replace(keys=told), by, step)
    later = wanted._replace(end=wanted.end + timedelta(seconds=step), keys=told)
    live = _gauge_values(cursor, "live", later, by, step)
    if told is not None:
        of_all = _gauge_values(cursor, "live", later._replace(keys=None), None, step).get("", {})
        live[OTHER] = {at: all - sum(of_one.get(at, 0.0) for of_one in live.values()) for at, all in of_all.items()}
    found: _Values = {}
    for key in ended.keys() | live.keys():
        of_key, length = live.get(key, {}), timedelta(seconds=step)
        for at in ended.get(key, {}).keys() | of_key.keys():
            grown = of_key[at + length] - of_key[at] if at in of_key and at + length in of_key else 0.0
            if at < wanted.end:
                found.setdefault(key, {})[at] = max(ended.get(key, {}).get(at, 0.0) + grown, 0.0)
    return found


def _largest(found: _Values) -> _Values:
    """Return the keys with the most, and the others added up."""
    if len(found) <= KEYS:
        return found
    ordered = sorted(found, key=lambda key: (key == OTHER, -sum(found[key].values()), key))
    kept = {key: found[key] for key in ordered[: KEYS - 1]}
    rest: dict[datetime, float] = {}
    for key in ordered[KEYS - 1 :]:
        for at, value in found[key].items():
            rest[at] = rest.get(at, 0.0) + value
    return {**kept, OTHER: rest}
