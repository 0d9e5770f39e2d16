"""A reader who follows a page, block by block, in an empty folder, and types what is shown to be typed.

* ``sh``: bash runs it. The directory, and what it exports, hold for the next block. A last line that runs until it is
  stopped (``pgq_worker``, ``runserver``) gets a terminal of its own, and is left running.
* ``python``: the first line names a file, which it is written into, or (``more of``, ``at the end of``) added to.
* ``pycon``: typed into ``manage.py shell``; the answers must be those that are shown.
* ``ini``: a unit of systemd: what it starts is started as there, and waited for.
* ``text``: what the block above has printed, or what its terminal says by and by; ``…`` stands for what differs, at the
  end of a line for more lines as well.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.support.blocks import Block
from tests.support.pools import wait_for

PATIENCE = 60.0
_LASTING = re.compile(r"python manage\.py (?:pgq_worker\b(?!.*--(?:run-once|check-config))|runserver\b)")
_FILE = re.compile(r"# (?P<more>more of |at the end of )?(?P<path>[\w/]+\.py)\n")
#: What a pool says once it runs.
_STARTED = "pool default: "
#: The shell of the reader has what it prints compared by doctest.
_SHELL = """\
import doctest, sys
test = doctest.DocTestParser().get_doctest({session!r}, {{}}, "the page", None, 0)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
runner.run(test)
sys.exit(1 if runner.failures else 0)
"""


class Terminal:
    """A command that is left running."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self.command, self.log = command, log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Press Ctrl-C, which all its processes hear; return the exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


class Reader:
    """See above.

    Args:
        home: An empty folder.
        environment: What the reader's shell has.
        replaced: Texts of the page, such as ports, and what the reader's machine has instead.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], replaced: Mapping[str, str]) -> None:
        self.home, self.environment, self.replaced = home, dict(environment), replaced
        self.folder = home
        self.terminals: list[Terminal] = []
        self.said = ""

    def here(self, text: str) -> str:
        """Return a text of the page as it is on this machine."""
        for shown, here in self.replaced.items():
            text = text.replace(shown, here)
        return text

    def follow(self, block: Block) -> None:
        """Do what the block says.

        Raises:
            AssertionError: It did not do what the page says.
        """
        try:
            getattr(self, f"_{block.language}")(self.here(block.text))
        except BaseException as error:
            said = "".join(f"\n--- {shlex.join(each.command)}\n{each.said}" for each in self.terminals)
            error.add_note(f"the block of {block.page}, line {block.line}{said}")
            raise

    def stop(self) -> list[int]:
        """Press Ctrl-C in all terminals; return their exit codes."""
        return [terminal.stop() for terminal in reversed(self.terminals)]

    # ------------------------------------------------------------------------------------- a kind of block each

    def _sh(self, text: str) -> None:
        lines = text.rstrip().splitlines()
        lasting = lines.pop() if _LASTING.match(lines[-1]) else None
        if lines:
            self._run("\n".join(lines))
        if lasting is not None:
            self._leave_running(shlex.split(lasting))

    def _python(self, text: str) -> None:
        named = _FILE.match(text)
        assert named, "the first line of a module names its file"
        file = self.folder / named["path"]
        before = file.read_text() + "\n\n" if named["more"] else ""
        reloading = [(each, each.said.count(_STARTED)) for each in self.terminals if "--autoreload" in each.command]
        file.write_text(before + text[named.end() :].lstrip("\n"))
        # Who reads takes longer than the pool, which is away for a moment.
        for terminal, starts in reloading:
            wait_for(lambda: terminal.said.count(_STARTED) > starts, "the pool has the new code", PATIENCE, 0.1)  # noqa: B023

    def _pycon(self, text: str) -> None:
        shell = _SHELL.format(session=text.replace("…", "..."))
        self._run(shlex.join(["python", "manage.py", "shell", "-c", shell]))

    def _ini(self, text: str) -> None:
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(text)
        where = unit["Service"]["WorkingDirectory"]
        self._leave_running(shlex.split(unit["Service"]["ExecStart"].replace(where, str(self.folder))))
        [port] = re.findall(r"--health-port (\d+)", text)
        address = f"http://127.0.0.1:{port}/health/ready"
        wait_for(lambda: _answers(address), "what the unit has started is ready", PATIENCE, 0.1)

    def _text(self, text: str) -> None:
        shown = _pattern(text)
        if self.said:
            assert shown.fullmatch(self.said), f"shown:\n{text}\nprinted:\n{self.said}"
        else:
            terminal = self.terminals[-1]
            wait_for(lambda: shown.search(terminal.said), f"the terminal says\n{text}", PATIENCE, 0.1)

    # ------------------------------------------------------------------------------------------------- the shell

    def _run(self, script: str) -> None:
        state = self.home / ".state"
        done = subprocess.run(
            ["bash", "-c", f"set -e\n{script}\n{{ pwd; env -0; }} > {shlex.quote(str(state))}"],
            cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=2 * PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        self.said = done.stdout
        where, _, exported = state.read_text().partition("\n")
        self.folder = Path(where)
        self.environment = dict(one.split("=", 1) for one in exported.split("\0") if "=" in one)

    def _leave_running(self, command: list[str]) -> None:
        self.said = ""
        log = self.home / f"terminal-{len(self.terminals)}.log"
        self.terminals.append(Terminal(command, self.folder, self.environment, log))


def _pattern(text: str) -> re.Pattern[str]:
    """What is shown; ``…`` is anything in a line, and at the end of one any number of lines as well."""
    lines = [re.escape(line.rstrip()).replace("…", ".*") for line in text.rstrip().splitlines()]
    lines = [f"{line}(?:\n.*)*?" if line.endswith(".*") else line for line in lines]
    return re.compile(r"\s*" + r"[^\S\n]*\n".join(lines) + r"\s*")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
