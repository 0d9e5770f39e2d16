"""The tasks that are measured. Plain functions: each system wraps them as its documentation says.

Only the standard library: these run in the virtualenvs of all systems.
"""

import asyncio
import os
import time

CPU_SECONDS = 0.001
SLEEP_SECONDS = 0.01
#: Longer than anybody waits for the next start of a task that was killed.
HOLD_SECONDS = 60


def noop() -> None:
    """Nothing: what is left is the queue's own cost."""


def cpu() -> None:
    """A millisecond of this thread's processor time, however busy the machine is."""
    end = time.thread_time() + CPU_SECONDS
    while time.thread_time() < end:
        pass


def sleep() -> None:
    """A wait of 10 ms, as for a slow server."""
    time.sleep(SLEEP_SECONDS)


async def sleep_async() -> None:
    """The same for a system that runs many tasks on one event loop."""
    await asyncio.sleep(SLEEP_SECONDS)


def stamp(number: int) -> None:
    """Say when task `number` was started: a line in the file BENCH_STAMPS."""
    _note(b"%d %d\n" % (number, time.monotonic_ns()))


def hold(number: int) -> None:
    """Say when task `number` was started and in which process; the first time, be busy until that is killed."""
    started = b"%d %d %d\n" % (number, time.monotonic_ns(), os.getpid())
    with open(os.environ["BENCH_STAMPS"], "ab+") as file:
        file.seek(0)
        again = any(int(line.split()[0]) == number for line in file)
    _note(started)
    if not again:
        time.sleep(HOLD_SECONDS)


def _note(line: bytes) -> None:
    # The monotonic clock is one for all processes of a machine. One write of an append is never torn.
    file = os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, line)
    finally:
        os.close(file)


#: What a drain may consist of; the latency probes are stamps.
KINDS = ("noop", "cpu", "sleep")
