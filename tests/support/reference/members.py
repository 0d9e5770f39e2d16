"""What is public of a module or a class, and what its own source says of it: docstrings, and ``#:`` comments."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from tests.support.reference import columns

_PROPERTIES, _METHODS = (property, functools.cached_property), (FunctionType, staticmethod, classmethod)


def found(full: str) -> tuple[ModuleType, str]:
    """Return the module of a public name such as ``pgq.tasks.task``, and the name in it."""
    module, _, name = full.rpartition(".")
    return importlib.import_module(module), name


def value_of(full: str) -> Any:
    """Return what a public name leads to."""
    module, name = found(full)
    return getattr(module, name)


def has_doc(value: Any) -> bool:
    """Whether it can have a docstring; what can not is described by a comment."""
    return inspect.isclass(value) or inspect.isroutine(value)


def own_doc(value: Any) -> str | None:
    """Return its own docstring, not that of a base class."""
    doc = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    # What a dataclass or a named tuple has by itself is its signature.
    return None if doc is None or (inspect.isclass(value) and doc.startswith(f"{value.__name__}(")) else doc


def description(module: ModuleType, name: str) -> str:
    """Return what the source says of a public name; nothing: it says nothing."""
    value = getattr(module, name)
    if isinstance(value, ModuleType):
        return value.__doc__ or ""
    return (own_doc(value) or "") if has_doc(value) else comment(module, name)


def members(kind: type) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the class's own public methods and properties; what takes the place of a base class's is known there.

    Own are also those of bases that are not public; of models only the properties, since the methods do pgq's own work
    with rows. Of the admin's classes only what has a docstring: the rest are Django's hooks, and cells of its tables.
    """
    is_admin, is_model = (kind.__module__.startswith(f"pgq.{room}.") for room in ("admin", "models"))
    for part in [kind, *_inner_bases(kind)]:
        kinds = _PROPERTIES if is_model and part is not kind else (*_PROPERTIES, *_METHODS)
        for name, member in vars(part).items():
            if (
                name.startswith("_")
                or not isinstance(member, kinds)
                or any(hasattr(base, name) for base in part.__mro__[1:])
            ):
                continue
            if inspect.getattr_static(kind, name) is member and (member.__doc__ or not is_admin):
                yield name, member, inspect.cleandoc(doc) if (doc := member.__doc__) else None


def _inner_bases(kind: type) -> list[type]:
    """Return the bases of pgq that no page tells of, neither under their own names nor as part of a public base."""
    ours = [base for base in kind.__mro__[1:] if base.__module__.startswith("pgq.")]
    public = [base for base in ours if _is_public(base)]
    return [base for base in ours if not any(issubclass(one, base) for one in public)]


def _is_public(kind: type) -> bool:
    parts = kind.__module__.split(".")
    rooms = [importlib.import_module(".".join(parts[:depth])) for depth in range(1, len(parts) + 1)]
    return any(kind.__name__ in getattr(room, "__all__", ()) for room in rooms)


def fields(kind: type) -> Iterator[tuple[str, str, str]]:
    """Yield the public fields of a record: name, type, what is said of it.

    Those that its own text declares, and those of its bases that are not public. Of the records that are rows of the
    queue the comments of its columns say what the text does not.
    """
    if not (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        return
    for part in [*(base for base in reversed(kind.__mro__) if base.__name__.startswith("_")), kind]:
        lines = textwrap.dedent(inspect.getsource(part)).splitlines()
        for node in _parsed(part).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
                name = node.target.id
                said = _above(lines, node.lineno)
                if not said and part.__module__ == "pgq.records":
                    said = columns.of_column("pgq_queue", name)
                yield name, ast.unparse(node.annotation), said


def comment(module: ModuleType, name: str) -> str:
    """Return the ``#:`` comment above a constant, in the module that it comes from."""
    source = inspect.getsource(module)
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if name in [each.id for target in targets if target for each in ast.walk(target) if isinstance(each, ast.Name)]:
            return _above(source.splitlines(), node.lineno)
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return comment(importlib.import_module(node.module or ""), name)
    return ""


def undescribed(module: ModuleType) -> list[str]:
    """Return the public names of a module, and of its classes, of which the source says nothing."""
    missing = [] if module.__doc__ else [module.__name__]
    for name in module.__all__:
        full, value = f"{module.__name__}.{name}", getattr(module, name)
        if not description(module, name):
            missing.append(full)
        if inspect.isclass(value):
            missing += [f"{full}.{member}" for member, _, doc in members(value) if not doc]
            missing += [f"{full}.{field}" for field, _, said in fields(value) if not said]
    return missing


def _parsed(kind: type) -> ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _above(lines: list[str], number: int) -> str:
    found: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        found.insert(0, line.strip().removeprefix("#:").strip())
    return " ".join(found)


def is_same(one: Any, other: Any) -> bool:
    """Whether two names lead to one thing; equal numbers and texts are none."""
    return one is other and not isinstance(one, str | int | float | tuple)
