"""Statements about finished tasks: waiting for them, pruning, cleaning, partitions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.types.string import TextLoader

from pgq.records import TaskState
from pgq.store.connection import Cursor, limit_lock_wait
from pgq.store.statement import all_rows, id_array, one_row, records, run
from pgq.store.texts import sql

_RESULT = "t.id, t.success, t.result, t.exception, t.message, t.traceback"


def settled(
    cursor: psycopg.Cursor[Any], ids: Sequence[UUID], *, whole: bool
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return those of these tasks that have finished: names of columns, and a row for each task.

    Moments are aware, and jsonb is text.

    Args:
        whole: All columns; else those that tell the result, which takes a third of the time.
    """
    # psycopg's own would decode it, but a signature is made over the text.
    cursor.adapters.register_loader("jsonb", TextLoader)
    rows = all_rows(cursor, "settled", {"ids": id_array(ids)}, columns="t.*" if whole else _RESULT)
    return [column.name for column in cursor.description or ()], rows


def arrived(
    cursor: Cursor, names: Collection[str], groups: Collection[tuple[str, int]]
) -> tuple[set[str], set[tuple[str, int]]]:
    """Return the names of which a task has finished, and the groups of which so many tasks have.

    Args:
        groups: Each with the number of finished tasks that are waited for, 1 or more.
    """
    parameters = {
        "names": list(names),
        "groups": [group for group, _ in groups],
        "numbers": [number for _, number in groups],
    }
    rows = all_rows(cursor, "arrived", parameters)
    return {row[0] for row in rows if row[0] is not None}, {(row[1], row[2]) for row in rows if row[1] is not None}


def forget(cursor: Cursor, *, ids: Sequence[UUID], groups: Sequence[str]) -> None:
    """Delete results that were kept only until they were read."""
    cursor.execute(sql("forget"), {"ids": list(ids), "groups": list(groups)})


def references(cursor: Cursor) -> dict[str, bool]:
    """Return the foreign keys that refer to finished tasks, "table (constraint name)", and whether each keeps them."""
    return {row[0]: row[1] for row in all_rows(cursor, "references", {})}


