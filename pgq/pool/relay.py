"""Between systemd and several pools: systemd hears the main process only, and must hear how all of them are.

Each pool speaks to a socket of this process as it would to systemd (see systemd.py). The main process says that it is
ready, or that it stops, once each pool has; and feeds the watchdog once each pool has: so a pool that hangs stops the
watchdog.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Sequence

from pgq.pool.systemd import VARIABLES, address, send

_READY, _WATCHDOG, _STOPPING, _STATUS = "READY=1", "WATCHDOG=1", "STOPPING=1", "STATUS="
#: Whose meaning is the same for one pool and for all: it reloads, or needs more time.
_PASSED_ON = ("RELOADING=", "MONOTONIC_USEC=", "EXTEND_TIMEOUT_USEC=")
_MESSAGE_BYTES = 4096


class Relay:
    """The sockets that the pools speak to. Without systemd it does nothing.

    Args:
        aliases: Of the databases of the pools.
        selector: Of the main process's loop.
    """

    def __init__(self, aliases: Sequence[str], selector: selectors.BaseSelector) -> None:
        self.address = address(os.environ.get("NOTIFY_SOCKET", ""))
        self.selector = selector
        #: Of the pools that have not ended for good.
        self.sockets: dict[str, socket.socket] = {}
        self.statuses: dict[str, str] = {}
        #: The pools of which each message has come.
        self.said: dict[str, set[str]] = {_READY: set(), _WATCHDOG: set(), _STOPPING: set()}
        if self.address is None:
            return
        for alias in aliases:
            # An address that the kernel chooses, in the abstract namespace: no file is left behind.
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            listening.setblocking(False)
            listening.bind("")
            self.sockets[alias] = listening
            selector.register(listening, selectors.EVENT_READ, lambda alias=alias: self._heard(alias))

    def speak_for(self, alias: str) -> None:
        """In the process of a pool: have it speak to the socket that is its own."""
        own = self.sockets.get(alias)
        if own is None:
            return
        os.environ["NOTIFY_SOCKET"] = "@" + own.getsockname()[1:].decode()
        if "WATCHDOG_PID" in os.environ:
            os.environ["WATCHDOG_PID"] = str(os.getpid())
        for each in self.sockets.values():
            each.close()

    def ended(self, alias: str) -> None:
        """A pool has ended for good: nothing waits for what it would say, or hears what it said last."""
        if alias not in self.sockets:
            return
        own = self.sockets.pop(alias)
        self.selector.unregister(own)
        own.close()
        self.statuses[alias] = "ended"
        # The others say so once. Of the watchdog they say it again.
        awaited = [line for line in (_READY, _STOPPING) if alias not in self.said[line]]
        for pools in self.said.values():
            pools.discard(alias)
        if self.sockets:
            self._send(*filter(self._have_all_said, awaited))

    def close(self) -> None:
        for each in self.sockets.values():
            each.close()
        for name in VARIABLES:
            os.environ.pop(name, None)

    def _heard(self, alias: str) -> None:
        with contextlib.suppress(BlockingIOError):
            lines = self.sockets[alias].recv(_MESSAGE_BYTES).decode(errors="replace").splitlines()
            passed_on = [line for line in lines if line.startswith(_PASSED_ON)]
            if "RELOADING=1" in passed_on:
                self.said[_READY].discard(alias)
            for line in lines:
                if line.startswith(_STATUS):
                    self.statuses[alias] = line.removeprefix(_STATUS)
            passed_on += [line for line in self.said if line in lines and self._all_say(line, alias)]
            self._send(*passed_on)

    def _all_say(self, line: str, alias: str) -> bool:
        """Note that a pool says so; return whether each has said it by now. Of the watchdog each says it again."""
        self.said[line].add(alias)
        if not self._have_all_said(line):
            return False
        if line == _WATCHDOG:
            self.said[line].clear()
        return True

    def _have_all_said(self, line: str) -> bool:
        return self.said[line] >= self.sockets.keys()

    def _send(self, *lines: str) -> None:
        assert self.address is not None
        shown = "; ".join(f"{name}: {status}" for name, status in self.statuses.items())
        send(self.address, *lines, f"{_STATUS}{shown}")
