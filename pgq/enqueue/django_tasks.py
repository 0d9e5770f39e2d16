"""Task objects of django.tasks: known when met, and kept by the path of their function.

Such an object stands where its function was defined, and cannot be called. It may be Django's own or the backport's.
Nothing here imports either: until one of them is imported there is no such object.
"""

from __future__ import annotations

import functools
import importlib
from importlib.util import find_spec
from typing import Any

from pgq.enqueue import registry
from pgq.records.options import NO_OPTIONS, TaskOptions

#: The tasks of `pgq.backend.PgqBackend` by path, as they were first defined. Process-wide, as the registry is.
_defined: dict[str, Any] = {}


def define(task: Any) -> None:
    """Register the function of a Task object, so that rows from psql may name it. Cheap if it is registered already.

    Each variant that `using` makes comes here as well. The first one stays: the others have the same function.

    Raises:
        UnknownFunction: It is a generator function.
    """
    func = task.func
    known = _defined.get(task.module_path)
    if known is not None and known.func is func:
        return
    entry = registry.registered(task.module_path)
    if entry is None or entry.func is not func:
        options = TaskOptions(
            queue=task.queue_name, priority=int(task.priority), takes_context=task.takes_context or None
        )
        entry = registry.register(func, options)
    _defined[entry.path] = task
    registry.special.add(entry.path)


def defined(path: str) -> Any:
    """Return the Task object of `PgqBackend` whose function has that path, or None. Nothing is imported."""
    return _defined.get(path)


def concerns(path: str, options: TaskOptions) -> bool:
    """Whether a row of that function, with these options, is run as django.tasks wants it. Nothing is imported."""
    return path in _defined or (options.django is not None and is_there())


@functools.cache
def is_there() -> bool:
    """Whether this process has django.tasks, Django's own or the backport."""
    return find_spec("django.tasks") is not None or find_spec("django_tasks") is not None


def register_checks() -> None:
    """Have Django check the backends of TASKS: its check is registered by the import. The backport is an app, and
    registers its own."""
    if find_spec("django.tasks") is not None:
        importlib.import_module("django.tasks")


def function_of(func: Any) -> Any:
    """Return the function of a Task object; anything else as it is."""
    return func if callable(func) or not registry.is_django_task(func) else func.func


def options_of(task: Any) -> TaskOptions:
    """Return the options of a call that a Task object fixes, its queue, priority and time; none for anything else."""
    if callable(task):
        return NO_OPTIONS
    return TaskOptions.of(queue=task.queue_name, priority=int(task.priority), run_after=task.run_after)
