"""Statements about numbers over time: what workers counted, added up by minutes and for ever."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
from django import db

from pgq.conf import Queues
from pgq.store.caller import savepoint
from pgq.store.connection import Cursor
from pgq.store.leases import Freed
from pgq.store.overview import Finding
from pgq.store.statement import all_rows, one_row
from pgq.store.texts import sql

logger = logging.getLogger("pgq")

#: What PostgreSQL answers if the table is missing, or the role may not write it; by psycopg's cursor or by Django's.
_REFUSED = (
    psycopg.ProgrammingError,
    psycopg.DataError,
    psycopg.IntegrityError,
    db.ProgrammingError,
    db.DataError,
    db.IntegrityError,
)

#: Stands for the queues and functions beyond those that are told apart.
OTHER = "(other)"
#: Characters that are kept of a queue or a function.
LENGTH = 200
#: Minutes that a row is about, and the hours for which it is kept.
SPANS = {1: 48, 10: 14 * 24, 60: 400 * 24, 1440: 400 * 24}
OUTCOMES = ("succeeded", "failed", "retried", "cancelled", "timed_out", "crashed", "parked", "discarded")
#: Those with which a task has ended, of its attempts the last; the others are followed by something.
ENDS = ("succeeded", "failed", "cancelled", "timed_out", "discarded")


def flush(cursor: Cursor, *, worker: UUID, seq: int, body: str) -> None:
    """Write what a worker has counted, as JSON; a second time with the same number writes nothing."""
    cursor.execute(sql("flush"), {"worker": worker, "seq": seq, "body": body})


def count_crashes(cursor: Cursor, freed: Iterable[Freed]) -> None:
    """Count the attempts that ended with their workers: those cannot."""
    count_not_run(cursor, Counter((one.queue, one.func, "crashed") for one in freed if one.charged))


def count_not_run(cursor: Cursor, numbers: Counter[tuple[str, str, str]]) -> None:
    """Count what no worker has run, by queue, function and outcome; part of the caller's transaction, if there is one.

    If the table cannot be written, that is only logged: the tasks must end all the same.
    """
    cut: Counter[tuple[str, str, str]] = Counter()
    for (queue, func, outcome), number in numbers.items():
        cut[queue[:LENGTH], func[:LENGTH], outcome] += number
    if not cut:
        return
    nothing = [None, None]
    entries = [[*key, number, 0, 0, nothing, 0, 0, nothing] for key, number in cut.items()]
    try:
        # A savepoint, in a transaction of the caller's.
        with savepoint(cursor):
            flush(cursor, worker=uuid4(), seq=0, body=json.dumps(entries))
    except _REFUSED as error:
        logger.warning("%d tasks or attempts that ended cannot be counted: %s", cut.total(), error)


class Raw(NamedTuple):
    """What a worker counted in some minute."""

    at: datetime
    body: Any


def take_raw(cursor: Cursor, *, limit: int) -> list[Raw]:
    """Take what is not added up, and mark it as added up in this transaction."""
    return [Raw(at, json.loads(body)) for at, body in all_rows(cursor, "take_raw", {"limit": limit})]


class Pair(NamedTuple):
    """A row of pgq_metric, by its key."""

    span: int
    at: datetime
    queue: str
    func: str


def metric_pairs(cursor: Cursor, times: Sequence[tuple[int, datetime]]) -> set[Pair]:
    """Return the rows of these spans and times that are there."""
    spans, ats = [span for span, _ in times], [at for _, at in times]
    return {Pair(*row) for row in all_rows(cursor, "metric_pairs", {"spans": spans, "ats": ats})}


def total_pairs(cursor: Cursor) -> set[tuple[str, str]]:
    """Return the queues and functions that have counters."""
    return {(row[0], row[1]) for row in all_rows(cursor, "total_pairs", {})}


def add_counted(cursor: Cursor, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add to rows of pgq_metric or pgq_total, each a mapping by the names of its columns."""
    key, touched = _ADDED[table]
    text = sql("add_counted", table=table, key=key, touched=touched)
    cursor.execute(text, {"rows": json.dumps(list(rows), default=str)})


#: The key of each table, and what else changes with a row.
_ADDED = {
    "pgq_metric": ("span, at, queue, func", ""),
    "pgq_total": ("queue, func", ", updated_at = clock_timestamp()"),
}


def gauge_minute(cursor: Cursor) -> tuple[datetime, bool]:
    """Return this minute by the database's clock, and whether there are no gauges of it."""
    at, missing = one_row(cursor, "gauge_minute", {})
    return at, missing


class Serving(NamedTuple):
    """A pool: how many workers it has, and which queues it serves."""

    workers: int
    queues: Queues


def serving(cursor: Cursor, *, alive: float) -> list[Serving]:
    """Return the pools that were heard of in the last `alive` seconds."""
    rows = all_rows(cursor, "serving", {"alive": alive})
    return [Serving(workers, Queues(only, excluded or ())) for workers, only, excluded in rows]


def sampled_ready(cursor: Cursor, *, pages: int) -> dict[str, int]:
    """Return an estimate of the ready tasks of each queue, from so many pages of the table."""
    return {row[0]: row[1] for row in all_rows(cursor, "sampled_ready", {"pages": pages})}


def add_gauges(cursor: Cursor, at: datetime, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write gauges of a moment, each a mapping by the names of its columns; what is there of that time stays."""
    cursor.execute(sql("add_gauges"), {"at": at, "rows": json.dumps(list(rows))})


def findings_due(cursor: Cursor, *, age: float) -> bool:
    """Return whether the checks were last run more than so many seconds ago."""
    return bool(one_row(cursor, "findings_due", {"age": age})[0])


def save_findings(cursor: Cursor, found: Iterable[Finding]) -> None:
    """Keep what the checks have found."""
    cursor.execute(sql("save_findings"), {"rows": json.dumps([asdict(one) for one in found])})


def limit_time(cursor: Cursor, *, milliseconds: int) -> None:
    """Let each statement of this transaction, or savepoint, fail after so long."""
    all_rows(cursor, "limit_time", {"milliseconds": str(milliseconds)})


def mark(cursor: Cursor, *, label: str, kind: str, author: str | None) -> bool:
    """Mark this moment; return whether that is new."""
    return bool(one_row(cursor, "mark", {"label": label, "kind": kind, "author": author})[0])


def drop_raw(cursor: Cursor, *, age: float, limit: int) -> int:
    """Delete what was added up so many seconds ago; return how many rows."""
    return int(one_row(cursor, "drop_raw", {"age": age, "limit": limit})[0])


def drop_span(cursor: Cursor, table: str, *, span: int, hours: int, limit: int) -> int:
    """Delete rows of a span, of pgq_metric or pgq_gauge, that are older than that; return how many."""
    return int(one_row(cursor, "drop_span", {"span": span, "hours": hours, "limit": limit}, table=table)[0])


def drop_totals(cursor: Cursor, *, days: int) -> int:
    """Delete counters that have not grown for so many days; return how many."""
    return int(one_row(cursor, "drop_totals", {"days": days})[0])
