"""Write docs/reference/commands.md: each command of manage.py, its options and exit codes, and what it really printed.

The outputs in `OUTPUTS` are those of a run; `tests/project/test_commands_page.py` runs each command again, and writes
them anew with PGQ_RECORD=1.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management import load_command_class
from django.core.management.base import BaseCommand

from tests.support.reference.docstrings import capital, table

OUTPUTS = Path(__file__).parent / "outputs"
_HEAD = """\
# Commands

`manage.py COMMAND --help` says the same. All of them take Django's own options besides (`--settings`, `--verbosity`,
`--no-color` and others), and all but `pgq_worker` `--json`, for programs: one line of JSON, all of it ASCII. On a
terminal tables fit its width; in a pipe nothing is cut. What can not be done is one line on stderr.

With several databases (`PGQ["databases"]`) a command is about each of them, unless `--database` chooses one.

The outputs below are from one run: a pool of two workers, a schedule, and some tasks of `shop.tasks`.
"""


def command_names() -> list[str]:
    """Return the names of the commands."""
    folder = Path(importlib.import_module("pgq.management").__path__[0]) / "commands"
    return sorted(path.stem for path in folder.glob("pgq_*.py"))


def written() -> str:
    """Return the page as it should be."""
    rows = [(f"[`{name}`](#{name})", _first(_command(name).help)) for name in command_names()]
    return "\n".join([_HEAD, table(("command", "what it does"), *rows), *map(_of, command_names())])


def _command(name: str) -> Any:
    return load_command_class("pgq", name)


def _first(help: str) -> str:
    return help.split(". ")[0].rstrip(".") + "."


def _of(name: str) -> str:
    return "\n".join(part.rstrip("\n") + "\n" for part in _parts(name, _command(name)))


def _parts(name: str, command: Any) -> Iterator[str]:
    yield f"## `{name}`"
    yield command.help
    rows = [row for action in _actions(command) if (row := _row(action))]
    if rows:
        yield table(("option", "default", "meaning"), *rows)
    yield table(("exit code", "when"), *((f"`{code}`", capital(when)) for code, when in command.exit_codes.items()))
    yield f"```console\n{(OUTPUTS / name).with_suffix('.txt').read_text(encoding='utf-8')}```"


def _actions(command: Any) -> list[argparse.Action]:
    usual = {option for action in _all_actions(BaseCommand()) for option in action.option_strings}
    found = [action for action in _all_actions(command) if not usual.intersection(action.option_strings)]
    return [action for action in found if action.help is not argparse.SUPPRESS]


def _all_actions(command: Any) -> list[argparse.Action]:
    return list(command.create_parser("manage.py", "command")._actions)


def _row(action: argparse.Action) -> tuple[str, str, str]:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    name = ", ".join(action.option_strings) or str(value)
    if action.option_strings and action.nargs != 0:
        name += f" {value}"
    default, meaning = split_default(action.help or "")
    if not default and action.default not in (None, False, True, argparse.SUPPRESS, []):
        default = f"`{action.default}`"
    needed = "required" if action.required and not default and action.nargs not in ("*", "?") else ""
    return f"`{name}`", capital(default or needed), capital(meaning)


def split_default(help: str) -> tuple[str, str]:
    """Return the default that a help names in parentheses, and the help without it."""
    at = help.find("(default: ")
    if at < 0:
        return "", help
    depth = 0
    for end in range(at, len(help)):
        depth += {"(": 1, ")": -1}.get(help[end], 0)
        if not depth:
            break
    default, rest = help[at + len("(default: ") : end], help[:at].rstrip() + help[end + 1 :]
    return default, rest


def undescribed() -> list[str]:
    """Return the options without a help, the commands without exit codes, and those without an output."""
    missing = []
    for name in command_names():
        command = _command(name)
        missing += [f"{name} {action.dest}" for action in _actions(command) if not action.help]
        missing += [] if getattr(command, "exit_codes", None) else [f"{name}: exit codes"]
        missing += [] if (OUTPUTS / name).with_suffix(".txt").exists() else [f"{name}: output"]
    return missing
