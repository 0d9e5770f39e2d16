"""In which database a task is going to lie, and whether tasks that one transaction writes can lie in the same one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pgq.conf import database_of, get_settings
from pgq.enqueue import django_tasks, registry
from pgq.enqueue.options import path
from pgq.errors import EnqueueError
from pgq.records import NewTask
from pgq.records.options import TaskOptions


def database_for(func: str | Callable[..., Any], options: TaskOptions) -> str:
    """Return the alias of the database for calls of a function with these options.

    Raises:
        EnqueueError: There is no such function.
    """
    settings = get_settings()
    return database_of(queue_for(func, options) if settings.databases else settings.default_queue)


def queue_for(func: str | Callable[..., Any], options: TaskOptions) -> str:
    """Return the queue for calls of a function with these options.

    Raises:
        EnqueueError: There is no such function.
    """
    return _queue(func, options) or get_settings().default_queue


def beside(func: str | Callable[..., Any], options: TaskOptions, queue: str, what: str) -> TaskOptions:
    """Return the options of a task that has to lie in the database of `queue`, since one transaction writes both.

    One whose function names no queue goes to `queue` if the default queue lies elsewhere.

    Args:
        what: The argument that gave the function, for the message.

    Raises:
        EnqueueError: Its queue lies in another database.
    """
    settings = get_settings()
    if not settings.databases:
        return options
    own = _queue(func, options)
    here, there = database_of(queue), database_of(own or settings.default_queue)
    if here == there:
        return options
    if own is None:
        return options.but(queue=queue)
    raise EnqueueError(what, f"{_elsewhere(own, there, queue, here)}; no transaction writes to both, see {_PAGE}")


def check_together(tasks: Sequence[NewTask], what: str) -> None:
    """Raise EnqueueError unless the queues of these tasks lie in one database.

    Args:
        what: The argument that gave them, for the message.
    """
    if not get_settings().databases:
        return
    first = tasks[0].queue
    here = database_of(first)
    for task in tasks:
        there = database_of(task.queue)
        if there != here:
            why = f"{task.func}: {_elsewhere(task.queue, there, first, here)}"
            raise EnqueueError(what, f"{why}; no transaction writes to both, see {_PAGE}")


_PAGE = "docs/guide/several-databases.md"


def _elsewhere(queue: str, alias: str, other: str, other_alias: str) -> str:
    return f"its queue {queue!r} lies in the database {alias!r}, and {other!r} in {other_alias!r}"


def _queue(func: str | Callable[..., Any], options: TaskOptions) -> str | None:
    """Return the queue that the options or the function name; None: neither names one."""
    if options.queue:
        return options.queue
    if not isinstance(func, str) and (queue := django_tasks.options_of(func).queue):
        return queue
    entry = registry.registered(path("func", func))
    return entry.options.queue if entry is not None else None
