"""Runs one claim and returns its outcome as data. Knows no SQL, no pipe and no loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import AsyncGeneratorType, FrameType, GeneratorType
from typing import Any, NamedTuple
from uuid import UUID

from pgq import backoff, codec, failures, flow, registry, reporting, signals, signing
from pgq.conf import Settings
from pgq.errors import Discard, NotAllowed, PgqError, Retry, TaskCancelled, TaskTimeout, UnknownFunction, WorkerDied
from pgq.ids import task_name
from pgq.options import NO_OPTIONS, TaskOptions
from pgq.records import Claim, Failed, Failure, NewTask, Outcome, Parked, Postponed, Receipt, Retried, Succeeded

logger = logging.getLogger("pgq")

_GENERATORS = (GeneratorType, AsyncGeneratorType)
#: Errors of a row that cannot be run as it is.
_NOT_RUN = (NotAllowed, UnknownFunction, codec.NotDecodable)
CANCELLED = "the task was cancelled while it ran"

#: What this worker's code does not know is given back so often, a quarter of an hour in all, before it is parked.
_POSTPONED_AT_MOST = 20
_POSTPONE: Mapping[str, Any] = {"kind": "exponential", "base": 1.0, "factor": 2.0, "max": 60.0}

_current: contextvars.ContextVar[Claim | None] = contextvars.ContextVar("pgq_current_task", default=None)


def current_task() -> Claim | None:
    """Return the task that is running here, or None outside of a task."""
    return _current.get()


class Call(NamedTuple):
    """A claim that is ready to run: everything that the row could spoil has been looked at."""

    claim: Claim
    options: TaskOptions
    #: Whether Python signed the claim: its signature was verified.
    trusted: bool
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    #: Monotonic seconds.
    started: float
    #: Runs a coroutine to its end that a function has returned in a thread without a loop.
    finish: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run


def ready(claim: Claim, settings: Settings) -> Call | Receipt:
    """Look at everything that the row could spoil: return what can be called, or a receipt that says why nothing can.

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
            outcome: Outcome = _final(claim, options, trusted, failure, ran=False)
            return Receipt(claim, outcome, started, time.monotonic(), options=options, trusted=trusted)
        return _prepare(claim, options, trusted, settings, started)
    except BaseException as error:
        if isinstance(error, _NOT_RUN) and not isinstance(error, codec.ObjectGone):
            outcome = _not_run(claim, error)
            return Receipt(claim, outcome, started, time.monotonic(), options=options, trusted=trusted)
        # ObjectGone is as if the function had looked for it: its retries, its hook and its group hear of it.
        return failed(Call(claim, options, trusted, _nothing, (), {}, started), error, settings)


def _nothing() -> None:
    """Stand for the function of a task that failed before its function was found."""


def run_call(call: Call, settings: Settings, begin: Callable[[], None] | None = None) -> Receipt:
    """Run what is ready, in this thread. Never raises, whatever the task does.

    The context variables that it sets are its own: the next task of this thread does not see them.

    Args:
        begin: Called right before the function of an atomic task: it opens the transaction the function runs in.
    """
    return contextvars.copy_context().run(_run_call, call, settings, begin)


def _run_call(call: Call, settings: Settings, begin: Callable[[], None] | None) -> Receipt:
    _current.set(call.claim)
    try:
        if begin is not None and registry.is_atomic(call.claim.func):
            begin()
        return _succeeded(call, _call(call), settings)
    except BaseException as error:
        # Also SystemExit and KeyboardInterrupt: a task that says sys.exit(0) has not succeeded.
        return failed(call, error, settings)


async def run_coroutine(call: Call, settings: Settings) -> Receipt:
    """Run an ``async def`` task that is ready, on the running loop, as an asyncio task of its own.

    Never raises. Cancelled, it fails as one whose task was cancelled.
    """
    # Seen by this asyncio task alone.
    _current.set(call.claim)
    try:
        return _succeeded(call, await _call_coroutine(call), settings)
    except BaseException as error:
        current = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling():
            error = TaskCancelled(CANCELLED)
        return failed(call, error, settings)


def _succeeded(call: Call, value: Any, settings: Settings) -> Receipt:
    claim, options, trusted = call.claim, call.options, call.trusted
    result = _stored_result(claim, value, settings)
    keep = settings.save_limit >= 0
    if options is not NO_OPTIONS:
        keep = flow.needed(claim, options) or (flow.kept(options) and (keep or options.save is not None))
    elif claim.hook is not None:
        keep = True
    outcome = Succeeded(result=result, keep=keep, follow_ons=_follow(claim, options, trusted, result))
    return Receipt(claim, outcome, call.started, time.monotonic(), value, None, options, trusted)


def failed(ran: Call | Receipt, error: BaseException, settings: Settings) -> Receipt:
    """Return the receipt of a run that ended with an exception, and report it."""
    claim, options, trusted = ran.claim, ran.options, ran.trusted
    outcome = _after_error(claim, options, trusted, error, settings)
    receipt = Receipt(claim, outcome, ran.started, time.monotonic(), None, error, options, trusted)
    reporting.report(error, settings)
    return receipt


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
    return Call(claim, options, trusted, func, args, kwargs, started)


