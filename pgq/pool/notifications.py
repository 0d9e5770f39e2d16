"""Whether notifications reach a pool, and can be sent to it. Where they do not, the pool polls the queue."""

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
#: Seconds until LISTEN is tried again after it ended the session.
_LISTEN_AGAIN_SECONDS = 30.0


class Notifications:
    """What one pool knows of notifications, over one session after the other.

    Args:
        database: Alias of the database.
        poll: Seconds between two polls of the queue, at most.
    """

    def __init__(self, database: str, poll: float) -> None:
        self.database, self.poll = database, poll
        #: Why no notification reaches the pool, as logged last; None: they do. And when (monotonic) to try again.
        self.deaf: str | None = None
        self.listen_at = 0.0
        self.logged_full = False

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
        self._log_if_changed(listener.deaf)
        return listener

    def check(self, listener: Listener) -> None:
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
        self._log_if_changed(why)
        if usage > _FULL and not self.logged_full:
            logger.warning(
                "the queue of notifications is %.0f %% full: a session that listens is in a long transaction",
                100 * usage,
            )
        self.logged_full = usage > _FULL

    def _another(self) -> store_connection.Connection:
        return store_connection.connect(self.database, "pgq supervisor", patience=float(store_connection.DEAD_AFTER))

    def _cannot_listen(self, error: psycopg.Error) -> None:
        """LISTEN ended the session, as with a broken queue of notifications: go on without, and try it again later."""
        self.listen_at = time.monotonic() + _LISTEN_AGAIN_SECONDS
        self._log_if_changed(message(error))

    def _log_if_changed(self, why: str | None) -> None:
        if why == self.deaf:
            return
        self.deaf = why
        if why:
            logger.warning(
                "no notification reaches this pool (%s): sleeping workers poll the queue instead, every %g s at least",
                why,
                self.poll,
            )
        else:
            logger.info("notifications reach this pool again")
