"""Writes what tasks say of themselves (`pgq.execution.context`) to pgq_progress."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psycopg
from django import db

from pgq.execution import context as contexts
from pgq.records import Report, Succeeded
from pgq.store import progress
from pgq.store.caller import savepoint
from pgq.store.connection import Cursor
from pgq.store.outage import is_gone, message

logger = logging.getLogger("pgq")

#: Seconds between two writes of a worker.
EVERY = 1.0
#: Milliseconds that the guard, and a settlement, wait for a row of pgq_progress that another session has locked.
_GUARD_MS, _SETTLE_MS = 200, 1000


class _Logged:
    """Whether it was logged that the guard cannot write. Process-wide because a worker has one guard."""

    once = False


def write_unwritten(cursor: Cursor) -> None:
    """Write what running tasks have said since the last time. Called by the guard; the connection is in autocommit.

    Whatever is not written stays, to be written the next time or with the settlement.

    Raises:
        psycopg.Error: The connection has failed.
    """
    try:
        with contexts.taken() as (said, written):
            if said:
                written |= progress.write_progress(cursor, said, lock_ms=_GUARD_MS)
    except psycopg.errors.LockNotAvailable:
        return
    except Exception as error:
        if isinstance(error, psycopg.Error) and is_gone(cursor.connection, error):
            raise
        # Once, since it is tried again each second.
        if not _Logged.once:
            _Logged.once = True
            logger.warning("what tasks say of their progress cannot be written while they run: %s", message(error))


def save(cursor: Cursor, reports: Sequence[Report]) -> None:
    """Write what these tasks have said and is not written yet, in the transaction that settles them, before they leave.

    A failure is logged and takes nothing else with it: a task must not fail for what it said.
    """
    said = [one for report in reports if _is_kept(report) and (one := contexts.said(report.context)) is not None]
    if not said:
        return
    try:
        with savepoint(cursor):
            progress.write_progress(cursor, said, lock_ms=_SETTLE_MS)
    except (psycopg.Error, db.Error) as error:
        if cursor.connection.closed:
            raise
        text = message(error.__cause__ if isinstance(error, db.Error) and error.__cause__ is not None else error)
        logger.warning("what %d tasks said of their progress is not kept: %s", len(said), text)


def _is_kept(report: Report) -> bool:
    outcome = report.outcome
    return report.context is not None and (type(outcome) is not Succeeded or outcome.keep)
