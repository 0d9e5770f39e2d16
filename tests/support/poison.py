"""Poisoned tasks: what user code may do to its worker. And the canary, which finds what is left of it.

Those that return have succeeded, and return their receipt, as the oracle wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import decimal
import gc
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone, translation

from pgq.execution.call import running_claim
from tests.faults.tasks import say
from tests.functions.oracle import _file

#: Kept by a task that leaves something behind.
_kept: list[Any] = []


# ------------------------------------------------------------------------------------------- the canary


def _process() -> dict[str, Any]:
    mask = os.umask(0o022)
    os.umask(mask)
    decimals = decimal.getcontext()
    return {
        "cwd": os.getcwd(),
        "umask": mask,
        "environment": dict(os.environ),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals() if number != signal.SIGALRM},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "zone": time.tzname,
        "locale": locale.setlocale(locale.LC_ALL),
        "path": list(sys.path),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "logging": (logging.root.level, logging.root.manager.disable, list(logging.root.handlers), _pgq_logger()),
        "decimals": (decimals.prec, decimals.rounding, decimals.traps[decimal.Inexact]),
        "recursion": sys.getrecursionlimit(),
        "sockets": socket.getdefaulttimeout(),
        "garbage": gc.isenabled(),
        "settings": settings.APPEND_SLASH,
        "language": translation.get_language(),
        "time zone": timezone.get_current_timezone_name(),
        "limits": [resource.getrlimit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU)],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "files": [_is_open(number) for number in range(3)],
    }


def _pgq_logger() -> tuple[Any, ...]:
    own = logging.getLogger("pgq")
    return own.level, list(own.handlers), own.propagate


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _session() -> dict[str, Any]:
    """Of Django's connection, as the next task finds it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('search_path'), current_setting('TimeZone'), current_setting('statement_timeout'),"
            " current_setting('default_transaction_read_only'), current_user,"
            " (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),"
            " (SELECT count(*) FROM pg_listening_channels()), to_regclass('pg_temp.poison')"
        )
        path, zone, statement, read_only, user, locks, channels, table = cursor.fetchone()
    return {
        "search_path": path,
        "TimeZone": zone,
        "statement_timeout": statement,
        "read only": read_only,
        "is owner": user == connection.settings_dict["USER"] or not connection.settings_dict["USER"],
        "advisory locks": locks,
        "channels": channels,
        "temporary table": table,
        "autocommit": connection.get_autocommit(),
        "psycopg's autocommit": connection.connection.autocommit,
        "in a block": connection.in_atomic_block,
        "status": int(connection.connection.info.transaction_status),
    }


_CLEAN_SESSION = {
    "search_path": '"$user", public',
    "TimeZone": "UTC",
    "statement_timeout": "0",
    "read only": "off",
    "is owner": True,
    "advisory locks": 0,
    "channels": 0,
    "temporary table": None,
    "autocommit": True,
    "psycopg's autocommit": True,
    "in a block": False,
    "status": 0,
}
#: How the process was when this module was imported: before any task of it ran here.
_CLEAN = _process()


def canary(database: bool = False) -> str:
    """Succeeds if its surroundings are those of a fresh worker."""
    receipt = say("start")
    now = _process()
    dirt = [f"{name}: {now[name]!r}, not {_CLEAN[name]!r}" for name in now if now[name] != _CLEAN[name]]
    if random.getstate() == _kept_seed():
        dirt.append("random numbers are those of a known seed")
    if threading.active_count() > 100 or len(os.listdir("/proc/self/fd")) > 400:
        dirt.append(f"{threading.active_count()} threads, {len(os.listdir('/proc/self/fd'))} files")
    if database:
        session = _session()
        dirt += [f"{name}: {session[name]!r}" for name in session if session[name] != _CLEAN_SESSION[name]]
    assert not dirt, "; ".join(dirt)[:2000]
    say("end")
    return receipt


def _kept_seed() -> Any:
    return random.Random(42).getstate()


# ------------------------------------------------------------------------------------------- F29: hard exits


def _segfault() -> None:
    ctypes.string_at(0)


def _exception(kind: type[BaseException]) -> Callable[[], None]:
    def throw() -> None:
        raise kind

    return throw


def _signal_self(number: int) -> Callable[[], None]:
    def kill() -> None:
        # Not what Python made of it: the task is the one that does not know better.
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(30)

    return kill


