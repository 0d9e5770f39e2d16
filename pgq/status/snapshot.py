"""The state of pools and queues, for people and for programs that watch.

`Stat` has Django-Q's attributes, over the table pgq_worker. `Snapshot` is what the commands show. All of it is bounded:
nothing here takes longer on a table of millions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pgq.status import metrics
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
_DAY = timedelta(days=1)


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


def up_to(number: int, limit: int, estimate: int | None = None) -> Count:
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
        ready=up_to(counts.ready, limit, counts.estimate - others),
        running=up_to(counts.running, limit),
        waiting=_sum((up_to(counts.waiting, limit), up_to(counts.collecting, limit))),
        parked=up_to(counts.parked, limit),
    )


@dataclass(frozen=True, slots=True)
class Finished:
    """Results that are kept."""

    successes: Count
    failures: Count


def finished(cursor: Cursor, *, limit: int = COUNT_LIMIT) -> Finished:
    """Count the results that are kept."""
    successes, failures, estimate, failures_estimate = overview.finished_counts(cursor, limit=limit)
    failed = up_to(failures, limit, failures_estimate)
    return Finished(up_to(successes, limit, (estimate or 0) - failed.number), failed)


@dataclass(frozen=True, slots=True)
class Throughput:
    """How many tasks have ended in the last day, as workers counted them: it does not matter which results are kept."""

    #: Tasks a second.
    rate: float
    #: Seconds a run took, on average; None: there was none.
    average: float | None
    #: Tasks.
    ended: int


def throughput(cursor: Cursor) -> Throughput:
    """Return how many tasks have ended in the last day."""
    now = metrics.now(cursor)
    day = metrics.summary(cursor, start=now - _DAY, end=now)
    return Throughput(day.counts.ended / _DAY.total_seconds(), day.run.average, day.counts.ended)


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
    #: Tasks a second by queue, of the last whole minute that workers have counted; one that is not in it: none ended.
    rates: dict[str, float]
    running: list[overview.RunningTask]
    failures: list[overview.FailedTask]
    schedules_faulty: int
    #: Tasks a second by pool, since the snapshot before; empty at first.
    pool_rates: dict[Any, float] = field(default_factory=dict)


def snapshot(cursor: Cursor, before: Snapshot | None = None) -> Snapshot:
    """Look at everything once; with the snapshot `before`, rates of pools can be told."""
    stats = [Stat.of(pool) for pool in store_pools.pools(cursor)]
    new = Snapshot(
        at=overview.now(cursor),
        pools=[stat for stat in stats if stat.is_alive],
        silent=[stat for stat in stats if not stat.is_alive],
        queued=queued(cursor),
        queues=queue_depths(cursor),
        rates={queue: rate.ended for queue, rate in metrics.rates(cursor, minutes=1).items() if queue},
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
