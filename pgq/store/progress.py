"""Statements about what tasks say of themselves: how far they are, and their log lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pgq.records import LOG_BYTES, LOG_LINES, Progress
from pgq.store.connection import Cursor
from pgq.store.statement import one_row


def write_progress(cursor: Cursor, said: Sequence[Progress], *, lock_ms: int) -> set[UUID]:
    """Write what tasks say of themselves; return the ids of those whose lease still held.

    Args:
        lock_ms: Milliseconds that it may wait for a row of pgq_progress that another session has locked.

    Raises:
        psycopg.errors.LockNotAvailable: It has waited that long; nothing was written.
    """
    # An array of NULLs has no type of its own, so each value is of its column's or NULL, and the statement casts.
    parameters = {
        "id": [one.id for one in said],
        "receipt": [one.receipt for one in said],
        "done": [one.done for one in said],
        "total": [one.total for one in said],
        "text": [one.text for one in said],
        "log": [one.log for one in said],
        "lock_limit": f"{lock_ms}ms",
    }
    return set(one_row(cursor, "write_progress", parameters, lines=LOG_LINES, bytes=LOG_BYTES)[0])


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one statement has looked at."""

    #: The last id; None: the round is over.
    last: UUID | None
    #: How many rows were deleted.
    count: int


def prune_progress(cursor: Cursor, *, after: UUID, limit: int) -> Pruned:
    """Delete rows of tasks that are gone, among the next `limit` ones after an id."""
    return Pruned(*one_row(cursor, "prune_progress", {"after": after}, limit=limit))
