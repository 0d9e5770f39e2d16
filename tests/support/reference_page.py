"""Write docs/reference/python.md from the docstrings, signatures and declarations of what is public.

::

    make docs

Public is what a module of `MODULES` names in its ``__all__``, each option of `pgq.options.TaskOptions`, and each
command. A class is shown with its own public members. A constant or a field is described by its ``#:`` comment.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parents[2] / "docs/reference/python.md"
#: In this order. Those that are not there are left out.
MODULES = (
    "pgq", "pgq.tasks", "pgq.testing", "pgq.signals", "pgq.errors", "pgq.status", "pgq.health", "pgq.backend",
)  # fmt: skip
_HEAD = """\
# Reference

Every public function, class, option, exception, signal and command. Settings are in [settings.md](settings.md), SQL
functions and views in [sql.md](sql.md). This page is made from the code by `make docs`.
"""
_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_WIDTH = 100


def modules() -> list[ModuleType]:
    """Return the public modules that say what is public in them."""
    found = [importlib.import_module(name) for name in MODULES if importlib.util.find_spec(name) is not None]
    return [module for module in found if hasattr(module, "__all__")]


def written() -> str:
    """Return the page as it should be."""
    parts = [_HEAD, _contents()]
    seen: dict[int, str] = {}
    for module in modules():
        parts.append(f"## `{module.__name__}`\n")
        parts.append(markdown(module.__doc__))
        for name in _names(module):
            parts += _entry(module, name, seen)
    parts += ["## Options of a task\n", *_options(), "## Commands\n", *_commands()]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def undocumented() -> list[str]:
    """Return the public names that have no description."""
    missing: list[str] = []
    for module in modules():
        if not module.__doc__:
            missing.append(module.__name__)
        for name in module.__all__:
            value = getattr(module, name)
            if not (_doc(value) if _has_doc(value) else _comment(module, name)):
                missing.append(f"{module.__name__}.{name}")
            if inspect.isclass(value):
                members = [member for member, _, doc in _members(value) if not doc]
                members += [field for field, _, comment in _fields(value) if not comment]
                missing += [f"{module.__name__}.{name}.{member}" for member in members]
    return missing


def _contents() -> str:
    lines = [f"* [`{module.__name__}`](#{_anchor(module.__name__)}):\n{_links(module)}" for module in modules()]
    lines.append("* [Options of a task](#options-of-a-task)")
    commands = ", ".join(f"[`{name}`](#{name})" for name in _command_names())
    return "\n".join([*lines, f"* [Commands](#commands): {commands}"]) + "\n"


def _anchor(title: str) -> str:
    return title.replace(".", "").lower()


def _links(module: ModuleType) -> str:
    counts: Counter[str] = Counter()
    links = []
    for name in _names(module):
        anchor = _anchor(f"{module.__name__}.{name}")
        # GitHub numbers the titles that differ only in their letters' case.
        links.append(f"  [`{name}`](#{anchor}{f'-{counts[anchor]}' if counts[anchor] else ''})")
        counts[anchor] += 1
    return ",\n".join(links)


def _names(module: ModuleType) -> list[str]:
    """Return its public names: classes, functions, others."""
    kinds = {name: _kind(getattr(module, name)) for name in module.__all__}
    return sorted(kinds, key=lambda name: (kinds[name], name.lower()))


def _kind(value: Any) -> int:
    return 0 if inspect.isclass(value) else 1 if inspect.isroutine(value) else 2


# ------------------------------------------------------------------------------------------------- names


def _has_doc(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def _doc(value: Any) -> str | None:
    """Return its own docstring, not that of a base class."""
    doc = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    # What a dataclass has by itself is its signature.
    return None if doc is None or (inspect.isclass(value) and doc.startswith(f"{value.__name__}(")) else doc


def _entry(module: ModuleType, name: str, seen: dict[int, str]) -> Iterator[str]:
    value, full = getattr(module, name), f"{module.__name__}.{name}"
    yield f"### `{full}`\n"
    if _has_doc(value):
        if id(value) in seen:
            yield f"The same as `{seen[id(value)]}`.\n"
            return
        seen[id(value)] = full
    if inspect.isclass(value):
        yield from _class(value)
    elif inspect.isroutine(value):
        yield _signature(name, value)
        yield markdown(value.__doc__)
    else:
        if isinstance(value, str | int | float | tuple):
            yield f"```python\n{name} = {value!r}\n```\n"
        yield _capital(_comment(module, name)) + "\n"


def _class(kind: type) -> Iterator[str]:
    if issubclass(kind, BaseException):
        yield f"An exception; its bases: {', '.join(f'`{base.__name__}`' for base in kind.__bases__)}.\n"
    if _has_own_init(kind):
        yield _signature(kind.__name__, kind)
    yield markdown(_doc(kind))
    fields = [f"* `{name}: {annotation}`: {comment}" for name, annotation, comment in _fields(kind)]
    if fields:
        yield "\n".join(fields) + "\n"
    for name, member, doc in _members(kind):
        if isinstance(member, property | functools.cached_property):
            yield f"#### `{kind.__name__}.{name}`\n"
        else:
            yield _signature(f"{kind.__name__}.{name}", getattr(kind, name), drop_self=inspect.isfunction(member))
        yield markdown(doc)


def _has_own_init(kind: type) -> bool:
    from django.db import models

    if issubclass(kind, models.Model):
        return False
    return any("__init__" in vars(base) for base in kind.__mro__ if base.__module__.startswith("pgq."))


def _members(kind: type) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the class's own public methods and properties; what takes the place of a base class's is known there."""
    kinds = (property, functools.cached_property, staticmethod, classmethod)
    for name, member in vars(kind).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, kinds)):
            continue
        if not any(hasattr(base, name) for base in kind.__mro__[1:]):
            yield name, member, inspect.cleandoc(doc) if (doc := member.__doc__) else None


