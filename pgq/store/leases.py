"""Statements about leases: renew, rescue, correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from pgq.records import Blame, Claim
from pgq.store.caller import savepoint
from pgq.store.connection import Cursor, limit_lock_wait
from pgq.store.statement import Row, all_rows, records
from pgq.store.texts import sql


def release(cursor: Cursor, claims: Sequence[Claim]) -> set[UUID]:
    """Give back tasks that were not started. Return the ids given back."""
    parameters = {"id": [claim.id for claim in claims], "receipt": [claim.receipt for claim in claims]}
    return {row[0] for row in _make_ready(cursor, "release", parameters, wait=True)}


def rename(cursor: Cursor, claims: Sequence[Claim], *, worker: UUID) -> None:
    """Bring running tasks under a new id of their worker."""
    ids, receipts = [claim.id for claim in claims], [claim.receipt for claim in claims]
    cursor.execute(sql("rename"), {"id": ids, "receipt": receipts, "worker": worker})


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal found: the database's time, and the (task, worker) pairs that should be cancelled."""

    at: datetime
    cancelled: list[tuple[UUID, UUID]]


def func_of(cursor: Cursor, id: UUID) -> str | None:
    """Return the function that a live task names; None: it is gone."""
    rows = all_rows(cursor, "func_of", {"id": id})
    return rows[0][0] if rows else None


#: How long a lane is waited for by who renews leases besides. Upkeep keeps one locked for a millisecond or two; a
#: session that keeps it longer may be frozen.
_PATIENCE = "100ms"
#: For `since`: no lease is older.
BEFORE_ALL_LEASES = datetime(2000, 1, 1, tzinfo=UTC)


def renew(cursor: Cursor, workers: Sequence[UUID], *, since: datetime, age: float) -> Renewal:
    """Renew the leases of these workers that are older than `age` seconds and not older than `since`."""
    rows = all_rows(cursor, "renew", {"workers": list(workers), "since": since, "age": age})
    return Renewal(rows[0][0], [(row[1], row[2]) for row in rows if row[3]])


def cancelled(cursor: Cursor, workers: Sequence[UUID], *, since: datetime) -> list[tuple[UUID, UUID]]:
    """Return (task, worker) for the running tasks that were cancelled."""
    return [(row[0], row[1]) for row in all_rows(cursor, "cancelled", {"workers": list(workers), "since": since})]


class Freed(NamedTuple):
    """A task that is ready again, since its worker is gone."""

    id: UUID
    #: Whether the attempt that ended with the worker was charged to it.
    charged: bool
    queue: str
    func: str


def rescue_expired(cursor: Cursor, *, since: datetime, before: datetime, age: float, error: str) -> list[Freed]:
    """Make the tasks ready again whose lease has run out, and charge each a crash; return them.

    Args:
        since: No lease is older.
        before: Only leases renewed before this time.
        age: Only leases renewed so many seconds ago or longer, by the database's clock.
        error: The entry for each task's history, as JSON.
    """
    parameters = {"since": since, "before": before, "age": age, "error": error}
    return [Freed(*row[:4]) for row in _soon_make_ready(cursor, "rescue_expired", parameters)]


def release_worker(cursor: Cursor, worker: UUID, blame: Blame, *, since: datetime) -> list[Freed]:
    """Make ready again what a dead worker held; return it.

    Args:
        since: No lease of the worker is older.
    """
    parameters = {"worker": worker, "since": since, "task": blame.task, "crash": blame.crash, "error": blame.error}
    return [Freed(*row[:4]) for row in _soon_make_ready(cursor, "release_worker", parameters)]


def release_uncharged(cursor: Cursor, workers: Sequence[UUID], *, since: datetime) -> list[UUID]:
    """Make the tasks that are held under these ids ready again, uncharged; return the ids of the tasks.

    Args:
        since: No lease of these workers is older.
    """
    parameters = {"workers": list(workers), "since": since}
    return [row[0] for row in _soon_make_ready(cursor, "release_uncharged", parameters)]


def _soon_make_ready(cursor: Cursor, name: str, parameters: dict[str, Any]) -> list[Row]:
    """Make ready, at the end of its lane what lies in one that stays locked by another session."""
    try:
        with savepoint(cursor):
            before = limit_lock_wait(cursor, _PATIENCE)
            rows = _make_ready(cursor, name, parameters, wait=True)
            limit_lock_wait(cursor, before)
            return rows
    except psycopg.errors.LockNotAvailable:
        return _make_ready(cursor, name, parameters)


def _make_ready(cursor: Cursor, name: str, parameters: dict[str, Any], *, wait: bool = False) -> list[Row]:
    cursor.execute(with_places(name, wait=wait), parameters)
    return cursor.fetchall()


def with_places(name: str, *, wait: bool = False) -> str:
    """Return the text of a statement that makes claimed tasks ready at their positions, see kept_places.sql.

    Args:
        wait: Wait for lanes that another session has locked.
    """
    lock = "FOR UPDATE" if wait else "FOR UPDATE SKIP LOCKED"
    return sql(name, kept_places=sql("kept_places", lock=lock))


@dataclass(frozen=True, slots=True)
class Leases:
    """The oldest lease, and whether any lies in the future."""

    #: The database's time.
    now: datetime
    oldest: datetime | None
    #: Whether some lie in the database's future.
    ahead: bool


def oldest_lease(cursor: Cursor, *, since: datetime) -> Leases:
    """Return the oldest lease from `since` on."""
    return records(cursor, Leases, "oldest_lease", {"since": since})[0]


def touch_lease(cursor: Cursor, *, since: datetime) -> None:
    """Write the row of the oldest lease from `since` on again, unchanged."""
    cursor.execute(sql("touch_lease"), {"since": since})


def correct_leases(cursor: Cursor) -> int:
    """Let leases that lie in the future begin now; return how many."""
    cursor.execute(sql("correct_leases"))
    return cursor.rowcount
