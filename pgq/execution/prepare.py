"""Checks all of a claim that the row could spoil: signature, function, arguments. Knows no SQL."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pgq import codec
from pgq.codec import failures, signing
from pgq.conf import Settings
from pgq.enqueue import django_tasks, registry
from pgq.errors import Expired, NotAllowed, PgqError, TaskCancelled, TaskTimeout, UnknownFunction, WorkerDied
from pgq.execution import context as contexts
from pgq.execution.outcome import failed, final, last_failure
from pgq.ground import backoff
from pgq.records import Call, Claim, Failure, Outcome, Parked, Postponed, Report
from pgq.records.options import NO_OPTIONS, TaskOptions

#: Errors of a row that cannot be run as it is.
_NOT_RUN = (NotAllowed, UnknownFunction, codec.NotDecodable)

#: What this worker's code does not know is given back so often, a quarter of an hour in all, before it is parked.
_POSTPONED_AT_MOST = 20
_POSTPONE: Mapping[str, Any] = {"kind": "exponential", "base": 1.0, "factor": 2.0, "max": 60.0}


def ready(claim: Claim, settings: Settings) -> Call | Report:
    """Check all that the row could spoil: return what can be called, or a report of why nothing can.

    The row's options are parsed and its signature is verified here, and nowhere else. Never raises.
    """
    started = time.monotonic()
    options, trusted = NO_OPTIONS, False
    try:
        trusted = claim.signature is not None and signing.verify_claim(claim)
        options = TaskOptions.parse(claim.options)
        failure = _refuse_unrun(claim, settings)
        if failure is not None:
            # Claiming it was counted, and it does not run.
            claim = claim._replace(attempts=claim.attempts - 1)
            outcome: Outcome = final(claim, options, trusted, failure, ran=False)
            report = Report(claim, outcome, started, time.monotonic(), options=options, trusted=trusted)
            if django_tasks.concerns(claim.func, options):
                from pgq.execution.django_tasks import ended_without_running

                ended_without_running(report)
            return report
        return _prepare(claim, options, trusted, settings, started)
    except BaseException as error:
        if isinstance(error, _NOT_RUN) and not isinstance(error, codec.ObjectGone):
            outcome = _not_run(claim, error)
            return Report(claim, outcome, started, time.monotonic(), options=options, trusted=trusted)
        # ObjectGone fails the attempt, as if the function had read the object: retries, hook and group follow.
        return failed(Call(claim, options, trusted, _nothing, (), {}, started), error, settings)


def _nothing() -> None:
    """Stand for the function of a task that failed before its function was found."""


def _prepare(claim: Claim, options: TaskOptions, trusted: bool, settings: Settings, started: float) -> Call:
    """Resolve and decode.

    Raises:
        NotAllowed, UnknownFunction, NotDecodable: The row cannot be run as it is.
    """
    if claim.signature is not None and not trusted:
        raise NotAllowed("the signature does not fit the row: it was changed, or signed with a key not known here")
    func = registry.resolve(claim.func, signed=trusted)
    pickles = trusted and settings.allow_pickle
    args, kwargs = codec.decode_args(
        claim.args, claim.kwargs, trusted=trusted, allow_pickle=pickles, unsign=signing.unsign_blob if pickles else None
    )
    if options.hook_of is not None:
        args = (_finished_task(options.hook_of, settings), *args)
    call = Call(claim, options, trusted, func, args, kwargs, started)
    return _special(call) if claim.func in registry.special or options.django is not None else call


def _special(call: Call) -> Call:
    """Return the call of a function that takes a context, or is run by the rules of django.tasks."""
    if django_tasks.concerns(call.claim.func, call.options):
        call = _of_django(call)
    takes_context = registry.takes_context(call.claim.func) if call.django is None else call.django.takes_context
    if not takes_context:
        return call
    context = contexts.make(call)
    return call._replace(args=(context, *call.args), context=context)


def _of_django(call: Call) -> Call:
    """Return the call of a task of django.tasks, with what that wants to know of it."""
    # Not at the top: most processes have no such task, and not each Django has django.tasks.
    from pgq.execution.django_tasks import attempt_of

    return call._replace(django=attempt_of(call.claim, call.options, call.args, call.kwargs, trusted=call.trusted))


def _not_run(claim: Claim, error: PgqError) -> Outcome:
    """Return what becomes of a row that cannot be run as it is.

    During a deploy old workers meet tasks of the new release. So a task that Python enqueued and this code does not
    know is left to other workers for a while. What is not allowed here is allowed in no worker.
    """
    reason = codec.clean_text(f"{type(error).__name__}: {error}", failures.MESSAGE_LIMIT)
    final = isinstance(error, NotAllowed)
    if final or (claim.signature is None and not isinstance(error, UnknownFunction)):
        return Parked(reason=reason)
    times = _postponed(claim) + 1
    if times > _POSTPONED_AT_MOST:
        return Parked(reason=f"{reason} (given back {times - 1} times, in case a worker of another release knows it)")
    failure = failures.without_traceback(error)
    return Postponed(failure=failure, delay=backoff.delay(_POSTPONE, times), times=times)


def _postponed(claim: Claim) -> int:
    """How often the task has been postponed since anything else happened to it. A history may hold anything."""
    entry = json.loads(claim.last_error) if claim.last_error is not None else None
    times = entry.get("postponed") if isinstance(entry, dict) else None
    return times if isinstance(times, int) else 0


def _finished_task(id: str, settings: Settings) -> Any:
    from pgq.models import Task

    return Task.objects.using(settings.database).get(pk=id)


def _refuse_unrun(claim: Claim, settings: Settings) -> Failure | None:
    """Return why a task must be settled without running it, or None."""
    if claim.cancelled:
        return failures.without_traceback(TaskCancelled("the task was cancelled"))
    if claim.expired:
        return failures.without_traceback(Expired("the task had not started when its time was over"))
    if claim.crashes >= settings.max_crashes:
        return last_failure(claim) or failures.without_traceback(WorkerDied("the task took its worker down too often"))
    if claim.max_attempts and claim.failed_attempts >= claim.max_attempts:
        return last_failure(claim) or failures.without_traceback(TaskTimeout("the task has no attempt left"))
    return None
