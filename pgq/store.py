"""The statements of pgq: one function for each file in `pgq/sql`, and no SQL anywhere else at run time.

Each takes a cursor: Django's for what a caller does (enqueue), psycopg's for what a worker does. They neither begin nor
commit a transaction. Any of them may raise what psycopg or Django raises for a lost connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from pgq.db import Cursor
from pgq.records import Blame, Claim, NewTask
from pgq.store_statement import sql
from pgq.stored import stored_text

#: The sizes a claim may have; each is a statement of its own, see claim.sql.
CLAIM_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Row = tuple[Any, ...]
T = TypeVar("T")


def _all(cursor: Cursor, name: str, parameters: dict[str, Any], **parts: int | str) -> list[Row]:
    cursor.execute(sql(name, **parts), parameters)
    return cursor.fetchall()


def _one(cursor: Cursor, name: str, parameters: dict[str, Any], **parts: int | str) -> Row:
    cursor.execute(sql(name, **parts), parameters)
    row: Row | None = cursor.fetchone()
    assert row is not None, f"{name}.sql returns a row"
    return row


def records(
    cursor: Cursor, kind: Callable[..., T], name: str, parameters: dict[str, Any], **parts: int | str
) -> list[T]:
    """Return a record for each row: the columns are named as its fields."""
    cursor.execute(sql(name, **parts), parameters)
    columns = [column[0] for column in cursor.description or ()]
    return [kind(**dict(zip(columns, row, strict=True))) for row in cursor.fetchall()]


def run(cursor: Cursor, name: str, **parts: int | str) -> None:
    # The empty parameters have psycopg take "%%" for a percent sign, as in every other statement.
    cursor.execute(sql(name, **parts), {})


# Arrays are written as literals, all elements of one at once. psycopg's own way costs ten times as much, in each task.


def _texts(texts: Sequence[str | None]) -> str:
    """Return texts as the literal of an array. Nothing but NULLs is the empty array: unnest fills it up again."""
    missing = texts.count(None)
    if missing == len(texts):
        return "{}"
    joined = "" if missing else "\0".join(texts)  # type: ignore[arg-type]  # None is not among them
    # No text of PostgreSQL can hold NUL. If one of these does, it has to be refused, not taken for two.
    if missing or joined.count("\0") >= len(texts):
        return "{" + ",".join([_element(text) for text in texts]) + "}"
    return "{" + _element(joined).replace("\0", '","') + "}"


def _element(text: str | None) -> str:
    if text is None:
        return "NULL"
    # Quoted in any case: NULL, the empty text, commas and braces mean something to an array.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ids(ids: Sequence[UUID]) -> str:
    first = ids[0]
    # The receipts of a claim are one object.
    if all(id is first for id in ids):
        return "{" + ",".join([first.hex] * len(ids)) + "}"
    return "{" + ",".join([id.hex for id in ids]) + "}"


def _flags(flags: Sequence[bool]) -> str:
    return "{" + ",".join(["t" if flag else "f" for flag in flags]) + "}"


def _microseconds(seconds: Sequence[float]) -> str:
    # Whole numbers: the shortest text of a float takes ten times as long to find.
    return "{" + str([int(number * 1e6) for number in seconds])[1:-1] + "}"


# ------------------------------------------------------------------------------------------------- enqueue

_COLUMNS = NewTask._fields
#: What the table says, and what a task therefore need not.
_DEFAULTS = {"kwargs": "{}", "options": "{}", "queue": "default", "priority": 0, "max_attempts": 1}
_DEFAULT_VALUES = tuple(_DEFAULTS.get(column) for column in _COLUMNS)
#: A time that has come is no reason to wait for the tick; only the clock of the database says so.
_RUN_AFTER = "nullif(greatest(%s::timestamptz, statement_timestamp()), statement_timestamp())"


def _given(task: NewTask) -> dict[str, Any]:
    """Return what a task says that the table does not say anyway."""
    values = zip(_COLUMNS, task, _DEFAULT_VALUES, strict=True)
    return {
        column: value
        for column, value, default in values
        if value is not None and (default is None or value != default)
    }


def _quoted(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


@cache
def _enqueue_text(columns: tuple[str, ...]) -> str:
    values = ", ".join(_RUN_AFTER if column == "run_after" else "%s" for column in columns)
    return sql("enqueue", columns=_quoted(columns), values=values)


def enqueue(cursor: Cursor, task: NewTask) -> None:
    """Write one task. Its parameters go by place: names take psycopg twice as long."""
    given = _given(task)
    cursor.execute(_enqueue_text(tuple(given)), tuple(given.values()))


#: What the tasks of a schedule say besides, as parts of enqueue_many.sql.
_SCHEDULED = {"columns": ", schedule, slot", "arrays": ", %(schedule)s::bigint[], %(slot)s::timestamptz[]"}
_UNSCHEDULED = {"columns": "", "arrays": ""}


def enqueue_many(cursor: Cursor, tasks: Sequence[NewTask]) -> None:
    """Write many tasks in one statement; they become ready in their order."""
    parts = _SCHEDULED if any(task.schedule is not None for task in tasks) else _UNSCHEDULED
    parameters = {column: [task[at] for task in tasks] for at, column in enumerate(_COLUMNS)}
    cursor.execute(sql("enqueue_many", **parts), parameters)


#: What differs between calls that are enqueued together. The id as 32 hex digits.
_OF_CALLS = ("id", "args", "kwargs", "signature")
CallRow: TypeAlias = tuple[str, str, str, bytes]


def enqueue_calls(cursor: Cursor, model: NewTask, rows: Iterable[CallRow]) -> None:
    """Write many tasks that are like the model but for what their rows say; they become ready in their order."""
    shared = {column: value for column, value in _given(model).items() if column not in _OF_CALLS}
    fixed = tuple(shared.values())
    text = sql("enqueue_calls", columns=_quoted((*_OF_CALLS, *shared)))
    # What goes wrong on Django's cursor is one of Django's errors, here as everywhere.
    errors = cursor.db.wrap_database_errors if isinstance(cursor, CursorWrapper) else contextlib.nullcontext()
    with errors, cursor.copy(text) as copy:
        for row in rows:
            copy.write_row(row + fixed)


def enqueue_from(cursor: Cursor, query: str, parameters: Sequence[Any], model: NewTask) -> int:
    """Write a task for each row of a query that yields args; everything else is as in `model`. Return how many."""
    fixed = (model.func, model.kwargs, model.options, model.queue, model.priority, model.name, model.group, model.hook,
             model.timeout, model.max_attempts, model.run_after)  # fmt: skip
    cursor.execute(sql("enqueue_from", query=query), (*fixed, *parameters))
    return cursor.rowcount


def written_here(
    cursor: Cursor, *, id: UUID | None = None, name: str | None = None, group: str | None = None
) -> tuple[int, int]:
    """Return how many live tasks of that id, name or group this transaction has enqueued, and how many others live."""
    own, others = _one(cursor, "written_here", {"id": id, "name": name, "group": group})
    return own, others


# ------------------------------------------------------------------------------------------------- claim

#: Positions in a window, a power of two: claims take what lies in one before they take what lies farther on.
WINDOW = 8192


def claim_text(limit: int) -> str:
    """Return the text of a claim of that size."""
    return sql("claim", limit=limit, window=WINDOW)


_PRIORITY, _POSITION = attrgetter("priority"), attrgetter("position")


def claim(
    cursor: Cursor, *, limit: int, worker: UUID, receipt: UUID, queues: Sequence[str] | None, after: str = ""
) -> list[Claim]:
    """Claim up to `limit` tasks (one of CLAIM_SIZES), round the ring of lanes; `in_order` has them as they should run.

    Args:
        after: A queue; of those with the same priority it has its turn last. So that none starves: `behind` the claim
            before, `some_queue` for the first one.
    """
    parameters = {
        "queues": list(queues) if queues is not None else None,
        "after": after,
        "worker": worker,
        "receipt": receipt,
    }
    cursor.execute(claim_text(limit), parameters)
    return [Claim._make((*row, receipt)) for row in cursor.fetchall()]


def some_queue(cursor: Cursor) -> str:
    """Return any queue, or "" if there is none. Workers that do little would favour one if all began with the same."""
    rows = _all(cursor, "some_queue", {})
    return str(rows[0][0]) if rows else ""


def unused_queues(cursor: Cursor, queues: Sequence[str]) -> list[str]:
    """Return those of the queues to which nothing has been enqueued yet, and which no schedule names."""
    return [row[0] for row in _all(cursor, "unused_queues", {"queues": list(queues)})]


def behind(lanes: Sequence[tuple[int, str]], *, after: str) -> str:
    """Return behind which queue the next claim should begin, from the lanes of the last one's tasks.

    The limit may have cut the last lane's turn short. It goes on then, but none has all of two claims. Only the
    lowest priority counts: behind another, the next claim might begin with the same lane again and again.

    Args:
        lanes: Priority and queue of each task.
        after: As that claim had it: there the ring began.
    """
    lowest = min(priority for priority, _ in lanes)
    ring = sorted({queue for priority, queue in lanes if priority == lowest}, key=lambda queue: (queue <= after, queue))
    return ring[-2:][0]


def in_order(claims: Iterable[Claim]) -> list[Claim]:
    """Return tasks by priority, and as they were enqueued."""
    return sorted(sorted(claims, key=_POSITION), key=_PRIORITY, reverse=True)


def claim_one(cursor: Cursor, id: UUID, *, worker: UUID, receipt: UUID) -> Claim | None:
    """Claim one task, ready or not; None if it is gone or runs already."""
    rows = _all(cursor, "claim_one", {"id": id, "worker": worker, "receipt": receipt})
    return Claim._make((*rows[0], receipt)) if rows else None


class Settlement(NamedTuple):
    """One finished task as settle.sql takes it. `started` and `stopped` are seconds before now; `ctid`: see `Claim`."""

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
    ctid: str


def settle(cursor: Cursor, settlements: Sequence[Settlement], *, cluster: str, ours: bool | None = None) -> set[UUID]:
    """Move finished tasks from pgq_queue to pgq_task; return the ids of those whose receipt was good.

    Args:
        ours: See `pgq.settling.write`.
    """
    if ours is None:
        ours = not isinstance(cursor, CursorWrapper)
    id, receipt, success, keep, started, stopped, result, exception, message, traceback, ctid = zip(
        *settlements, strict=True
    )
    parameters: dict[str, Any] = {
        "id": _ids(id),
        "receipt": _ids(receipt),
        "success": _flags(success),
        "keep": _flags(keep),
        "started": _microseconds(started),
        "stopped": _microseconds(stopped),
        "result": _texts(result),
        "exception": _texts(exception),
        "message": _texts(message),
        "traceback": _texts(traceback),
        "ctid": _texts(ctid),
        "cluster": cluster,
        "idle_limit": "10000" if ours else None,
    }
    return {row[0] for row in _all(cursor, "settle", parameters)}


class Refused(NamedTuple):
    """A receipt that was refused, as written_before.sql takes it."""

    id: UUID
    attempt: int
    success: bool
    kept: bool
    #: Of an attempt that is followed by another.
    exception: str | None
    parked: str | None


def written_before(cursor: Cursor, refused: Sequence[Refused]) -> set[UUID]:
    """Return the ids of those receipts that were refused because they had been written already."""
    columns = map(list, zip(*refused, strict=True))
    return {row[0] for row in _all(cursor, "written_before", dict(zip(Refused._fields, columns, strict=True)))}


def begin_writing(cursor: Cursor) -> None:
    """Draw a transaction id, as every write does. Refused if PostgreSQL takes no writes."""
    cursor.execute(sql("begin_writing"))


def mark_transaction(cursor: Cursor) -> None:
    """Begin the transaction at once, which else begins with its first statement, and mark it until it ends."""
    cursor.execute(sql("mark_transaction"))


def is_marked(cursor: Cursor) -> bool:
    """Return whether this is the transaction that was marked, not one that began when that had ended."""
    [(marked,)] = _all(cursor, "is_marked", {})
    return bool(marked)


def retry(cursor: Cursor, retries: Sequence[tuple[UUID, UUID, float, str]]) -> set[UUID]:
    """Put failed tasks back: (id, receipt, delay in seconds, error as JSON). Return the ids put back."""
    id, receipt, delay, error = map(list, zip(*retries, strict=True))
    return {row[0] for row in _all(cursor, "retry", {"id": id, "receipt": receipt, "delay": delay, "error": error})}


def postpone(cursor: Cursor, postponed: Sequence[tuple[UUID, UUID, float, str]]) -> set[UUID]:
    """Give back tasks that are not known here: (id, receipt, delay in seconds, note as JSON). Return their ids."""
    id, receipt, delay, note = map(list, zip(*postponed, strict=True))
    return {row[0] for row in _all(cursor, "postpone", {"id": id, "receipt": receipt, "delay": delay, "note": note})}


def park(cursor: Cursor, parked: Sequence[tuple[UUID, UUID, str]]) -> set[UUID]:
    """Park tasks that cannot be run: (id, receipt, reason). Return the ids parked."""
    id, receipt, reason = map(list, zip(*parked, strict=True))
    return {row[0] for row in _all(cursor, "park", {"id": id, "receipt": receipt, "reason": reason})}


def release(cursor: Cursor, claims: Sequence[Claim]) -> set[UUID]:
    """Give back tasks that were not started. Return the ids given back."""
    parameters = {"id": [claim.id for claim in claims], "receipt": [claim.receipt for claim in claims]}
    return {row[0] for row in _make_ready(cursor, "release", parameters, wait=True)}


def rename(cursor: Cursor, claims: Sequence[Claim], *, worker: UUID) -> None:
    """Bring tasks that run under another id of their worker."""
    ids, receipts = [claim.id for claim in claims], [claim.receipt for claim in claims]
    cursor.execute(sql("rename"), {"id": ids, "receipt": receipts, "worker": worker})


def uncount(cursor: Cursor, claims: Sequence[Claim]) -> None:
    """Take back the attempts that were counted for claims which are settled without being run."""
    ids, receipts = [claim.id for claim in claims], [claim.receipt for claim in claims]
    cursor.execute(sql("uncount"), {"id": ids, "receipt": receipts})


def collect(cursor: Cursor, counts: dict[UUID, tuple[int, int]]) -> None:
    """Tell collectors how many of their tasks have settled now: signed ones, and others. See collect.sql."""
    signed, others = map(list, zip(*counts.values(), strict=True))
    _all(cursor, "collect", {"id": list(counts), "signed": signed, "others": others})


def forget(cursor: Cursor, *, ids: Sequence[UUID], groups: Sequence[str]) -> None:
    """Delete results that were kept only until they were read."""
    cursor.execute(sql("forget"), {"ids": list(ids), "groups": list(groups)})


def lock_groups(cursor: Cursor, groups: Iterable[str]) -> None:
    """Be the only settler of these groups until the transaction ends."""
    _all(cursor, "lock_groups", {"groups": list(groups)})


# ------------------------------------------------------------------------------------------------- control


def cancel(cursor: Cursor, id: UUID) -> str:
    """Cancel a task; return queued, running, finished or unknown."""
    return str(_one(cursor, "cancel", {"id": id})[0])


def retry_finished(cursor: Cursor, id: UUID) -> bool | None:
    """Run a finished task again, or release a parked or waiting one; return whether there was one.

    None: another table's foreign key keeps it among the finished ones.
    """
    found: bool | None = _one(cursor, "retry_finished", {"id": id})[0]
    return found


def references(cursor: Cursor) -> dict[str, bool]:
    """Return the foreign keys that refer to finished tasks, and whether they keep these from being deleted.

    Each as "table (constraint name)".
    """
    return {row[0]: row[1] for row in _all(cursor, "references", {})}


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


def func_of(cursor: Cursor, id: UUID) -> str | None:
    """Return the function that a live task names; None: it is gone."""
    rows = _all(cursor, "func_of", {"id": id})
    return rows[0][0] if rows else None


#: For `since`: no lease is older.
BEFORE_ALL_LEASES = datetime(2000, 1, 1, tzinfo=UTC)


def renew(cursor: Cursor, workers: Sequence[UUID], *, since: datetime, age: float) -> Renewal:
    """Renew the leases of these workers that are older than `age` seconds and not older than `since`."""
    rows = _all(cursor, "renew", {"workers": list(workers), "since": since, "age": age})
    return Renewal(rows[0][0], [(row[1], row[2]) for row in rows if row[3]])


def cancelled(cursor: Cursor, workers: Sequence[UUID], *, since: datetime) -> list[tuple[UUID, UUID]]:
    """Return (task, worker) for the running tasks that were cancelled."""
    return [(row[0], row[1]) for row in _all(cursor, "cancelled", {"workers": list(workers), "since": since})]


def rescue_expired(cursor: Cursor, *, since: datetime, before: datetime, age: float, error: str) -> list[UUID]:
    """Make the tasks ready again whose lease has run out, and charge each a crash; return their ids.

    Args:
        since: No lease is older.
        before: Only leases renewed before this time.
        age: Only leases renewed so many seconds ago, by the database's clock.
        error: What a task's history says of it, as JSON.
    """
    parameters = {"since": since, "before": before, "age": age, "error": error}
    return [row[0] for row in _make_ready(cursor, "rescue_expired", parameters)]


def release_worker(cursor: Cursor, worker: UUID, blame: Blame, *, since: datetime) -> list[tuple[UUID, bool]]:
    """Make ready again what a dead worker held; return (id, whether it was charged).

    Args:
        since: No lease of the worker is older.
    """
    rows = _make_ready(cursor, "release_worker", {
        "worker": worker, "since": since, "task": blame.task, "crash": blame.crash, "error": blame.error,
    })  # fmt: skip
    return [(row[0], row[1]) for row in rows]


def release_uncharged(cursor: Cursor, workers: Sequence[UUID], *, since: datetime) -> list[UUID]:
    """Make ready again what is held under these ids, and charge nothing; return the ids of the tasks.

    Args:
        since: No lease of these workers is older.
    """
    parameters = {"workers": list(workers), "since": since}
    return [row[0] for row in _make_ready(cursor, "release_uncharged", parameters)]


def _make_ready(cursor: Cursor, name: str, parameters: dict[str, Any], *, wait: bool = False) -> list[Row]:
    cursor.execute(with_places(name, wait=wait), parameters)
    return cursor.fetchall()


def with_places(name: str, *, wait: bool = False) -> str:
    """Return the text of a statement that makes claimed tasks ready where they were, see kept_places.sql.

    Args:
        wait: For lanes that another session has locked.
    """
    lock = "FOR UPDATE" if wait else "FOR UPDATE SKIP LOCKED"
    return sql(name, kept_places=sql("kept_places", lock=lock))


@dataclass(frozen=True, slots=True)
class Leases:
    """What there is of leases."""

    #: The database's time.
    now: datetime
    oldest: datetime | None
    #: Whether some lie in the database's future.
    ahead: bool


def oldest_lease(cursor: Cursor, *, since: datetime) -> Leases:
    """Return the oldest lease from `since` on."""
    return records(cursor, Leases, "oldest_lease", {"since": since})[0]


def touch_lease(cursor: Cursor, *, since: datetime) -> None:
    """Write the row of the oldest lease from `since` on anew, as it is."""
    cursor.execute(sql("touch_lease"), {"since": since})


def correct_leases(cursor: Cursor) -> int:
    """Let leases that lie in the future begin now; return how many."""
    cursor.execute(sql("correct_leases"))
    return cursor.rowcount


# ------------------------------------------------------------------------------------------------- waking


def peek(cursor: Cursor, *, milliseconds: int | None, queues: Sequence[str] | None) -> tuple[int, bool]:
    """Raise the flag that says a worker sleeps; return its value and whether something is ready.

    Args:
        milliseconds: For how long; None: leave the flag alone, since no notification would reach us (the value is 0).
    """
    said, ready = _one(
        cursor, "peek", {"milliseconds": milliseconds, "queues": list(queues) if queues is not None else None}
    )
    return said, ready


def all_awake(cursor: Cursor, *, said: int) -> None:
    """Lower the flag, unless another pool has raised it since."""
    _all(cursor, "all_awake", {"said": said})


def try_notify(cursor: Cursor) -> float:
    """Send a notification without listeners, to see whether that works; return how full their queue is (1: full)."""
    return float(_one(cursor, "try_notify", {})[0])


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
    retry: float,
    clock: float,
    stalled: float | None,
) -> None:
    """Say that a pool is alive.

    Args:
        workers: JSON.
        retry: Length of its leases, in seconds.
        clock: What its host's clock shows, in Unix seconds.
        stalled: For how many seconds ready tasks have been waiting though a worker is free; None: none are.
    """
    parameters: dict[str, Any] = {
        "id": id, "name": name, "host": host, "pid": pid, "queues": list(queues) if queues is not None else None,
        "status": status, "version": version, "workers": workers, "retry": retry, "clock": clock, "stalled": stalled,
    }  # fmt: skip
    cursor.execute(sql("heartbeat"), parameters)


def waiting(cursor: Cursor, *, queues: Sequence[str] | None) -> tuple[bool, bool]:
    """Return whether a task is ready to be claimed, and whether tasks are ready though all of the queues are paused."""
    ready, paused = _one(cursor, "waiting", {"queues": list(queues) if queues is not None else None})
    return ready, paused


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


class LeaderHolder(NamedTuple):
    """A session that holds the leader's key."""

    #: None: a prepared transaction.
    pid: int | None
    user: str | None
    application: str | None
    #: How long its transaction has lasted; None: it is in none, or we may not see that.
    seconds: float | None


