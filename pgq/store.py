"""The statements of pgq: one function for each file in `pgq/sql`, and no SQL anywhere else at run time.

Each takes a cursor: Django's for what a caller does (enqueue), psycopg's for what a worker does. They neither begin nor
commit a transaction. Any of them may raise what psycopg or Django raises for a lost connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import UUID

from pgq.db import Cursor
from pgq.records import Claim, NewTask

#: The sizes a claim may have; each is a statement of its own, see claim.sql.
CLAIM_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Row = tuple[Any, ...]


@cache
def sql(name: str, **literals: int) -> str:
    """Return the text of ``sql/NAME.sql``, with whole numbers put in for ``{names}``."""
    text = (files("pgq") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    # Comments are for readers; psycopg would take a percent sign in them for a parameter.
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return text.format(**literals) if literals else text


def _all(cursor: Cursor, name: str, parameters: dict[str, Any], **literals: int) -> list[Row]:
    cursor.execute(sql(name, **literals), parameters)
    return cursor.fetchall()


def _one(cursor: Cursor, name: str, parameters: dict[str, Any]) -> Row:
    cursor.execute(sql(name), parameters)
    row: Row | None = cursor.fetchone()
    assert row is not None, f"{name}.sql returns a row"
    return row


def _array(texts: Sequence[str | None]) -> str:
    """Return texts as the literal of a PostgreSQL array. psycopg's own way costs six times as much, in every task."""
    return "{" + ",".join([_element(text) for text in texts]) + "}"


def _element(text: str | None) -> str:
    if text is None:
        return "NULL"
    # Quoted in any case: NULL, the empty text, commas and braces mean something to an array.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# ------------------------------------------------------------------------------------------------- enqueue

_COLUMNS = (
    "id", "func", "args", "kwargs", "options", "queue", "priority", "name", "group", "hook", "timeout", "max_attempts",
    "run_after", "remaining", "schedule", "slot", "signature",
)  # fmt: skip


#: What the table says, and what a task therefore need not.
_DEFAULTS = {"kwargs": "{}", "options": "{}", "queue": "default", "priority": 0, "max_attempts": 1}
#: A time that has come is no reason to wait for the tick; only the clock of the database says so.
_RUN_AFTER = "CASE WHEN %(run_after)s::timestamptz > clock_timestamp() THEN %(run_after)s::timestamptz END"


@cache
def _enqueue_sql(columns: tuple[str, ...]) -> str:
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(_RUN_AFTER if column == "run_after" else f"%({column})s" for column in columns)
    return sql("enqueue").replace("{columns}", names).replace("{values}", values)


def enqueue(cursor: Cursor, task: NewTask) -> None:
    """Write one task."""
    values = {column: getattr(task, column) for column in _COLUMNS}
    given = {column: value for column, value in values.items() if value is not None and value != _DEFAULTS.get(column)}
    cursor.execute(_enqueue_sql(tuple(given)), given)


def enqueue_many(cursor: Cursor, tasks: Sequence[NewTask]) -> None:
    """Write many tasks in one statement; they become ready in their order."""
    cursor.execute(sql("enqueue_many"), {column: [getattr(task, column) for task in tasks] for column in _COLUMNS})


def enqueue_from(cursor: Cursor, query: str, parameters: Sequence[Any], model: NewTask) -> int:
    """Write a task for each row of a query that yields args; everything else is as in `model`. Return how many."""
    fixed = (model.func, model.kwargs, model.options, model.queue, model.priority, model.name, model.group, model.hook,
             model.timeout, model.max_attempts, model.run_after)  # fmt: skip
    cursor.execute(sql("enqueue_from").replace("{query}", query), (*fixed, *parameters))
    return cursor.rowcount


# ------------------------------------------------------------------------------------------------- claim


