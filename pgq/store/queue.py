"""Statements about tasks that live: enqueue, claim, settle, retry, park, release."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from pgq.conf import ALL, Queues
from pgq.records import Claim, NewTask
from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, flag_array, id_array, microseconds_array, one_row, text_array
from pgq.store.texts import sql

#: The sizes a claim may have; each is a statement of its own, see claim.sql.
CLAIM_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def size_within(number: int) -> int:
    """Return the largest of CLAIM_SIZES that is not above the number."""
    return min(1 << (number.bit_length() - 1), CLAIM_SIZES[-1])


#: All but the last, what is unique, are columns.
_COLUMNS: tuple[str, ...] = tuple(NewTask._fields[:-1])
#: The table's defaults, which an INSERT need not name.
_DEFAULTS = {"kwargs": "{}", "options": "{}", "queue": "default", "priority": 0, "max_attempts": 1}
_DEFAULT_VALUES = tuple(_DEFAULTS.get(column) for column in _COLUMNS)
#: A time that has passed becomes NULL, so that the task need not wait for a tick; only the database's clock counts.
_RUN_AFTER = "nullif(greatest(%s::timestamptz, statement_timestamp()), statement_timestamp())"


def given(task: NewTask) -> dict[str, Any]:
    """Return the columns of a task whose values differ from the table's defaults."""
    values = zip(_COLUMNS, task, _DEFAULT_VALUES, strict=False)
    return {
        column: value
        for column, value, default in values
        if value is not None and (default is None or value != default)
    }


