"""What the demo shows: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

#: Seconds between two plain lines about the progress.
_PLAIN_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Counted:
    """How far the tasks of the files are."""

    enqueued: int
    succeeded: int = 0
    failed: int = 0
    parked: int = 0
    busy: int = 0
    workers: int = 0

    @property
    def settled(self) -> int:
        return self.succeeded + self.failed

    @property
    def done(self) -> bool:
        """Whether nothing more is to come: a parked task waits for a person."""
        return self.settled + self.parked >= self.enqueued


class Screen:
    """Standard output, for people."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # What a file holds may stand in its error, and not every terminal can show it.
            sys.stdout.reconfigure(errors="backslashreplace")
        self.live = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown", None)
        # no_color would leave bold and the like.
        plain = not self.live or bool(os.environ.get("NO_COLOR"))
        self.console = Console(
            force_terminal=self.live,
            force_interactive=self.live,
            color_system=None if plain else "auto",
            width=None if self.live else 110,
            highlight=False,
        )

    def say(self, text: str, style: str = "", *, label: str = "") -> None:
        """Print a line, below the others, with a word before it that says what it is about."""
        self.console.print(Text.assemble((f"{label:<10}", "bold"), (text, style)), soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[Status | None]:
        """Show on a terminal what is being waited for."""
        if self.live:
            with self.console.status(Text(text)) as status:
                yield status
        else:
            yield None

    def progress(self, total: int) -> LiveProgress | PlainProgress:
        return LiveProgress(self.console, total) if self.live else PlainProgress(self.console)

    def totals(self, totals: Mapping[str, int], counted: Counted, seconds: float) -> None:
        """Print what was counted in the files."""
        rate = counted.settled / seconds if seconds else 0
        table = self._table("Totals", "", "")
        rows = {"tasks": counted.settled, "succeeded": counted.succeeded, "failed": counted.failed}
        rows |= {name: totals[name] for name in ("files", "lines", "comments", "imports", "functions", "classes")}
        for name, number in rows.items():
            table.add_row(name, f"{number:,}")
        table.add_row("seconds", f"{seconds:.1f}")
        table.add_row("tasks/s", f"{rate:.0f}")
        self.console.print(table)

    def largest(self, files: Sequence[tuple[str, int, int]]) -> None:
        """Print files with their lines and functions."""
        table = self._table("Largest files", "file", "lines", "functions")
        for path, lines, functions in files:
            table.add_row(Text(path), f"{lines:,}", f"{functions:,}")
        self.console.print(table)

    def failures(self, failures: Sequence[tuple[str, str]]) -> None:
        """Print files with the reason why they could not be parsed."""
        if not failures:
            self.say("No file failed: Python can parse all of them.")
            return
        table = self._table(f"Failures ({len(failures)})", "file", "reason")
        table.columns[1].justify = "left"
        for path, reason in failures:
            table.add_row(Text(path), Text(reason))
        self.console.print(table)

    def _table(self, title: str, first: str, *others: str) -> Table:
        plain = not self.live
        table = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD if not plain else None)
        table.show_header = bool(first)
        table.add_column(first, overflow="fold")
        for name in others:
            table.add_column(name, justify="right", overflow="fold")
        return table


class LiveProgress:
    """A bar, the rate, the failures and the workers."""

    def __init__(self, console: Console, total: int) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            # Not over the full width: the ^C that a terminal shows would begin a new line.
            BarColumn(bar_width=max(10, min(60, console.width - 55))),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s", style="cyan"),
            TextColumn("{task.fields[failed]} failed", style="red"),
            TextColumn("{task.fields[busy]}/{task.fields[workers]} workers", style="green"),
            TimeElapsedColumn(),
            console=console,
        )
        self.task = self.progress.add_task("", total=total, rate=0.0, failed=0, busy=0, workers=0)
        self.seen: deque[tuple[float, int]] = deque(maxlen=15)

    def __enter__(self) -> LiveProgress:
        self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def show(self, counted: Counted, seconds: float) -> None:
        self.seen.append((seconds, counted.settled))
        (before, then), rate = self.seen[0], 0.0
        if counted.done:
            rate = counted.settled / seconds
        elif seconds > before:
            rate = (counted.settled - then) / (seconds - before)
        self.progress.update(
            self.task,
            completed=counted.settled,
            rate=rate,
            failed=counted.failed,
            busy=counted.busy,
            workers=counted.workers,
        )


class PlainProgress:
    """A line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.next = time.monotonic() + _PLAIN_EVERY

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def show(self, counted: Counted, seconds: float) -> None:
        if time.monotonic() < self.next and not counted.done:
            return
        self.next = time.monotonic() + _PLAIN_EVERY
        self.console.print(
            f"{counted.settled}/{counted.enqueued} tasks, {counted.failed} failed, {counted.settled / seconds:.0f}/s, "
            f"{counted.busy} of {counted.workers} workers busy",
            markup=False,
            soft_wrap=True,
        )
