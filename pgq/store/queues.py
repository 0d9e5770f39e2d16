"""Statements that read one queue."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import records


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane of a queue: its ready tasks, counted up to a limit, and for how many seconds the first is ready."""

    priority: int
    low: int
    paused: bool
    ready: int
    oldest: float | None
    #: Ready tasks of this priority that have a key.
    keyed: int


def lanes_of(cursor: Cursor, queue: str, *, limit: int) -> list[LaneState]:
    """Return the lanes of a queue, the highest priority first, 50 at most."""
    return records(cursor, LaneState, "lanes_of", {"queue": queue}, limit=limit)


@dataclass(frozen=True, slots=True)
class ReadyTask:
    """A task that waits for nothing but a worker, ready since `seconds`."""

    id: UUID
    name: str | None
    func: str
    key: str | None
    priority: int
    attempts: int
    seconds: float


def head(cursor: Cursor, queue: str, *, limit: int) -> list[ReadyTask]:
    """Return the tasks of a queue that are claimed next."""
    return records(cursor, ReadyTask, "head", {"queue": queue}, limit=limit)
