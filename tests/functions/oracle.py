"""Tasks that say in the oracle's file what they do: one line for each start and end, which no kill can take back."""

from __future__ import annotations

import functools
import os
import signal
import time
from typing import Any

from pgq.errors import Discard, Retry
from pgq.tasks import task


@functools.cache
def _file(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def say(event: str, key: object) -> None:
    line = f"{event} {key} {os.getpid()} {time.monotonic():.6f}\n"
    # One write in append mode: whole lines, whoever else writes.
    os.write(_file(os.environ["PGQ_TEST_ORACLE"]), line.encode())


def mark(key: Any = None) -> Any:
    say("start", key)
    say("end", key)
    return key


@task
def registered(key: Any = "registered", *more: Any, **named: Any) -> Any:
    return mark(key)


def nap(key: Any, seconds: float) -> Any:
    say("start", key)
    time.sleep(seconds)
    say("end", key)
    return key


def nap_in_c(key: Any, seconds: float) -> None:
    """Holds the interpreter's lock, as a C extension may: no signal handler and no other thread runs."""
    import ctypes

    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    say("start", key)
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    say("end", key)


def swallow(key: Any, seconds: float) -> None:
    """Lets no exception out until the time is over."""
    say("start", key)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            time.sleep(until - time.monotonic())
        except Exception:
            say("swallowed", key)
    say("end", key)


def die(key: Any) -> None:
    say("start", key)
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(key: Any) -> Any:
    with open(os.environ["PGQ_TEST_ORACLE"]) as file:
        again = any(line.startswith(f"start {key} ") for line in file)
    say("start", key)
    if not again:
        os.kill(os.getpid(), signal.SIGKILL)
    say("end", key)
    return key


def fail(key: Any, message: str = "on purpose") -> None:
    say("start", key)
    raise ValueError(message)


def fail_until(key: Any, attempt: int) -> int:
    """Fails in each attempt before that one."""
    from pgq.tasks import current_task

    say("start", key)
    now = current_task().attempt
    if now < attempt:
        raise ValueError(f"attempt {now}")
    return now


def ask_for_retry(key: Any, delay: float | None) -> None:
    say("start", key)
    raise Retry(delay)


def discard(key: Any) -> None:
    say("start", key)
    raise Discard("no use")


def wait_for_file(key: Any, path: str) -> Any:
    """Runs until that file exists: for tests that say when a task ends."""
    say("start", key)
    while not os.path.exists(path):
        time.sleep(0.005)
    say("end", key)
    return key


def interrupt(key: Any) -> None:
    say("start", key)
    raise KeyboardInterrupt("by a task")


def leave(key: Any, status: int) -> None:
    say("start", key)
    raise SystemExit(status)
