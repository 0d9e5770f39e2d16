"""Tasks as REST shows them, queued or finished, and the bounded search for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from pgq.codec.failures import path_of
from pgq.errors import TaskCancelled
from pgq.ground import ids
from pgq.models import QueuedTask, Task
from pgq.recurrence import moments
from pgq.status import values
from pgq.urls.access import Caller

#: Rows of each table that one search reads at most, from where it begins.
WINDOW = 50_000
READY, RUNNING, WAITING, PARKED = "ready", "running", "waiting", "parked"
SUCCEEDED, FAILED = "succeeded", "failed"
LIVE, ENDED = (READY, RUNNING, WAITING, PARKED), (SUCCEEDED, FAILED)
STATES = (*LIVE, *ENDED)

_WAITING = Q(run_after__isnull=False) | Q(remaining__isnull=False)
_OF_STATE = {
    READY: Q(lock=None, run_after=None, parked=None, remaining=None),
    RUNNING: Q(lock__isnull=False),
    WAITING: Q(_WAITING, lock=None, parked=None),
    PARKED: Q(parked__isnull=False, lock=None),
    SUCCEEDED: Q(success=True),
    FAILED: Q(success=False),
}
#: The states of which an index has the rows by themselves: they are found wherever they are.
_INDEXED = frozenset({RUNNING, PARKED, FAILED})

#: As what a cancelled task ends.
_CANCELLED = path_of(TaskCancelled)

_QUEUED = (
    "id",
    "name",
    "func",
    "queue",
    "priority",
    "attempts",
    "max_attempts",
    "group",
    "hook",
    "schedule",
    "enqueued_at",
    "run_after",
    "remaining",
    "parked",
    "lock",
    "cancelled",
    "timeout",
)
_FINISHED = (
    "id",
    "name",
    "func",
    "queue",
    "priority",
    "attempt_count",
    "max_attempts",
    "group",
    "hook",
    "schedule",
    "enqueued_at",
    "started",
    "stopped",
    "success",
    "exception",
    "timeout",
    "cluster",
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks are meant. Times are those of the enqueue, to the millisecond, as the ids have them."""

    state: str | None = None
    queue: str | None = None
    func: str | None = None
    group: str | None = None
    exception: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    #: Tasks that were cancelled are no failures, unless `exception` says that they are meant.
    without_cancelled: bool = False

    @property
    def by_index(self) -> Q:
        """The part of the condition that an index serves; empty: there is none."""
        if self.group is not None:
            return Q(group=self.group)
        return _OF_STATE[self.state] if self.state in _INDEXED else Q()

    @property
    def is_narrow(self) -> bool:
        """Whether an index leads to the rows, and to no others."""
        more = [self.queue, self.func, self.exception, None if self.group is None else self.state]
        return bool(self.by_index) and not any(more) and not self.without_cancelled

    def condition(self) -> Q:
        """Return the condition on columns that both tables have."""
        given = {"queue": self.queue, "func": self.func, "group": self.group}
        condition = Q(**{name: value for name, value in given.items() if value is not None})
        if self.since is not None:
            condition &= Q(pk__gte=ids.smallest_at(self.since))
        if self.until is not None:
            condition &= Q(pk__lt=ids.smallest_at(self.until))
        return condition

    def of_queued(self) -> Q | None:
        """Return the condition on queued tasks; None: none is meant."""
        if self.state in ENDED or self.exception is not None:
            return None
        return self.condition() & _OF_STATE[self.state] if self.state else self.condition()

    def of_finished(self) -> Q | None:
        """Return the condition on finished tasks; None: none is meant."""
        if self.state in LIVE:
            return None
        condition = self.condition() & _OF_STATE[self.state] if self.state else self.condition()
        if self.exception is not None:
            return condition & Q(exception=self.exception, success=False)
        return condition & ~Q(exception=_CANCELLED) if self.without_cancelled else condition


@dataclass(frozen=True, slots=True)
class Page:
    """Tasks, the newest first."""

    rows: list[Mapping[str, Any]]
    #: Where the next page begins: before this id; None: there is no more.
    before: UUID | None


def search(
    database: str, caller: Caller, wanted: Filter, *, before: UUID | None, limit: int, live: bool | None = None
) -> Page:
    """Return the newest tasks that are meant, of those that the caller may see.

    A page may have fewer than `limit`, or none, and yet not be the last: WINDOW rows were looked at.

    Args:
        before: Only tasks with smaller ids.
        live: Only those of the queue, or only finished ones; None: both.
    """
    parts = [_newest(rows, wanted, before=before, limit=limit) for rows in _tables(database, caller, wanted, live)]
    merged = sorted((row for part in parts for row in part.rows), key=lambda row: row["id"], reverse=True)
    # What lies beyond the end of one table's window must wait until the other's has come as far.
    floors = [part.before for part in parts if part.before is not None]
    floor = max(floors, default=None)
    seen = [row for row in merged if floor is None or row["id"] >= floor.hex]
    if len(seen) > limit:
        return Page(seen[:limit], UUID(seen[limit - 1]["id"]))
    return Page(seen, floor)


def count(database: str, caller: Caller, wanted: Filter, *, live: bool | None, limit: int) -> tuple[int, bool]:
    """Return how many tasks are meant, `limit` at most, and whether those are all there are."""
    number, exact = 0, True
    for rows in _tables(database, caller, wanted, live):
        rows, floor = _within(rows, wanted, before=None)
        counted = rows.order_by()[: limit + 1].count()
        number += min(counted, limit)
        exact = exact and floor is None and counted <= limit
    return number, exact


