"""What workers and upkeep have in common: how they are set up as children of a supervisor."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import logging
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, NoReturn
from uuid import UUID

# Messages on the pipe between the supervisor and a child: one byte, and an id where one is needed.
WAKE, STOP, CANCEL = b"w", b"s", b"c"
READY, IDLE, MORE, TICKED, BYE, ENDING = b"r", b"i", b"m", b"t", b"b", b"e"
# With an id: from now on the worker claims under that one, and holds nothing under the one before.
RENAMED = b"n"
# With a number of kilobytes: the worker has taken more memory than max_rss before its first task.
LARGE = b"l"

#: Seconds that a child may take to end, see `leave`; then the supervisor kills it.
END_WITHIN = 5.0

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """What a child is told. Everything else it reads from Django's settings."""

    #: Random id of this process; the `worker` of its claims.
    id: UUID
    #: Number of this place in the pool, from 0.
    number: int
    pool: str
    database: str
    queues: tuple[str, ...] | None
    #: What the command line said of them, if it did.
    log_format: str | None
    log_level: str | None
    #: Names of databases by their aliases, as the supervisor uses them.
    databases: Mapping[str, str] = field(default_factory=dict)
    #: Settings that no module holds, see `boot`.
    configured: bytes | None = None


def set_up(config: ChildConfig) -> None:
    """Prepare a child process: signals, death with its parent, Django, logging."""
    # Handlers, not SIG_IGN, since programs that a task starts would inherit SIG_IGN: the supervisor gets the terminal's
    # Ctrl-C as well, and tells its children by the pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, _ignore)
    die_with_parent()
    from pgq import boot

    boot.boot(config.configured)
    boot.forget()
    boot.use_databases(config.databases)
    from pgq.hygiene import forget_connections

    forget_connections()
    set_up_logging(config.log_format, config.log_level)


def enter(module: str, config: ChildConfig, *rest: Any) -> None:
    """Entry point of each child. Imports what it runs by name: with "spawn" Django is not set up before."""
    set_up(config)
    importlib.import_module(module).main(config, *rest)


def leave(code: int, pipe: Connection | None, name: str) -> NoReturn:
    """End this process, and before that let what was meant for its end run, as Python would.

    These are the receivers of `pre_exit`, the threads that are no daemons, functions registered with atexit in this
    process, and files that are still open. The supervisor, being told, kills a process that takes longer for them than
    `END_WITHIN`. Nothing else would, so a process whose pipe is broken ends at once.

    Args:
        code: The exit code.
        pipe: To the supervisor; None: it is broken.
        name: Of this process, for `pre_exit`.
    """
    from pgq import signals

    try:
        if pipe is not None:
            pipe.send_bytes(ENDING)
            signals.send(signals.pre_exit, proc_name=name)
            # As multiprocessing does at the end of a process: no public function ends the threads of executors.
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            _flush_files()
    except BaseException:
        logging.getLogger("pgq").exception("%s: at its end", name)
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _flush_files() -> None:
    """Write what open files hold in their buffers. What the fork server had open is frozen, and so not found here."""
    for found in gc.get_objects():
        if type(found) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):
            with contextlib.suppress(OSError, ValueError):
                found.flush()


def _ignore(signum: int, frame: object) -> None:
    """The supervisor decides."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere the closed pipe ends it)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


# ------------------------------------------------------------------------------------------------- orphans


def adopt_orphans() -> None:
    """Have the kernel make this process the parent of those among its descendants whose own parent dies (Linux).

    Workers adopt what their tasks start, daemons too, so it is theirs as long as they live, and comes to the supervisor
    when they die. So whatever the supervisor has adopted was left behind by a dead worker.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_orphans(spared: Collection[int]) -> bool:
    """Kill what dead workers have left: our children, except those of our own, with all their descendants.

    They are all stopped before the first is killed: a process that does nothing but fork would be faster than we.

    Returns:
        Whether nothing is left. False is rare: a process that is stuck in the kernel.
    """
    stopped: set[int] = set()
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        orphans = descendants([os.getpid()], spared)
        if not orphans:
            return True
        new = orphans - stopped
        for pid in new or orphans:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP if new else signal.SIGKILL)
        stopped |= new
        if not new:
            for pid in orphans:
                # Those that are not ours yet come to us when their parent is gone.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.001)
    return False


def descendants(roots: Iterable[int], spared: Collection[int] = ()) -> set[int]:
    """Return the pids of these processes' children, grandchildren and so on, without the roots (Linux).

    Args:
        spared: Children of the roots that do not count, nor do theirs.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents():
        children[parent].append(pid)
    found: set[int] = set()
    fresh = {pid for root in roots for pid in children[root]}.difference(spared)
    while fresh:
        found |= fresh
        fresh = {pid for parent in fresh for pid in children[parent]} - found
    return found


def children_of(parent: int) -> list[int]:
    """Return the pids of a process's children (Linux)."""
    return [pid for pid, its_parent in _parents() if its_parent == parent]


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each process there is and its parent (Linux)."""
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield int(name), int(process_stat(int(name))[1])


def process_stat(pid: int) -> list[str]:
    """Return what the kernel says of a process: its state, its parent, its group, its session ... (Linux).

    Raises:
        OSError: There is no such process, or no /proc.
    """
    with open(f"/proc/{pid}/stat") as file:
        # The command comes first, stands in parentheses and may hold anything.
        return file.read().rpartition(")")[2].split()


# ------------------------------------------------------------------------------------------------- logging

#: One event is one line, whatever a task put into its message: of the controls only tab and line feed (see `format`)
#: stay as they are. Line separators and bidi controls are escaped too.
_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(9), *range(11, 32), *range(127, 0xA0))} | {
    number: f"\\u{number:04x}" for number in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class PlainFormatter(logging.Formatter):
    """Lines for people: time, level, process, message; a traceback is indented below."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        head = f"{time:%H:%M:%S}.{time.microsecond // 1000:03d} {record.levelname:<7} {record.process:>7} "
        text = record.getMessage().translate(_ESCAPES).replace("\n", "\\n")
        if record.exc_info:
            text += "\n" + _exception(self, record).translate(_ESCAPES)
        return head + text.replace("\n", "\n    ")


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """As in `logging`: what somebody has formatted already is not formatted again."""
    assert record.exc_info is not None
    return record.exc_text or formatter.formatException(record.exc_info)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = _exception(self, record)
        return json.dumps(entry)


def set_up_logging(format: str | None, level: str | None) -> None:
    """Let the logger "pgq" speak: as the command line says, else as the project's LOGGING says, else by ourselves.

    Args:
        format: "plain" or "json", if the command line says so: then the lines go to stderr, in place of the handlers
            of the root logger. A logger "pgq" with handlers of its own keeps those.
        level: If the command line says so; None: that of LOGGING, or PGQ["log_level"].
    """
    from pgq.conf import get_settings

    logger = logging.getLogger("pgq")
    # It is, by disable_existing_loggers, if pgq was imported before LOGGING took effect. Nobody means that.
    logger.disabled = False
    if level is not None or logger.level == logging.NOTSET:
        logger.setLevel(level or get_settings().log_level)
    if logger.handlers or (format is None and (logger.hasHandlers() or not logger.propagate)):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if format == "json" else PlainFormatter())
    logger.addHandler(handler)
    logger.propagate = False