def _fields(kind: type) -> Iterator[tuple[str, str, str]]:
    """Yield the public fields of a dataclass that its own text declares: name, type, comment."""
    if not dataclasses.is_dataclass(kind):
        return
    lines = textwrap.dedent(inspect.getsource(kind)).splitlines()
    for node in _parsed_class(kind).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
            yield node.target.id, ast.unparse(node.annotation), _above(lines, node.lineno)


def _parsed_class(kind: type) -> ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _comment(module: ModuleType, name: str) -> str:
    """Return the ``#:`` comment above a constant, in the module that it comes from."""
    source = inspect.getsource(module)
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if name in [each.id for target in targets if target for each in ast.walk(target) if isinstance(each, ast.Name)]:
            return _above(source.splitlines(), node.lineno)
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return _comment(importlib.import_module(node.module or ""), name)
    return ""


def _above(lines: list[str], number: int) -> str:
    comment: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        comment.insert(0, line.strip().removeprefix("#:").strip())
    return " ".join(comment)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# ------------------------------------------------------------------------------------------------- signatures


def _signature(name: str, value: Any, *, drop_self: bool = False) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:
        return ""
    parameters = list(signature.parameters.values())[drop_self:]
    texts: list[str] = []
    for before, parameter in zip([None, *parameters], parameters, strict=False):
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        if keyword and (before is None or before.kind not in (before.KEYWORD_ONLY, before.VAR_POSITIONAL)):
            texts.append("*")
        texts.append(_parameter(parameter))
        if parameter.kind is parameter.POSITIONAL_ONLY:
            following = parameters[parameters.index(parameter) + 1 :]
            if not following or following[0].kind is not parameter.POSITIONAL_ONLY:
                texts.append("/")
    returns = signature.return_annotation
    shown = not inspect.isclass(value) and returns is not signature.empty
    returned = f" -> {_annotation(returns)}" if shown else ""
    line = f"{name}({', '.join(texts)}){returned}"
    if len(line) > _WIDTH:
        line = f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){returned}"
    prefix = "async " if inspect.iscoroutinefunction(value) else ""
    return f"```python\n{prefix}{line}\n```\n"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    typed = parameter.annotation is not parameter.empty
    if typed:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        # An address differs from run to run.
        default = "..." if " at 0x" in default or default.startswith("<") else default
        text += f" = {default}" if typed else f"={default}"
    return text


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


# ------------------------------------------------------------------------------------------------- docstrings