def _not_run(claim: Claim, error: PgqError) -> Outcome:
    """Say what becomes of a row that cannot be run as it is.

    During a deploy old workers meet tasks of the new release. So what Python enqueued and this code does not know is
    left to others for a while. What nobody may run is no better elsewhere.
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


def _stored_result(claim: Claim, value: Any, settings: Settings) -> str:
    text = codec.encode_result(
        value,
        limit=settings.max_payload,
        allow_pickle=settings.allow_pickle,
        sign=signing.sign_blob if settings.allow_pickle else None,
    )
    return text if '"$' not in text else signing.seal(claim.id, text)


# ------------------------------------------------------------------------------------------------- calling


class _Interruption:
    """Whose function runs in the main thread just now: only that may be interrupted by an exception from outside.

    Signal handlers run in the main thread between two steps of it, so what they see here holds while they look. They
    interrupt a function once: an exception that came later, while the first is dealt with, would hit the worker itself.

    Process-wide because signal handlers are: a process has one for SIGUSR2 and one for SIGALRM.
    """

    task: UUID | None = None
    cancel: UUID | None = None


def cancel_running(task: UUID) -> None:
    """Raise TaskCancelled in the task's function, if it is running in the main thread. Called from another thread."""
    _Interruption.cancel = task
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)


def allow_cancelling() -> None:
    """Install the handler that `cancel_running` needs. Called once, in the main thread of a worker."""
    signal.signal(signal.SIGUSR2, _cancelled)


def _cancelled(signum: int, frame: FrameType | None) -> None:
    if _Interruption.task is not None and _Interruption.task == _Interruption.cancel:
        _Interruption.task = None
        raise TaskCancelled(CANCELLED)


def _call(call: Call) -> Any:
    if not signals.pre_execute.receivers and not signals.post_execute_in_worker.receivers:
        return _interruptibly(call)
    with _announced(call) as task:
        task["result"] = _interruptibly(call)
    return task["result"]


async def _call_coroutine(call: Call) -> Any:
    with _announced(call) as task:
        try:
            async with asyncio.timeout(call.claim.timeout) as limit:
                task["result"] = await call.func(*call.args, **call.kwargs)
        except TimeoutError as error:
            if limit.expired():
                raise ran_too_long(call.claim.timeout) from error
            raise
    return task["result"]


@contextlib.contextmanager
def _announced(call: Call) -> Iterator[dict[str, Any]]:
    """Send the signals that belong around a task; the caller puts the result into what is yielded."""
    claim = call.claim
    task = {
        "id": claim.id.hex, "name": claim.name or task_name(claim.id), "func": claim.func, "args": call.args,
        "kwargs": call.kwargs, "group": claim.group, "hook": claim.hook, "started": claim.enqueued_at,
        "attempt": claim.attempts,
    }  # fmt: skip
    signals.send(signals.pre_execute, func=call.func, task=task)
    try:
        yield task
        task["success"] = True
    except BaseException as error:
        task["success"], task["result"] = False, repr(error)
        raise
    finally:
        signals.send(signals.post_execute_in_worker, func=call.func, task=task)


def _interruptibly(call: Call) -> Any:
    claim = call.claim
    if threading.current_thread() is not threading.main_thread():
        return _finish(call, call.func(*call.args, **call.kwargs))
    if claim.timeout is not None:
        _set_alarm(claim.timeout)
    _Interruption.task = claim.id
    try:
        return _finish(call, call.func(*call.args, **call.kwargs))
    finally:
        _Interruption.task = None
        if claim.timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _finish(call: Call, value: Any) -> Any:
    """Run a coroutine to its end: it has nobody to share a loop with, or a plain function returned it.

    Raises:
        TypeError: The function is a generator function, so nothing of it has run. (What another one returns is its
            result, and cannot be stored: that is no reason to take its work for undone.)
    """
    if isinstance(value, _GENERATORS) and registry.has_yield(inspect.unwrap(call.func)):
        raise TypeError(f"{call.claim.func} {registry.YIELDS}")
    return call.finish(value) if inspect.iscoroutine(value) else value


def _set_alarm(seconds: float) -> None:
    """Raise TaskTimeout in the function after that many seconds. What it cannot interrupt, the supervisor kills."""

    def ring(signum: int, frame: FrameType | None) -> None:
        if _Interruption.task is not None:
            _Interruption.task = None
            raise ran_too_long(seconds)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def ran_too_long(seconds: float | None) -> TaskTimeout:
    """Return what is raised in a task at its timeout."""
    return TaskTimeout(f"the task ran longer than its timeout of {seconds:g} seconds")


# ------------------------------------------------------------------------------------------------- what went wrong


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
    return _final(claim, options, trusted, failure)


def _may_retry(claim: Claim, options: TaskOptions, error: BaseException) -> bool:
    # In this order: what the task said itself, what may be retried at all, how often.
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


def _final(claim: Claim, options: TaskOptions, trusted: bool, failure: Failure, *, ran: bool = True) -> Failed:
    try:
        follow_ons = _follow(claim, options, trusted, None)
    except Exception:
        logger.exception("task %s: what should follow it cannot be made", claim.id.hex)
        follow_ons = ()
    return Failed(failure=failure, follow_ons=follow_ons, ran=ran)


def _follow(claim: Claim, options: TaskOptions, trusted: bool, result: str | None) -> tuple[NewTask, ...]:
    if claim.hook is None and options is NO_OPTIONS:
        return ()
    new = flow.follow_ons(claim, options, result)
    # What an unsigned row asks for is not ours to sign: that would let whoever writes to the table run anything.
    return new if trusted else tuple(task._replace(signature=None) for task in new)


def _refuse_unrun(claim: Claim, settings: Settings) -> Failure | None:
    """Say why a task must be settled without running it, or None."""
    if claim.cancelled:
        return failures.without_traceback(TaskCancelled("the task was cancelled"))
    if claim.crashes >= settings.max_crashes:
        return _last_failure(claim) or failures.without_traceback(WorkerDied("the task took its worker down too often"))
    if claim.max_attempts and claim.failed_attempts >= claim.max_attempts:
        return _last_failure(claim) or failures.without_traceback(TaskTimeout("the task has no attempt left"))
    return None


def _last_failure(claim: Claim) -> Failure | None:
    return None if claim.last_error is None else failures.from_json(claim.last_error)
