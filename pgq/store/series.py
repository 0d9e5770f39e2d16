"""Statements that read numbers over time: counts, histograms, gauges, marks, findings. Each has a bound."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pgq.ground import histogram
from pgq.store.caller import aware_cursor
from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, one_row, records

#: Between queue and function in a key of both.
BETWEEN = chr(31)
#: What numbers may be added up by: the parts of the statements.
_TOLD_APART = "CASE WHEN %(keys)s::text[] IS NULL OR {0} = ANY (%(keys)s::text[]) THEN {0} ELSE '(other)' END"
KEYS = {
    None: "''::text",
    "queue": _TOLD_APART.format("queue"),
    "func": _TOLD_APART.format("func"),
    "queue and func": "queue || chr(31) || func",
}


#: How many fell into each bucket, by time and key. What fell into none is left out.
Histograms = dict[tuple[datetime, str], dict[int, int]]


class Wanted(NamedTuple):
    """Which rows of pgq_metric: of one span (minutes), from a time to another; of one queue or function, or of all.

    `keys`: the queues or functions that are told apart, where it is by those; None: all.
    """

    span: int
    start: datetime
    end: datetime
    queue: str | None = None
    func: str | None = None
    keys: list[str] | None = None


class Counted(NamedTuple):
    """What was settled in a time. Seconds of runs and waits: all together, and the longest."""

    at: datetime
    key: str
    succeeded: int
    failed: int
    retried: int
    cancelled: int
    timed_out: int
    crashed: int
    parked: int
    discarded: int
    run_sum: float
    run_max: float
    wait_sum: float
    wait_max: float


def counts(cursor: Cursor, wanted: Wanted, *, key: str | None, step: int, limit: int) -> list[Counted]:
    """Return counts by `key` (one of KEYS) and by times of `step` seconds; 0: all in one."""
    parameters = {**wanted._asdict(), "step": step, "limit": limit}
    return [Counted(*row) for row in all_rows(aware_cursor(cursor), "counts", parameters, key=KEYS[key])]


def histograms(
    cursor: Cursor, wanted: Wanted, *which: str, key: str | None, step: int, limit: int
) -> tuple[Histograms, ...]:
    """Return histograms of "run", "wait" or both, by time and key, as for `counts`: how many in each bucket."""
    buckets = bucket_ends(cursor, wanted, *which)
    sums = ", ".join(_sums(one, within) for one, within in zip(which, buckets, strict=True))
    parameters = {**wanted._asdict(), "step": step, "limit": limit}
    rows = all_rows(aware_cursor(cursor), "histograms", parameters, key=KEYS[key], sums=sums)
    return tuple(
        {(row[0], row[1]): filled for row in rows if (filled := _filled(within, row[2 + place]))}
        for place, within in enumerate(buckets)
    )


def bucket_ends(cursor: Cursor, wanted: Wanted, *which: str) -> tuple[range, ...]:
    """Return the buckets that something fell into, for each of "run" and "wait" that is asked for."""
    ends = ", ".join(f"min({one}_from), max({one}_from + cardinality({one}_hist))" for one in which)
    found = one_row(aware_cursor(cursor), "bucket_ends", wanted._asdict(), ends=ends)
    # By hand anything may be written there.
    bounds = [min(max(end or 0, 0), histogram.SIZE) for end in found]
    return tuple(range(first, past) for first, past in zip(bounds[::2], bounds[1::2], strict=True))


def _sums(which: str, buckets: range) -> str:
    sums = (f"coalesce(sum({which}_hist[{bucket + 1} - {which}_from]), 0)::bigint" for bucket in buckets)
    return f"ARRAY[{', '.join(sums)}]::bigint[]"


def _filled(buckets: range, counts: list[int]) -> dict[int, int]:
    return {bucket: count for bucket, count in zip(buckets, counts, strict=True) if count > 0}


@dataclass(frozen=True, slots=True)
class Gauge:
    """How many tasks a queue had at a moment; the queue is empty for all queues together."""

    #: The moment.
    at: datetime
    #: Its name; empty: of all queues.
    queue: str
    #: Tasks that could be claimed.
    ready: int
    #: Tasks that workers held.
    running: int
    #: Tasks that waited for a time or for other tasks.
    waiting: int
    #: Tasks that could not run as they were.
    parked: int
    #: Seconds since the first ready task became ready; None: none was.
    oldest_ready: float | None
    #: Workers that served it.
    workers: int
    #: How many tasks of it ran.
    busy: int
    #: Whether nothing was claimed from it.
    paused: bool
    #: False: `ready` is an estimate.
    exact: bool

    @property
    def live(self) -> int:
        """All tasks that have not ended."""
        return self.ready + self.running + self.waiting + self.parked


def gauge_series(cursor: Cursor, wanted: Wanted, *, limit: int) -> list[Gauge]:
    """Return gauges by time. `wanted.queue` and `wanted.keys` None: of each queue, and of all together."""
    parameters = {**wanted._asdict(), "limit": limit}
    return records(aware_cursor(cursor), Gauge, "gauge_series", parameters)


def most_gauged(cursor: Cursor, wanted: Wanted, metric: str, *, limit: int) -> list[str]:
    """Return the queues that had the most of a number of `Gauge`."""
    what = "ready + running + waiting + parked" if metric == "live" else metric
    parameters = {**wanted._asdict(), "limit": limit}
    return [row[0] for row in all_rows(aware_cursor(cursor), "most_gauged", parameters, what=what)]


def latest_gauges(cursor: Cursor, *, limit: int) -> list[Gauge]:
    """Return the last gauges, that of all queues together first."""
    return records(aware_cursor(cursor), Gauge, "latest_gauges", {"limit": limit})


def totals(cursor: Cursor, *, limit: int) -> list[tuple[Any, ...]]:
    """Return the rows of pgq_total."""
    return all_rows(aware_cursor(cursor), "totals", {"limit": limit})


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment to show in charts."""

    #: The row's.
    id: int
    #: The moment.
    at: datetime
    #: What to show.
    label: str
    #: "release", or "mark": set by hand.
    kind: str
    #: Who made it; None: a pool.
    author: str | None


def marks(cursor: Cursor, *, start: datetime, end: datetime, limit: int) -> list[Mark]:
    """Return the marks from `start` to before `end`, newest first."""
    return records(aware_cursor(cursor), Mark, "marks", {"start": start, "end": end, "limit": limit})


@dataclass(frozen=True, slots=True)
class KeptFinding:
    """What one check found when upkeep last ran it."""

    #: Name of the check.
    check: str
    #: "ok", "warning" or "problem", see `pgq.store.overview.Finding`.
    status: str
    #: What was found.
    detail: str
    #: What to do.
    advice: str
    #: Since when it has that status, and when it was last checked.
    since: datetime
    #: When upkeep last ran it.
    checked_at: datetime


def findings(cursor: Cursor) -> list[KeptFinding]:
    """Return what the checks found when they were last run, the worst first."""
    return records(aware_cursor(cursor), KeptFinding, "findings", {})