def leader_holder(cursor: Cursor) -> list[LeaderHolder]:
    """Return who else holds the leader's key: one session, or several that share it."""
    return records(cursor, LeaderHolder, "leader_holder", {})


@dataclass(frozen=True, slots=True)
class Outlook:
    """What upkeep has to do."""

    tasks_due: bool
    schedules_due: bool
    #: Seconds until the next of either; None: there is none.
    next_in: float | None


def outlook(cursor: Cursor) -> Outlook:
    """Look at what is due, and when something will be."""
    return records(cursor, Outlook, "outlook", {})[0]


def due(cursor: Cursor, *, limit: int) -> int:
    """Make waiting tasks ready whose time has come; return how many."""
    return int(_one(cursor, "due", {"limit": limit})[0])


def positions(cursor: Cursor) -> tuple[int, int | None]:
    """Return the last position that was drawn, and the lowest watermark (None: there is no lane)."""
    last, lowest = _one(cursor, "positions", {})
    return last, lowest


def writers(cursor: Cursor, among: Iterable[str] | None = None) -> list[str]:
    """Return the transactions that may hold a position which other sessions do not see yet."""
    return [row[0] for row in _all(cursor, "writers", {"among": list(among) if among is not None else None})]


def commit_unflushed(cursor: Cursor) -> None:
    """Have the commit of this transaction not wait for the disk: a crash may lose it."""
    cursor.execute(sql("commit_unflushed"))


