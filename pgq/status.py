"""The state of pools and queues, for people and for programs that watch.

`Stat` has Django-Q's attributes, over the table pgq_worker. `Snapshot` is what the commands show. All of it is bounded:
nothing here takes longer on a table of millions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from pgq import ids, store, timing
from pgq.conf import get_settings
from pgq.db import Cursor, callers_cursor

STARTING, WORKING, IDLE, STOPPING, STOPPED = "Starting", "Working", "Idle", "Stopping", "Stopped"

#: Seconds after which a pool that says nothing is taken to be gone. It speaks every 5 seconds at least.
ALIVE = 20.0


@dataclass(frozen=True, slots=True)
class Process:
    """A worker process, as of its pool's last heartbeat."""

    number: int
    #: "starting", "working", "idle", "leaving" or "restarting"; of the last there is no process.
    state: str
    pid: int | None = None
    id: str | None = None
    #: The task it runs, 32 hex digits, and for how many seconds.
    task: str | None = None
    seconds: float | None = None
    #: Since it started.
    succeeded: int = 0
    failed: int = 0
    #: How many processes have filled this place before; None: the pool does not say.
    restarts: int | None = None


def _processes(text: str) -> list[Process]:
    """Read what a supervisor wrote; the table is open to other writers too."""
    rows = json.loads(text)
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and _is(row, "number", int) and _is(row, "state", str):
            found.append(Process(**{key: row[key] for key, kind in _KINDS.items() if _is(row, key, kind)}))
    return found


_KINDS: dict[str, Any] = {
    "number": int,
    "state": str,
    "pid": int,
    "id": str,
    "task": str,
    "seconds": int | float,
    "succeeded": int,
    "failed": int,
    "restarts": int,
}


def _is(row: Mapping[str, Any], key: str, kind: Any) -> bool:
    return isinstance(row.get(key), kind) and not isinstance(row[key], bool)


@dataclass(eq=False, repr=False)
class Status:
    """A pool of which nothing is known: it has stopped, or was never there."""

    STARTING, WORKING, IDLE, STOPPING, STOPPED = STARTING, WORKING, IDLE, STOPPING, STOPPED

    pid: int | None
    cluster_id: UUID | str | None
    #: Pids of the worker processes.
    workers: list[int] = field(default_factory=list)
    #: Time of birth.
    tob: datetime | None = None
    #: How often a worker was replaced.
    reincarnations: int = 0
    #: Pid of the supervisor.
    sentinel: int = 0
    status: str = STOPPED
    #: Always 0: results wait in no queue.
    done_q_size: int = 0
    #: Tasks claimed by the workers and not running yet.
    task_q_size: int = 0
    host: str = ""
    #: Django-Q's processes that pgq has no need of: always 0.
    monitor: int = 0
    pusher: int = 0
    timestamp: datetime = field(default_factory=timezone.now)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cluster_id} {self.status}>"


@dataclass(eq=False, repr=False, kw_only=True)
class Stat(Status):
    """A pool that is running, as of its last heartbeat."""

    processes: list[Process]
    name: str
    version: str
    #: The queues it serves; None: all.
    queues: list[str] | None
    #: Seconds since its last heartbeat, by the database's clock.
    silent: float
    _uptime: float

    @classmethod
    def of(cls, pool: store.PoolRow) -> Stat:
        """Return what the row of a pool says."""
        processes = _processes(pool.workers)
        running = sum(1 for process in processes if process.task)
        return cls(
            pool.pid,
            pool.id,
            workers=[process.pid for process in processes if process.pid],
            tob=timing.as_project(pool.started_at),
            reincarnations=sum(process.restarts or 0 for process in processes),
            sentinel=pool.pid,
            status=pool.status.capitalize(),
            task_q_size=max(pool.claimed - running, 0),
            host=pool.host,
            timestamp=timing.as_project(pool.heartbeat),
            processes=processes,
            name=pool.name,
            version=pool.version,
            queues=pool.queues,
            silent=pool.silent,
            _uptime=pool.uptime,
        )

    def uptime(self) -> float:
        """Return the seconds since the pool started, by the database's clock."""
        return self._uptime

    @property
    def is_alive(self) -> bool:
        """Whether it has been heard of lately."""
        return self.silent < ALIVE

    @property
    def key(self) -> str:
        return self.get_key(self.cluster_id)

    @staticmethod
    def get_key(cluster_id: UUID | str | None) -> str:
        """Return the key under which Django-Q would keep this; nothing is kept there."""
        return f"pgq:cluster:{cluster_id}"

    def empty_queues(self) -> bool:
        """Whether its workers hold no task that has not begun."""
        return self.done_q_size + self.task_q_size == 0

    @staticmethod
    def get(
        pid: int | str | UUID | None = None, cluster_id: str | UUID | None = None, broker: Any = None
    ) -> Stat | Status:
        """Return the state of a pool: ``get(cluster_id)``, or ``get(pid, cluster_id)`` as in Django-Q.

        Of a pool that is not running it is a `Status` that says "Stopped".

        Raises:
            ValueError: That is not the id of a pool.
        """
        if cluster_id is None:
            pid, cluster_id = None, pid if not isinstance(pid, int) else None
        id = ids.parse_id(cluster_id)
        if id is None:
            raise ValueError(f"cluster_id: must be the id of a pool, got {cluster_id!r}")
        with callers_cursor(get_settings().database) as cursor:
            found = [Stat.of(pool) for pool in store.pools(cursor, id)]
        if found and found[0].is_alive:
            return found[0]
        return Status(pid if isinstance(pid, int) else None, id)

    @staticmethod
    def get_all(broker: Any = None) -> list[Stat]:
        """Return all pools that are running, oldest first."""
        with callers_cursor(get_settings().database) as cursor:
            return [stat for stat in map(Stat.of, store.pools(cursor)) if stat.is_alive]


