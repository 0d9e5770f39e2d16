"""One attempt of a task of django.tasks: its result so far, its context, its signals, its rules for the return value.

`prepare` makes one for each call of such a task; `call` tells it when the function begins and has ended. A task that is
none of django.tasks pays for a look into a dict.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SuspiciousOperation
from django.dispatch import Signal
from django.utils.connection import ConnectionDoesNotExist

from pgq import errors
from pgq.enqueue.django_api import (
    InvalidTaskBackend,
    TaskContext,
    TaskError,
    TaskResultStatus,
    normalize_json,
    task_backends,
    task_finished,
    task_started,
)
from pgq.errors import PgqError
from pgq.execution import django_results
from pgq.execution.context import Context
from pgq.records import Call, Claim, Failed, Failure, Report, Retried, Succeeded
from pgq.records.options import TaskOptions
from pgq.recurrence import moments

logger = logging.getLogger("pgq")

NO_ARGUMENTS: Mapping[str, Any] = {}


class PgqContext(Context, TaskContext):  # type: ignore[type-arg]
    """The context of pgq, which is that of django.tasks as well."""

    # TaskContext is a frozen dataclass with slots. Its __setattr__ calls a super() that, up to Python 3.13, means the
    # class without slots, which no instance is of; and its __hash__ needs a result that can be hashed.
    __setattr__, __delattr__ = object.__setattr__, object.__delattr__
    __eq__, __hash__, __repr__ = object.__eq__, object.__hash__, Context.__repr__

    def __init__(self, call: Call, task_result: Any) -> None:
        Context.__init__(self, call)
        vars(self)["_task_result"] = task_result

    _task_result: Any

    @property
    def task_result(self) -> Any:  # type: ignore[override]
        """The `TaskResult` of django.tasks, as it was when this attempt began."""
        return self._task_result


class Attempt:
    """One attempt of a task of django.tasks."""

    __slots__ = ("result",)

    def __init__(self, result: Any) -> None:
        self.result = result

    @property
    def takes_context(self) -> bool:
        """Whether the function wants a context as its first argument."""
        return bool(self.result.task.takes_context)

    def context(self, call: Call) -> PgqContext:
        """Return the context for the function of that call, whose attempt this is."""
        return PgqContext(call, self.result)

    # Signals. In a coroutine receivers must not run on the loop, where they could not use the ORM; but Django's own
    # receiver only logs. If there is no other, the task is spared the way through a thread.

    def started(self) -> None:
        """Tell the receivers that the function begins."""
        self._send(task_started)

    async def started_on_loop(self) -> None:
        """Do the same in a coroutine."""
        await self._send_on_loop(task_started)

    def returned(self, value: Any) -> Any:
        """Return what the function returned as JSON has it.

        Raises:
            TypeError: JSON has no such value, so the attempt has failed.
        """
        return normalize_json(value)

    def ended(self, report: Report) -> None:
        """Tell the receivers what came of it. Called inside the except block, if the function raised.

        An attempt that is followed by another has not finished the task, so they are not told of it.
        """
        if self._describe(report):
            self._send(task_finished)

    async def ended_on_loop(self, report: Report) -> None:
        """Do the same in a coroutine."""
        if self._describe(report):
            # The function has ended: what cancels it now comes too late.
            with contextlib.suppress(asyncio.CancelledError):
                await self._send_on_loop(task_finished)

    def _describe(self, report: Report) -> bool:
        """Put the outcome into the result; return whether the task has finished."""
        outcome, result = report.outcome, self.result
        if isinstance(outcome, Succeeded):
            django_results.change(result, status=TaskResultStatus.SUCCESSFUL, _return_value=report.value)
        elif isinstance(outcome, Failed | Retried):
            path, text = outcome.failure.exception, outcome.failure.traceback
            error = TaskError(exception_class_path=path, traceback=text or f"{path}: {outcome.failure.message}\n")
            if getattr(outcome, "ran", True) or error not in result.errors[-1:]:
                result.errors.append(error)
            status = TaskResultStatus.FAILED if isinstance(outcome, Failed) else TaskResultStatus.READY
            django_results.change(result, status=status)
        if not result.is_finished:
            return False
        now = moments.as_project(moments.now())
        django_results.change(result, finished_at=max(now, result.last_attempted_at or now))
        return True

    @property
    def _sender(self) -> type:
        try:
            return type(task_backends[self.result.backend])
        except (InvalidTaskBackend, ConnectionDoesNotExist):
            # A process with other settings has enqueued it, or psql has.
            return type(self.result.task)

    def _send(self, signal: Signal) -> None:
        _log(signal, signal.send_robust(sender=self._sender, task_result=self.result))

    async def _send_on_loop(self, signal: Signal) -> None:
        if len(signal.receivers) > 1:
            # Not by `asend_robust`, which up to Django 6.0 hides the exception that is being handled from receivers.
            await sync_to_async(self._send, thread_sensitive=True)(signal)
        else:
            self._send(signal)


def attempt_of(
    claim: Claim,
    options: TaskOptions,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = NO_ARGUMENTS,
    *,
    trusted: bool,
    runs: bool = True,
) -> Attempt | None:
    """Return what a call of a task of django.tasks needs; None: its function is no such task any more.

    Args:
        runs: False: the task ends without being run.
    """
    try:
        base = django_results.find_task(claim.func, trusted=trusted)
    except (ImportError, SuspiciousOperation):
        return None
    result = django_results.result_of_claim(claim, options, base, args, kwargs, trusted=trusted, runs=runs)
    return Attempt(result)


def ended_without_running(report: Report) -> None:
    """Tell the receivers of a task that was cancelled, or had no attempt left: its function was not called."""
    attempt = attempt_of(report.claim, report.options, trusted=report.trusted, runs=False)
    if attempt is None or not isinstance(report.outcome, Failed):
        return
    try:
        # Receivers, Django's own among them, ask for the exception that is being handled.
        raise _exception_of(report.outcome.failure)
    except PgqError:
        attempt.ended(report)


def _exception_of(failure: Failure) -> PgqError:
    name = failure.exception.rpartition(".")[2]
    kind = getattr(errors, name, None) if failure.exception == f"{errors.__name__}.{name}" else None
    if kind in (errors.TaskCancelled, errors.Expired, errors.TaskTimeout, errors.WorkerDied):
        return kind(failure.message)  # type: ignore[no-any-return]
    return PgqError(f"{failure.exception}: {failure.message}")


def _log(signal: Signal, answers: Sequence[tuple[Any, Any]]) -> None:
    for receiver, answer in answers:
        if isinstance(answer, Exception):
            logger.error("a receiver of a signal of django.tasks raised: %r", receiver, exc_info=answer)
