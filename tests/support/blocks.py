"""The code blocks of the pages, and how each kind of them is run. CONTRIBUTING.md has the rules for who writes a page.

`python -m tests.support.blocks PAGE [LANGUAGE...]` runs the blocks of a page that needs no database, but for those of
these languages, in a process of their own.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```|^<!-- run:(?P<hidden>.*?)-->", re.M | re.S
)
_MODULE = re.compile(r"# ((?:\w+/)+\w+)\.py\b")
_INSTRUCTIONS = {"ARG", "FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "EXPOSE", "CMD", "ENTRYPOINT", "HEALTHCHECK"}
_PROGRAMS = {"pip", "psql", "git", "for", "docker", "kubectl", "systemctl", "curl", "cd", "createdb"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str


def pages() -> list[str]:
    return ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[Block]:
    """All of a page, in their order; what a comment `<!-- run: ... -->` says is Python that the page does not show."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for one in _BLOCK.finditer(text):
        line = text.count("\n", 0, one.start()) + 1
        if one["hidden"] is not None:
            found.append(Block(page, line, "run", one["hidden"].strip() + "\n"))
        else:
            indent = re.compile(f"^{one['indent']}", re.MULTILINE)
            found.append(Block(page, line, one["language"], indent.sub("", one["text"])))
    return found


def texts(page: str, language: str) -> list[str]:
    """Those of one language, for a test that runs them in its own way."""
    return [block.text for block in blocks(page) if block.language == language]


class Run:
    """The blocks of one page, one after the other, in one namespace; a block `# shop/tasks.py` is that module."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {"__name__": "page"}
        #: What the page prepares without showing it. Its modules see it as well.
        self.prepared: dict[str, Any] = {}

    def block(self, block: Block) -> None:
        run: Callable[[Block], None] | None = getattr(self, f"_{block.language or 'output'}", None)
        if run is None:
            raise AssertionError(
                f"{block.page}:{block.line}: nothing runs blocks of {block.language or 'no language'!r}"
            )
        try:
            run(block)
        except Exception as error:
            error.add_note(f"the block of {block.page}, line {block.line}")
            raise

    def _run(self, block: Block) -> None:
        exec(compile("\n" * block.line + block.text, block.page, "exec"), self.prepared)

    def _python(self, block: Block) -> None:
        from pgq import conf

        named = _MODULE.match(block.text)
        given = self.namespace
        if named and not named[1].endswith(("/settings", "/urls")):
            given = vars(_module(named[1].replace("/", ".")))
        given.pop("PGQ", None)
        for name, value in self.prepared.items():
            given.setdefault(name, value)
        # `{..., "OPTIONS": {}}` is a dict of the reader's with one key more.
        text = "\n" * block.line + block.text.replace("{..., ", "{")
        exec(compile(text, block.page, "exec"), given)
        if "PGQ" in given:
            problems = conf.read("PGQ", given["PGQ"])[1]
            assert problems == [], problems

    def _sql(self, block: Block) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            for statement in block.text.split(";\n"):
                if re.sub(r"--.*", "", statement).strip():
                    cursor.execute(statement)

    def _sh(self, block: Block) -> None:
        checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        for line in re.sub(r"\\\n", " ", block.text).splitlines():
            _command(shlex.split(line, comments=True))

    _bash = _sh

    def _yaml(self, block: Block) -> None:
        assert any(yaml.safe_load_all(block.text))

    def _toml(self, block: Block) -> None:
        assert tomllib.loads(block.text)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _ini(self, block: Block) -> None:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(block.text)
        assert parser.sections()

    def _dockerfile(self, block: Block) -> None:
        lines = [line for line in re.sub(r"\\\n", " ", block.text).splitlines() if line and line[0] != "#"]
        unknown = [line for line in lines if line.split()[0] not in _INSTRUCTIONS]
        assert unknown == [], unknown


def _module(name: str) -> types.ModuleType:
    parent = ""
    for part in name.split("."):
        path = f"{parent}.{part}" if parent else part
        module = sys.modules.setdefault(path, types.ModuleType(path))
        if parent:
            setattr(sys.modules[parent], part, module)
        parent = path
    return sys.modules[name]


def _command(words: list[str]) -> None:
    """A command of pgq or Django takes these arguments, a target of the Makefile is there, a program is a known one."""
    from django.core import management

    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if not words:
        return
    if words[0].startswith("python"):
        words = words[1:]
    if words[0] == "manage.py":
        name, *arguments = words[1:]
        arguments = arguments[: arguments.index("|")] if "|" in arguments else arguments
        apps = management.get_commands()
        assert name in apps, f"there is no command {name}"
        home = apps[name]
        command = management.load_command_class(home, name) if isinstance(home, str) else home
        parser = command.create_parser("manage.py", name)
        for action in parser._actions:
            # The reader's project has other databases than this one.
            if "--database" in action.option_strings:
                action.choices = None
        parser.parse_args(arguments)
    elif words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        there = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(targets) <= set(there), words
    else:
        assert words[0] in _PROGRAMS, f"unknown program {words[0]}: name it in tests/support/blocks.py"


@contextmanager
def modules_of_the_page() -> Iterator[None]:
    """What the blocks of a page import and register is gone afterwards."""
    from pgq.enqueue import registry
    from pgq.schedules import declared

    before, registered = set(sys.modules), set(registry._registered)
    try:
        yield
    finally:
        for path in set(registry._registered) - registered:
            del registry._registered[path]
            declared.declare(path, None)
        registry._home.cache_clear()
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("shop", "page"):
                del sys.modules[name]


if __name__ == "__main__":
    import django

    django.setup()
    run = Run()
    for each in blocks(sys.argv[1]):
        if each.language not in sys.argv[2:]:
            run.block(each)
