"""Writes reports: what became of tasks goes into the tables, with all that follows from it, in one transaction."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from pgq import codec, signals
from pgq.codec import failures
from pgq.execution import result_cache
from pgq.ids import task_name
from pgq.options import NO_OPTIONS
from pgq.records import Failed, Parked, Postponed, Report, Retried, Succeeded
from pgq.recurrence import moments
from pgq.store import queue, results
from pgq.store.connection import Connection, Cursor
from pgq.store.queue import Settlement
from pgq.workflows.groups import collectors

logger = logging.getLogger("pgq")

_FINISHED = (Succeeded, Failed)


@contextlib.contextmanager
def transaction(connection: Connection, reports: Sequence[Report], cluster: str) -> Iterator[Cursor]:
    """Write the reports and let the caller add to the same transaction, by the cursor that is yielded.

    Raises:
        psycopg.Error: Nothing was written, unless the connection broke at the commit: then nobody knows, and writing
            the same reports again is harmless, since a receipt is good for one write only.
    """
    if not reports:
        yield connection.cursor()
        return
    with connection.transaction():
        cursor = connection.cursor()
        accepted = write(cursor, reports, cluster)
        yield cursor
    if len(accepted) < len(reports):
        accepted |= _written_before(connection, [report for report in reports if report.claim.id not in accepted])
    elif not signals.post_execute.receivers:
        # Nothing to say. Asked once, since each task would pay for it.
        return
    for report in reports:
        conclude(report, report.claim.id in accepted)


def conclude(report: Report, accepted: bool) -> None:
    """Announce or log what became of a report, after the commit."""
    if accepted:
        announce(report)
    else:
        logger.warning(
            "task %s (%s): its lease was lost before it was settled, so its outcome is not written",
            report.claim.id.hex, report.claim.func,
        )  # fmt: skip


def _written_before(connection: Connection, refused: Sequence[Report]) -> set[UUID]:
    """Return which of them had been written already: the reply to an earlier commit was lost."""
    try:
        return queue.written_before(connection.cursor(), [_refused(report) for report in refused])
    except psycopg.Error:
        # What could be written is; this only decides what is said of the others.
        return set()


def _refused(report: Report) -> queue.Refused:
    claim, outcome = report.claim, report.outcome
    return queue.Refused(
        claim.id, claim.attempts, isinstance(outcome, Succeeded),
        outcome.keep if isinstance(outcome, Succeeded) else True,
        outcome.failure.exception if isinstance(outcome, Retried | Postponed) else None,
        outcome.reason if isinstance(outcome, Parked) else None,
    )  # fmt: skip


def write(cursor: Cursor, reports: Sequence[Report], cluster: str, *, ours: bool | None = None) -> set[UUID]:
    """Write reports inside the caller's transaction; return the ids of those whose lease still held.

    Args:
        ours: Whether the transaction ends right after this, so that PostgreSQL may end it if we say nothing for some
            seconds: frozen, we would keep the rows locked. None: if the connection is not Django's.
    """
    now = time.monotonic()
    finished = [report for report in reports if isinstance(report.outcome, _FINISHED)]
    accepted: set[UUID] = set()
    if finished:
        not_run = [r.claim for r in finished if type(r.outcome) is Failed and not r.outcome.ran]
        if not_run:
            queue.uncount(cursor, not_run)
        settlements = [_settlement(report, now) for report in finished]
        accepted |= queue.settle(cursor, settlements, cluster=cluster, ours=ours)
        whole = len(accepted) == len(finished)
        _follow_up(cursor, finished if whole else [report for report in finished if report.claim.id in accepted])
    if len(finished) < len(reports):
        retried = [(r.claim, r.outcome) for r in reports if isinstance(r.outcome, Retried)]
        parked = [(r.claim, r.outcome) for r in reports if isinstance(r.outcome, Parked)]
        if retried:
            accepted |= queue.retry(
                cursor, [(c.id, c.receipt, o.delay, failures.as_json(o.failure)) for c, o in retried]
            )
        postponed = [(r.claim, r.outcome) for r in reports if isinstance(r.outcome, Postponed)]
        if postponed:
            accepted |= queue.postpone(
                cursor,
                [(c.id, c.receipt, o.delay, failures.as_json(o.failure, postponed=o.times)) for c, o in postponed],
            )
        if parked:
            accepted |= queue.park(cursor, [(c.id, c.receipt, o.reason) for c, o in parked])
    return accepted


def _settlement(report: Report, now: float) -> Settlement:
    claim, outcome = report.claim, report.outcome
    started, stopped = now - report.started, now - report.stopped
    if type(outcome) is Succeeded:
        return Settlement(
            claim.id, claim.receipt, True, outcome.keep, started, stopped, outcome.result, None, None, None, claim.ctid
        )
    assert isinstance(outcome, Failed)
    error = outcome.failure
    return Settlement(
        claim.id, claim.receipt, False, True, started, stopped,
        None, error.exception, error.message, error.traceback, claim.ctid,
    )  # fmt: skip


def _follow_up(cursor: Cursor, settled: Sequence[Report]) -> None:
    """Write what follows from the tasks that were settled just now. For most there is nothing."""
    followers = [new for report in settled for new in report.outcome.follow_ons]  # type: ignore[union-attr]
    if followers:
        queue.enqueue_many(cursor, followers)
    with_options = [report for report in settled if report.options is not NO_OPTIONS]
    if not with_options:
        return
    counts = collectors(with_options)
    if counts:
        queue.collect(cursor, counts)
    _cache_results(cursor, with_options)
    _forget(cursor, with_options)


def _cache_results(cursor: Cursor, settled: Sequence[Report]) -> None:
    cached = [report for report in settled if report.options.cached]
    if not cached:
        return
    groups = {report.claim.group for report in cached if report.claim.group is not None}
    if groups:
        queue.lock_groups(cursor, sorted(groups))
    result_cache.deliver(cached, time.monotonic())


def _forget(cursor: Cursor, settled: Sequence[Report]) -> None:
    """Results that somebody wanted elsewhere, or not at all, were kept until their hook or collector had read them."""
    # Only rows that Python signed may say so; who writes to the table must not delete results by it.
    done = [report.options for report in settled if isinstance(report.outcome, Succeeded) and report.trusted]
    ids = [UUID(options.hook_of) for options in done if options.forget]
    groups = [options.collects for options in done if options.collects is not None]
    if ids or groups:
        results.forget(cursor, ids=ids, groups=groups)


def announce(report: Report) -> None:
    """Send post_execute, if anybody listens. Called after the commit."""
    if not signals.post_execute.receivers:
        return
    claim, outcome = report.claim, report.outcome
    # Of a failure the text that Task.result gives.
    failure = getattr(outcome, "failure", None)
    # What would have to be imported or loaded is described: the task is over, and so are its objects.
    args, kwargs = codec.decode_args_for_display(claim.args, claim.kwargs)
    stopped = moments.now() - timedelta(seconds=time.monotonic() - report.stopped)
    signals.send(signals.post_execute, task={
        "id": claim.id.hex, "name": claim.name or task_name(claim.id), "func": claim.func, "args": tuple(args),
        "kwargs": kwargs, "group": claim.group, "hook": claim.hook, "started": moments.as_project(claim.enqueued_at),
        "stopped": moments.as_project(stopped), "attempt": claim.attempts,
        "result": f"{failure.message} : {failure.traceback}" if failure is not None else report.value,
        "success": isinstance(outcome, Succeeded),
    })  # fmt: skip


def without_what_was_refused(report: Report, error: Exception) -> Report:
    """Return a report that PostgreSQL will take, for one that it refused: the task is not run again for it."""
    failure = failures.describe(error)
    if isinstance(report.outcome, Succeeded):
        result = codec.encode_result(
            codec.Unstorable("", f"PostgreSQL refused it: {failure.message}", ""), limit=10_000
        )
        return report._replace(outcome=Succeeded(result=result, keep=report.outcome.keep))
    return report._replace(outcome=Failed(failure=failure))


def without_options(report: Report, error: Exception) -> Report:
    """Return a report of which nothing follows: what the options of a row from psql say may be anything."""
    outcome = report.outcome
    if isinstance(outcome, Succeeded):
        # Not into the cache, then.
        outcome = outcome._replace(keep=True)
    return report._replace(options=NO_OPTIONS, outcome=outcome)


def parked(report: Report, error: Exception) -> Report:
    """Return the last resort: the row stays, is not run again, and says why."""
    reason = f"it ran, and what came of it cannot be settled: {type(error).__name__}: {error}"
    return report._replace(outcome=Parked(reason=codec.clean_text(reason, 10_000)))


def log_failure(report: Report) -> None:
    """Log an outcome that somebody should hear of, when the task has ended and before it is settled.

    The name of the function is part of the message's template and the rest are its arguments, since trackers of errors
    make one issue of all records with the same template. With it goes what was raised, for handlers that can use it.
    """
    claim, outcome = report.claim, report.outcome
    if isinstance(outcome, Failed):
        _log(logging.ERROR, report, "failed: %s: %s", outcome.failure.exception, outcome.failure.message)
    elif isinstance(outcome, Retried):
        _log(
            logging.WARNING, report, "failed in attempt %d and is tried again in %.1f s: %s: %s",
            claim.attempts, outcome.delay, outcome.failure.exception, outcome.failure.message,
        )  # fmt: skip
    elif isinstance(outcome, Postponed):
        # Once is enough: the next worker to say so says nothing new.
        level = logging.WARNING if outcome.times == 1 else logging.DEBUG
        _log(
            level, report, "is given back for %.0f s, since this worker's code does not know it: %s",
            outcome.delay, outcome.failure.message,
        )  # fmt: skip
    elif isinstance(outcome, Parked):
        _log(logging.ERROR, report, "is parked: %s", outcome.reason)


def _log(level: int, report: Report, template: str, *args: Any) -> None:
    if not logger.isEnabledFor(level):
        return
    claim, error = report.claim, report.error
    # A row from psql may name what it likes, at any length.
    func = claim.func[:200].replace("%", "%%")
    record = logger.makeRecord(
        logger.name, level, __file__, 0, f"task %s ({func}) {template}", (claim.id.hex, *args),
        (type(error), error, failures.users_part(error.__traceback__)) if error is not None else None, "report",
    )  # fmt: skip
    failure = getattr(report.outcome, "failure", None)
    if failure is not None and failure.traceback:
        # Formatters take this and format nothing again: it is bounded, and an exception's own methods may raise.
        record.exc_text = failure.traceback.rstrip("\n")
    logger.handle(record)