# ------------------------------------------------------------------------------------------------- for the commands

#: What is counted one by one, at most.
COUNT_LIMIT = 10_000
_RUNNING_LIMIT, _FAILURES_LIMIT = 200, 20
#: Ready rows that are counted for all queues together, as long as 100 of each lane are no more than that.
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
    counts = store.queue_counts(cursor, limit=limit)
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
    successes, failures, estimate, failures_estimate = store.finished_counts(cursor, limit=limit)
    failed = _count(failures, limit, failures_estimate)
    return Finished(_count(successes, limit, (estimate or 0) - failed.number), failed)


@dataclass(frozen=True, slots=True)
class Throughput:
    """How much has finished of late."""

    #: Tasks a second; None: results of that time may have been deleted, so nobody can know from those that are left.
    rate: float | None
    #: Seconds a task took, on average; None: there was none.
    average: float | None
    #: Tasks looked at.
    sample: int


def throughput(cursor: Cursor, *, seconds: float, limit: int) -> Throughput:
    """Estimate throughput from the last `limit` results of so many seconds."""
    rows = store.recent(cursor, seconds=seconds, limit=limit)
    rate = None if _is_pruned(rows) else 0.0
    sample = sum(row.finished for row in rows)
    if not sample:
        return Throughput(rate, None, 0)
    if rate is not None:
        rate = sample / _window(rows, seconds, limit)
    return Throughput(rate, sum(row.seconds for row in rows) / sample, sample)


def _is_pruned(rows: Sequence[store.Recent]) -> bool:
    """Whether successes of that time may have been deleted: as many are left as `save_limit` keeps."""
    keep = get_settings().save_limit
    return keep != 0 and sum(row.succeeded for row in rows) >= keep


def _window(rows: Sequence[store.Recent], seconds: float, limit: int) -> float:
    """Return the seconds in which those rows finished: less than were asked for if the limit cut some off."""
    # Some of the sample may have finished long before, in other queues; so half of it is taken for all.
    return max(rows[0].age, 0.001) if sum(row.finished for row in rows) >= limit / 2 else seconds


def queue_depths(cursor: Cursor) -> list[store.QueueDepth]:
    """Return the queues in use, each lane counted so far that all together are bounded."""
    lanes = store.lane_count(cursor)
    # A few sizes, since each is a statement of its own.
    limit = next((size for size in (COUNT_LIMIT, 1000) if size * lanes <= _DEPTHS_LIMIT), 100)
    return store.queue_depths(cursor, limit=limit)


@dataclass(slots=True)
class Snapshot:
    """What a monitor shows of one moment."""

    at: datetime
    pools: list[Stat]
    #: Pools that neither said goodbye nor were heard of lately.
    silent: list[Stat]
    queued: Queued
    queues: list[store.QueueDepth]
    #: Tasks a second by queue, of what was enqueued in the last minute; None: see `Throughput.rate`.
    rates: dict[str, float] | None
    running: list[store.RunningTask]
    failures: list[store.FailedTask]
    schedules_faulty: int
    #: Tasks a second by pool, since the snapshot before; empty at first.
    pool_rates: dict[Any, float] = field(default_factory=dict)


def snapshot(cursor: Cursor, before: Snapshot | None = None) -> Snapshot:
    """Look at everything once; with the snapshot `before`, rates of pools can be told."""
    stats = [Stat.of(pool) for pool in store.pools(cursor)]
    recent = store.recent(cursor, seconds=_RECENT_SECONDS, limit=_RECENT_LIMIT)
    window = _window(recent, _RECENT_SECONDS, _RECENT_LIMIT) if recent else _RECENT_SECONDS
    new = Snapshot(
        at=store.now(cursor),
        pools=[stat for stat in stats if stat.is_alive],
        silent=[stat for stat in stats if not stat.is_alive],
        queued=queued(cursor),
        queues=queue_depths(cursor),
        rates=None if _is_pruned(recent) else {row.queue: row.finished / window for row in recent},
        running=store.running(cursor, alive=ALIVE, limit=_RUNNING_LIMIT),
        failures=store.latest_failures(cursor, limit=_FAILURES_LIMIT),
        schedules_faulty=store.schedule_counts(cursor)[2],
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
