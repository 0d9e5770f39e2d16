"""The state of pools and queues, for people and for programs that watch.

`Stat` has Django-Q's attributes, over the table pgq_worker. `Snapshot` is what the commands show. All of it is bounded:
nothing here takes longer on a table of millions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pgq.conf import get_settings
from pgq.status.pools import ALIVE, Process, Stat
from pgq.store import overview
from pgq.store import pools as store_pools
from pgq.store.connection import Cursor

# ------------------------------------------------------------------------------------------------- for the commands

#: What is counted one by one, at most.
COUNT_LIMIT = 10_000
_RUNNING_LIMIT, _FAILURES_LIMIT = 200, 20
#: Ready rows that are counted for all queues together, but one of each lane.
_DEPTHS_LIMIT = 100_000
#: Results looked at for rates, and the seconds they may be old.
_RECENT_LIMIT, _RECENT_SECONDS = 2_000, 60.0


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are."""

    number: int
    #: "": exactly; "~": an estimate; "+": so many or more.
    sign: str = ""

    @property
    def exact(self) -> bool:
        return not self.sign

    def __str__(self) -> str:
        return f"~{self.number:,}" if self.sign == "~" else f"{self.number:,}{self.sign}"

    def as_json(self) -> dict[str, Any]:
        return {"count": self.number, "exact": self.exact}


def _count(number: int, limit: int, estimate: int | None) -> Count:
    """Return what was counted, or beyond the limit the estimate, unless that is plainly wrong."""
    if number < limit:
        return Count(number)
    return Count(estimate, "~") if estimate is not None and estimate > limit else Count(limit, "+")


def _sum(counts: Sequence[Count]) -> Count:
    sign = "~" if any(count.sign == "~" for count in counts) else "+" if any(count.sign for count in counts) else ""
    return Count(sum(count.number for count in counts), sign)


@dataclass(frozen=True, slots=True)
class Queued:
    """Live tasks by state."""

    ready: Count
    running: Count
    #: For a time, or for other tasks.
    waiting: Count
    parked: Count

    @property
    def total(self) -> Count:
        return _sum((self.ready, self.running, self.waiting, self.parked))


def queued(cursor: Cursor, *, limit: int = COUNT_LIMIT) -> Queued:
    """Count the live tasks by state."""
    counts = overview.queue_counts(cursor, limit=limit)
    others = counts.running + counts.waiting + counts.collecting + counts.parked
    return Queued(
        ready=_count(counts.ready, limit, counts.estimate - others),
        running=_count(counts.running, limit, None),
        waiting=_sum((_count(counts.waiting, limit, None), _count(counts.collecting, limit, None))),
        parked=_count(counts.parked, limit, None),
    )


@dataclass(frozen=True, slots=True)
class Finished:
    """Results that are kept."""

    successes: Count
    failures: Count


def finished(cursor: Cursor, *, limit: int = COUNT_LIMIT) -> Finished:
    """Count the results that are kept."""
    successes, failures, estimate, failures_estimate = overview.finished_counts(cursor, limit=limit)
    failed = _count(failures, limit, failures_estimate)
    return Finished(_count(successes, limit, (estimate or 0) - failed.number), failed)


@dataclass(frozen=True, slots=True)
class Throughput:
    """How much has finished of late."""

    #: Tasks a second; None: results of that time may have been deleted, so those that are left do not show it.
    rate: float | None
    #: Seconds a task took, on average; None: there was none.
    average: float | None
    #: Tasks counted.
    sample: int


def throughput(cursor: Cursor, *, seconds: float, limit: int) -> Throughput:
    """Estimate throughput from the last `limit` results of so many seconds."""
    rows = overview.recent(cursor, seconds=seconds, limit=limit)
    rate = None if _is_pruned(rows) else 0.0
    sample = sum(row.finished for row in rows)
    if not sample:
        return Throughput(rate, None, 0)
    if rate is not None:
        rate = sample / _window(rows, seconds, limit)
    return Throughput(rate, sum(row.seconds for row in rows) / sample, sample)