def lock_lanes(cursor: Cursor, *, safe: int) -> list[tuple[str, int]]:
    """Lock the lanes whose watermark is below `safe` until the transaction ends; return (queue, priority) of each."""
    return [(row[0], row[1]) for row in _all(cursor, "lock_lanes", {"safe": safe})]


def advance(cursor: Cursor, *, safe: int) -> int:
    """Move the watermarks up, to `safe` at most; return how many moved. Needs a transaction of its own."""
    # A watermark that is lost in a crash stands lower, which is safe. And lanes that stay locked while the disk is slow
    # send tasks that are rescued meanwhile to the end of the queue.
    commit_unflushed(cursor)
    # Two statements, so that the second one's snapshot is taken after the lanes are locked.
    lanes = lock_lanes(cursor, safe=safe)
    queues, priorities = [queue for queue, _ in lanes], [priority for _, priority in lanes]
    cursor.execute(sql("advance"), {"safe": safe, "queues": queues, "priorities": priorities})
    return cursor.rowcount


def sweep(cursor: Cursor) -> list[tuple[str, int]]:
    """Mend watermarks that are too high and lanes that are missing; return the lanes mended."""
    return [(row[0], row[1]) for row in _all(cursor, "sweep", {})]


def redraw(cursor: Cursor, *, limit: int) -> int:
    """Draw new positions for ready tasks whose own lie beyond the last one drawn; return for how many."""
    cursor.execute(sql("redraw"), {"limit": limit})
    return cursor.rowcount


