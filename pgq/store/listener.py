"""LISTEN: a connection that receives notifications, and why it may receive none."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from pgq.store.connection import Connection
from pgq.store.outage import message
from pgq.store.texts import sql


def shares_sessions(connection: Connection, another: Callable[[], Connection]) -> bool:
    """Return whether a pooler gives each transaction any free session of the server: then LISTEN is in vain.

    Args:
        another: Opens one more connection in the same way; only called if there is a pooler.
    """
    if server_pid(connection) == connection.info.backend_pid:
        return False
    first, second = set(), set()
    with another() as other:
        for _ in range(3):
            second.add(server_pid(other))
            first.add(server_pid(connection))
    # If each connection has its own session, the two pids differ and none ever changes.
    return bool(first & second) or len(first) > 1 or len(second) > 1


def server_pid(connection: Connection) -> int:
    row = connection.execute(sql("server_pid"), prepare=False).fetchone()
    assert row is not None
    return int(row[0])


class Listener:
    """A connection that waits for notifications, and may be used for statements between two waits.

    Args:
        another: Opens one more connection in the same way, to find out whether a pooler stands between.
        deaf: The reason not to LISTEN for now; None: LISTEN.
    """

    def __init__(
        self,
        connection: Connection,
        *channels: str,
        another: Callable[[], Connection] | None = None,
        deaf: str | None = None,
    ) -> None:
        self.connection, self.channels = connection, channels
        #: The reason why no notification will arrive, so that the process must poll; None: they arrive.
        self.deaf = deaf
        self.pooled = another is not None and shares_sessions(connection, another)
        if self.pooled:
            # No LISTEN here: it would stay behind in a session of the server that another client gets.
            self.deaf = "a pooler in transaction mode stands between"
        elif deaf is None:
            self.listen()

    def listen(self) -> None:
        """LISTEN, or keep the reason why that is impossible.

        Raises:
            psycopg.Error: The connection is gone, or leads to a server that takes no writes.
        """
        try:
            for channel in self.channels:
                self.connection.execute(sql("listen", channel=channel))
            self.deaf = None
        except psycopg.OperationalError as error:
            if self.connection.closed:
                raise
            self.deaf = message(error)

    def fileno(self) -> int:
        return self.connection.fileno()

    def drain(self) -> list[str]:
        """Return the channels of the notifications that have come, without waiting; also those during other statements.

        Raises:
            psycopg.OperationalError: The connection is gone.
        """
        return [notification.channel for notification in self.connection.notifies(timeout=0)]

    def wait(self, seconds: float) -> int:
        """Wait for a notification, for that many seconds at most; return how many have come."""
        return sum(1 for _ in self.connection.notifies(timeout=seconds, stop_after=1))