def _is_pruned(rows: Sequence[overview.Recent]) -> bool:
    """Whether successes of that time may have been deleted: as many are left as `save_limit` keeps."""
    keep = get_settings().save_limit
    return keep != 0 and sum(row.succeeded for row in rows) >= keep


def _window(rows: Sequence[overview.Recent], seconds: float, limit: int) -> float:
    """Return the seconds in which those rows finished: less than were asked for if the limit cut some off."""
    # Some of the sample may have finished long before, in other queues; so half of it is taken for all.
    return max(rows[0].age, 0.001) if sum(row.finished for row in rows) >= limit / 2 else seconds


def queue_depths(cursor: Cursor) -> list[overview.QueueDepth]:
    """Return the queues in use, each lane counted so far that all together are bounded."""
    lanes = overview.lane_count(cursor)
    # A few sizes, since each is a statement of its own.
    limit = next((size for size in (COUNT_LIMIT, 1000, 100, 10) if size * lanes <= _DEPTHS_LIMIT), 1)
    return overview.queue_depths(cursor, limit=limit, most=COUNT_LIMIT)


@dataclass(slots=True)
class Snapshot:
    """What a monitor shows of one moment."""

    at: datetime
    pools: list[Stat]
    #: Pools that neither said goodbye nor were heard of lately.
    silent: list[Stat]
    queued: Queued
    queues: list[overview.QueueDepth]
    #: Tasks a second by queue, of what was enqueued in the last minute; None: see `Throughput.rate`.
    rates: dict[str, float] | None
    running: list[overview.RunningTask]
    failures: list[overview.FailedTask]
    schedules_faulty: int
    #: Tasks a second by pool, since the snapshot before; empty at first.
    pool_rates: dict[Any, float] = field(default_factory=dict)


def snapshot(cursor: Cursor, before: Snapshot | None = None) -> Snapshot:
    """Look at everything once; with the snapshot `before`, rates of pools can be told."""
    stats = [Stat.of(pool) for pool in store_pools.pools(cursor)]
    recent = overview.recent(cursor, seconds=_RECENT_SECONDS, limit=_RECENT_LIMIT)
    window = _window(recent, _RECENT_SECONDS, _RECENT_LIMIT) if recent else _RECENT_SECONDS
    new = Snapshot(
        at=overview.now(cursor),
        pools=[stat for stat in stats if stat.is_alive],
        silent=[stat for stat in stats if not stat.is_alive],
        queued=queued(cursor),
        queues=queue_depths(cursor),
        rates=None if _is_pruned(recent) else {row.queue: row.finished / window for row in recent},
        running=overview.running(cursor, alive=ALIVE, limit=_RUNNING_LIMIT),
        failures=overview.latest_failures(cursor, limit=_FAILURES_LIMIT),
        schedules_faulty=overview.schedule_counts(cursor)[2],
    )
    if before is not None:
        new.pool_rates = _pool_rates(before, new)
    return new


def _done(processes: Sequence[Process]) -> dict[str | None, int]:
    return {process.id: process.succeeded + process.failed for process in processes if process.id}


def _pool_rates(before: Snapshot, now: Snapshot) -> dict[Any, float]:
    """Return how fast the counters of each pool have grown; between the same heartbeats nothing is known anew."""
    rates = {}
    known = {stat.cluster_id: stat for stat in before.pools}
    for stat in now.pools:
        old = known.get(stat.cluster_id)
        if old is None:
            continue
        seconds = (stat.timestamp - old.timestamp).total_seconds()
        if seconds <= 0:
            if stat.cluster_id in before.pool_rates:
                rates[stat.cluster_id] = before.pool_rates[stat.cluster_id]
            continue
        counted = _done(old.processes)
        grown = sum(number - counted.get(id, 0) for id, number in _done(stat.processes).items())
        rates[stat.cluster_id] = max(grown, 0) / seconds
    return rates