@dataclass(frozen=True, slots=True)
class Deleted:
    """What became of some results that were to be deleted."""

    #: The last id looked at. None: there are no more.
    last: UUID | None
    #: How many were deleted.
    count: int
    #: For each one that a foreign key of another table keeps, which.
    kept: list[str]


def prune(cursor: Cursor, *, keep: int, limit: int, per: str | None = None, before: UUID | None = None) -> Deleted:
    """Delete successful tasks beyond the newest `keep`, `limit` at most, newest first.

    Args:
        per: Keep so many of each "group", "name" or "func"; None: over all.
        before: Look only at those with smaller ids; None: at all. Without `per`, `keep` counts from there.
    """
    parameters = {"keep": keep, "per": per, "before": before or UUID(int=2**128 - 1)}
    return records(cursor, Deleted, "prune_per" if per else "prune", parameters, limit=limit)[0]


def make_partitions(cursor: Cursor) -> int:
    """Make the partitions of the coming weeks; return how many were new."""
    return int(_one(cursor, "make_partitions", {})[0])


# ------------------------------------------------------------------------------------------------- schedules


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
        """Return the same of a row of the model `pgq.models.Schedule`, which has a field for each but `now`."""
        given = {field.name: getattr(row, field.name) for field in fields(cls) if field.name != "now"}
        texts = {name: stored_text(row, name) for name in ("args", "kwargs", "options")}
        signature = None if row.signature is None else bytes(row.signature)
        return cls(**{**given, **texts, "signature": signature, "now": now})


