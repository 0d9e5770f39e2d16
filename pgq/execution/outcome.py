"""What becomes of a task that has run: succeeded, failed, or tried again."""

from __future__ import annotations

import logging
import time

from pgq.codec import failures
from pgq.conf import Settings
from pgq.enqueue import registry
from pgq.errors import Discard, Retry
from pgq.execution import reporters
from pgq.ground import backoff
from pgq.records import Call, Claim, Failed, Failure, NewTask, Outcome, Report, Retried
from pgq.records.options import NO_OPTIONS, TaskOptions
from pgq.workflows import follow_ons as workflows_follow_ons

logger = logging.getLogger("pgq")


def failed(ran: Call | Report, error: BaseException, settings: Settings) -> Report:
    """Return the report of a run that raised, and pass the exception to the error reporters."""
    claim, options, trusted = ran.claim, ran.options, ran.trusted
    outcome = _after_error(claim, options, trusted, error, settings)
    report = Report(claim, outcome, ran.started, time.monotonic(), None, error, options, trusted, context=ran.context)
    reporters.report(error, settings)
    return report


def _after_error(
    claim: Claim, options: TaskOptions, trusted: bool, error: BaseException, settings: Settings
) -> Outcome:
    failure = failures.describe(error)
    try:
        if _may_retry(claim, options, error):
            # A float, as all others: PostgreSQL takes no list of mixed numbers, and so would refuse the whole batch.
            return Retried(failure=failure, delay=float(_delay(claim, options, trusted, error, settings)))
    except Exception:
        logger.exception("task %s: its retry policy failed, so it is not retried", claim.id.hex)
    return final(claim, options, trusted, failure, discarded=isinstance(error, Discard))


def _may_retry(claim: Claim, options: TaskOptions, error: BaseException) -> bool:
    # In this order: what the function raised, what its options retry, how often.
    if isinstance(error, Discard) or options.ack_failure:
        return False
    if options is not NO_OPTIONS and not isinstance(error, Retry):
        names = {failures.path_of(kind) for kind in type(error).__mro__}
        if options.no_retry_on is not None and names.intersection(options.no_retry_on):
            return False
        if options.retry_on is not None and not names.intersection(options.retry_on):
            return False
    return claim.max_attempts == 0 or claim.failed_attempts + 1 < claim.max_attempts


def _delay(claim: Claim, options: TaskOptions, trusted: bool, error: BaseException, settings: Settings) -> float:
    if isinstance(error, Retry) and error.delay is not None:
        return error.delay
    policy = settings.retry_backoff if options.retry_backoff is None else options.retry_backoff
    if callable(policy):
        return max(0.0, float(policy(claim.failed_attempts + 1, error)))
    # Only a row that was signed may have anything imported by its name.
    return backoff.delay(policy, claim.failed_attempts + 1, error, lambda path: registry.resolve(path, signed=trusted))


def final(
    claim: Claim,
    options: TaskOptions,
    trusted: bool,
    failure: Failure,
    *,
    ran: bool = True,
    discarded: bool = False,
) -> Failed:
    try:
        follow_ons = follow_ons_of(claim, options, trusted, None)
    except Exception:
        logger.exception("task %s: what should follow it cannot be made", claim.id.hex)
        follow_ons = ()
    return Failed(failure=failure, follow_ons=follow_ons, ran=ran, discarded=discarded)


def follow_ons_of(claim: Claim, options: TaskOptions, trusted: bool, result: str | None) -> tuple[NewTask, ...]:
    if claim.hook is None and options is NO_OPTIONS:
        return ()
    new = workflows_follow_ons.follow_ons(claim, options, result)
    # An unsigned row's follow-ons stay unsigned: else write access to the table would mean code execution.
    return new if trusted else tuple(task._replace(signature=None) for task in new)


def last_failure(claim: Claim) -> Failure | None:
    return None if claim.last_error is None else failures.from_json(claim.last_error)
