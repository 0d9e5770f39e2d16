"""Raising, in the process that asks for a result, what a task raised in a worker."""

from __future__ import annotations

import ast
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any, NoReturn

from pgq.codec import dotted
from pgq.errors import Control, NotFinished, TaskFailed
from pgq.models import Task

#: What would say something else to the code around the reader than that the task failed: that this task is to be
#: retried or discarded, that an iterator has ended.
_NOT_AGAIN = (Control, StopIteration, StopAsyncIteration)


def check(task: Task | None, asked_for: object) -> Task:
    """Return a task that has succeeded.

    Raises:
        NotFinished: There is none.
        Exception: What the task raised, if its class is one of a module that this process has imported; it is caused by
            the `TaskFailed`.
        TaskFailed: It failed otherwise.
    """
    if task is None:
        raise NotFinished(f"task {asked_for} has not finished")
    if not task.success:
        _raise(task)
    return task


def _raise(task: Task) -> NoReturn:
    path, message, traceback = task.exception or "Exception", task.message or "", task.traceback or ""
    failure = TaskFailed(str(task.id), path, message, traceback)
    if traceback:
        failure.add_note(f"In the worker:\n{traceback}")
    again = _made(path, message)
    if again is None:
        raise failure
    raise again from failure


def _made(path: str, message: str) -> Exception | None:
    """Return an exception of that class and with that text, or None if there can be none."""
    kind: Any = _class_at(path)
    if kind is None:
        return None
    # Without its own __init__, which may want other arguments: by the constructor of the built-in class below it.
    built_in: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        error: Exception = built_in.__new__(kind, *_args(kind, message))
    except Exception:
        return None
    if _says(error) == message:
        return error
    plain = _plain(kind)
    if plain is None:
        return None
    error = built_in.__new__(plain, message)
    return error if isinstance(error, Exception) else None


@lru_cache(maxsize=256)
def _plain(kind: Any) -> Any:
    """Return the same class with the text of its argument: its own __str__ wants what its __init__ would have set.

    None: code of its own would run when a class is derived from it.
    """
    if type(kind) is not type or any("__init_subclass__" in vars(base) for base in kind.__mro__ if base is not object):
        return None
    words = {"__str__": BaseException.__str__, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), words)


def _args(kind: type[Exception], message: str) -> tuple[object, ...]:
    if issubclass(kind, KeyError):
        # Its text is the repr of the key.
        try:
            return (ast.literal_eval(message),)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    return (message,)


def _says(error: Exception) -> str | None:
    try:
        return str(error)
    except Exception:
        return None


def _class_at(path: str) -> type[Exception] | None:
    """Return the class that a path names in a module that is imported already. A row has nothing imported or called."""
    if dotted.is_main(path):
        return None
    parts = path.split(".")
    for at in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:at]))
        if module is not None:
            found = _inside(module, parts[at:])
            return found if found is not None and not issubclass(found, _NOT_AGAIN) else None
    return None


def _inside(module: ModuleType, names: list[str]) -> type[Exception] | None:
    found: object = module
    for name in names:
        # Not getattr, which a module or a class may answer by code of its own.
        found = vars(found).get(name) if isinstance(found, ModuleType | type) else None
    return found if isinstance(found, type) and issubclass(found, Exception) else None
