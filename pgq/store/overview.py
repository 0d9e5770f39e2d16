"""Statements that only read: depths, counts, running and failed tasks, findings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, one_row, records


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Live tasks by state, each counted up to a limit; `estimate` is PostgreSQL's, of all (-1: it has none)."""

    ready: int
    running: int
    waiting: int
    collecting: int
    parked: int
    estimate: int


def queue_counts(cursor: Cursor, *, limit: int) -> QueueCounts:
    """Count the live tasks by state, up to `limit` of each."""
    return records(cursor, QueueCounts, "queue_counts", {}, limit=limit)[0]


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """A queue: its tasks by state, and for how many seconds the first ready one has been ready."""

    queue: str
    ready: int
    #: There are more: a lane was counted up to the limit.
    more: bool
    oldest: float | None
    running: int
    waiting: int
    parked: int
    paused: bool


def lane_count(cursor: Cursor) -> int:
    """Return how many lanes there are."""
    return int(one_row(cursor, "lane_count", {})[0])


def queue_depths(cursor: Cursor, *, limit: int, most: int) -> list[QueueDepth]:
    """Return the queues in use; each of their lanes is counted up to `limit`, what is not ready up to `most` in all."""
    return records(cursor, QueueDepth, "queue_depths", {}, limit=limit, most=most)


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker runs."""

    id: UUID
    name: str | None
    func: str
    queue: str
    attempt: int
    cancelled: bool
    pool: str
    host: str
    pid: int | None
    #: Since it started, as of its pool's last heartbeat; None: that has no time for it.
    seconds: float | None


def running(cursor: Cursor, *, alive: float, limit: int) -> list[RunningTask]:
    """Return the tasks that run in pools with a heartbeat in the last `alive` seconds, longest first."""
    return records(cursor, RunningTask, "running", {"alive": alive, "limit": limit})


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A task that failed, `seconds` ago."""

    id: UUID
    name: str | None
    func: str
    queue: str
    exception: str
    message: str | None
    seconds: float


def latest_failures(cursor: Cursor, *, limit: int) -> list[FailedTask]:
    """Return failures, by the time when their tasks were enqueued, latest first."""
    return records(cursor, FailedTask, "latest_failures", {"limit": limit})


def finished_counts(cursor: Cursor, *, limit: int) -> tuple[int, int, int | None, int | None]:
    """Return successes and failures, counted up to `limit`, and the estimates of all results and of failures."""
    successes, failures, estimate, failures_estimate = all_rows(cursor, "finished_counts", {}, limit=limit)[0]
    return successes, failures, estimate, failures_estimate


def schedule_counts(cursor: Cursor) -> tuple[int, int, int]:
    """Return how many schedules there are, how many will fire again, how many could not be fired."""
    total, active, faulty = one_row(cursor, "schedule_counts", {})
    return total, active, faulty


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    #: "ok"; "warning": it will hurt; "problem": tasks do not run, or what should hold does not.
    status: str
    detail: str
    advice: str


def has_schema(cursor: Cursor) -> bool:
    """Return whether the tables are there."""
    return bool(one_row(cursor, "has_schema", {})[0])


def schema_version(cursor: Cursor) -> int:
    """Return the number of the newest file of migrations_sql that was run; 0: there are no tables."""
    if not has_schema(cursor):
        return 0
    return int(one_row(cursor, "schema_version", {})[0])


def check(cursor: Cursor, *, needed: int) -> list[Finding]:
    """Check what should hold; `needed` is the version of the schema that the caller's code was written for."""
    return records(cursor, Finding, "check", {"needed": needed})


def now(cursor: Cursor) -> datetime:
    """Return the database's time."""
    at: datetime = one_row(cursor, "now", {})[0]
    return at


def read_only(cursor: Cursor, *, seconds: float) -> None:
    """Have the caller's transaction write nothing from now on, and each statement take so many seconds at most."""
    one_row(cursor, "read_only", {"milliseconds": str(int(1000 * seconds))})