def claim(
    cursor: Cursor, *, limit: int, worker: UUID, receipt: UUID, queues: Sequence[str] | None, turn: int
) -> list[Claim]:
    """Claim up to `limit` tasks (one of CLAIM_SIZES), in the order in which they should run."""
    parameters = {
        "queues": list(queues) if queues is not None else None,
        "turn": turn,
        "worker": worker,
        "receipt": receipt,
    }
    rows = _all(cursor, "claim", parameters, limit=limit)
    if len(rows) > 1:
        # RETURNING follows the join, not the lanes.
        rows.sort(key=lambda row: (-row[1], row[2]))
    return [Claim(*row) for row in rows]


def claim_one(cursor: Cursor, id: UUID, *, worker: UUID, receipt: UUID) -> Claim | None:
    """Claim one task, ready or not; None if it is gone or runs already."""
    rows = _all(cursor, "claim_one", {"id": id, "worker": worker, "receipt": receipt})
    return Claim(*rows[0]) if rows else None


@dataclass(frozen=True, slots=True)
class Settlement:
    """One finished task as settle.sql takes it. `started` and `stopped` are seconds before now."""

    id: UUID
    receipt: UUID
    success: bool
    keep: bool
    started: float
    stopped: float
    result: str | None
    exception: str | None
    message: str | None
    traceback: str | None


def settle(cursor: Cursor, settlements: Sequence[Settlement], *, cluster: str) -> set[UUID]:
    """Move finished tasks from pgq_queue to pgq_task; return the ids of those whose receipt was good."""
    parameters: dict[str, Any] = {
        "id": _array([item.id.hex for item in settlements]),
        "receipt": _array([item.receipt.hex for item in settlements]),
        "success": _array(["t" if item.success else "f" for item in settlements]),
        "keep": _array(["t" if item.keep else "f" for item in settlements]),
        "started": _array([repr(item.started) for item in settlements]),
        "stopped": _array([repr(item.stopped) for item in settlements]),
        "result": _array([item.result for item in settlements]),
        "exception": _array([item.exception for item in settlements]),
        "message": _array([item.message for item in settlements]),
        "traceback": _array([item.traceback for item in settlements]),
        "cluster": cluster,
    }
    return {row[0] for row in _all(cursor, "settle", parameters)}


def retry(cursor: Cursor, retries: Sequence[tuple[UUID, UUID, float, str]]) -> set[UUID]:
    """Put failed tasks back: (id, receipt, delay in seconds, error as JSON). Return the ids put back."""
    id, receipt, delay, error = map(list, zip(*retries, strict=True))
    return {row[0] for row in _all(cursor, "retry", {"id": id, "receipt": receipt, "delay": delay, "error": error})}


def park(cursor: Cursor, parked: Sequence[tuple[UUID, UUID, str]]) -> set[UUID]:
    """Park tasks that cannot be run: (id, receipt, reason). Return the ids parked."""
    id, receipt, reason = map(list, zip(*parked, strict=True))
    return {row[0] for row in _all(cursor, "park", {"id": id, "receipt": receipt, "reason": reason})}


def release(cursor: Cursor, claims: Sequence[Claim]) -> set[UUID]:
    """Give back tasks that were not started. Return the ids given back."""
    parameters = {"id": [claim.id for claim in claims], "receipt": [claim.receipt for claim in claims]}
    return {row[0] for row in _all(cursor, "release", parameters)}


def collect(cursor: Cursor, counts: dict[UUID, int]) -> None:
    """Tell collectors how many of their tasks have settled now."""
    _all(cursor, "collect", {"id": list(counts), "count": list(counts.values())})


def forget(cursor: Cursor, *, ids: Sequence[UUID], groups: Sequence[str]) -> None:
    """Delete results that were kept only until somebody had read them."""
    cursor.execute(sql("forget"), {"ids": list(ids), "groups": list(groups)})


def lock_groups(cursor: Cursor, groups: Iterable[str]) -> None:
    """Be the only settler of these groups until the transaction ends."""
    _all(cursor, "lock_groups", {"groups": list(groups)})


# ------------------------------------------------------------------------------------------------- control


def cancel(cursor: Cursor, id: UUID) -> str:
    """Cancel a task; return queued, running, finished or unknown."""
    return str(_one(cursor, "cancel", {"id": id})[0])