def due_schedules(cursor: Cursor, *, queues: Sequence[str] | None, limit: int, now: datetime | None) -> list[Due]:
    """Lock and return the schedules that are due; `now` None: by the database's clock."""
    parameters = {"queues": list(queues) if queues is not None else None, "limit": limit, "now": now}
    return records(cursor, Due, "due_schedules", parameters)


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


def fault_schedule(cursor: Cursor, id: int, error: str, *, pause: float) -> None:
    """Note why a schedule could not be fired, and try it again in `pause` seconds."""
    cursor.execute(sql("fault_schedule"), {"id": id, "error": error, "pause": pause})


def end_schedule(cursor: Cursor, id: int) -> None:
    """Remove a schedule that was to run once, and has."""
    cursor.execute(sql("end_schedule"), {"id": id})


def schedule_references(cursor: Cursor) -> str | None:
    """Return the deferred foreign keys to schedules as a list of quoted names; None: there are none."""
    names: str | None = _one(cursor, "schedule_references", {})[0]
    return names


def set_constraints(cursor: Cursor, names: str, mode: str) -> None:
    """Have constraints checked now and at once ("IMMEDIATE"), or at the end of the transaction ("DEFERRED")."""
    # PostgreSQL quoted the names; a percent sign in them is none of psycopg's, since there are no parameters.
    cursor.execute(sql("set_constraints", names=names, mode=mode))