def markdown(doc: str | None) -> str:
    """Return a docstring, which has sections as Google's and code as reStructuredText, as Markdown of GitHub."""
    lines = inspect.cleandoc(doc or "").splitlines()
    out: list[str] = []
    section = ""
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.rstrip(":") in _SECTIONS and line.endswith(":"):
            section = line[:-1]
            out += [f"**{section}**", ""]
        elif line.endswith("::"):
            if line != "::":
                out += [_inline(line[:-1]), ""]
            at, block = _indented(lines, at + 1)
            out += _fenced(block)
            continue
        elif line.startswith("==="):
            end = max(number for number, other in enumerate(lines) if other.startswith("==="))
            out += _fenced(lines[at : end + 1])
            at = end
        elif section and line.startswith("    "):
            at, block = _indented(lines, at)
            out += [*_items(section, block), ""]
            section = ""
            continue
        else:
            out.append(_inline(line))
        at += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)) + "\n"


def _inline(text: str) -> str:
    return text.replace("``", "`")


def _indented(lines: list[str], at: int) -> tuple[int, list[str]]:
    """Return where the block that begins here ends, and its lines."""
    end = at
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
        end += 1
    return end, textwrap.dedent("\n".join(lines[at:end])).strip("\n").splitlines()


def _fenced(block: list[str]) -> list[str]:
    language = "text" if any(mark in line for line in block for mark in "├└═") or block[0].startswith("=") else "python"
    return [f"```{language}", *block, "```", ""]


def _items(section: str, block: list[str]) -> list[str]:
    """Return the entries of a section as a list; what is returned is a paragraph."""
    if section in ("Returns", "Yields"):
        return [_inline(line) for line in block]
    items: list[str] = []
    for line in block:
        name, colon, text = line.partition(":")
        if line.startswith(" ") or not colon:
            items.append(f"  {_inline(line.strip())}")
        else:
            items.append(f"* {', '.join(f'`{each.strip()}`' for each in name.split(','))}:{_inline(text)}")
    return items


# ------------------------------------------------------------------------------------------------- options, commands


def _options() -> list[str]:
    from pgq import options

    lines = [
        "Given to `@task` for all calls, or for one call by `using`, `async_task` and what else enqueues. What a call "
        "gives takes the place of what `@task` gives.\n",
        "| option | type | `@task` | a call | meaning |\n|---|---|---|---|---|",
    ]
    for field in dataclasses.fields(options.TaskOptions):
        by = field.metadata.get("by", options.By.INNER)
        if by is not options.By.INNER:
            task, call = ("yes" if each in by else "" for each in (options.By.TASK, options.By.CALL))
            kind = str(field.type).removesuffix(" | None").replace(" | ", " or ")
            lines[1] += f"\n| `{field.name}` | {kind} | {task} | {call} | {_capital(field.metadata['meaning'])} |"
    others = ", ".join(f"`{alias}` is `{name}`" for alias, name in options._ALIASES.items())
    return [*lines, f"Other names, those of django.tasks: {others}.\n"]


def _command_names() -> list[str]:
    folder = Path(importlib.import_module("pgq.management").__path__[0]) / "commands"
    return sorted(path.stem for path in folder.glob("pgq_*.py"))


def _commands() -> Iterator[str]:
    from django.core.management import load_command_class
    from django.core.management.base import BaseCommand

    usual = {option for action in _actions(BaseCommand()) for option in action.option_strings}
    for name in _command_names():
        command = load_command_class("pgq", name)
        yield f"### `{name}`\n"
        yield f"{command.help}\n"
        rows = [row for action in _actions(command) if (row := _option(action, usual))]
        if rows:
            yield "| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"


def _actions(command: Any) -> list[argparse.Action]:
    return list(command.create_parser("manage.py", "command")._actions)


def _option(action: argparse.Action, usual: set[str]) -> str:
    if usual.intersection(action.option_strings) or action.help is argparse.SUPPRESS:
        return ""
    value = action.metavar or ("\\|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    names = ", ".join(action.option_strings) or str(value)
    if action.option_strings and action.nargs != 0:
        names += f" {value}"
    return f"| `{names}` | {_capital(str(action.help or ''))} |"


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    PAGE.write_text(written(), encoding="utf-8")