def _quoted(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def insertion(columns: tuple[str, ...]) -> dict[str, str]:
    """Return the parts of an INSERT of one task: its columns, and a placeholder for each."""
    values = ", ".join(_RUN_AFTER if column == "run_after" else "%s" for column in columns)
    return {"columns": _quoted(columns), "values": values}


@cache
def _enqueue_text(columns: tuple[str, ...]) -> str:
    return sql("enqueue", **insertion(columns))


@cache
def _enqueue_dated_text(columns: tuple[str, ...]) -> str:
    return sql("enqueue_dated", **insertion(columns))


def enqueue(cursor: Cursor, task: NewTask) -> None:
    """Write one task. Its parameters are positional: names take psycopg twice as long."""
    columns = given(task)
    cursor.execute(_enqueue_text(tuple(columns)), tuple(columns.values()))


def enqueue_dated(cursor: Cursor, task: NewTask) -> datetime:
    """Write one task; return when PostgreSQL says it was enqueued."""
    columns = given(task)
    cursor.execute(_enqueue_dated_text(tuple(columns)), tuple(columns.values()))
    [(enqueued_at,)] = cursor.fetchall()
    return enqueued_at  # type: ignore[no-any-return]


def enqueued_at(cursor: Cursor, ids: Sequence[str]) -> dict[str, datetime]:
    """Return when these tasks of the queue (32 hex digits each) were enqueued."""
    return {row[0].hex: row[1] for row in all_rows(cursor, "enqueued_at", {"ids": list(ids)})}


#: Columns that most tasks do not have, with their types: parts of enqueue_many.sql if a task has them.
_RARE = {"schedule": "bigint", "slot": "timestamptz", "expires_at": "timestamptz"}


def enqueue_many(cursor: Cursor, tasks: Sequence[NewTask]) -> None:
    """Write many tasks in one statement; they become ready in their order."""
    rare = [column for column in _RARE if any(getattr(task, column) is not None for task in tasks)]
    parts = {
        "columns": "".join(f", {column}" for column in rare),
        "arrays": "".join(f", %({column})s::{_RARE[column]}[]" for column in rare),
    }
    parameters = {column: [task[at] for task in tasks] for at, column in enumerate(_COLUMNS)}
    cursor.execute(sql("enqueue_many", **parts), parameters)


#: Columns that differ between calls that are enqueued together. The id is 32 hex digits.
_OF_CALLS = ("id", "args", "kwargs", "signature")
CallRow: TypeAlias = tuple[str, str, str, bytes]
KeyedRow: TypeAlias = tuple[str, str, str, bytes, str | None]


def enqueue_calls(cursor: Cursor, model: NewTask, rows: Iterable[CallRow]) -> None:
    """Write many tasks that differ from the model only by their rows; they become ready in their order."""
    _copy(cursor, model, _OF_CALLS, rows)


def enqueue_keyed_calls(cursor: Cursor, model: NewTask, rows: Iterable[KeyedRow]) -> None:
    """Do the same for tasks that differ by their keys as well."""
    _copy(cursor, model, (*_OF_CALLS, "key"), rows)


def _copy(cursor: Cursor, model: NewTask, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    shared = {column: value for column, value in given(model).items() if column not in columns}
    fixed = tuple(shared.values())
    text = sql("enqueue_calls", columns=_quoted((*columns, *shared)))
    # On Django's cursor, errors are Django's, but copy() is psycopg's own.
    errors = cursor.db.wrap_database_errors if isinstance(cursor, CursorWrapper) else contextlib.nullcontext()
    with errors, cursor.copy(text) as copy:
        for row in rows:
            copy.write_row(row + fixed)


def enqueue_from(cursor: Cursor, query: str, parameters: Sequence[Any], model: NewTask) -> int:
    """Write a task for each row of a query that yields args; everything else is as in `model`. Return how many."""
    what = (model.func, model.kwargs, model.options, model.queue, model.priority, model.name, model.group, model.hook)
    limits = (model.timeout, model.max_attempts, model.run_after, model.key, model.expires_at)
    cursor.execute(sql("enqueue_from", query=query), (*what, *limits, *parameters))
    return cursor.rowcount


def written_here(
    cursor: Cursor, *, id: UUID | None = None, name: str | None = None, group: str | None = None
) -> tuple[int, int]:
    """Return how many live tasks of that id, name or group this transaction has enqueued, and how many others live."""
    own, others = one_row(cursor, "written_here", {"id": id, "name": name, "group": group})
    return own, others


#: Positions in a window, a power of two: claims take what lies in one before they take what lies farther on.
WINDOW = 8192


_BOUNDED = {"top": "WHERE l.priority BETWEEN %(bottom)s AND %(top)s", "bottom": "AND l.priority >= %(bottom)s"}
_UNBOUNDED = {"top": "", "bottom": ""}


def claim_text(limit: int, queues: Queues = ALL, *, bounded: bool = False) -> str:
    """Return the text of a claim of that size from these queues.

    Args:
        bounded: It claims of the priorities from the parameter `bottom` to `top`.
    """
    operators = queues.operators()
    excluded = f"AND l.queue {operators['apart']} (%(excluded)s::text[])" if queues.excluded else ""
    bounds = _BOUNDED if bounded else _UNBOUNDED
    return sql("claim", limit=limit, window=WINDOW, among=operators["among"], excluded=excluded, **bounds)


_PRIORITY, _POSITION = attrgetter("priority"), attrgetter("position")
_STRAND = Claim._fields.index("strand")


def claim_and_look(
    cursor: Cursor,
    *,
    limit: int,
    worker: UUID,
    receipt: UUID,
    queues: Queues = ALL,
    after: str = "",
    priorities: tuple[int, int] | None = None,
) -> tuple[list[Claim], bool]:
    """Claim up to `limit` tasks without a key (one of CLAIM_SIZES), round the ring of lanes.

    `in_order` sorts them for running. `Turns` claims tasks with a key as well. Return the tasks; and whether, if there
    are any, lanes of keys or queues with a limit are in use.

    Args:
        after: The queue that has its turn last within a priority, so that no queue starves: what `behind` returned for
            the claim before; for the first claim `some_queue`.
        priorities: The lowest and the highest to claim of; None: all.
    """
    parameters = {**queues.parameters(), "after": after, "worker": worker, "receipt": receipt}
    if priorities is not None:
        parameters["bottom"], parameters["top"] = priorities
    cursor.execute(claim_text(limit, queues, bounded=priorities is not None), parameters)
    rows = cursor.fetchall()
    in_use = bool(rows) and rows[0][_STRAND] is not None
    if in_use:
        rows = [(*row[:_STRAND], None, *row[_STRAND + 1 :]) for row in rows]
    return [Claim._make((*row, receipt, worker)) for row in rows], in_use


def claim(cursor: Cursor, **given: Any) -> list[Claim]:
    """Do as `claim_and_look`, and return the tasks alone."""
    return claim_and_look(cursor, **given)[0]


def some_queue(cursor: Cursor) -> str:
    """Return any queue, or "" if there is none. If all workers began with the same queue, they would favour it."""
    rows = all_rows(cursor, "some_queue", {})
    return str(rows[0][0]) if rows else ""


def behind(lanes: Sequence[tuple[int, str]], *, after: str) -> str:
    """Return the queue behind which the next claim should begin, from the lanes of the last claim's tasks.

    The limit may have cut the last lane's turn short. Then the lane goes on, but no lane gets all of two claims. Only
    the lowest priority counts: behind another, the next claim might begin with the same lane again and again.

    Args:
        lanes: Priority and queue of each task.
        after: The queue behind which the last claim began.
    """
    lowest = min(priority for priority, _ in lanes)
    ring = sorted({queue for priority, queue in lanes if priority == lowest}, key=lambda queue: (queue <= after, queue))
    return ring[-2:][0]


def in_order(claims: Iterable[Claim]) -> list[Claim]:
    """Return tasks by priority, and within one by position."""
    return sorted(sorted(claims, key=_POSITION), key=_PRIORITY, reverse=True)


def claim_one(cursor: Cursor, id: UUID, *, worker: UUID, receipt: UUID) -> Claim | None:
    """Claim one task, ready or not; None if it is gone or runs already."""
    rows = all_rows(cursor, "claim_one", {"id": id, "worker": worker, "receipt": receipt})
    return Claim._make((*rows[0], receipt, worker)) if rows else None


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


def settle(
    cursor: Cursor, settlements: Sequence[Settlement], *, cluster: str, ends_here: bool | None = None
) -> set[UUID]:
    """Move finished tasks from pgq_queue to pgq_task; return the ids of those whose receipt was good.

    Args:
        ends_here: See `pgq.execution.settle.write`.
    """
    if ends_here is None:
        ends_here = not isinstance(cursor, CursorWrapper)
    id, receipt, success, keep, started, stopped, result, exception, message, traceback, ctid = zip(
        *settlements, strict=True
    )
    parameters: dict[str, Any] = {
        "id": id_array(id),
        "receipt": id_array(receipt),
        "success": flag_array(success),
        "keep": flag_array(keep),
        "started": microseconds_array(started),
        "stopped": microseconds_array(stopped),
        "result": text_array(result),
        "exception": text_array(exception),
        "message": text_array(message),
        "traceback": text_array(traceback),
        "ctid": text_array(ctid),
        "cluster": cluster,
        "idle_limit": "10000" if ends_here else None,
    }
    return {row[0] for row in all_rows(cursor, "settle", parameters)}


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
    """Return the ids of those whose receipt was refused because they had been written already."""
    columns = map(list, zip(*refused, strict=True))
    return {row[0] for row in all_rows(cursor, "written_before", dict(zip(Refused._fields, columns, strict=True)))}


def begin_writing(cursor: Cursor) -> None:
    """Draw a transaction id, as every write does. PostgreSQL refuses if it takes no writes."""
    cursor.execute(sql("begin_writing"))


def mark_transaction(cursor: Cursor) -> None:
    """Begin the transaction at once, not with its first statement, and mark it until it ends."""
    cursor.execute(sql("mark_transaction"))


def is_marked(cursor: Cursor) -> bool:
    """Return whether this is still the marked transaction, not a later one."""
    [(marked,)] = all_rows(cursor, "is_marked", {})
    return bool(marked)


def retry(cursor: Cursor, retries: Sequence[tuple[UUID, UUID, float, float, str]]) -> set[UUID]:
    """Put failed tasks back: (id, receipt, delay, seconds since the attempt began, error as JSON). Return their ids."""
    id, receipt, delay, began, error = map(list, zip(*retries, strict=True))
    parameters = {"id": id, "receipt": receipt, "delay": delay, "began": began, "error": error}
    return {row[0] for row in all_rows(cursor, "retry", parameters)}


def postpone(cursor: Cursor, postponed: Sequence[tuple[UUID, UUID, float, str]]) -> set[UUID]:
    """Give back tasks whose code is not known: (id, receipt, delay in seconds, note as JSON). Return their ids."""
    id, receipt, delay, note = map(list, zip(*postponed, strict=True))
    return {
        row[0] for row in all_rows(cursor, "postpone", {"id": id, "receipt": receipt, "delay": delay, "note": note})
    }


def park(cursor: Cursor, parked: Sequence[tuple[UUID, UUID, str]]) -> set[UUID]:
    """Park tasks that cannot be run: (id, receipt, reason). Return the ids parked."""
    id, receipt, reason = map(list, zip(*parked, strict=True))
    return {row[0] for row in all_rows(cursor, "park", {"id": id, "receipt": receipt, "reason": reason})}


def uncount(cursor: Cursor, claims: Sequence[Claim]) -> None:
    """Take back the attempts that were counted for claims which are settled without being run."""
    ids, receipts = [claim.id for claim in claims], [claim.receipt for claim in claims]
    cursor.execute(sql("uncount"), {"id": ids, "receipt": receipts})


def collect(cursor: Cursor, counts: dict[UUID, tuple[int, int]]) -> None:
    """Count down collectors by how many of their tasks have settled: signed ones, and others. See collect.sql."""
    signed, others = map(list, zip(*counts.values(), strict=True))
    all_rows(cursor, "collect", {"id": list(counts), "signed": signed, "others": others})


def lock_groups(cursor: Cursor, groups: Iterable[str]) -> None:
    """Keep other transactions from settling tasks of these groups until this one ends."""
    all_rows(cursor, "lock_groups", {"groups": list(groups)})


def retry_finished(cursor: Cursor, id: UUID) -> bool | None:
    """Run a finished task again, or release a parked or waiting one; return whether there was one.

    None: another table's foreign key keeps it among the finished ones.
    """
    found: bool | None = one_row(cursor, "retry_finished", {"id": id})[0]
    return found


def await_settled(cursor: Cursor, *, milliseconds: int) -> None:
    """Let settlements notify for so long, since a process waits for results."""
    all_rows(cursor, "await_settled", {"milliseconds": milliseconds})