def retry_finished(cursor: Cursor, id: UUID) -> bool:
    """Run a finished task again, or release a parked or waiting one; return whether there was one."""
    return bool(_one(cursor, "retry_finished", {"id": id})[0])


def pause(cursor: Cursor, queue: str) -> None:
    """Stop claims from a queue."""
    _all(cursor, "pause", {"queue": queue})


def resume(cursor: Cursor, queue: str) -> None:
    """Allow claims from a queue again."""
    _all(cursor, "resume", {"queue": queue})


# ------------------------------------------------------------------------------------------------- leases


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal found: the database's time, and the (task, worker) pairs that should be cancelled."""

    at: datetime
    cancelled: list[tuple[UUID, UUID]]


def renew(cursor: Cursor, workers: Sequence[UUID], *, since: datetime, age: float) -> Renewal:
    """Renew the leases of these workers that are older than `age` seconds and not older than `since`."""
    rows = _all(cursor, "renew", {"workers": list(workers), "since": since, "age": age})
    return Renewal(rows[0][0], [(row[1], row[2]) for row in rows if row[3]])


def cancelled(cursor: Cursor, workers: Sequence[UUID], *, since: datetime) -> list[tuple[UUID, UUID]]:
    """Return (task, worker) for the running tasks that somebody has cancelled."""
    return [(row[0], row[1]) for row in _all(cursor, "cancelled", {"workers": list(workers), "since": since})]


def rescue(
    cursor: Cursor,
    *,
    workers: Sequence[UUID] | None,
    since: datetime,
    age: float,
    culprits: Sequence[UUID] | None,
    crash: bool,
    error: str,
) -> list[tuple[UUID, bool]]:
    """Make lost tasks ready again; return (id, whether it was charged). See rescue.sql."""
    parameters = {
        "workers": list(workers) if workers is not None else None,
        "since": since,
        "age": age,
        "culprits": list(culprits) if culprits is not None else None,
        "crash": crash,
        "error": error,
    }
    return [(row[0], row[1]) for row in _all(cursor, "rescue", parameters)]


def oldest_lease(cursor: Cursor, *, since: datetime) -> tuple[datetime, datetime | None]:
    """Return the database's time and the oldest lease from `since` on."""
    now, lock = _one(cursor, "oldest_lease", {"since": since})
    return now, lock


# ------------------------------------------------------------------------------------------------- waking


def peek(cursor: Cursor, *, milliseconds: int, queues: Sequence[str] | None) -> tuple[int, bool]:
    """Raise the flag that says a worker sleeps; return its value and whether something is ready."""
    said, ready = _one(
        cursor, "peek", {"milliseconds": milliseconds, "queues": list(queues) if queues is not None else None}
    )
    return said, ready


def all_awake(cursor: Cursor, *, said: int) -> None:
    """Lower the flag, unless another pool has raised it since."""
    _all(cursor, "all_awake", {"said": said})


def wake(cursor: Cursor) -> None:
    """Notify sleeping workers, if any."""
    _all(cursor, "wake", {})


# ------------------------------------------------------------------------------------------------- pools


def heartbeat(
    cursor: Cursor,
    *,
    id: UUID,
    name: str,
    host: str,
    pid: int,
    queues: Sequence[str] | None,
    status: str,
    version: str,
    workers: str,
) -> None:
    """Say that a pool is alive; `workers` is JSON."""
    parameters: dict[str, Any] = {
        "id": id, "name": name, "host": host, "pid": pid, "queues": list(queues) if queues is not None else None,
        "status": status, "version": version, "workers": workers,
    }  # fmt: skip
    cursor.execute(sql("heartbeat"), parameters)


def goodbye(cursor: Cursor, id: UUID) -> None:
    """Say that a pool has stopped."""
    cursor.execute(sql("goodbye"), {"id": id})


def forget_pools(cursor: Cursor, *, age: float) -> int:
    """Remove pools that have been silent for `age` seconds; return how many."""
    cursor.execute(sql("forget_pools"), {"age": age})
    return cursor.rowcount


