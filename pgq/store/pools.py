"""Statements about pools: the flag of sleepers, waking, heartbeats, the leader."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgq.conf import ALL, Queues
from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, one_row, records
from pgq.store.texts import sql
from pgq.store.turns import Turns


def peek(
    cursor: Cursor, *, milliseconds: int | None, queues: Queues = ALL, turns: Turns | None = None
) -> tuple[int, bool]:
    """Raise the flag that a worker sleeps; return its value and whether something is ready that a worker could claim.

    Args:
        turns: Where the last look at the lanes of keys ended.
        milliseconds: For how long; None: leave the flag alone, since this pool gets no notifications (the value is 0).
    """
    parameters = {"milliseconds": milliseconds, **queues.parameters()}
    flag, ready, keyed = one_row(cursor, "peek", parameters, **queues.operators())
    if keyed and not ready:
        ready = (turns or Turns(queues)).is_any_ready(cursor)
    return flag, ready


def all_awake(cursor: Cursor, *, flag: int) -> None:
    """Lower the flag if it still has the value `flag`: another pool has not raised it since."""
    all_rows(cursor, "all_awake", {"flag": flag})


def try_notify(cursor: Cursor) -> float:
    """Send a notification without listeners, to see whether that works; return how full their queue is (1: full)."""
    return float(one_row(cursor, "try_notify", {})[0])


def wake(cursor: Cursor) -> None:
    """Notify sleeping workers, if any."""
    all_rows(cursor, "wake", {})


def heartbeat(
    cursor: Cursor,
    *,
    id: UUID,
    name: str,
    host: str,
    pid: int,
    queues: Queues,
    status: str,
    version: str,
    workers: str,
    retry: float,
    clock: float,
    stalled: float | None,
) -> None:
    """Write that a pool is alive.

    Args:
        workers: JSON.
        retry: Length of its leases, in seconds.
        clock: What its host's clock shows, in Unix seconds.
        stalled: For how many seconds ready tasks have been waiting though a worker is free; None: none are.
    """
    parameters: dict[str, Any] = {
        "id": id,
        "name": name,
        "host": host,
        "pid": pid,
        "queues": None if queues.only is None else list(queues.only),
        "excluded": list(queues.excluded) or None,
        "status": status,
        "version": version,
        "workers": workers,
        "retry": retry,
        "clock": clock,
        "stalled": stalled,
    }
    cursor.execute(sql("heartbeat"), parameters)


def waiting(cursor: Cursor, *, queues: Queues) -> tuple[bool, bool]:
    """Return whether a task is ready to be claimed, and whether tasks are ready though all of the queues are paused."""
    ready, paused = one_row(cursor, "waiting", queues.parameters(), **queues.operators())
    return ready, paused


def goodbye(cursor: Cursor, id: UUID) -> None:
    """Remove a pool that has stopped."""
    cursor.execute(sql("goodbye"), {"id": id})


def forget_pools(cursor: Cursor, *, age: float) -> int:
    """Remove pools that have been silent for `age` seconds; return how many."""
    cursor.execute(sql("forget_pools"), {"age": age})
    return cursor.rowcount


def lead(cursor: Cursor) -> bool:
    """Become the leader for the rest of the transaction; return whether that worked."""
    return bool(one_row(cursor, "lead", {})[1])


class LeaderHolder(NamedTuple):
    """A session that holds the leader's key."""

    #: None: a prepared transaction.
    pid: int | None
    user: str | None
    application: str | None
    #: Seconds of its transaction; None: it is in none, or this role may not see that.
    seconds: float | None


def leader_holder(cursor: Cursor) -> list[LeaderHolder]:
    """Return the other sessions that hold the leader's key: one, or several that share it."""
    return records(cursor, LeaderHolder, "leader_holder", {})


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A row of pgq_worker. Ages are seconds by the database's clock."""

    id: UUID
    name: str
    host: str
    pid: int
    queues: list[str] | None
    exclude_queues: list[str] | None
    status: str
    started_at: datetime
    heartbeat: datetime
    version: str
    #: JSON: the state of each worker, as the supervisor wrote it.
    workers: str
    uptime: float
    silent: float
    #: Tasks its workers have claimed, running ones included.
    claimed: int


def pools(cursor: Cursor, id: UUID | None = None) -> list[PoolRow]:
    """Return the rows of all pools, or the one of that id."""
    return records(cursor, PoolRow, "pools", {"id": id})
