"""Functions and their dotted paths: which exist, which are registered, which a row may name.

A row that Python signed may name any importable callable, as in Django-Q. A row nobody signed may only name what is
registered with ``@task`` or listed in ``PGQ["allowed"]``; for such a row nothing is ever imported by its name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgq.conf import get_settings
from pgq.errors import NotAllowed, UnknownFunction
from pgq.records import Options

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Registered:
    """A function registered with ``@task``."""

    path: str
    func: Function
    options: Options


_registered: dict[str, Registered] = {}


def register(func: Function, options: Options) -> Registered:
    """Register a function under its dotted path. A later one of the same path replaces the earlier (reload)."""
    entry = Registered(path_of(func), func, options)
    _registered[entry.path] = entry
    return entry


def registered(path: str) -> Registered | None:
    """Return what is registered under that path."""
    return _registered.get(path)


def is_atomic(path: str) -> bool:
    """Return whether the function of that path is registered as atomic."""
    entry = _registered.get(path)
    return entry is not None and entry.options.atomic


def all_registered() -> list[Registered]:
    """Return all registered functions, sorted by path."""
    return sorted(_registered.values(), key=lambda entry: entry.path)


def path_of(func: object) -> str:
    """Return the dotted path a worker can find this callable by.

    Raises:
        UnknownFunction: It has none: a lambda, a function inside a function, an instance.
    """
    module, name = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    if inspect.ismethod(func) and not inspect.isclass(func.__self__):
        raise UnknownFunction(
            f"func: {func!r} is bound to an instance; pass a function and give it the instance as argument"
        )
    if not isinstance(name, str) or not callable(func):
        raise UnknownFunction(f"func: {func!r} is not a function or the dotted path of one")
    if module is None:
        module = getattr(getattr(func, "__self__", None), "__name__", None)
    if not isinstance(module, str) or "<" in name:
        raise UnknownFunction(f"func: {name} is a lambda or local function; define it at the top of a module")
    return f"{module}.{name}"


#: Called after a function was found for the first time, for which modules may have been imported.
on_found: list[Callable[[], None]] = []


@functools.lru_cache(maxsize=4096)
def locate(path: str) -> Function:
    """Import what a dotted path names: ``module.function``, ``module.Class.method``.

    Raises:
        UnknownFunction: Nothing is there, its module fails to import, or it cannot be called.
    """
    found = _find(path)
    for listener in on_found:
        listener()
    return found


def _find(path: str) -> Function:
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UnknownFunction(f"func: {path!r} is not a dotted path such as 'app.tasks.function'")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # Only if it is the module itself, or a parent, that is missing; a module may fail on an import of its own.
            if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
                continue
            raise UnknownFunction(f"func: {path!r}: importing {module} failed: {error}") from error
        except Exception as error:
            raise UnknownFunction(
                f"func: {path!r}: importing {module} failed: {type(error).__name__}: {error}"
            ) from error
        for part in parts[length:]:
            try:
                found = getattr(found, part)
            except AttributeError:
                raise UnknownFunction(f"func: {path!r}: {module} has no {'.'.join(parts[length:])}") from None
        if not callable(found):
            raise UnknownFunction(f"func: {path!r} is a {type(found).__name__} and cannot be called")
        return found  # type: ignore[no-any-return]  # callable() does not narrow Any
    raise UnknownFunction(f"func: {path!r}: there is no module {parts[0]!r}")


def resolve(path: str, *, signed: bool) -> Function:
    """Return the function that a row names.

    Raises:
        NotAllowed: Nobody signed the row, and the function is not registered.
        UnknownFunction: See `locate`.
    """
    entry = _registered.get(path)
    if entry is not None:
        return entry.func
    if signed or path in get_settings().allowed:
        return locate(path)
    raise NotAllowed(
        f"the row is not signed and {path[:200]!r} is neither registered with @task nor listed in PGQ['allowed']"
    )