# ------------------------------------------------------------------------------------------------- upkeep


def lead(cursor: Cursor) -> bool:
    """Become the leader for the rest of the transaction; return whether that worked."""
    return bool(_one(cursor, "lead", {})[1])


@dataclass(frozen=True, slots=True)
class Outlook:
    """What upkeep has to do."""

    tasks_due: bool
    schedules_due: bool
    #: Seconds until the next of either; None: there is none.
    next_in: float | None
    #: The last position drawn.
    position: int


def outlook(cursor: Cursor) -> Outlook:
    """Look at what is due, and when something will be."""
    return Outlook(*_one(cursor, "outlook", {}))


def due(cursor: Cursor, *, limit: int) -> int:
    """Make waiting tasks ready whose time has come; return how many."""
    return int(_one(cursor, "due", {"limit": limit})[0])


def last_position(cursor: Cursor) -> int:
    """Return the last position that was drawn."""
    return int(_one(cursor, "sequence", {})[0])


def writers(cursor: Cursor, among: Iterable[str] | None = None) -> list[str]:
    """Return the transactions that may hold a position nobody else sees yet."""
    return [row[0] for row in _all(cursor, "writers", {"among": list(among) if among is not None else None})]


def advance(cursor: Cursor, *, safe: int) -> int:
    """Move the watermarks up, to `safe` at most; return how many moved. Needs a transaction of its own."""
    # Two statements, so that the second one's snapshot is taken after the lanes are locked.
    cursor.execute(sql("lock_lanes"), {"safe": safe})
    cursor.execute(sql("advance"), {"safe": safe})
    return cursor.rowcount


def sweep(cursor: Cursor) -> list[tuple[str, int]]:
    """Mend watermarks that are too high and lanes that are missing; return the lanes mended."""
    return [(row[0], row[1]) for row in _all(cursor, "sweep", {})]


def prune(cursor: Cursor, *, keep: int, limit: int) -> int:
    """Delete up to `limit` of the oldest successful tasks beyond the newest `keep`; return how many."""
    cursor.execute(sql("prune"), {"keep": keep, "limit": limit})
    return cursor.rowcount


def make_partitions(cursor: Cursor) -> int:
    """Make the partitions of the coming weeks; return how many were new."""
    return int(_one(cursor, "partitions", {})[0])


# ------------------------------------------------------------------------------------------------- schedules


def due_schedules(cursor: Cursor, *, queues: Sequence[str] | None, limit: int, now: datetime | None) -> list[Row]:
    """Lock and return the schedules that are due, in the order of `pgq.schedule.Due`; `now` None: by the database's."""
    return _all(
        cursor, "due_schedules", {"queues": list(queues) if queues is not None else None, "limit": limit, "now": now}
    )


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
    parameters = {
        "id": id, "slot": slot, "next_run": next_run, "repeats": repeats, "day": day, "wall_time": wall_time,
        "task": task, "last_slot": last_slot,
    }  # fmt: skip
    return bool(_all(cursor, "fire", parameters))


def fault_schedule(cursor: Cursor, id: int, error: str) -> None:
    """Note why a schedule could not be fired, and try it again in a minute."""
    cursor.execute(sql("fault_schedule"), {"id": id, "error": error})


def end_schedule(cursor: Cursor, id: int) -> None:
    """Remove a schedule that was to run once, and has."""
    cursor.execute(sql("end_schedule"), {"id": id})


def live_of_schedule(cursor: Cursor, schedule: int) -> tuple[int, int]:
    """Return how many tasks of a schedule run, and how many wait."""
    running, waiting = _one(cursor, "live_of_schedule", {"schedule": schedule})
    return running, waiting


# ------------------------------------------------------------------------------------------------- results


def await_settled(cursor: Cursor, *, milliseconds: int) -> None:
    """Say that somebody waits for results."""
    _all(cursor, "await_settled", {"milliseconds": milliseconds})
