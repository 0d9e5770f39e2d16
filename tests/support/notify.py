"""A socket in place of systemd's: what `sd_notify` sends, message by message."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.pools import PATIENCE


class NotifySocket:
    """Listens as systemd does.

    Args:
        name: The value of NOTIFY_SOCKET: a path, or after `@` an abstract name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        #: All that has come, each a dict of its lines.
        self.seen: list[dict[str, str]] = []

    def next(self, seconds: float = PATIENCE) -> dict[str, str] | None:
        """Return the next message; None: none came in that time."""
        self.socket.settimeout(max(seconds, 0.001))
        try:
            text = self.socket.recv(4096).decode()
        except TimeoutError:
            return None
        self.seen.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.seen[-1]

    def wait_for(self, wanted: Callable[[dict[str, str]], object]) -> dict[str, str]:
        """Return the next message that is wanted.

        Raises:
            AssertionError: None came.
        """
        until = time.monotonic() + PATIENCE
        while (message := self.next(until - time.monotonic())) is not None:
            if wanted(message):
                return message
        raise AssertionError(f"not among {self.seen}")

    def empty(self) -> None:
        """Read what has come so far."""
        while self.next(0) is not None:
            pass


@pytest.fixture
def notify_socket() -> Iterator[Callable[[object], NotifySocket]]:
    """Open sockets; they are closed when the test ends."""
    opened: list[NotifySocket] = []

    def listen(name: object) -> NotifySocket:
        opened.append(NotifySocket(str(name)))
        return opened[-1]

    yield listen
    for one in opened:
        one.socket.close()