def _terminate_cpp() -> None:
    """What an uncaught C++ exception does."""
    ctypes.CDLL("libstdc++.so.6")._ZSt9terminatev()


def _kill_group() -> None:
    os.kill(0, signal.SIGKILL)
    time.sleep(30)


def _late_exception() -> None:
    """A timer that rings in pgq's own code."""

    def ring(*_: Any) -> None:
        raise RuntimeError("a handler that a task left")

    signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002)


EXITS: dict[str, Callable[[], Any]] = {
    "segfault": _segfault,
    "abort": os.abort,
    "_exit 0": lambda: os._exit(0),
    "_exit 1": lambda: os._exit(1),
    "_exit 77": lambda: os._exit(77),
    "SIGKILL": _signal_self(signal.SIGKILL),
    "SIGTERM": _signal_self(signal.SIGTERM),
    "SIGPIPE": _signal_self(signal.SIGPIPE),
    "SIGBUS": _signal_self(signal.SIGBUS),
    "SIGKILL to the group": _kill_group,
    "C++": _terminate_cpp,
    "sys.exit 0": lambda: sys.exit(0),
    "SystemExit": _exception(SystemExit),
    "KeyboardInterrupt": _exception(KeyboardInterrupt),
    "GeneratorExit": _exception(GeneratorExit),
    "StopIteration": _exception(StopIteration),
    "CancelledError": _exception(asyncio.CancelledError),
}


def leave(how: str) -> str:
    receipt = say("start")
    EXITS[how]()
    say("end")
    return receipt


# ------------------------------------------------------------------------------------------- F30: never ends


def _spin() -> None:
    while True:
        pass


def _spin_in_c() -> None:
    """Holds the interpreter's lock, for ever: no handler and no other thread of this process runs."""
    ctypes.PyDLL(None).usleep(600_000_000)


def _swallow() -> None:
    while True:
        try:
            time.sleep(600)
        except BaseException:
            say("swallowed")


def _deaf() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _spin()


def _receive() -> None:
    ours, theirs = socket.socketpair()
    _kept.append(theirs)
    ours.recv(1)


def _stop_self() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


class _Hangs:
    def __str__(self) -> str:
        time.sleep(600)
        return ""

    __repr__ = __str__


class HangingError(Exception):
    def __str__(self) -> str:
        time.sleep(600)
        return ""


def _raise_hanging() -> None:
    raise HangingError


ENDLESS: dict[str, Callable[[], Any]] = {
    "spins": _spin,
    "holds the interpreter": _spin_in_c,
    "swallows": _swallow,
    "deaf": _deaf,
    "waits for a socket": _receive,
    "stops itself": _stop_self,
    "its message hangs": _raise_hanging,
    "its result hangs": _Hangs,
}


def hang(how: str) -> Any:
    say("start")
    return ENDLESS[how]()


# ------------------------------------------------------------------------------------------- F31: hogs


def _eat_memory() -> None:
    """Up to a limit of its own: the machine is not ours."""
    limit = 1_500_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    kept = []
    while True:
        kept.append(bytearray(16_000_000))


