"""Runs one claim and returns its outcome as data. Knows no SQL, no pipe and no loop."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import json
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pgq import backoff, codec, flow, registry, signals, signing
from pgq.conf import Settings
from pgq.errors import Discard, NotAllowed, PgqError, Retry, TaskCancelled, TaskTimeout, UnknownFunction, WorkerDied
from pgq.records import Claim, Failed, Failure, Outcome, Parked, Receipt, Retried, Succeeded

logger = logging.getLogger("pgq")

_MESSAGE_LIMIT, _TRACEBACK_LIMIT = 10_000, 100_000
_NO_OPTIONS: Mapping[str, Any] = {}

_current: contextvars.ContextVar[Claim | None] = contextvars.ContextVar("pgq_current_task", default=None)


def current_task() -> Claim | None:
    """Return the task that is running here, or None outside of a task."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class Call:
    """A claim that is ready to run: everything that the row could spoil has been looked at."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def options_of(claim: Claim) -> Mapping[str, Any]:
    """Return the options that stay with the task."""
    if claim.options == "{}":
        return _NO_OPTIONS
    options: Mapping[str, Any] = json.loads(claim.options)
    return options


def run(claim: Claim, settings: Settings) -> Receipt:
    """Run a claim to its outcome. Never raises, whatever the task does."""
    started = time.monotonic()
    options: Mapping[str, Any] = _NO_OPTIONS
    token = _current.set(claim)
    try:
        options = options_of(claim)
        doom = _doom(claim, settings)
        if doom is not None:
            return Receipt(claim, _final(claim, options, doom), started, time.monotonic())
        try:
            call = prepare(claim, settings, options)
        except (NotAllowed, UnknownFunction, codec.NotDecodable) as error:
            reason = codec.clean_text(f"{type(error).__name__}: {error}", _MESSAGE_LIMIT)
            return Receipt(claim, Parked(reason=reason), started, time.monotonic())
        value = _call(claim, call)
        keep = options.get("save", settings.save_limit >= 0) if options else settings.save_limit >= 0
        outcome: Outcome = Succeeded(
            result=_stored_result(claim, value, settings),
            keep=bool(keep),
            follow_ons=_follow(claim, options, success=True),
        )
        return Receipt(claim, outcome, started, time.monotonic(), value)
    except BaseException as error:
        # Also SystemExit and KeyboardInterrupt: a task that says sys.exit(0) has not succeeded.
        return Receipt(claim, _after_error(claim, options, error, settings), started, time.monotonic())
    finally:
        _current.reset(token)


def prepare(claim: Claim, settings: Settings, options: Mapping[str, Any]) -> Call:
    """Verify, resolve and decode.

    Raises:
        NotAllowed, UnknownFunction, NotDecodable: The row cannot be run as it is.
    """
    signed = claim.signature is not None
    if signed and not signing.verify_claim(claim):
        raise NotAllowed("the signature does not fit the row: it was changed, or signed with a key not known here")
    func = registry.resolve(claim.func, signed=signed)
    pickles = signed and settings.allow_pickle
    args, kwargs = codec.decode_args(
        claim.args, claim.kwargs, trusted=signed, allow_pickle=pickles, unsign=signing.unsign_blob if pickles else None
    )
    if "hook_of" in options:
        args = (_finished_task(options["hook_of"]), *args)
    return Call(func, args, kwargs)


def _finished_task(id: str) -> Any:
    from pgq.models import Task

    return Task.objects.get(pk=id)


def _stored_result(claim: Claim, value: Any, settings: Settings) -> str:
    text = codec.encode_result(
        value,
        limit=settings.max_payload,
        allow_pickle=settings.allow_pickle,
        sign=signing.sign_blob if settings.allow_pickle else None,
    )
    return text if '"$' not in text else signing.seal(claim.id, text)


# ------------------------------------------------------------------------------------------------- calling


def _call(claim: Claim, call: Call) -> Any:
    func = call.func
    if not signals.pre_execute.receivers and not signals.post_execute_in_worker.receivers:
        with _soft_timeout(claim.timeout):
            return _finish(func(*call.args, **call.kwargs))
    task = {
        "id": claim.id.hex, "name": claim.name, "func": claim.func, "args": call.args, "kwargs": call.kwargs,
        "group": claim.group, "hook": claim.hook, "started": claim.enqueued_at, "attempt": claim.attempts,
    }  # fmt: skip
    signals.send(signals.pre_execute, func=func, task=task)
    try:
        with _soft_timeout(claim.timeout):
            task["result"] = value = _finish(func(*call.args, **call.kwargs))
        task["success"] = True
        return value
    except BaseException as error:
        task["success"], task["result"] = False, repr(error)
        raise
    finally:
        signals.send(signals.post_execute_in_worker, func=func, task=task)


def _finish(value: Any) -> Any:
    """Run a coroutine to its end; an ``async def`` task is a task like any other."""
    if inspect.iscoroutine(value):
        import asyncio

        return asyncio.run(value)
    return value


class _NoTimeout(contextlib.AbstractContextManager[None]):
    def __exit__(self, *exc: object) -> None:
        return None


_NO_TIMEOUT = _NoTimeout()


def _soft_timeout(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    if seconds is None or threading.current_thread() is not threading.main_thread():
        return _NO_TIMEOUT
    return _alarm(seconds)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TaskTimeout in the main thread after that many seconds. What it cannot interrupt, the supervisor kills."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise TaskTimeout(f"the task ran longer than its timeout of {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    # Again each second: the first may have been swallowed by an `except Exception` or in a destructor.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ------------------------------------------------------------------------------------------------- what went wrong


def describe(error: BaseException) -> Failure:
    """Make an exception storable: bounded, without NUL or surrogates, even if its own methods raise."""
    kind = type(error)
    try:
        message = str(error)
    except BaseException as inner:
        message = f"<{kind.__name__}.__str__ raised {type(inner).__name__}>"
    try:
        text = "".join(
            traceback.format_exception(kind, error, error.__traceback__.tb_next if error.__traceback__ else None)
        )
    except BaseException as inner:
        text = f"<the traceback could not be formatted: {type(inner).__name__}>"
    return Failure(
        exception=codec.clean_text(f"{kind.__module__}.{kind.__qualname__}", 500),
        message=codec.clean_text(message, _MESSAGE_LIMIT),
        traceback=codec.clean_text(text, _TRACEBACK_LIMIT),
    )


def _after_error(claim: Claim, options: Mapping[str, Any], error: BaseException, settings: Settings) -> Outcome:
    failure = describe(error)
    try:
        if _may_retry(claim, options, error):
            return Retried(failure=failure, delay=_delay(claim, options, error, settings))
    except Exception:
        logger.exception("task %s: its retry policy failed, so it is not retried", claim.id.hex)
    return _final(claim, options, failure)


def _may_retry(claim: Claim, options: Mapping[str, Any], error: BaseException) -> bool:
    # In this order: what the task said itself, what may be retried at all, how often.
    if isinstance(error, Discard) or options.get("ack_failure"):
        return False
    if not isinstance(error, Retry):
        names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
        if names.intersection(options.get("no_retry_on", ())):
            return False
        if "retry_on" in options and not names.intersection(options["retry_on"]):
            return False
    return claim.max_attempts == 0 or claim.failed_attempts + 1 < claim.max_attempts


def _delay(claim: Claim, options: Mapping[str, Any], error: BaseException, settings: Settings) -> float:
    if isinstance(error, Retry) and error.delay is not None:
        return error.delay
    policy = options.get("backoff", settings.retry_backoff)
    if callable(policy):
        return max(0.0, float(policy(claim.failed_attempts + 1, error)))
    return backoff.delay(policy, claim.failed_attempts + 1, error, registry.locate)


def _final(claim: Claim, options: Mapping[str, Any], failure: Failure) -> Failed:
    return Failed(failure=failure, follow_ons=_follow(claim, options, success=False))


def _follow(claim: Claim, options: Mapping[str, Any], *, success: bool) -> tuple[Any, ...]:
    if claim.hook is None and not options:
        return ()
    return flow.follow_ons(claim, options, success=success)


def _doom(claim: Claim, settings: Settings) -> Failure | None:
    """Say why a task must be settled without running it, or None."""
    if claim.cancelled:
        return _without_traceback(TaskCancelled("the task was cancelled"))
    if claim.crashes >= settings.max_crashes:
        return _last_failure(claim) or _without_traceback(WorkerDied("the task took its worker down too often"))
    if claim.max_attempts and claim.failed_attempts >= claim.max_attempts:
        return _last_failure(claim) or _without_traceback(TaskTimeout("the task has no attempt left"))
    return None


def _without_traceback(error: PgqError) -> Failure:
    return Failure(exception=f"{type(error).__module__}.{type(error).__qualname__}", message=str(error), traceback="")


def _last_failure(claim: Claim) -> Failure | None:
    if claim.last_error is None:
        return None
    entry = json.loads(claim.last_error)
    return Failure(exception=entry["exception"], message=entry["message"], traceback=entry.get("traceback", ""))
