"""What the commands share: clear errors, plain or rich output, a live screen.

rich is imported inside functions: it takes 90 ms, which a command that prints JSON, or its help, need not spend.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections
from django.db.utils import IntegrityError, InterfaceError, OperationalError, ProgrammingError

from pgq import db
from pgq.conf import Settings, get_settings
from pgq.private import raw_stream

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

T = TypeVar("T")

#: Columns of output that goes to no terminal: enough to cut nothing that is not cut on purpose.
_PIPE_WIDTH = 400
#: Between two columns of a table; and how narrow a column of texts may get.
_GAP, _NARROWEST = 2, 4
#: Seconds between two looks at the keyboard and at the size of the terminal; so the screen is drawn 4 times a second
#: at most.
_BLINK = 0.25

# ------------------------------------------------------------------------------------------------- words and numbers

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(value: object, limit: int | None = None) -> str:
    """Return a text with all that a terminal would obey, or hide, made visible: ``\\x1b``, ``\\u202e``, ``\\n``.

    Names come from whoever can write to the tables.

    Args:
        limit: Characters; a longer text is cut.
    """
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else _escape(char) for char in text)


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def span(seconds: float | None) -> str:
    """Return a length of time in words: ``0.35 s``, ``12 s``, ``5 min``, ``3 h 10 min``, ``2 d 3 h``."""
    if seconds is None:
        return ""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def clock(seconds: float) -> str:
    """Return a length of time as Django-Q shows it: ``1:02:03``."""
    return str(timedelta(seconds=int(max(seconds, 0))))


def rate(value: float | None) -> str:
    """Return a number a second, with as many digits as it deserves."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}"


# ------------------------------------------------------------------------------------------------- commands


class PgqCommand(BaseCommand):
    """A command that looks at the tables: it says what is wrong in one line, and exits with 1.

    A subclass has `run`. Exit codes: 0, 1 for what went wrong, 2 for wrong arguments, 130 after Ctrl-C.
    """

    requires_migrations_checks = False
    # A command that shows what is wrong must not refuse to start because something is.
    requires_system_checks: list[str] = []

    def add_json(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            self.settings = checked_settings()
            self.run(options)

    def run(self, options: dict[str, Any]) -> None:
        raise NotImplementedError

    def print_json(self, value: Any) -> None:
        """Print a value on one line, all of it ASCII."""
        self.stdout.write(json.dumps(value, default=_jsonable))
        # Whoever reads a pipe of a command that goes on wants each line when it is printed.
        self.stdout.flush()

    def console(self, options: Mapping[str, Any]) -> Console:
        return console(self.stdout, options)


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "as_json"):
        return value.as_json()
    if hasattr(value, "hex") and not isinstance(value, float | bytes):
        return value.hex
    return str(value)


def checked_settings() -> Settings:
    """Return the settings.

    Raises:
        CommandError: They are wrong, or their database is not one that pgq can use.
    """
    try:
        settings = get_settings()
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None
    if settings.database not in connections:
        raise CommandError(f"PGQ['database'] is {settings.database!r}, which is not in DATABASES.")
    if connections[settings.database].vendor != "postgresql":
        raise CommandError(f"The database {settings.database!r} is not PostgreSQL, which pgq needs.")
    return settings


_MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedColumn)