def _killed_for_memory() -> None:
    """What the kernel does to a process that eats too much."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)


def _open_files() -> None:
    for _ in range(10_000):
        _kept.append(os.open(os.devnull, os.O_RDONLY))


def _start_threads() -> None:
    stop = threading.Event()
    for _ in range(100):
        threading.Thread(target=stop.wait).start()


def _fill_disk() -> None:
    """A file system of one page, as good as full."""
    with open("/dev/full", "w") as file:
        file.write("x" * 100_000)


HOGS: dict[str, Callable[[], Any]] = {
    "memory": _eat_memory,
    "out of memory": _killed_for_memory,
    "files": _open_files,
    "threads": _start_threads,
    "disk": _fill_disk,
}


def hog(how: str) -> str:
    receipt = say("start")
    HOGS[how]()
    say("end")
    return receipt


def fork_bomb(cgroup: str) -> None:
    """Forks for ever, in each process of it, in a cgroup that limits their number."""
    with open(f"{cgroup}/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
    say("start")
    while True:
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                os.setsid()


# ------------------------------------------------------------------------------------------- F32: results


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class Forks:
    """Makes a process while it is stored."""

    def __reduce__(self) -> Any:
        if os.fork() == 0:
            time.sleep(600)
        return str, ()


class Exits:
    def __reduce__(self) -> Any:
        sys.exit(0)

    def __repr__(self) -> str:
        sys.exit(0)


def _circle() -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _nested() -> Any:
    nested: Any = None
    for _ in range(10_000):
        nested = [nested]
    return nested


#: What is returned, and what becomes of it: True: it can be read again, and is equal; else a part of the reason.
RESULTS: dict[str, tuple[Callable[[], Any], bool | str]] = {
    "unpicklable": (Unpicklable, "Unpicklable"),
    "forks": (Forks, "Forks"),
    "exits": (Exits, "Exits"),
    "1 MB": (lambda: "x" * 1_000_000, True),
    "100 MB": (lambda: "x" * 100_000_000, "bytes allowed"),
    "1 GB": (lambda: bytes(1_000_000_000), "bytes allowed"),
    "circle": (_circle, ""),
    "generator": (lambda: (number for number in range(3)), "generator"),
    "lambda": (lambda: lambda: None, ""),
    "open file": (lambda: open(os.devnull), ""),  # noqa: SIM115
    "lock": (threading.Lock, "lock"),
    "connection": (lambda: connection, ""),
    "module": (lambda: os, ""),
    "NUL": (lambda: "a\0b", True),
    "lone surrogate": (lambda: "a\ud800b", True),
    "infinity": (lambda: [float("inf"), float("-inf")], True),
    "1e400": (lambda: decimal.Decimal("1e400"), True),
    "10**5000": (lambda: 10**5000, True),
    "bytes": (lambda: b"\0\xff", True),
    "keys": (lambda: {1: "a", None: "b", (1, 2): "c", "\0": "d"}, True),
    "nested": (_nested, ""),
    "an exception": (lambda: ValueError("returned, not raised"), ""),
}


def give(what: str) -> Any:
    _ran()
    return RESULTS[what][0]()


def _ran() -> None:
    """Trace a run that gives the oracle no receipt."""
    claim = running_claim()
    assert claim is not None
    os.write(_file(os.environ["PGQ_TEST_ORACLE"]), f"ran {claim.id.hex} {os.getpid()}\n".encode())


# ------------------------------------------------------------------------------------------- F33: exceptions


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Leaves(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class NotText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class NeedsKeywords(Exception):
    def __init__(self, *, needed: int) -> None:
        super().__init__(needed)


class Sticky(Exception):
    """No attribute can be set on it, nor its traceback read."""

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("not on me")


def _chain() -> None:
    error: BaseException = ValueError("the first")
    for number in range(5000):
        later = ValueError(str(number))
        later.__cause__ = error
        error = later
    raise error


def _circular_chain() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def _recurse() -> None:
    _recurse()


def _message(text: Callable[[], str]) -> Callable[[], None]:
    def throw() -> None:
        raise ValueError(text())

    return throw


def _group() -> None:
    error: Exception = ValueError("innermost")
    for _ in range(50):
        error = ExceptionGroup("group", [error, TypeError("beside")])
    raise error


#: What raises, and the class that is recorded.
ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "no str": (_exception(Unspeakable), "Unspeakable"),
    "str exits": (_exception(Leaves), "Leaves"),
    "str is no text": (_exception(NotText), "NotText"),
    "surrogates": (_message(lambda: "a\ud800b"), "ValueError"),
    "NUL": (_message(lambda: "a\0b"), "ValueError"),
    "escapes": (_message(lambda: "\r\n2026 ERROR forged \x1b[31mred\x1b]0;title\a\u202e"), "ValueError"),
    "50 MB": (_message(lambda: "x" * 50_000_000), "ValueError"),
    "keywords": (lambda: (_ for _ in ()).throw(NeedsKeywords(needed=1)), "NeedsKeywords"),
    "sticky": (_exception(Sticky), "Sticky"),
    "group": (_group, "ExceptionGroup"),
    "chain": (_chain, "ValueError"),
    "circular chain": (_circular_chain, "ValueError"),
    "recursion": (_recurse, "RecursionError"),
    "memory": (_exception(MemoryError), "MemoryError"),
}


def fail(how: str) -> None:
    say("start")
    ERRORS[how][0]()


# ------------------------------------------------------------------------------------------- F35: the session


def _raw(text: str) -> Callable[[], None]:
    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    return run


def _composed() -> None:
    from psycopg import sql

    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier("elsewhere")))


def _leave_block() -> None:
    transaction.atomic().__enter__()
    _raw("SELECT 1")()


def _broken_block() -> None:
    transaction.atomic().__enter__()
    with contextlib.suppress(Exception):
        _raw("SELECT 1/0")()


def _autocommit_off() -> None:
    connection.ensure_connection()
    connection.set_autocommit(False)
    _raw("SELECT 1")()


def _psycopg_autocommit_off() -> None:
    connection.ensure_connection()
    connection.connection.autocommit = False


def _psycopg_zone() -> None:
    connection.ensure_connection()
    connection.connection.execute("SET TimeZone TO 'Asia/Tokyo'")


def _unread_copy() -> None:
    connection.ensure_connection()
    copy = connection.connection.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT")
    _kept.append((copy, copy.__enter__().read()))


def _close_file() -> None:
    connection.ensure_connection()
    os.close(connection.connection.fileno())


def _terminate() -> None:
    connection.ensure_connection()
    with contextlib.suppress(Exception):
        _raw("SELECT pg_terminate_backend(pg_backend_pid())")()


SESSIONS: dict[str, Callable[[], Any]] = {
    "closed": lambda: (connection.ensure_connection(), connection.close()),
    "closed behind Django": lambda: (connection.ensure_connection(), connection.connection.close()),
    "file closed": _close_file,
    "terminated": _terminate,
    "BEGIN": _raw("BEGIN"),
    "block left open": _leave_block,
    "broken block": _broken_block,
    "autocommit off": _autocommit_off,
    "autocommit off behind Django": _psycopg_autocommit_off,
    "search_path": _raw("SET search_path TO elsewhere"),
    "search_path in a later statement": _raw("SELECT 1; SET search_path TO elsewhere"),
    "search_path after a comment": _raw("/* why */ SET search_path TO elsewhere"),
    "search_path, composed": _composed,
    "set_config": _raw("SELECT set_config('search_path', 'elsewhere', false)"),
    "DO": _raw("DO $$ BEGIN PERFORM set_config('statement_timeout', '5', false); END $$"),
    "TimeZone": _raw("SET TIME ZONE 'Asia/Tokyo'"),
    "TimeZone behind Django": _psycopg_zone,
    "ROLE": _raw("SET ROLE pg_monitor"),
    "statement_timeout": _raw("SET statement_timeout TO 5"),
    "read only": _raw("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
    "LOCK TABLE": _raw("BEGIN; LOCK TABLE pgq_task IN ACCESS SHARE MODE"),
    "advisory lock": _raw("SELECT pg_advisory_lock(4711)"),
    "shared advisory lock": _raw("SELECT pg_try_advisory_lock_shared(4712)"),
    "LISTEN": _raw("LISTEN poison"),
    "temporary table": _raw("CREATE TEMP TABLE poison (a int)"),
    "unread COPY": _unread_copy,
    "cursor": _raw("BEGIN; DECLARE poison CURSOR FOR SELECT 1"),
}


def abuse_session(how: str) -> str:
    receipt = say("start")
    SESSIONS[how]()
    say("end")
    return receipt


# ------------------------------------------------------------------------------------------- F36: the process


def _all_signals(handler: Any) -> Callable[[], None]:
    def install() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):
                signal.signal(number, handler)

    return install


def _zone() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def _close_files() -> None:
    os.closerange(0, 100)


def _reuse_files() -> None:
    """Each number that was the worker's is another file's."""
    os.closerange(3, 100)
    for _ in range(97):
        _kept.append(os.open(os.devnull, os.O_RDWR))


def _no_streams() -> None:
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]


def _logging() -> None:
    logging.disable(logging.CRITICAL)
    logging.root.setLevel(logging.CRITICAL)
    logging.root.addHandler(logging.NullHandler())
    logging.getLogger("pgq").handlers.clear()


def _decimals() -> None:
    decimal.getcontext().prec = 3
    decimal.getcontext().traps[decimal.Inexact] = True


def _settings() -> None:
    settings.APPEND_SLASH = not settings.APPEND_SLASH
    settings.POISON = "poison"


def _lower(which: int, limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (limit, resource.getrlimit(which)[1]))


def _gone_directory() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


STATES: dict[str, Callable[[], Any]] = {
    "signals ignored": _all_signals(signal.SIG_IGN),
    "signals at their default": _all_signals(signal.SIG_DFL),
    "signals blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "SIGCHLD ignored": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 30),
    "handler that raises": _late_exception,
    "cwd": lambda: os.chdir("/"),
    "cwd that is gone": _gone_directory,
    "umask": lambda: os.umask(0o777),
    "environment": lambda: os.environ.update(POISON="poison", PATH="/nowhere"),
    "environment emptied": lambda: os.environ.clear(),
    "TZ": _zone,
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "sys.path": lambda: sys.path.insert(0, "/nowhere"),
    "sys.path emptied": lambda: sys.path.clear(),
    "files closed": _close_files,
    "files replaced": _reuse_files,
    "no streams": _no_streams,
    "stream closed": lambda: sys.stdout.close(),
    "logging": _logging,
    "RLIMIT_NOFILE": _lower(resource.RLIMIT_NOFILE, 60),
    "RLIMIT_CPU": _lower(resource.RLIMIT_CPU, 100_000),
    "nice": lambda: os.nice(3),
    "seed": lambda: random.seed(42),
    "decimals": _decimals,
    "recursion": lambda: sys.setrecursionlimit(5000),
    "translation": lambda: translation.activate("de"),
    "time zone": lambda: timezone.activate("Asia/Tokyo"),
    "settings": _settings,
    "sockets": lambda: socket.setdefaulttimeout(0.001),
    "garbage": gc.disable,
    "wake-up file": lambda: signal.set_wakeup_fd(os.open(os.devnull, os.O_WRONLY | os.O_NONBLOCK)),
    "running loop": lambda: asyncio._set_running_loop(asyncio.new_event_loop()),
}


def abuse_process(how: str) -> str:
    receipt = say("start")
    claim, path = running_claim(), os.environ["PGQ_TEST_ORACLE"]
    assert claim is not None
    STATES[how]()
    # Without what it may have spoiled: the environment, an open file.
    line = f"end {claim.id.hex} {receipt} {os.getpid()} {time.monotonic_ns()} {claim.attempts}\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)
    return receipt


# ------------------------------------------------------------------------------------------- F37: children


def _tell_of(pid: int) -> None:
    claim = running_claim()
    assert claim is not None
    os.write(_file(os.environ["PGQ_TEST_ORACLE"]), f"child {claim.id.hex} {pid}\n".encode())


def _sleeper() -> None:
    _tell_of(os.getpid())
    time.sleep(600)


def _popen() -> None:
    _kept.append(subprocess.Popen(["sleep", "600"]))
    _tell_of(_kept[-1].pid)


def _popen_bare() -> None:
    """In a session of its own, without this environment, deaf."""
    command = ["/bin/sh", "-c", "trap '' TERM HUP INT; sleep 600 & sleep 600"]
    _kept.append(subprocess.Popen(command, start_new_session=True, env={}, cwd="/"))
    _tell_of(_kept[-1].pid)


def _daemon() -> None:
    """Forks twice, in a session of its own, and keeps what it inherits: the worker's sockets."""
    connection.ensure_connection()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _sleeper()
        os._exit(0)
    os.wait()


