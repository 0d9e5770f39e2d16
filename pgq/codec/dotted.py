"""Dotted paths of functions and classes: which one leads a worker to the very object that was named.

A path is made from an object's own ``__module__`` and ``__qualname__``, which may be borrowed: from a base class by an
inherited classmethod, from a wrapped function by ``functools.wraps``. So a path is good only if it leads to the
very object that was given, as with pickle. The caller looks it up.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import Any


class Unnamed(ValueError):
    """No dotted path leads to the object. The text is a predicate: "is a lambda, which has ...; pass ..."."""


def type_path(kind: type) -> str:
    """Return the dotted path of a class, for people."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def claimed_path(value: Any, *, of_main: bool = False) -> str:
    """Return the dotted path that a function or class gives as its own. `same` checks whether it leads there.

    Args:
        of_main: Also one of ``__main__``, which no other process could follow.

    Raises:
        Unnamed: It has none.
    """
    path = ".".join(_module_and_name(value))
    if is_main(path) and not of_main:
        raise Unnamed(f"is {path}, which a worker cannot import; move it into a module")
    return path


def _module_and_name(value: Any) -> tuple[str, str]:
    module: Any
    name: Any
    owner = getattr(value, "__self__", None)
    if isinstance(owner, type):  # a classmethod: its own qualname may be that of a base class
        module, name = owner.__module__, f"{owner.__qualname__}.{value.__name__}"
    elif isinstance(value, types.MethodType):
        raise Unnamed(f"is a method bound to a {type_path(type(owner))}; pass a function, and what it works on besides")
    elif isinstance(value, functools.partial | functools.partialmethod):
        raise Unnamed("is a functools.partial without a name; pass the function, and the arguments besides")
    elif isinstance(value, classmethod | staticmethod):
        raise Unnamed(f"is a bare {type(value).__name__}; name it by its class, or take a function of a module")
    else:
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if module is None and isinstance(owner, types.ModuleType):
            module = owner.__name__
    if not isinstance(module, str) or not isinstance(name, str):
        raise Unnamed(f"is a {type_path(type(value))} without a name; pass a function or class that a module defines")
    if "<lambda>" in name:
        raise Unnamed("is a lambda, which has no name to store; pass a function that a module defines")
    if "<locals>" in name:
        raise Unnamed(f"is {name}, defined inside a function; define it at the top of a module")
    return module, name


def is_main(path: str) -> bool:
    """Whether a path is that of what a process was started with: in another process it is another module."""
    return path.partition(".")[0] in ("__main__", "__mp_main__")


def same(found: object, value: object) -> bool:
    """Whether what a path leads to is the object that was named. Each access makes a method anew."""
    return found is value or (isinstance(value, types.MethodType | types.BuiltinMethodType) and found == value)


def elsewhere(path: str) -> Unnamed:
    """Return the error for an object that is not the one its path leads to."""
    return Unnamed(
        f"calls itself {path}, but there a worker would find another object: a wrapper, what is below one, or a newer "
        "version; decorate where it is defined, or pass as text the path under which a module has this one"
    )


def path_in_memory(value: Any) -> str:
    """Return the dotted path of a function or class of a module that is imported.

    Raises:
        Unnamed: No path leads to it.
    """
    path = claimed_path(value)
    module, name = _module_and_name(value)
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not same(found, value):
        raise elsewhere(path)
    return path
