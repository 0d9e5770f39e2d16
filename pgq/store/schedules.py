"""Statements about schedules: what is due, firing, ending."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from pgq.codec.stored import stored_text
from pgq.conf import ALL, Queues
from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, one_row, records
from pgq.store.texts import sql


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule that is due, as due_schedules.sql returns it."""

    id: int
    name: str | None
    func: str
    hook: str | None
    args: str
    kwargs: str
    options: str
    queue: str | None
    priority: int
    schedule_type: str
    minutes: int | None
    seconds: float | None
    cron: str | None
    repeats: int
    next_run: datetime
    time_zone: str | None
    catch_up: bool | None
    overlap: str
    jitter: float
    intended_date_kwarg: str | None
    day: int | None
    wall_time: Any
    task: UUID | None
    signature: bytes | None
    now: datetime

    @classmethod
    def of(cls, row: Any, *, now: datetime) -> Due:
        """Return the same from a row of the model `pgq.models.Schedule`, which has a field for each but `now`."""
        given = {field.name: getattr(row, field.name) for field in fields(cls) if field.name != "now"}
        texts = {name: stored_text(row, name) for name in ("args", "kwargs", "options")}
        signature = None if row.signature is None else bytes(row.signature)
        return cls(**{**given, **texts, "signature": signature, "now": now})


def due_schedules(cursor: Cursor, *, queues: Queues = ALL, limit: int, now: datetime | None) -> list[Due]:
    """Lock and return the schedules that are due; `now` None: by the database's clock."""
    parameters = {**queues.parameters(), "limit": limit, "now": now}
    return records(cursor, Due, "due_schedules", parameters, **queues.operators())


def fire(
    cursor: Cursor,
    *,
    id: int,
    slot: datetime,
    next_run: datetime | None,
    repeats: int,
    day: int | None,
    wall_time: Any,
    task: UUID | None,
    last_slot: datetime | None,
) -> bool:
    """Move a schedule on from `slot`; return whether it still stood there."""
    after = {"next_run": next_run, "repeats": repeats, "day": day, "wall_time": wall_time}
    return bool(all_rows(cursor, "fire", {"id": id, "slot": slot, **after, "task": task, "last_slot": last_slot}))


def name_task(cursor: Cursor, id: int, task: UUID | None) -> None:
    """Write another task as the last one of a schedule."""
    cursor.execute(sql("name_task"), {"id": id, "task": task})


def fault_schedule(cursor: Cursor, id: int, error: str, *, pause: float) -> None:
    """Write why a schedule could not be fired; it is tried again in `pause` seconds."""
    cursor.execute(sql("fault_schedule"), {"id": id, "error": error, "pause": pause})


def end_schedule(cursor: Cursor, id: int) -> None:
    """Remove a schedule that was to run once, and has."""
    cursor.execute(sql("end_schedule"), {"id": id})


def schedule_references(cursor: Cursor) -> str | None:
    """Return the deferred foreign keys to schedules as a list of quoted names; None: there are none."""
    names: str | None = one_row(cursor, "schedule_references", {})[0]
    return names


def set_constraints(cursor: Cursor, names: str, mode: str) -> None:
    """Let PostgreSQL check constraints now and at once ("IMMEDIATE"), or at the end of the transaction ("DEFERRED")."""
    # PostgreSQL quoted the names; psycopg leaves a percent sign in them alone, since there are no parameters.
    cursor.execute(sql("set_constraints", names=names, mode=mode))


def check_references(cursor: Cursor) -> None:
    """Let PostgreSQL check the deferred foreign keys to schedules now, and defer them again.

    Raises:
        psycopg.IntegrityError, django.db.IntegrityError: A row refers to a schedule that is gone.
    """
    names = schedule_references(cursor)
    if names:
        set_constraints(cursor, names, "IMMEDIATE")
        set_constraints(cursor, names, "DEFERRED")


def live_of_schedule(cursor: Cursor, schedule: int) -> tuple[int, int]:
    """Return how many tasks of a schedule run, and how many wait."""
    running, waiting = one_row(cursor, "live_of_schedule", {"schedule": schedule})
    return running, waiting


def lock_sync(cursor: Cursor) -> None:
    """Wait until no other transaction syncs the schedules with code; keep others out until this one ends."""
    cursor.execute(sql("lock_sync"))