def check_references(cursor: Cursor) -> None:
    """Have the deferred foreign keys to schedules checked now, and be deferred again.

    Raises:
        psycopg.IntegrityError, django.db.IntegrityError: A row refers to a schedule that is gone.
    """
    names = schedule_references(cursor)
    if names:
        set_constraints(cursor, names, "IMMEDIATE")
        set_constraints(cursor, names, "DEFERRED")


def live_of_schedule(cursor: Cursor, schedule: int) -> tuple[int, int]:
    """Return how many tasks of a schedule run, and how many wait."""
    running, waiting = _one(cursor, "live_of_schedule", {"schedule": schedule})
    return running, waiting


# ------------------------------------------------------------------------------------------------- results


def await_settled(cursor: Cursor, *, milliseconds: int) -> None:
    """Have settlements notify for so long, since a process waits for results."""
    _all(cursor, "await_settled", {"milliseconds": milliseconds})


# ------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A row of pgq_worker. Ages are seconds by the database's clock."""

    id: UUID
    name: str
    host: str
    pid: int
    queues: list[str] | None
    status: str
    started_at: datetime
    heartbeat: datetime
    version: str
    #: JSON: what the supervisor says of each worker.
    workers: str
    uptime: float
    silent: float
    #: Tasks its workers have claimed, running ones included.
    claimed: int


