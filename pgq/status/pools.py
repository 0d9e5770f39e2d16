"""Django-Q's `Stat`: the pools that live, and their processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from pgq.conf import get_settings, places
from pgq.ground import ids
from pgq.recurrence import moments
from pgq.store import pools as store_pools
from pgq.store.caller import callers_cursor

#: What a pool may say of itself: its `status`.
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

    #: Of the supervisor.
    pid: int | None
    #: The pool's id.
    cluster_id: UUID | str | None
    #: Pids of the worker processes.
    workers: list[int] = field(default_factory=list)
    #: Time of birth.
    tob: datetime | None = None
    #: How often a worker was replaced.
    reincarnations: int = 0
    #: Pid of the supervisor.
    sentinel: int = 0
    #: Starting, Working, Idle, Stopping or Stopped.
    status: str = STOPPED
    #: Always 0: results wait in no queue.
    done_q_size: int = 0
    #: Tasks claimed by the workers and not running yet.
    task_q_size: int = 0
    #: Name of its host.
    host: str = ""
    #: Django-Q's processes that pgq has no need of: always 0.
    monitor: int = 0
    #: The same.
    pusher: int = 0
    #: Of its last heartbeat.
    timestamp: datetime = field(default_factory=timezone.now)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cluster_id} {self.status}>"


@dataclass(eq=False, repr=False, kw_only=True)
class Stat(Status):
    """A pool that is running, as of its last heartbeat."""

    #: Its workers.
    processes: list[Process]
    #: Its name, by PGQ['name'] or ``--name``.
    name: str
    #: Of pgq.
    version: str
    #: The queues it serves; None: all.
    queues: list[str] | None
    #: The queues it does not serve.
    exclude_queues: list[str]
    #: Seconds since its last heartbeat, by the database's clock.
    silent: float
    _uptime: float

    @classmethod
    def of(cls, pool: store_pools.PoolRow) -> Stat:
        """Return what the row of a pool says."""
        processes = _processes(pool.workers)
        running = sum(1 for process in processes if process.task)
        return cls(
            pool.pid,
            pool.id,
            workers=[process.pid for process in processes if process.pid],
            tob=moments.as_project(pool.started_at),
            reincarnations=sum(process.restarts or 0 for process in processes),
            sentinel=pool.pid,
            status=pool.status.capitalize(),
            task_q_size=max(pool.claimed - running, 0),
            host=pool.host,
            timestamp=moments.as_project(pool.heartbeat),
            processes=processes,
            name=pool.name,
            version=pool.version,
            queues=pool.queues,
            exclude_queues=pool.exclude_queues or [],
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
        """What `get_key` returns for its id."""
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

        def here() -> Stat | None:
            with callers_cursor(get_settings().database) as cursor:
                found = [Stat.of(pool) for pool in store_pools.pools(cursor, id)]
            return found[0] if found and found[0].is_alive else None

        return places.first(here) or Status(pid if isinstance(pid, int) else None, id)

    @staticmethod
    def get_all(broker: Any = None) -> list[Stat]:
        """Return all pools that are running, oldest first; those of each database by themselves."""

        def here() -> list[Stat]:
            with callers_cursor(get_settings().database) as cursor:
                return [stat for stat in map(Stat.of, store_pools.pools(cursor)) if stat.is_alive]

        return [stat for stats in places.each(here) for stat in stats]
