"""The traits of a process that a task may change: how each is read, and how it is put back."""

from __future__ import annotations

import contextlib
import decimal
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils import timezone, translation

from pgq.ground.private import environment, get_running_loop, getsignal, set_running_loop, settings_below

logger = logging.getLogger("pgq")


@dataclass(frozen=True, slots=True)
class Trait:
    """Something of the process that a task may change.

    Attributes:
        read: Returns its state, to be compared.
        put_back: Takes a state that was read earlier.
        is_common: Many programs leave it changed and mean no harm: nothing is logged.
        adopt: Given what was and what is, returns what modules that were imported for the first time meanwhile may have
            meant to change for good.
    """

    name: str
    read: Callable[[], Any]
    put_back: Callable[[Any], object]
    is_common: bool = False
    adopt: Callable[[Any, Any], Any] | None = None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


#: SIGKILL and SIGSTOP cannot be caught. SIGALRM keeps the handler of the last task that had a timeout.
_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM})


def _handlers() -> list[Any]:
    return [getsignal(number) for number in _SIGNALS]


def _put_handlers_back(handlers: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        # None: installed by C code, so it cannot be put back.
        if handler is not None and getsignal(number) is not handler:
            signal.signal(number, handler)


def _timers() -> bool:
    return any(signal.getitimer(which)[0] for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF))


def _stop_timers(_: bool) -> None:
    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(which, 0)


def _wakeup_fd() -> int:
    number = signal.set_wakeup_fd(-1)
    if number != -1:
        signal.set_wakeup_fd(number)
    return number


def _put_environment_back(before: dict[Any, Any]) -> None:
    decode: Any = os.environ.decodevalue
    for name in environment().keys() - before.keys():
        del os.environ[decode(name)]
    for name, value in before.items():
        if environment().get(name) != value:
            os.environ[decode(name)] = decode(value)


def _put_zone_back(_: Any) -> None:
    # The environment comes first, so TZ is what it was.
    time.tzset()


def _settings() -> dict[str, Any]:
    return dict(settings_below(settings).__dict__)


def _put_settings_back(before: dict[str, Any]) -> None:
    now = _settings()
    for name in now.keys() - before.keys():
        delattr(settings, name)
    for name, value in before.items():
        if name not in now or now[name] is not value:
            setattr(settings, name, value)


def _logging() -> tuple[Any, ...]:
    own = logger
    return (
        logging.root.manager.disable,
        logging.root.level,
        list(logging.root.handlers),
        own.level,
        list(own.handlers),
        own.propagate,
        own.disabled,
    )


def _put_logging_back(before: tuple[Any, ...]) -> None:
    logging.disable(before[0])
    logging.root.setLevel(before[1])
    logging.root.handlers[:] = before[2]
    logger.setLevel(before[3])
    logger.handlers[:] = before[4]
    logger.propagate, logger.disabled = before[5:]


def _streams() -> list[tuple[Any, bool]]:
    return [(stream, getattr(stream, "closed", True)) for stream in (sys.stdin, sys.stdout, sys.stderr)]


def _put_streams_back(before: list[tuple[Any, bool]]) -> None:
    sys.stdin, sys.stdout, sys.stderr = (stream for stream, _ in before)


def _decimals() -> tuple[Any, ...]:
    context = decimal.getcontext()
    return (
        context.prec,
        context.rounding,
        context.Emin,
        context.Emax,
        context.capitals,
        context.clamp,
        tuple(context.traps.values()),
    )


def _put_decimals_back(before: tuple[Any, ...]) -> None:
    context = decimal.getcontext()
    context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp = before[:6]
    for signal_, trapped in zip(list(context.traps), before[6], strict=True):
        context.traps[signal_] = trapped


def _put_language_back(before: str | None) -> None:
    translation.deactivate()
    if translation.get_language() != before:
        translation.deactivate_all() if before is None else translation.activate(before)


def _put_time_zone_back(before: Any) -> None:
    timezone.deactivate()
    if timezone.get_current_timezone() is not before:
        timezone.activate(before)


def _with_additions(before: dict[Any, Any], now: dict[Any, Any]) -> dict[Any, Any]:
    return {**now, **before}


def _path_with_additions(before: list[str], now: list[str]) -> list[str]:
    return now if set(before) <= set(now) else before


#: In the order in which they are put back.
TRAITS = (
    Trait("environment variables", lambda: dict(environment()), _put_environment_back, adopt=_with_additions),
    Trait("the C library's time zone", lambda: (time.tzname, time.timezone), _put_zone_back),
    Trait("the working directory", os.getcwd, os.chdir),
    Trait("the umask", _umask, os.umask),
    Trait("signal handlers", _handlers, _put_handlers_back),
    Trait(
        "blocked signals",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda before: signal.pthread_sigmask(signal.SIG_SETMASK, before),
    ),
    Trait("a running timer", _timers, _stop_timers),
    Trait("the wake-up file of signals", _wakeup_fd, signal.set_wakeup_fd),
    Trait(
        "the locale", lambda: locale.setlocale(locale.LC_ALL), lambda before: locale.setlocale(locale.LC_ALL, before)
    ),
    Trait(
        "sys.path",
        lambda: list(sys.path),
        lambda before: sys.path.__setitem__(slice(None), before),
        adopt=_path_with_additions,
    ),
    Trait("the standard streams", _streams, _put_streams_back),
    Trait("logging", _logging, _put_logging_back, adopt=lambda before, now: now),
    Trait("the decimal context", _decimals, _put_decimals_back),
    Trait("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Trait("the default timeout of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Trait("garbage collection", gc.isenabled, lambda before: gc.enable() if before else gc.disable()),
    Trait("a running event loop", get_running_loop, set_running_loop),
    Trait("Django's settings", _settings, _put_settings_back, adopt=_with_additions),
    Trait("the active translation", translation.get_language, _put_language_back, is_common=True),
    Trait("the active time zone", timezone.get_current_timezone, _put_time_zone_back, is_common=True),
)


#: So many more threads, files or processes than the worker began with are a leak. Fewer are what programs keep for
#: later use: a pool of connections, the thread of an error reporter.
SPARE = {"threads": 50, "open files": 250, "child processes": 25}


def counts() -> dict[str, int]:
    """Return how many threads, files and processes there are, those that its processes have started included."""
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "open files": len(os.listdir("/proc/self/fd")),
        "child processes": _descendants(),
    }


def _descendants() -> int:
    """Count children, their children and so on: most processes of a fork bomb are not the worker's own children."""
    count, fresh = 0, _children("self")
    while fresh:
        count += len(fresh)
        fresh = [child for pid in fresh for child in _children(pid)]
    return count


def _children(pid: str) -> list[str]:
    found: list[str] = []
    # A process or a thread that has ended meanwhile; or this kernel has no such file.
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += file.read().split()
    return found


_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))

#: What a process cannot take back, or not without being root.
LASTING: dict[str, Callable[[], Any]] = {
    "the resource limits": lambda: [resource.getrlimit(number) for number in _LIMITS],
    "the priority": lambda: os.getpriority(os.PRIO_PROCESS, 0),
    "the user": lambda: (os.getresuid(), os.getresgid()),
}


def identity(number: int) -> tuple[int, int] | None:
    """Return which file a descriptor stands for; None: it is closed."""
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read(trait: Trait) -> Any:
    """Return the state of a trait, or why it has none."""
    try:
        return trait.read()
    except Exception as error:
        # For example, a task has deleted the working directory.
        return error
