"""Tells systemd how the pool is (`sd_notify`), if systemd started it with `Type=notify`. Else this does nothing.

The supervisor's loop alone sends `WATCHDOG=1`, never a thread: a loop that hangs, or a process that is stopped, must
become silent. The protocol is that of the manual page sd_notify(3).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Iterator

from pgq.pool.children import Children
from pgq.pool.liveness import Pulse

logger = logging.getLogger("pgq")

#: Variables that systemd sets for the main process. No child inherits them: a program that a task starts could speak
#: for the pool.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: Seconds between two texts for `systemctl status`, where there is no watchdog.
_STATUS_SECONDS = 5.0
#: Seconds after which the pool says that it is ready though it is not: where PostgreSQL is away, `systemctl start`
#: would fail, and systemd would start pool after pool. The pool itself waits for PostgreSQL as long as it takes.
_READY_AFTER_SECONDS = 15.0
#: Seconds that the end of a pool may take after its last task was killed.
_LEAVE_SECONDS = 10.0


class Systemd:
    """The service manager, as the supervisor sees it."""

    def __init__(self, children: Children, pulse: Pulse) -> None:
        self.children, self.pulse = children, pulse
        self.address = address(os.environ.get("NOTIFY_SOCKET", ""))
        watchdog = _watchdog_seconds()
        self.watchdog = watchdog is not None
        self.every = watchdog / 2 if watchdog is not None else _STATUS_SECONDS
        self.ready = False
        self.ready_by = time.monotonic() + _READY_AFTER_SECONDS
        #: When (monotonic) to tell how the pool is.
        self.next = math.inf if self.address is None else 0.0

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Keep the variables from the children; put them back, since a pool that reloads executes itself anew."""
        kept = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(kept)

    def tell(self) -> None:
        """Say that the pool is ready, once it is; and how it is, when that is due."""
        if self.address is None:
            return
        now = time.monotonic()
        if not self.ready and not self.children.closing and (now >= self.ready_by or self.pulse.trouble() is None):
            self.ready = self._send("READY=1", self._status())
        if now >= self.next:
            self.next = now + self.every
            self._send(*["WATCHDOG=1"] * self.watchdog, self._status())

    def stopping(self, *, restart: bool, kill_at: float | None) -> None:
        """Say that the pool ends or starts anew.

        Args:
            kill_at: When (monotonic) tasks that still run are killed; systemd waits so long at least. None: the unit
                alone says how long it waits.
        """
        if self.address is None:
            return
        state = ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"] if restart else ["STOPPING=1"]
        if kill_at is not None:
            state.append(f"EXTEND_TIMEOUT_USEC={(kill_at - time.monotonic() + _LEAVE_SECONDS) * 1e6:.0f}")
        self._send(*state, self._status())

    def _status(self) -> str:
        workers = self.children.workers()
        running = sum(child.cell.read().count for child in workers if child.cell is not None)
        trouble = self.pulse.trouble()
        text = f"{len(workers)} workers, {running} tasks run" + (f"; {trouble}" if trouble else "")
        return "STATUS=" + " ".join(text.split())

    def _send(self, *lines: str) -> bool:
        assert self.address is not None
        return send(self.address, *lines)


def send(address: str, *lines: str) -> bool:
    """Send a message to the service manager; return whether that has worked."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            # A service manager that is busy must not hold up the loop.
            sending.setblocking(False)
            sending.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        logger.debug("systemd could not be told %s: %s", lines[0], error)
        return False
    return True


def address(path: str) -> str | None:
    """Return the address of the socket: a path, or after `@` a name in the abstract namespace of Linux."""
    if path.startswith("@"):
        return "\0" + path[1:]
    if path and not path.startswith("/"):
        logger.warning("NOTIFY_SOCKET is %r, neither a path nor an abstract socket: systemd is told nothing", path)
    return path if path.startswith("/") else None


def _watchdog_seconds() -> float | None:
    """Return the seconds after which systemd kills a silent pool; None: it never does."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None
