"""Statements of the monitor's views that no other part needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import records


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one function with one exception, among the latest ones."""

    func: str
    exception: str
    number: int
    #: Of so many queues.
    queues: int
    #: Seconds since the first and the last of them ended.
    first: float
    last: float
    #: Of the last one, as its id.
    message: str | None
    id: UUID


def failure_groups(cursor: Cursor, *, limit: int) -> list[FailureGroup]:
    """Group the latest `limit` failures by function and exception, the largest group first."""
    return records(cursor, FailureGroup, "failure_groups", {}, limit=limit)


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A schedule: how it recurs (as `pgq.recurrence.Recurrence.of` takes it), when it fires next, and its last task."""

    id: int
    name: str | None
    func: str
    schedule_type: str
    minutes: int | None
    seconds: float | None
    cron: str | None
    time_zone: str | None
    day: int | None
    wall_time: Any
    paused: bool
    repeats: int
    error: str | None
    #: Seconds until it fires; None: never again.
    due: float | None
    #: Whether its last task has succeeded, and seconds since that ended; None: there is none, or it has not ended.
    succeeded: bool | None
    ago: float | None


def upcoming(cursor: Cursor, *, limit: int) -> list[Upcoming]:
    """Return schedules: first those with errors, then by when they fire."""
    return records(cursor, Upcoming, "upcoming", {"limit": limit})