def explain(error: BaseException) -> str:
    """Return what to tell people about an error of the database, in one line."""
    cause = error.__cause__ if isinstance(error, DatabaseError) and error.__cause__ is not None else error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    if isinstance(cause, _MISSING):
        return f"The tables of pgq are missing or old ({lines[0]}). Run: manage.py migrate pgq"
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return f"PostgreSQL: {lines[0]}"
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return f"PostgreSQL cannot be reached: {'; '.join(line.strip() for line in lines)}"
    return f"PostgreSQL: {lines[0]}"


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what can go wrong outside of us into one clear line; Ctrl-C and a closed pipe are no errors of ours."""
    try:
        yield
    except (OperationalError, InterfaceError, ProgrammingError, IntegrityError, psycopg.Error) as error:
        raise CommandError(visible(explain(error))) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # `| head` has seen enough. Python would complain once more when it flushes stdout.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


# ------------------------------------------------------------------------------------------------- output


def is_plain(options: Mapping[str, Any]) -> bool:
    """Whether somebody asked for no colours: by option, or by environment."""
    return bool(options.get("no_color") or os.environ.get("DJANGO_COLORS") == "nocolor" or os.environ.get("NO_COLOR"))


def console(stdout: Any, options: Mapping[str, Any]) -> Console:
    """Return a console on a command's stdout.

    Markup and emoji codes are off: a queue called ``[default]`` is to be seen as such.
    """
    from rich.console import Console

    # A newline after each write would break a screen that is drawn in pieces.
    stream = raw_stream(stdout)
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    colors: Any = None if is_plain(options) else "standard" if options.get("force_color") else "auto"
    made = Console(
        file=stream,
        force_terminal=True if options.get("force_color") and colors else None,
        color_system=colors,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if terminal else _width_of_pipe(),
        safe_box=True,
    )
    # Rich reads the environment, too; Live only makes sense on a real terminal.
    made.is_interactive = terminal and made.is_interactive and not made.is_dumb_terminal
    return made


def _width_of_pipe() -> int:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isascii() and columns.isdigit() and int(columns) > 0 else _PIPE_WIDTH


def emit(out: Console, *renderables: RenderableType) -> None:
    """Print; outside a terminal without the blanks that fill up lines, and in the stream's own encoding."""
    if out.is_terminal:
        out.print(*renderables, sep="\n")
        return
    with out.capture() as captured:
        out.print(*renderables, sep="\n")
    text = "".join(line.rstrip() + "\n" for line in captured.get().splitlines())
    encoding = getattr(out.file, "encoding", None) or "utf-8"
    out.file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    out.file.flush()


def text(value: object, style: str = "", limit: int | None = None) -> Text:
    """Return a text for a cell, harmless and on one line."""
    from rich.text import Text

    return Text(visible(value, limit), style=style, no_wrap=True, overflow="ellipsis")


def message(value: object, style: str = "") -> Text:
    """Return a text that is to be read to its end: it is wrapped where it does not fit."""
    made = text(value, style)
    made.no_wrap, made.overflow = False, "fold"
    return made


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    #: Shown if the console is at least so wide.
    from_width: int = 0
    style: str = ""


