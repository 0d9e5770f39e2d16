"""The public functions, with the names of Django-Q."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from pgq import enqueue as _enqueue
from pgq import results as _results
from pgq.enqueue import enqueue_from, make_task, task
from pgq.errors import EnqueueError
from pgq.execute import current_task

__all__ = ["async_task", "current_task", "enqueue_from", "enqueue_many", "fetch", "queue_size", "result", "task"]

#: Keyword arguments of async_task that are options, not the function's.
_OPTIONS = frozenset({
    "hook", "group", "save", "sync", "cached", "ack_failure", "timeout", "task_name", "cluster", "broker", "q_options",
    "queue", "priority", "run_after", "max_attempts", "retry_backoff", "retry_on", "no_retry_on", "ack", "chain",
})  # fmt: skip


def _split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into the function's and the options of `make_task`.

    As in Django-Q, what stands in q_options wins, and leaves a keyword of the same name to the function.
    """
    given = dict(kwargs)
    q_options = given.pop("q_options", None)
    if q_options is None:
        q_options = {}
    if not isinstance(q_options, Mapping):
        raise EnqueueError(f"q_options: must be a dict, got {q_options!r}")
    options = dict(q_options)
    unknown = set(options) - _OPTIONS
    if unknown:
        raise EnqueueError(f"q_options: there is no option {', '.join(sorted(unknown))}")
    for key in _OPTIONS & given.keys() - q_options.keys():
        options[key] = given.pop(key)
    options.pop("broker", None)
    if "task_name" in options:
        options["name"] = options.pop("task_name")
    cluster = options.pop("cluster", None)
    if cluster is not None:
        options.setdefault("queue", cluster)
    return given, options


def async_task(func: str | Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Enqueue a call of a function, in the caller's transaction on PGQ["database"].

    Args:
        func: A function at the top of a module, or its dotted path.
        args, kwargs: The function's, but for these options: hook, group, save, cached, ack_failure, timeout (seconds),
            task_name, cluster (or queue), priority (-100 to 100), run_after (a moment, timedelta or seconds),
            max_attempts, retry_backoff, retry_on, no_retry_on, ack. Those inside q_options win.

    Returns:
        The task's id: 32 hex digits.

    Raises:
        EnqueueError: Something is wrong; the message names the argument. Nothing was written.
    """
    given, options = _split(kwargs)
    options.pop("sync", None)
    return _enqueue.enqueue(make_task(func, args, given, **options)).hex


def enqueue_many(
    func: str | Callable[..., Any],
    calls: Iterable[Any],
    *,
    chunk: int = _enqueue.CHUNK,
    **options: Any,
) -> list[str]:
    """Enqueue many calls of a function, `chunk` of them in one statement.

    Args:
        calls: What to call it with: each a tuple of arguments, a dict of keyword arguments, or one single argument.
        options: As for `async_task`, the same for all.

    Returns:
        The ids, in the order of the calls.

    Raises:
        EnqueueError: As for `async_task`. The chunks before the wrong call were written: use transaction.atomic.
    """
    _, fixed = _split(options)
    return [id.hex for id in _enqueue.enqueue_all((_made(func, call, fixed) for call in calls), chunk=chunk)]


def _made(func: str | Callable[..., Any], call: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(call, Mapping):
        return make_task(func, (), call, **options)
    return make_task(func, call if isinstance(call, tuple) else (call,), **options)


def fetch(task_id: str | UUID, wait: int = 0) -> Any:
    """Return the finished `Task` of that id or name, or None if it has not finished within `wait` milliseconds."""
    return _results.fetch(task_id, wait)


def result(task_id: str | UUID, wait: int = 0) -> Any:
    """Return the result of a task, or None if it has not finished within `wait` milliseconds (-1: wait for ever)."""
    found = _results.fetch(task_id, wait)
    return None if found is None else found.result


def queue_size() -> int:
    """Return how many tasks are ready and not yet running."""
    return _results.queued().filter(lock=None, run_after=None, parked=None, remaining=None).count()
