"""The live screen of a command: keys, refreshes, and a reader that asks the database beside it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg
from django.core.management.base import CommandParser

from pgq.management.command import PgqCommand, explain
from pgq.management.output import T, emit
from pgq.status import databases
from pgq.status.databases import Away
from pgq.store import connection as store_connection
from pgq.store.outage import Backoff

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

#: Seconds between two looks, unless an option says otherwise.
_INTERVAL = 2.0
#: Seconds between two readings of the keyboard and of the size of the terminal; so the screen is drawn 4 times a second
#: at most.
_BLINK = 0.25


class Readable(Protocol[T_co]):
    """What is read again and again."""

    def read(self) -> T_co: ...
    def close(self) -> None: ...


class View(Protocol[T_contra]):
    """How what was read is shown."""

    def page(self, seen: T_contra) -> list[RenderableType]:
        """Return what is printed where there is no screen."""

    def render(self, seen: T_contra | None, age: float, trouble: str | None) -> RenderableType:
        """Return what the screen shows.

        Args:
            seen: What was read last; None: nothing yet.
            age: Seconds since then.
            trouble: What is wrong with PostgreSQL; None: nothing.
        """


class Source(Generic[T]):
    """Reads something from PostgreSQL again and again, over a connection of its own that it makes anew when it is lost.

    Args:
        read: Takes a cursor and what was read before.
    """

    def __init__(self, alias: str, role: str, read: Callable[[store_connection.Cursor, T | None], T]) -> None:
        self.alias, self.role, self._read = alias, role, read
        self.connection: store_connection.Connection | None = None
        self.before: T | None = None

    def read(self) -> T:
        """Read once.

        Raises:
            psycopg.Error: That did not work; the next call begins with a new connection.
        """
        try:
            if self.connection is None:
                self.connection = store_connection.connect(self.alias, self.role)
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


class SeveralSources(Generic[T]):
    """Reads the same from each of several databases at the same time; of one that is away, why.

    Args:
        read: As for `Source`, but called in a thread, and each time over a new connection.
    """

    def __init__(self, role: str, read: Callable[[store_connection.Cursor, T | None], T]) -> None:
        self.role, self._read = role, read
        self._last: dict[str, T] = {}

    def read(self) -> Mapping[str, T | str]:
        """Read once.

        Raises:
            psycopg.Error: None of the databases could be read.
        """
        seen: dict[str, T | Away] = databases.look(self._one, self.role)
        away = [one.error for one in seen.values() if isinstance(one, Away)]
        if len(away) == len(seen):
            raise away[0]
        self._last |= {alias: one for alias, one in seen.items() if not isinstance(one, Away)}
        return {alias: explain(one.error) if isinstance(one, Away) else one for alias, one in seen.items()}

    def _one(self, alias: str, cursor: store_connection.Cursor) -> T:
        return self._read(cursor, self._last.get(alias))

    def close(self) -> None:
        """Do nothing: no connection outlives a reading."""


class _Reader(threading.Thread, Generic[T]):
    """Reads in the background, so that a slow database never keeps the keyboard from being heard."""

    def __init__(self, source: Readable[T], interval: float) -> None:
        super().__init__(name="pgq reader", daemon=True)
        self.source, self.interval = source, interval
        self.value: T | None = None
        self.read_at = 0.0
        self.trouble: str | None = None
        #: Not to be mended by trying again.
        self.fatal: BaseException | None = None
        self.version = 0
        self.stopped = False
        #: Set to read at once, or to look at `stopped`.
        self.nudged = threading.Event()

    def run(self) -> None:
        backoff = Backoff(first=0.25)
        while not self.stopped:
            self.nudged.clear()
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
            self.nudged.wait(pause)
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
    out: Console,
    source: Readable[T],
    view: View[T],
    *,
    interval: float,
    press: Callable[[str, T | None], bool] | None = None,
) -> None:
    """Show something that changes, on the whole screen, until q or Ctrl-C.

    Args:
        interval: Seconds between two readings.
        press: Takes other keys, and what was read last; returns whether to read at once.
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
                    live.update(view.render(reader.value, age, reader.trouble), refresh=True)
                    drawn = now
                pressed = keys(_BLINK)
                if {"q", "Q", "\x03"} & set(pressed):
                    return
                if pressed and press is not None:
                    if press(pressed, reader.value):
                        reader.nudged.set()
                    drawn = None
        except KeyboardInterrupt:
            return
        finally:
            reader.stopped = True
            reader.nudged.set()


def repeat(
    source: Readable[T], show: Callable[[T], None], *, interval: float | None, trouble: Callable[[str], None]
) -> None:
    """Show something once, or every `interval` seconds, without a screen, until Ctrl-C.

    Args:
        trouble: Called when PostgreSQL cannot be reached, if it is tried again.
    """
    if interval is None:
        try:
            show(source.read())
        finally:
            source.close()
        return
    backoff = Backoff(first=0.25)
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


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of a command that calls `show`."""
    parser.add_argument("--run-once", action="store_true", help="print once and end")
    parser.add_argument(
        "--interval", type=positive_seconds, metavar="SECONDS", help=f"between two looks (default: {_INTERVAL:g})"
    )


def show(
    command: PgqCommand,
    options: Mapping[str, Any],
    source: Readable[T],
    view: Callable[[Console], View[T]],
    as_json: Callable[[T], Any],
    *,
    press: Callable[[str, T | None], bool] | None = None,
) -> None:
    """Show something as the options say: on a screen, as lines, or as JSON; once, or again and again.

    Args:
        press: As for `watch`.
    """
    interval = None if options["run_once"] else options["interval"]

    def printed(one: Callable[[T], None]) -> None:
        repeat(source, one, interval=interval, trouble=command.stderr.write)

    if options["json"]:
        printed(lambda seen: command.print_json(as_json(seen)))
        return
    out = command.console(options)
    shown = view(out)
    if out.is_interactive and not options["run_once"]:
        watch(out, source, shown, interval=interval or _INTERVAL, press=press)
    else:
        printed(lambda seen: emit(out, *shown.page(seen)))


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
