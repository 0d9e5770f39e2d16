"""Whether notifications reach a pool, and can be sent to it. Where they do not, the pool looks at the queue instead."""

from __future__ import annotations

import logging
import time

import psycopg

from pgq.store import connection as store_connection
from pgq.store import pools
from pgq.store.listener import Listener
from pgq.store.outage import message

logger = logging.getLogger("pgq")

#: Share of the queue of notifications that should never be in use.
_FULL = 0.1
#: Seconds until LISTEN is tried again after it cost us the session.
_LISTEN_AGAIN_SECONDS = 30.0


class Notifications:
    """What one pool knows of notifications, over one session after the other.

    Args:
        database: Alias of the database.
        poll: Seconds between two looks at the queue, at most.
    """

    def __init__(self, database: str, poll: float) -> None:
        self.database, self.poll = database, poll
        #: Why no notification reaches us, as far as the log knows; and when (monotonic) to try it again.
        self.deaf: str | None = None
        self.listen_at = 0.0
        self.said_full = False

    def listen(self, connection: store_connection.Connection) -> Listener:
        """Listen on a new connection.

        Raises:
            psycopg.Error: The session has ended.
        """
        deaf = self.deaf if time.monotonic() < self.listen_at else None
        try:
            listener = Listener(connection, "pgq_wake", "pgq_control", another=self._another, deaf=deaf)
        except psycopg.Error as error:
            self._cannot_listen(error)
            raise
        self._say_if_deaf(listener.deaf)
        return listener

    def try_them(self, listener: Listener) -> None:
        """Try whether notifications can be sent. If not, no caller must be asked to: its commit would fail.

        Raises:
            psycopg.Error: The session has ended.
        """
        if listener.pooled:
            return
        try:
            usage = pools.try_notify(listener.connection.cursor())
            if listener.deaf and time.monotonic() >= self.listen_at:
                listener.listen()
            why = listener.deaf
        except psycopg.OperationalError as error:
            if listener.connection.closed:
                self._cannot_listen(error)
                raise
            why, usage = message(error), 0.0
            listener.deaf = why
        self._say_if_deaf(why)
        if usage > _FULL and not self.said_full:
            logger.warning(
                "the queue of notifications is %.0f %% full: a session that listens is in a long transaction",
                100 * usage,
            )
        self.said_full = usage > _FULL

    def _another(self) -> store_connection.Connection:
        return store_connection.connect(self.database, "pgq supervisor", patience=float(store_connection.DEAD_AFTER))

    def _cannot_listen(self, error: psycopg.Error) -> None:
        """It ended the session, as with a broken queue of notifications: work on without, and try it again later."""
        self.listen_at = time.monotonic() + _LISTEN_AGAIN_SECONDS
        self._say_if_deaf(message(error))

    def _say_if_deaf(self, why: str | None) -> None:
        if why == self.deaf:
            return
        self.deaf = why
        if why:
            logger.warning(
                "no notification reaches us (%s): sleeping workers look at the queue instead, every %g s at least",
                why, self.poll,
            )  # fmt: skip
        else:
            logger.info("notifications reach us again")
