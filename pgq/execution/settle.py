"""Writes reports: what became of tasks goes into the tables, with all that follows from it, in one transaction."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence, Set
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from pgq import codec, signals
from pgq.codec import failures
from pgq.execution import progress, result_cache
from pgq.ground import events
from pgq.ground.ids import task_name
from pgq.records import Failed, Parked, Postponed, Report, Retried, Settled, Succeeded
from pgq.records.options import NO_OPTIONS
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
        psycopg.Error: Nothing was written, unless the connection broke at the commit. Writing the same reports again
            is harmless, since a receipt is good for one write only.
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
    if events.settle.listeners:
        _tell(reports, accepted)
    if len(accepted) == len(reports) and not signals.post_execute.receivers:
        # No receiver. Checked once: in `announce` each task would pay for it.
        return
    for report in reports:
        _conclude(report, report.claim.id in accepted)


def _tell(reports: Sequence[Report], accepted: Set[UUID]) -> None:
    """Tell the listeners what became of the reports of a commit."""
    refused: tuple[Report, ...] = ()
    if len(accepted) < len(reports):
        refused = tuple(report for report in reports if report.claim.id not in accepted)
        reports = [report for report in reports if report.claim.id in accepted]
    events.settle.tell(Settled(tuple(reports), refused))


def conclude(report: Report, accepted: bool) -> None:
    """Tell what became of a report that had a commit of its own, after that."""
    if events.settle.listeners:
        _tell([report], {report.claim.id} if accepted else set())
    _conclude(report, accepted)


def _conclude(report: Report, accepted: bool) -> None:
    if accepted:
        announce(report)
    else:
        logger.warning(
            "task %s (%s): its lease was lost before it was settled, so its outcome is not written",
            report.claim.id.hex,
            report.claim.func,
        )


def _written_before(connection: Connection, refused: Sequence[Report]) -> set[UUID]:
    """Return which of these had been written already: the reply to an earlier commit was lost."""
    try:
        return queue.written_before(connection.cursor(), [_refused(report) for report in refused])
    except psycopg.Error:
        # The accepted ones are committed; this only decides whether the others are logged.
        return set()


def _refused(report: Report) -> queue.Refused:
    claim, outcome = report.claim, report.outcome
    return queue.Refused(
        claim.id,
        claim.attempts,
        isinstance(outcome, Succeeded),
        outcome.keep if isinstance(outcome, Succeeded) else True,
        outcome.failure.exception if isinstance(outcome, Retried | Postponed) else None,
        outcome.reason if isinstance(outcome, Parked) else None,
    )


def write(cursor: Cursor, reports: Sequence[Report], cluster: str, *, ends_here: bool | None = None) -> set[UUID]:
    """Write reports inside the caller's transaction; return the ids of those whose lease still held.

    Args:
        ends_here: Whether the transaction ends right after this statement. Then PostgreSQL may end it if this process
            sends nothing for some seconds: frozen, it would keep the rows locked. None: if the connection is not
            Django's.
    """
    now = time.monotonic()
    finished = [report for report in reports if isinstance(report.outcome, _FINISHED)]
    accepted: set[UUID] = set()
    with_context = [report for report in reports if report.context is not None]
    if with_context:
        # First: it is fenced by the receipts of the rows.
        progress.save(cursor, with_context)
    if finished:
        not_run = [r.claim for r in finished if type(r.outcome) is Failed and not r.outcome.ran]
        if not_run:
            queue.uncount(cursor, not_run)
        settlements = [_settlement(report, now) for report in finished]
        accepted |= queue.settle(cursor, settlements, cluster=cluster, ends_here=ends_here)
        whole = len(accepted) == len(finished)
        _follow_up(cursor, finished if whole else [report for report in finished if report.claim.id in accepted])
    if len(finished) < len(reports):
        retried = [(r.claim, r.outcome, now - r.started) for r in reports if isinstance(r.outcome, Retried)]
        parked = [(r.claim, r.outcome) for r in reports if isinstance(r.outcome, Parked)]
        if retried:
            accepted |= queue.retry(
                cursor, [(c.id, c.receipt, o.delay, began, failures.as_json(o.failure)) for c, o, began in retried]
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
    texts = error.exception, error.message, error.traceback
    return Settlement(claim.id, claim.receipt, False, True, started, stopped, None, *texts, claim.ctid)


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
    """Delete the results that were kept only until their hook or collector had read them."""
    # Only for signed rows: write access to the queue must not mean that results can be deleted.
    done = [report.options for report in settled if isinstance(report.outcome, Succeeded) and report.trusted]
    ids = [UUID(options.hook_of) for options in done if options.forget]
    groups = [options.collects for options in done if options.collects is not None]
    if ids or groups:
        results.forget(cursor, ids=ids, groups=groups)


def announce(report: Report) -> None:
    """Send post_execute, if it has a receiver. Called after the commit."""
    if not signals.post_execute.receivers:
        return
    claim, outcome = report.claim, report.outcome
    # For a failure, the text that Task.result gives.
    failure = getattr(outcome, "failure", None)
    # What would have to be imported or loaded is described: the task is over, and so are its objects.
    args, kwargs = codec.decode_args_for_display(claim.args, claim.kwargs)
    stopped = moments.now() - timedelta(seconds=time.monotonic() - report.stopped)
    signals.send(
        signals.post_execute,
        task={
            "id": claim.id.hex,
            "name": claim.name or task_name(claim.id),
            "func": claim.func,
            "args": tuple(args),
            "kwargs": kwargs,
            "group": claim.group,
            "hook": claim.hook,
            "started": moments.as_project(claim.enqueued_at),
            "stopped": moments.as_project(stopped),
            "attempt": claim.attempts,
            "result": f"{failure.message} : {failure.traceback}" if failure is not None else report.value,
            "success": isinstance(outcome, Succeeded),
        },
    )


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
    """Return a report that nothing follows: the options of a row from psql may hold anything."""
    outcome = report.outcome
    if isinstance(outcome, Succeeded):
        # Not into the cache, then.
        outcome = outcome._replace(keep=True)
    return report._replace(options=NO_OPTIONS, outcome=outcome)


def parked(report: Report, error: Exception) -> Report:
    """Return the last resort: the row stays, is not run again, and has the reason."""
    reason = f"it ran, and what came of it cannot be settled: {type(error).__name__}: {error}"
    return report._replace(outcome=Parked(reason=codec.clean_text(reason, 10_000)))


def log_success(report: Report) -> None:
    """Log that a task succeeded, as `log_failure` does. Called only where that level is on: each would pay."""
    milliseconds = 1000 * (report.stopped - report.started)
    _log(logging.DEBUG, report, "succeeded in %.1f ms, in attempt %d", milliseconds, report.claim.attempts)


def log_failure(report: Report) -> None:
    """Log an outcome other than success, when the task has ended and before it is settled.

    The name of the function is part of the message's template and the rest are its arguments, since trackers of errors
    make one issue of all records with the same template. With it goes what was raised, for handlers that can use it.
    """
    claim, outcome = report.claim, report.outcome
    if isinstance(outcome, Failed):
        _log(logging.ERROR, report, "failed: %s: %s", outcome.failure.exception, outcome.failure.message)
    elif isinstance(outcome, Retried):
        template, failure = "failed in attempt %d and is tried again in %.1f s: %s: %s", outcome.failure
        _log(logging.WARNING, report, template, claim.attempts, outcome.delay, failure.exception, failure.message)
    elif isinstance(outcome, Postponed):
        # A warning once is enough: the next worker's would be the same.
        level = logging.WARNING if outcome.times == 1 else logging.DEBUG
        template = "is given back for %.0f s, since this worker's code does not know it: %s"
        _log(level, report, template, outcome.delay, outcome.failure.message)
    elif isinstance(outcome, Parked):
        _log(logging.ERROR, report, "is parked: %s", outcome.reason)


def _log(level: int, report: Report, template: str, *args: Any) -> None:
    if not logger.isEnabledFor(level):
        return
    claim, error = report.claim, report.error
    # A row from psql may name what it likes, at any length.
    func = claim.func[:200].replace("%", "%%")
    raised = (type(error), error, failures.users_part(error.__traceback__)) if error is not None else None
    record = logger.makeRecord(
        logger.name, level, __file__, 0, f"task %s ({func}) {template}", (claim.id.hex, *args), raised, "report"
    )
    failure = getattr(report.outcome, "failure", None)
    if failure is not None and failure.traceback:
        # Formatters take this and format nothing again: it is bounded, and an exception's own methods may raise.
        record.exc_text = failure.traceback.rstrip("\n")
    logger.handle(record)