def pools(cursor: Cursor, id: UUID | None = None) -> list[PoolRow]:
    """Return the pools that have not said goodbye, or the one of that id."""
    return records(cursor, PoolRow, "pools", {"id": id})


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
    """A queue: ready and running tasks, and for how many seconds the first ready one has been in the queue."""

    queue: str
    ready: int
    #: There are more: a lane was counted up to the limit.
    more: bool
    oldest: float | None
    running: int
    paused: bool


def lane_count(cursor: Cursor) -> int:
    """Return how many lanes there are."""
    return int(_one(cursor, "lane_count", {})[0])


def queue_depths(cursor: Cursor, *, limit: int) -> list[QueueDepth]:
    """Return the queues in use; each of their lanes is counted up to `limit`."""
    return records(cursor, QueueDepth, "queue_depths", {}, limit=limit)


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task in the hands of a worker."""

    id: UUID
    name: str | None
    func: str
    queue: str
    attempt: int
    cancelled: bool
    pool: str
    host: str
    pid: int | None
    #: Since it started, as far as the pool has said so.
    seconds: float | None


def running(cursor: Cursor, *, alive: float, limit: int) -> list[RunningTask]:
    """Return what the pools run that were heard of in the last `alive` seconds, longest first."""
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
    """Return failures, those of the tasks enqueued last first."""
    return records(cursor, FailedTask, "latest_failures", {"limit": limit})


@dataclass(frozen=True, slots=True)
class Recent:
    """What has finished of late in one queue."""

    queue: str
    finished: int
    succeeded: int
    #: All their run times together.
    seconds: float
    #: How long ago the first of them finished, over all queues.
    age: float


def recent(cursor: Cursor, *, seconds: float, limit: int) -> list[Recent]:
    """Return by queue what has finished in so many seconds, a day at most, of the last `limit` that were enqueued."""
    return records(cursor, Recent, "recent", {"seconds": seconds}, limit=limit)


def finished_counts(cursor: Cursor, *, limit: int) -> tuple[int, int, int | None, int | None]:
    """Return successes and failures, counted up to `limit`, and the estimates of all results and of failures."""
    successes, failures, estimate, failures_estimate = _all(cursor, "finished_counts", {}, limit=limit)[0]
    return successes, failures, estimate, failures_estimate


def schedule_counts(cursor: Cursor) -> tuple[int, int, int]:
    """Return how many schedules there are, how many are going to fire, how many could not."""
    total, active, faulty = _one(cursor, "schedule_counts", {})
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
    return bool(_one(cursor, "has_schema", {})[0])


def schema_version(cursor: Cursor) -> int:
    """Return the number of the newest file of migrations_sql that was run; 0: there are no tables."""
    if not has_schema(cursor):
        return 0
    return int(_one(cursor, "schema_version", {})[0])


def check(cursor: Cursor, *, needed: int) -> list[Finding]:
    """Check what should hold; `needed` is the version of the schema that the caller's code was written for."""
    return records(cursor, Finding, "check", {"needed": needed})


def now(cursor: Cursor) -> datetime:
    """Return the database's time."""
    at: datetime = _one(cursor, "now", {})[0]
    return at


# ------------------------------------------------------------------------------------------------- retention


@dataclass(frozen=True, slots=True)
class Old:
    """Which results are old."""

    #: The newest id that may be deleted; None: none of them.
    successes_to: UUID | None
    failures_to: UUID | None
    #: Only what finished before; None: whenever.
    before: datetime | None
    #: Only of this queue; None: of all.
    queue: str | None

    def parameters(self) -> dict[str, Any]:
        return {
            "successes_to": self.successes_to, "failures_to": self.failures_to, "before": self.before,
            "queue": self.queue,
        }  # fmt: skip


def clean(cursor: Cursor, old: Old, *, after: UUID, to: UUID, limit: int, dry: bool = False) -> Deleted:
    """Delete the old ones among the next `limit` results in a range of ids; `dry`: count them."""
    parameters = {"after": after, "to": to, **old.parameters()}
    if dry:
        last, count = _all(cursor, "clean_count", parameters, limit=limit)[0]
        return Deleted(last, count, [])
    return records(cursor, Deleted, "clean", parameters, limit=limit)[0]


