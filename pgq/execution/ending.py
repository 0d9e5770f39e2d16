"""Ends tasks that do not run, without a worker: in the transaction of who cancels them, or in that of upkeep.

The same steps as in a worker, but the function's: a claim, its settlement, and what follows: hook, links of its chain,
collector. So it is told once, by the receipt, whichever of the three is first.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID, uuid4

import psycopg
from django import db
from django.db import transaction

from pgq.codec import failures
from pgq.conf import Settings, get_settings
from pgq.errors import Expired, TaskCancelled
from pgq.execution import prepare, settle
from pgq.execution.outcome import final
from pgq.execution.tally import outcome_of
from pgq.ground import events
from pgq.records import Claim, Failed, Report
from pgq.records.options import NO_OPTIONS
from pgq.store import endings, metrics
from pgq.store.caller import callers_cursor, savepoint
from pgq.store.connection import Cursor

logger = logging.getLogger("pgq")

#: The `worker` of these claims: no process has that id, so no supervisor renews their leases.
_NO_WORKER = UUID(int=0)
#: What PostgreSQL answers to a report that it will never take, by Django's cursor or by psycopg's.
_REFUSED = (
    db.DataError,
    db.IntegrityError,
    db.ProgrammingError,
    db.NotSupportedError,
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.NotSupportedError,
)
#: Tasks that are cancelled by one statement.
_BATCH = 500


def cancel(ids: Sequence[UUID]) -> dict[UUID, str]:
    """Cancel tasks in the caller's transaction; those that no worker holds end in it, with all that follows.

    Returns:
        For each task what `pgq.tasks.cancel` returns.
    """
    settings = get_settings()
    found: dict[UUID, str] = {}
    with transaction.atomic(using=settings.database), callers_cursor(settings.database) as cursor:
        # In the order of the ids also from batch to batch: two callers cannot deadlock.
        ordered = sorted(set(ids))
        for start in range(0, len(ordered), _BATCH):
            found.update(_cancel_some(cursor, ordered[start : start + _BATCH], settings))
    return found


def _cancel_some(cursor: Cursor, ids: Sequence[UUID], settings: Settings) -> dict[UUID, str]:
    claims = endings.take(cursor, ids, worker=_NO_WORKER, receipt=uuid4())
    found = dict.fromkeys((claim.id for claim in claims), "queued")
    reports = _end(cursor, claims, settings)
    _count(cursor, reports)
    for report in reports:
        transaction.on_commit(partial(_tell, report), using=settings.database)
    others = [id for id in ids if id not in found]
    return {**found, **endings.cancel(cursor, others)} if others else found


def settle_ended(cursor: Cursor, settings: Settings, *, limit: int) -> list[Report]:
    """End up to `limit` tasks that are not to run and that no worker holds, in the transaction of the cursor.

    Returns:
        Their reports, to be announced after the commit.
    """
    claims = endings.take_ended(cursor, limit=limit, worker=_NO_WORKER, receipt=uuid4())
    return _end(cursor, claims, settings)


def for_upkeep(settings: Settings, cursor: Cursor, limit: int) -> list[Callable[[], None]]:
    """Do what `settle_ended` does, and count it; return for each task what is to be called after the commit."""
    reports = settle_ended(cursor, settings, limit=limit)
    _count(cursor, reports)
    return [partial(announce, report) for report in reports]


def announce(report: Report) -> None:
    """Log and announce how a task ended that did not run."""
    if events.end.listeners:
        events.end.tell(report)
    settle.log_failure(report)
    settle.announce(report)


def _tell(report: Report) -> None:
    """Announce how a task ended by the caller's own wish, which is no line of the log."""
    if events.end.listeners:
        events.end.tell(report)
    settle.announce(report)


def _end(cursor: Cursor, claims: Sequence[Claim], settings: Settings) -> list[Report]:
    """Settle claims as failed, without running them; return their reports."""
    reports = [_report(claim, settings) for claim in claims]
    if reports and not _is_written(cursor, reports, settings):
        # The options of a row from psql may hold anything: they must not keep the other tasks from ending.
        for report in reports:
            if not _is_written(cursor, [report], settings):
                settle.write(cursor, [_alone(report)], settings.name)
    return reports


def _count(cursor: Cursor, reports: Sequence[Report]) -> None:
    """Count them, as workers count theirs: in this transaction, so a cancel that is rolled back counts nothing."""
    ended = Counter((report.claim.queue, report.claim.func, outcome_of(report.outcome)) for report in reports)
    metrics.count_not_run(cursor, ended)


def _is_written(cursor: Cursor, reports: Sequence[Report], settings: Settings) -> bool:
    """Write reports; return False, and write nothing, if PostgreSQL or pgq's code refuses one of them."""
    try:
        with savepoint(cursor):
            settle.write(cursor, reports, settings.name)
    except Exception as error:
        if isinstance(error, db.Error | psycopg.Error) and not isinstance(error, _REFUSED):
            raise
        if len(reports) == 1:
            logger.warning(
                "task %s: what should follow it is refused, so nothing does: %s", reports[0].claim.id.hex, error
            )
        return False
    return True


def _report(claim: Claim, settings: Settings) -> Report:
    report = prepare.ready(claim, settings)
    if isinstance(report, Report) and isinstance(report.outcome, Failed):
        return report
    # Options that PostgreSQL reads as JSON and Python does not.
    ended = TaskCancelled("the task was cancelled") if claim.cancelled else Expired("its time was over")
    failure = failures.without_traceback(ended)
    now = time.monotonic()
    return Report(claim, final(claim._replace(hook=None), NO_OPTIONS, False, failure, ran=False), now, now)


def _alone(report: Report) -> Report:
    """Return a report that nothing follows."""
    outcome = report.outcome
    assert isinstance(outcome, Failed)
    return report._replace(options=NO_OPTIONS, outcome=Failed(failure=outcome.failure, ran=False))
