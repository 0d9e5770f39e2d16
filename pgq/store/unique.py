"""Statements about unique keys: taken by a new task, held by a live one, or taken for a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal
from uuid import UUID

from pgq.records import NewTask
from pgq.store.connection import Cursor
from pgq.store.queue import given, insertion
from pgq.store.statement import all_rows, one_row, records
from pgq.store.texts import sql


@cache
def _enqueue_unique_text(columns: tuple[str, ...]) -> str:
    return sql("enqueue_unique", **insertion(columns))


def _with_key(task: NewTask) -> dict[str, Any]:
    """Return the columns of a task that differ from the table's defaults, its unique key among them."""
    columns = given(task)
    if task.unique is not None and isinstance(task.unique.until, str):
        columns |= {"unique_key": task.unique.key, "unique_until": task.unique.until}
    return columns


def enqueue_unique(cursor: Cursor, task: NewTask) -> bool:
    """Write one task unless a live one has its unique key; return whether it was written."""
    columns = _with_key(task)
    cursor.execute(_enqueue_unique_text(tuple(columns)), tuple(columns.values()))
    return cursor.rowcount == 1


#: The columns of `enqueue_unique_many`.
_MANY = (
    *("id", "func", "args", "kwargs", "options", "queue", "priority", "name", "group", "hook", "timeout"),
    *("max_attempts", "run_after", "key", "expires_at", "signature"),
)


def enqueue_unique_many(cursor: Cursor, tasks: Sequence[NewTask]) -> set[UUID]:
    """Write those of the tasks whose unique keys no live task has; return their ids."""
    parameters: dict[str, Any] = {column: [getattr(task, column) for task in tasks] for column in _MANY}
    parameters["unique_key"] = [task.unique and task.unique.key for task in tasks]
    parameters["unique_until"] = [task.unique and task.unique.until for task in tasks]
    return {row[0] for row in all_rows(cursor, "enqueue_unique_many", parameters)}


def holders(cursor: Cursor, keys: Iterable[str]) -> dict[str, UUID]:
    """Return the ids of the live tasks that have these unique keys, by key."""
    return {row[0]: row[1] for row in all_rows(cursor, "holders", {"keys": list(keys)})}


@dataclass(frozen=True, slots=True)
class Holder:
    """A live task that has a unique key. It is locked until the transaction ends."""

    id: UUID
    runs: bool
    #: Whether it stays as it is: it is parked or cancelled, waits for other tasks, or a task waits for it.
    stands: bool
    run_after: datetime | None
    enqueued_at: datetime
    queue: str
    priority: int
    key: str | None
    #: The time of the database.
    now: datetime


def hold(cursor: Cursor, column: Literal["id", "unique_key"], value: str | UUID) -> Holder | None:
    """Lock and return the live task with that id or unique key, or None."""
    found = records(cursor, Holder, "hold", {"value": value}, column=column)
    return found[0] if found else None


def taken_by(cursor: Cursor, key: str) -> UUID | None:
    """Return the task that has taken a unique key for a time which is not over, or None."""
    rows = all_rows(cursor, "taken_by", {"key": key})
    return rows[0][0] if rows else None


def take_key(cursor: Cursor, key: str, task: UUID, *, seconds: float) -> bool:
    """Take a unique key for a time; return whether no other task has it."""
    return bool(all_rows(cursor, "take_key", {"key": key, "task": task, "seconds": seconds}))


def free_key(cursor: Cursor, key: str) -> None:
    """Take a unique key from the task that has taken it for a time."""
    cursor.execute(sql("free_key"), {"key": key})


@cache
def _replace_text(columns: tuple[str, ...], keeps_place: bool) -> str:
    position = "old.position" if keeps_place else "nextval('pgq_position')"
    return sql("replace", position=position, **insertion(columns))


def replace(cursor: Cursor, task: NewTask, *, keeps_place: bool) -> bool:
    """Put a task in the place of the one that has its id and does not run; return whether there was one.

    Args:
        keeps_place: Whether it keeps the position of that one. Only in the same lane, where it was ready.
    """
    columns = _with_key(task)
    cursor.execute(_replace_text(tuple(columns), keeps_place), (task.id, *columns.values()))
    return cursor.rowcount == 1


def reschedule(cursor: Cursor, id: UUID, run_after: datetime | None) -> bool:
    """Give a task that does not run another time; return whether it did."""
    return bool(one_row(cursor, "reschedule", {"id": id, "run_after": run_after})[0])


def let_go(cursor: Cursor, id: UUID) -> None:
    """Take its unique key from a live task."""
    cursor.execute(sql("let_go"), {"id": id})


def prune_keys(cursor: Cursor, *, limit: int) -> int:
    """Delete keys that were taken for a time which is over; return how many."""
    cursor.execute(sql("prune_keys"), {"limit": limit})
    return cursor.rowcount