def clean_boundary(cursor: Cursor, *, success: bool, keep: int, queue: str | None) -> UUID | None:
    """Return the newest id beyond the newest `keep` of one outcome; None: there are not so many."""
    rows = _all(cursor, "clean_boundary", {"success": success, "keep": keep, "queue": queue})
    return rows[0][0] if rows else None


def task_partitions(cursor: Cursor) -> list[tuple[str, UUID, int]]:
    """Return the weekly partitions of pgq_task, oldest first: quoted name, end of the ids, size in bytes."""
    return [(row[0], row[1], row[2]) for row in _all(cursor, "task_partitions", {})]


def limit_lock_wait(cursor: Cursor, *, milliseconds: int) -> None:
    """Have each statement of this transaction give up after so long a wait for a lock."""
    _all(cursor, "limit_lock_wait", {"milliseconds": str(milliseconds)})


def _part(partition: str) -> str:
    # PostgreSQL quoted the name (regclass); a percent sign in it is not a parameter.
    return partition.replace("%", "%%")


def lock_partition(cursor: Cursor, partition: str) -> None:
    """Keep all sessions from writing to a partition until the transaction ends."""
    run(cursor, "lock_partition", partition=_part(partition))


def partition_needed(cursor: Cursor, partition: str, old: Old) -> bool:
    """Whether a partition holds a row that is not old."""
    return bool(_one(cursor, "partition_needed", old.parameters(), partition=_part(partition))[0])


def count_partition(cursor: Cursor, partition: str) -> int:
    """Return how many rows a partition has."""
    return int(_one(cursor, "count_partition", {}, partition=_part(partition))[0])


def detach_partition(cursor: Cursor, partition: str) -> None:
    """Make a partition a table by itself."""
    run(cursor, "detach_partition", partition=_part(partition))


def drop_table(cursor: Cursor, table: str) -> None:
    """Drop what was a partition."""
    run(cursor, "drop_table", table=_part(table))


def _lock_partition_soon(cursor: Cursor, partition: str) -> None:
    # Others would have to wait behind us.
    limit_lock_wait(cursor, milliseconds=300)
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
    # Once more, now that no session can add a row.
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
    ours: bool
    #: Whether a task of that week is still in the queue.
    live: bool
    #: How many rows were ever written there, as far as PostgreSQL has counted.
    written: int


def expired(cursor: Cursor, before: datetime) -> list[Expired]:
    """Return the partitions that ended before a time, oldest first."""
    return records(cursor, Expired, "expired", {"before": before})


def expired_look(
    cursor: Cursor, partition: str, *, after: UUID, before: datetime, limit: int
) -> tuple[UUID | None, bool]:
    """Look at the next `limit` results of a partition; return the last id (None: no more), and if one is needed."""
    parameters = {"after": after, "before": before}
    last, needed = _one(cursor, "expired_look", parameters, partition=_part(partition), limit=limit)
    return last, needed


def drop_expired(cursor: Cursor, partition: Expired, before: datetime) -> bool:
    """Drop a partition, in a transaction of its own, unless something has happened in it since it was looked at.

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


# ------------------------------------------------------------------------------------------------- Django-Q's tables


#: Django-Q's tables, which hold its schedules, its queue (the ORM broker's) and its finished tasks.
_DJANGO_Q_TABLES = {"schedules": "django_q_schedule", "queued": "django_q_ormq", "results": "django_q_task"}


def django_q_rows(cursor: Cursor, kind: str, *, after: int | str, limit: int) -> list[dict[str, Any]]:
    """Return the next rows of one of Django-Q's tables, by column, as that database gives them.

    Args:
        cursor: On the database that has Django-Q's tables, which need not be PostgreSQL.
        kind: "schedules", "queued" or "results".
        after: The id of the last row read; 0 or "" at first.
    """
    cursor.execute(sql("django_q_rows", table=_DJANGO_Q_TABLES[kind], limit=limit), {"after": after})
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def django_q_take(cursor: Cursor, id: int, *, lock: Any, mark: Any) -> bool:
    """Take a task out of Django-Q's queue by setting its lock to `mark`; return whether it still had that lock."""
    cursor.execute(sql("django_q_take"), {"id": id, "lock": mark if lock is None else lock, "mark": mark})
    return cursor.rowcount == 1


def import_results(cursor: Cursor, rows: Sequence[dict[str, Any]]) -> set[UUID]:
    """Write finished tasks; return the ids of those that were new."""
    return {row[0] for row in _all(cursor, "import_results", {key: [row[key] for row in rows] for key in rows[0]})}


def known_tasks(cursor: Cursor, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these tasks are here, live or finished."""
    return {row[0] for row in _all(cursor, "known_tasks", {"ids": list(ids)})}


def imported_schedules(cursor: Cursor) -> dict[str, int]:
    """Return the ids of the schedules that came from Django-Q, by their ids there."""
    return {str(row[0]): row[1] for row in _all(cursor, "imported_schedules", {})}