def table(out: Console, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table without lines, with the columns for which there is room; cells are texts or anything to show."""
    from rich.table import Table
    from rich.text import Text

    shown = [index for index, column in enumerate(columns) if out.width >= column.from_width]
    cells = [[cell if isinstance(cell := row[index], Text) else text(cell) for index in shown] for row in rows]
    widths = _widths(out, [columns[index] for index in shown], cells)
    made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for index, width in zip(shown, widths, strict=True):
        column = columns[index]
        made.add_column(
            text(column.title),
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            style=column.style,
            width=width,
        )
    for line in cells:
        made.add_row(*line)
    return made


def _widths(out: Console, columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> list[int]:
    """Return how wide the columns are: so wide as they need, or the texts less, the widest first.

    Numbers and times are short, and mean something else without their end.
    """
    widths = [max([len(column.title), *(row[index].cell_len for row in cells)]) for index, column in enumerate(columns)]
    texts = [index for index, column in enumerate(columns) if not column.right]
    for _ in range(sum(widths) + _GAP * (len(columns) - 1) - out.width):
        widest = max(texts, key=lambda index: widths[index], default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


STATE_STYLES = {
    "Working": "green", "Idle": "cyan", "Starting": "yellow", "Stopping": "yellow", "Stopped": "red", "Silent": "red",
}  # fmt: skip


def state(name: str) -> Text:
    """Return the state of a pool, in its colour."""
    return text(name, STATE_STYLES.get(name, ""))


# ------------------------------------------------------------------------------------------------- a live screen


class Source(Generic[T]):
    """Reads something from PostgreSQL again and again, over a connection of its own that it makes anew when it is lost.

    Args:
        read: Takes a cursor and what was read before.
    """

    def __init__(self, alias: str, role: str, read: Callable[[db.Cursor, T | None], T]) -> None:
        self.alias, self.role, self._read = alias, role, read
        self.connection: db.Connection | None = None
        self.before: T | None = None

    def read(self) -> T:
        """Read once.

        Raises:
            psycopg.Error: That did not work; the next call begins with a new connection.
        """
        try:
            if self.connection is None:
                self.connection = db.connect(self.alias, self.role)
            self.before = self._read(self.connection.cursor(), self.before)
            return self.before
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.connection is not None:
            with contextlib.suppress(psycopg.Error):
                self.connection.close()
            self.connection = None


class _Reader(threading.Thread, Generic[T]):
    """Reads in the background, so that a slow database never keeps the keyboard from being heard."""

    def __init__(self, source: Source[T], interval: float) -> None:
        super().__init__(name="pgq reader", daemon=True)
        self.source, self.interval = source, interval
        self.value: T | None = None
        self.read_at = 0.0
        self.trouble: str | None = None
        #: Not to be mended by trying again.
        self.fatal: BaseException | None = None
        self.version = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        backoff = db.Backoff(first=0.25)
        while not self.stopped.is_set():
            try:
                self.value, self.read_at = self.source.read(), time.monotonic()
                self.trouble = None
                backoff.succeeded()
                pause = self.interval
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                pause = backoff.next_pause()
                self.trouble = f"{explain(error)}; trying again"
            except BaseException as error:
                self.fatal = error
                return
            self.version += 1
            self.stopped.wait(pause)
        self.source.close()


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits so many seconds for keys and returns them; without a keyboard it only waits."""
    import termios
    import tty

    stop = threading.Event()

    def nothing(seconds: float) -> str:
        stop.wait(seconds)
        return ""

    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (OSError, ValueError, AttributeError, termios.error):
        yield nothing
        return

    def read(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        if not ready:
            return ""
        keys = os.read(fd, 64)
        if not keys:
            # The terminal is gone.
            raise KeyboardInterrupt
        return keys.decode("utf-8", "replace")

    try:
        tty.setcbreak(fd)
        yield read
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program by an exception, so that the terminal is left as it was found."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(
    out: Console, source: Source[T], render: Callable[[T | None, float, str | None], RenderableType], *, interval: float
) -> None:
    """Show something that changes, on the whole screen, until q or Ctrl-C.

    Args:
        render: Takes what was read last (None: nothing yet), how many seconds ago, and what is wrong (None: nothing).
        interval: Seconds between two readings.
    """
    from rich.live import Live

    reader = _Reader(source, interval)
    with (
        _terminated_cleanly(),
        _keys() as keys,
        Live(
            console=out, screen=True, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        ) as live,
    ):
        reader.start()
        drawn: object = None
        try:
            while True:
                if reader.fatal is not None:
                    raise reader.fatal
                # Besides with new data: with a new size, and once a second, since ages grow.
                now = (reader.version, out.size, int(time.monotonic()))
                if now != drawn:
                    age = time.monotonic() - reader.read_at
                    live.update(render(reader.value, age, reader.trouble), refresh=True)
                    drawn = now
                if {"q", "Q", "\x03"} & set(keys(_BLINK)):
                    return
        except KeyboardInterrupt:
            return
        finally:
            reader.stopped.set()


def repeat(
    source: Source[T], show: Callable[[T], None], *, interval: float | None, trouble: Callable[[str], None]
) -> None:
    """Show something once, or every `interval` seconds, without a screen, until Ctrl-C.

    Args:
        trouble: Told when PostgreSQL cannot be reached, if there will be another time.
    """
    if interval is None:
        try:
            show(source.read())
        finally:
            source.close()
        return
    backoff = db.Backoff(first=0.25)
    with _terminated_cleanly(), contextlib.suppress(KeyboardInterrupt):
        try:
            while True:
                try:
                    show(source.read())
                    backoff.succeeded()
                    pause = interval
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    trouble(explain(error))
                    pause = max(backoff.next_pause(), interval)
                time.sleep(pause)
        finally:
            source.close()


def positive_seconds(value: str) -> float:
    """Read an option: seconds, 0.1 or more."""
    import argparse

    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds from 0.1 to 86400")
    return seconds


def allot(lines: int, counts: Sequence[int], overhead: int) -> list[int]:
    """Return how many rows each of several tables may show on a screen.

    Args:
        lines: Of the screen.
        counts: Rows of the tables, the most important one first.
        overhead: Lines each table takes besides its rows.

    The first ones get a row before the later ones; a table that gets none is not shown at all.
    """
    rows = [0] * len(counts)
    for index, count in enumerate(counts):
        if count and lines >= overhead + 1:
            rows[index] = 1
            lines -= overhead + 1
    while lines > 0 and any(0 < got < count for got, count in zip(rows, counts, strict=True)):
        for index, count in enumerate(counts):
            if lines > 0 and 0 < rows[index] < count:
                rows[index] += 1
                lines -= 1
    return rows