def _processes() -> None:
    for _ in range(2):
        child = multiprocessing.get_context("fork").Process(target=_sleeper)
        child.start()
        _kept.append(child)


def _process_pool() -> None:
    pool = multiprocessing.get_context("fork").Pool(3)
    _kept.append(pool)
    for child in pool._pool:  # type: ignore[attr-defined]
        _tell_of(child.pid)


def _threads() -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()


def _event_loop() -> None:
    """An asyncio loop that runs on in a thread, with a program it has started."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever).start()
    process = asyncio.run_coroutine_threadsafe(asyncio.create_subprocess_exec("sleep", "600"), loop).result(10)
    _tell_of(process.pid)


def _fork_returns() -> None:
    """Both go on as if nothing had happened."""
    if os.fork() == 0:
        _tell_of(os.getpid())


def _fork_raises() -> None:
    if os.fork() == 0:
        _tell_of(os.getpid())
        raise ValueError("in the child")


CHILDREN: dict[str, Callable[[], Any]] = {
    "Popen": _popen,
    "Popen in a session of its own": _popen_bare,
    "daemon": _daemon,
    "processes": _processes,
    "pool of processes": _process_pool,
    "threads": _threads,
    "event loop": _event_loop,
    "fork that returns": _fork_returns,
    "fork that raises": _fork_raises,
}


def leave_children(how: str) -> str:
    receipt, worker = say("start"), os.getpid()
    CHILDREN[how]()
    if os.getpid() == worker:
        say("end")
    return receipt