def task_state(cursor: Cursor, id: UUID) -> TaskState | None:
    """Return what is known of a task; None: there is none of that id."""
    rows = records(cursor, TaskState, "task_state", {"id": id})
    return next((row for row in rows if row.success is not None), rows[0] if rows else None)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a statement deleted."""

    #: The last id that it read. None: there are no more.
    last: UUID | None
    #: How many were deleted.
    count: int
    #: For each one that a foreign key of another table keeps, which.
    kept: list[str]


def prune(cursor: Cursor, *, keep: int, limit: int, per: str | None = None, before: UUID | None = None) -> Deleted:
    """Delete successful tasks beyond the newest `keep`, `limit` at most, newest first.

    Args:
        per: Keep so many of each "group", "name" or "func"; None: over all.
        before: Read only results with smaller ids; None: all. Without `per`, `keep` counts from there.
    """
    parameters = {"keep": keep, "per": per, "before": before or UUID(int=2**128 - 1)}
    return records(cursor, Deleted, "prune_per" if per else "prune", parameters, limit=limit)[0]


@dataclass(frozen=True, slots=True)
class Expiry(Deleted):
    """What `expire` has deleted, and where it goes on."""

    #: When the last result that it read was kept until, in Unix seconds. None: there are no more.
    until: float | None


def expire(cursor: Cursor, *, now: datetime, limit: int, behind: Expiry | None = None) -> Expiry:
    """Delete the results whose option `keep` is over, `limit` at most.

    Args:
        behind: What the call before has returned; None: begin with those that were over first.
    """
    began = behind is None or behind.until is None
    parameters = {
        "now": now,
        "until": -1e15 if began else behind.until,  # type: ignore[union-attr]  # it is there
        "after": UUID(int=0) if began else behind.last,  # type: ignore[union-attr]  # the same
    }
    return records(cursor, Expiry, "expire", parameters, limit=limit)[0]


def expired_count(cursor: Cursor, *, now: datetime) -> int:
    """Return how many results there are whose option `keep` is over."""
    return int(one_row(cursor, "expired_count", {"now": now})[0])


def make_partitions(cursor: Cursor) -> int:
    """Make the partitions of the coming weeks; return how many were new."""
    return int(one_row(cursor, "make_partitions", {})[0])


@dataclass(frozen=True, slots=True)
class Old:
    """Which results are old."""

    #: The newest id that may be deleted; None: none of them.
    successes_to: UUID | None
    failures_to: UUID | None
    #: Only results that finished before this time; None: all.
    before: datetime | None
    #: Only results of this queue; None: of all.
    queue: str | None

    def parameters(self) -> dict[str, Any]:
        return asdict(self)


def clean(cursor: Cursor, old: Old, *, after: UUID, to: UUID, limit: int, dry: bool = False) -> Deleted:
    """Delete the old ones among the next `limit` results in a range of ids; `dry`: count them."""
    parameters = {"after": after, "to": to, **old.parameters()}
    if dry:
        last, count = all_rows(cursor, "clean_count", parameters, limit=limit)[0]
        return Deleted(last, count, [])
    return records(cursor, Deleted, "clean", parameters, limit=limit)[0]


def clean_boundary(cursor: Cursor, *, success: bool, keep: int, queue: str | None) -> UUID | None:
    """Return the newest id beyond the newest `keep` of one outcome; None: there are not so many."""
    rows = all_rows(cursor, "clean_boundary", {"success": success, "keep": keep, "queue": queue})
    return rows[0][0] if rows else None


def task_partitions(cursor: Cursor) -> list[tuple[str, UUID, int]]:
    """Return the weekly partitions of pgq_task, oldest first: quoted name, end of the ids, size in bytes."""
    return [(row[0], row[1], row[2]) for row in all_rows(cursor, "task_partitions", {})]


def _part(partition: str) -> str:
    # PostgreSQL quoted the name (regclass); a percent sign in it is not a parameter.
    return partition.replace("%", "%%")


def lock_partition(cursor: Cursor, partition: str) -> None:
    """Keep all sessions from writing to a partition until the transaction ends."""
    run(cursor, "lock_partition", partition=_part(partition))


def partition_needed(cursor: Cursor, partition: str, old: Old) -> bool:
    """Whether a partition holds a row that is not old."""
    return bool(one_row(cursor, "partition_needed", old.parameters(), partition=_part(partition))[0])


def count_partition(cursor: Cursor, partition: str) -> int:
    """Return how many rows a partition has."""
    return int(one_row(cursor, "count_partition", {}, partition=_part(partition))[0])


def detach_partition(cursor: Cursor, partition: str) -> None:
    """Make a partition a table by itself."""
    run(cursor, "detach_partition", partition=_part(partition))


def drop_table(cursor: Cursor, table: str) -> None:
    """Drop what was a partition."""
    run(cursor, "drop_table", table=_part(table))


def _lock_partition_soon(cursor: Cursor, partition: str) -> None:
    # Later statements of other sessions would wait behind this one.
    limit_lock_wait(cursor, "300ms")
    lock_partition(cursor, partition)


def _drop_locked_partition(cursor: Cursor, partition: str) -> None:
    detach_partition(cursor, partition)
    drop_table(cursor, partition)


def drop_partition(cursor: Cursor, partition: str, old: Old) -> int | None:
    """Drop a partition if everything in it is old, in a transaction of its own; return how many rows it had.

    Raises:
        psycopg.errors.LockNotAvailable: The tables are busy.
        psycopg.errors.InsufficientPrivilege: Another role owns the tables.
        psycopg.errors.ForeignKeyViolation: Another table refers to one of the rows.
    """
    _lock_partition_soon(cursor, partition)
    # Checked again, now that no session can add a row.
    if partition_needed(cursor, partition, old):
        return None
    count = count_partition(cursor, partition)
    _drop_locked_partition(cursor, partition)
    return count


class Expired(NamedTuple):
    """A weekly partition of pgq_task that ended before some time."""

    #: Quoted.
    name: str
    #: End of its range of ids.
    upper: UUID
    #: Whether this role may drop it.
    droppable: bool
    #: Whether a task of that week is still in the queue.
    live: bool
    #: How many rows were ever written there, as far as PostgreSQL has counted.
    written: int


def expired(cursor: Cursor, before: datetime) -> list[Expired]:
    """Return the partitions that ended before a time, oldest first."""
    return records(cursor, Expired, "expired", {"before": before})


def expired_look(
    cursor: Cursor, partition: str, *, after: UUID, before: datetime, now: datetime, limit: int
) -> tuple[UUID | None, bool]:
    """Read the next `limit` results of a partition; return the last id (None: no more), and whether one is needed."""
    parameters = {"after": after, "before": before, "now": now}
    last, needed = one_row(cursor, "expired_look", parameters, partition=_part(partition), limit=limit)
    return last, needed


def drop_expired(cursor: Cursor, partition: Expired, before: datetime) -> bool:
    """Drop a partition, in a transaction of its own, unless it has changed since it was read.

    Raises:
        psycopg.errors.LockNotAvailable: The tables are busy.
        psycopg.errors.InsufficientPrivilege: Another role owns the tables.
        psycopg.errors.ForeignKeyViolation: Another table refers to one of the rows.
    """
    _lock_partition_soon(cursor, partition.name)
    if partition not in expired(cursor, before):
        return False
    _drop_locked_partition(cursor, partition.name)
    return True
