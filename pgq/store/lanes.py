"""Statements about lanes: watermarks, due rows, the sweep, pausing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, one_row, records
from pgq.store.texts import sql


def unused_queues(cursor: Cursor, queues: Sequence[str]) -> list[str]:
    """Return those of the queues to which nothing has been enqueued yet, and which no schedule names."""
    return [row[0] for row in all_rows(cursor, "unused_queues", {"queues": list(queues)})]


def pause(cursor: Cursor, queue: str) -> None:
    """Stop claims from a queue."""
    all_rows(cursor, "pause", {"queue": queue})


def resume(cursor: Cursor, queue: str) -> None:
    """Allow claims from a queue again."""
    all_rows(cursor, "resume", {"queue": queue})


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is due for upkeep, and when something will be."""

    #: Whether a task that no worker holds is to end without being run.
    tasks_ended: bool
    tasks_due: bool
    schedules_due: bool
    #: Seconds until the next of either; None: there is none.
    next_in: float | None


def outlook(cursor: Cursor) -> Outlook:
    """Return what is due, and when something will be."""
    return records(cursor, Outlook, "outlook", {})[0]


def due(cursor: Cursor, *, limit: int) -> int:
    """Make waiting tasks ready whose time has come; return how many."""
    return int(one_row(cursor, "due", {"limit": limit})[0])


@dataclass(frozen=True, slots=True)
class Marks:
    """How far the sequences and watermarks have come."""

    #: The last position that was drawn.
    last: int
    #: The lowest watermark; None: there is no lane.
    lowest: int | None
    #: The last strand that was drawn, and the watermark of strands.
    strand: int
    strand_low: int
    #: Grows each time the making of lanes of keys was left to upkeep.
    missed: int
    #: Whether lanes of keys are in use.
    keyed: bool


def marks(cursor: Cursor) -> Marks:
    """Return how far the sequences and watermarks have come."""
    return records(cursor, Marks, "positions", {})[0]


def positions(cursor: Cursor) -> tuple[int, int | None]:
    """Return the last position that was drawn, and the lowest watermark (None: there is no lane)."""
    found = marks(cursor)
    return found.last, found.lowest


def writers(cursor: Cursor, among: Iterable[str] | None = None) -> list[str]:
    """Return the transactions that may hold a position which other sessions do not see yet."""
    return [row[0] for row in all_rows(cursor, "writers", {"among": list(among) if among is not None else None})]


def commit_unflushed(cursor: Cursor) -> None:
    """Let the commit of this transaction return before it is on disk: a crash may lose it."""
    cursor.execute(sql("commit_unflushed"))


def lock_lanes(cursor: Cursor, *, safe: int) -> list[tuple[str, int]]:
    """Lock the lanes whose watermark is below `safe` until the transaction ends; return (queue, priority) of each."""
    return [(row[0], row[1]) for row in all_rows(cursor, "lock_lanes", {"safe": safe})]


def advance(cursor: Cursor, *, safe: int) -> int:
    """Move the watermarks up, to `safe` at most; return how many moved. Needs a transaction of its own."""
    # If a crash loses this, watermarks stand lower, which is safe. And a slow disk must not keep lanes locked: a task
    # that is rescued meanwhile would go to the end of its lane.
    commit_unflushed(cursor)
    # Two statements, so that the second one's snapshot is taken after the lanes are locked.
    lanes = lock_lanes(cursor, safe=safe)
    queues, priorities = [queue for queue, _ in lanes], [priority for _, priority in lanes]
    cursor.execute(sql("advance"), {"safe": safe, "queues": queues, "priorities": priorities})
    return cursor.rowcount


def sweep(cursor: Cursor) -> list[tuple[str, int]]:
    """Mend watermarks that are too high and lanes that are missing; return the lanes mended."""
    return [(row[0], row[1]) for row in all_rows(cursor, "sweep", {})]


def redraw(cursor: Cursor, *, limit: int) -> int:
    """Draw new positions for ready tasks whose own lie beyond the last one drawn; return for how many."""
    cursor.execute(sql("redraw"), {"limit": limit})
    return cursor.rowcount