def newest_id() -> UUID:
    """Return an id that no task has yet, larger than those of all tasks that were enqueued before now."""
    return UUID(int=int(moments.now().timestamp() * 1000 + 1) << 80)


def _tables(database: str, caller: Caller, wanted: Filter, live: bool | None) -> list[QuerySet[Any]]:
    chosen = (
        None if live is False else _queued_rows(database, caller, wanted),
        None if live is True else _finished_rows(database, caller, wanted),
    )
    return [rows for rows in chosen if rows is not None]


def _queued_rows(database: str, caller: Caller, wanted: Filter) -> QuerySet[Any] | None:
    condition = wanted.of_queued()
    if condition is None or not caller.may("read", "view_queuedtask"):
        return None
    rows: QuerySet[Any] = QueuedTask.objects.using(database).filter(condition).values(*_QUEUED)
    return rows


def _finished_rows(database: str, caller: Caller, wanted: Filter) -> QuerySet[Any] | None:
    condition = wanted.of_finished()
    allowed = finished_for(caller)
    if condition is None or allowed is None:
        return None
    rows: QuerySet[Any] = Task.objects.using(database).filter(condition, allowed).values(*_FINISHED)
    return rows


def finished_for(caller: Caller) -> Q | None:
    """Return the condition on the finished tasks that the caller may see; None: none."""
    seen = [
        Q(success=success)
        for success, permission in ((True, "view_success"), (False, "view_failure"))
        if caller.may("read", permission)
    ]
    if len(seen) == 2 or caller.may("read", "view_task"):
        return Q()
    return seen[0] if seen else None


def _newest(rows: QuerySet[Any], wanted: Filter, *, before: UUID | None, limit: int) -> Page:
    rows, floor = _within(rows, wanted, before=before)
    found = list(rows.order_by("-pk")[: limit + 1])
    if len(found) > limit:
        return Page(found, UUID(found[limit - 1]["id"]))
    return Page(found, floor)


def _within(rows: QuerySet[Any], wanted: Filter, *, before: UUID | None) -> tuple[QuerySet[Any], UUID | None]:
    """Return the rows of the window, and the id of its last row if there are more beyond."""
    everything = rows.model._default_manager.using(rows.db).filter(wanted.by_index).order_by("-pk")
    if before is not None:
        rows, everything = rows.filter(pk__lt=before), everything.filter(pk__lt=before)
    floor = None
    if not wanted.is_narrow:
        ends = list(everything.values_list("pk", flat=True)[WINDOW - 1 : WINDOW + 1])
        if len(ends) == 2:
            floor = UUID(str(ends[0]))
            rows = rows.filter(pk__gte=floor)
    return rows, floor


# ------------------------------------------------------------------------------------------------- as JSON


def at(value: datetime | None) -> str | None:
    """Return a moment in UTC, as RFC 3339 has it."""
    if value is None:
        return None
    return moments.aware(value).astimezone(UTC).isoformat().replace("+00:00", "Z")


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of either table without its values."""
    is_finished = "success" in row
    shared = {
        "id": row["id"],
        "name": row["name"] or ids.task_name(id_of(row["id"])),
        "func": row["func"],
        "queue": row["queue"],
        "state": (SUCCEEDED if row["success"] else FAILED) if is_finished else state_of(row),
        "priority": row["priority"],
        "attempts": row["attempt_count" if is_finished else "attempts"],
        "max_attempts": row["max_attempts"],
        "timeout": row["timeout"],
        "group": row["group"],
        "hook": row["hook"],
        "schedule": row["schedule"],
        "enqueued_at": at(row["enqueued_at"]),
    }
    if is_finished:
        return {
            **shared,
            "started_at": at(row["started"]),
            "stopped_at": at(row["stopped"]),
            "seconds": (row["stopped"] - row["started"]).total_seconds(),
            "exception": row["exception"],
            "cluster": row["cluster"],
        }
    return {
        **shared,
        "run_after": at(row["run_after"]),
        "claimed_at": at(row["lock"]),
        "waits_for": row["remaining"],
        "parked": row["parked"],
        "cancelled": row["cancelled"],
    }


def state_of(row: Mapping[str, Any]) -> str:
    """Return the state of a row of the queue."""
    if row["lock"] is not None:
        return RUNNING
    if row["parked"] is not None:
        return PARKED
    return WAITING if row["run_after"] is not None or row["remaining"] is not None else READY


def one(database: str, caller: Caller, id: UUID) -> dict[str, Any] | None:
    """Return a task without its values, wherever it is; None: it is not there, or the caller may not see it."""
    only = Filter()
    for rows in (_queued_rows(database, caller, only), _finished_rows(database, caller, only)):
        row = None if rows is None else rows.filter(pk=id).first()
        if row is not None:
            return as_json(row)
    return None


_TEXTS = ("message", "traceback")


def payload(database: str, id: UUID, *, ended: bool) -> dict[str, Any]:
    """Return the values of a task: what it was called with, and what became of it; secrets masked.

    Args:
        ended: In which table it is. It may have left it since, and whether it may be seen in the other is not known.
    """
    names = ("args", "kwargs", "options", *(("value",) if ended else ()))
    rows: Any = Task.objects.using(database) if ended else QueuedTask.objects.using(database)
    row = rows.only("id", *names, *(_TEXTS if ended else ())).filter(pk=id).first()
    if row is None:
        return {}
    found = {("result" if name == "value" else name): values.for_programs(row, name) for name in names}
    if ended:
        for name in _TEXTS:
            text = row.__dict__[name]
            found[name] = None if text is None else text[: values.LONGEST]
    return found


def id_of(value: Any) -> UUID:
    return UUID(str(value))
