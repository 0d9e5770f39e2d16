"""Calls the function of one claim, in this thread or on this loop; interrupts it at its timeout or when cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, FrameType, GeneratorType
from typing import Any, cast
from uuid import UUID

from pgq import codec, signals
from pgq.codec import signing
from pgq.conf import Settings
from pgq.enqueue import registry
from pgq.errors import TaskCancelled, TaskTimeout
from pgq.execution import context as contexts
from pgq.execution.context import Context
from pgq.execution.outcome import failed, follow_ons_of
from pgq.ground import events
from pgq.ground.ids import task_name
from pgq.records import Call, Claim, Report, Succeeded
from pgq.records.options import NO_OPTIONS
from pgq.recurrence import moments
from pgq.workflows import follow_ons as workflows_follow_ons

_GENERATORS = (GeneratorType, AsyncGeneratorType)
CANCELLED = "the task was cancelled while it ran"

#: The call that runs here, and then, once the task has asked for it, its context: most tasks never do.
_current: contextvars.ContextVar[list[Any] | None] = contextvars.ContextVar("pgq_current_task", default=None)


def current_task() -> Context | None:
    """Return the context of the task that is running here, or None outside of a task.

    The same object that a function with ``takes_context`` gets as its first argument.
    """
    run = _current.get()
    if run is None:
        return None
    if len(run) == 1:
        context = run[0].context
        run.append(contexts.make(run[0]) if context is None else context)
    context = run[1]
    assert isinstance(context, Context)
    return context


def running_claim() -> Claim | None:
    """Return the claim of the task that is running here, or None outside of a task."""
    run = _current.get()
    return None if run is None else cast("Claim", run[0].claim)


def _over(run: list[Any], report: Report) -> Report:
    """Return the report of a run with its context, which ends."""
    context = run[0].context or run[1]
    contexts.end(context)
    return report._replace(context=context)


def run_call(call: Call, settings: Settings, begin: Callable[[], None] | None = None) -> Report:
    """Run what is ready, in this thread. Never raises, whatever the task does.

    The context variables that it sets are its own: the next task of this thread does not see them.

    Args:
        begin: Called right before the function of an atomic task: it opens the transaction the function runs in.
    """
    return contextvars.copy_context().run(_run_call, call, settings, begin)


def _run_call(call: Call, settings: Settings, begin: Callable[[], None] | None) -> Report:
    run = [call]
    _current.set(run)
    django = call.django
    if django is not None:
        django.started()
    try:
        if begin is not None and registry.is_atomic(call.claim.func):
            begin()
        report = _succeeded(call, _call(call), settings)
    except BaseException as error:
        # Also SystemExit and KeyboardInterrupt: a task that calls sys.exit(0) has not succeeded.
        report = failed(call, error, settings)
        if django is not None:
            django.ended(report)
    else:
        if django is not None:
            django.ended(report)
    return report if call.context is None and len(run) == 1 else _over(run, report)


async def run_coroutine(call: Call, settings: Settings) -> Report:
    """Run an ``async def`` task that is ready, on the running loop, as an asyncio task of its own.

    Never raises. Cancelled, it fails as one whose task was cancelled.
    """
    # Seen by this asyncio task alone.
    run = [call]
    _current.set(run)
    django = call.django
    try:
        if django is not None:
            await django.started_on_loop()
        report = _succeeded(call, await _call_coroutine(call), settings)
    except BaseException as error:
        current = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling():
            error = TaskCancelled(CANCELLED)
        report = failed(call, error, settings)
        if django is not None:
            await django.ended_on_loop(report)
    else:
        if django is not None:
            await django.ended_on_loop(report)
    return report if call.context is None and len(run) == 1 else _over(run, report)


def _succeeded(call: Call, value: Any, settings: Settings) -> Report:
    claim, options, trusted = call.claim, call.options, call.trusted
    if call.django is not None:
        value = call.django.returned(value)
    result = _stored_result(claim, value, settings)
    keep = settings.save_limit >= 0
    if options is not NO_OPTIONS:
        keep = workflows_follow_ons.needed(claim, options) or (
            workflows_follow_ons.kept(options) and (keep or options.save is not None or options.keep is not None)
        )
    elif claim.hook is not None:
        keep = True
    outcome = Succeeded(result=result, keep=keep, follow_ons=follow_ons_of(claim, options, trusted, result))
    return Report(claim, outcome, call.started, time.monotonic(), value, None, options, trusted)


def _stored_result(claim: Claim, value: Any, settings: Settings) -> str:
    text = codec.encode_result(
        value,
        limit=settings.max_payload,
        allow_pickle=settings.allow_pickle,
        sign=signing.sign_blob if settings.allow_pickle else None,
    )
    return text if '"$' not in text else signing.seal(claim.id, text)


class _Interruption:
    """The task whose function runs in the main thread: only that function may be interrupted from outside.

    Signal handlers run in the main thread between two steps of it, so `task` stays the same while one reads it. They
    interrupt a function once: a second exception, while the first is handled, would hit the worker itself.

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
    if events.start.listeners:
        events.start.tell(call)
    if not events.around_run.hooks:
        return _call_announced(call)
    with events.around_run.entered(call):
        return _call_announced(call)


def _call_announced(call: Call) -> Any:
    if not signals.pre_execute.receivers and not signals.post_execute_in_worker.receivers:
        return _interruptibly(call)
    with _announced(call) as task:
        task["result"] = _interruptibly(call)
    return task["result"]


async def _call_coroutine(call: Call) -> Any:
    if events.start.listeners:
        events.start.tell(call)
    if not events.around_run.hooks:
        return await _call_coroutine_announced(call)
    with events.around_run.entered(call):
        return await _call_coroutine_announced(call)


async def _call_coroutine_announced(call: Call) -> Any:
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
        "id": claim.id.hex,
        "name": claim.name or task_name(claim.id),
        "func": claim.func,
        "args": call.args if call.context is None else call.args[1:],
        "kwargs": call.kwargs,
        "group": claim.group,
        "hook": claim.hook,
        "started": moments.as_project(claim.enqueued_at),
        "attempt": claim.attempts,
    }
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
    """Run a coroutine to its end: this thread has no loop, or a plain function returned it.

    Raises:
        TypeError: The function is a generator function, so nothing of it has run. (A plain function that returns a
            generator has run: the generator is a result that cannot be stored.)
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
