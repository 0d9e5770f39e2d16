"""The signals by which a pool is told to stop or to start anew: events of a loop, no interruption of what it does."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def as_events(
    selector: selectors.BaseSelector,
    heard: Callable[[bytes], None],
    *others: signal.Signals,
    goes_on: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Turn SIGNALS and others into events of a loop, which calls the data of what is ready in its selector.

    Args:
        heard: Called by the loop with the numbers of the signals that have come.
        goes_on: Asked at the end, whether this process executes itself anew.
    """
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    selector.register(reading, selectors.EVENT_READ, lambda: heard(reading.recv(64)))
    for number in (*SIGNALS, *others):
        signal.signal(number, lambda *_: None)
    fd = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    # What `execute_anew` has held back comes now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd)
        for number in others:
            signal.signal(number, signal.SIG_DFL)
        if not goes_on():
            # Python puts back the default for handlers of its own when it ends, and a late signal would then give
            # a pool that stopped well the exit code of one that was killed. (Not before an exec, which inherits.)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        reading.close()
        writing.close()


def execute_anew(*arguments: str) -> NoReturn:
    """Execute this program anew, as it was started, with further arguments.

    A second SIGHUP waits until the new program has handlers: by default it would end the pool. Those that stop a pool
    do not wait, for what is loaded anew may hang.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], *arguments])  # noqa: S606  # no shell is wanted
