"""A worker's own connection to PostgreSQL, which no task sees: opened when it is first used, anew when it is gone."""

from __future__ import annotations

import contextlib

import psycopg

from pgq.pool.worker import process_state
from pgq.pool.worker.surroundings import Surroundings
from pgq.store import connection as store_connection

#: Seconds that a statement of the worker may take.
_STATEMENT_SECONDS = 30.0


class Session:
    """The connection, for the thread that holds the exchange's lock.

    Args:
        database: Alias in DATABASES.
        surroundings: Spoiled when a task has closed the connection.
    """

    def __init__(self, database: str, surroundings: Surroundings) -> None:
        self.database, self.surroundings = database, surroundings
        self._connection: store_connection.Connection | None = None
        self._file: tuple[int, int] | None = None
        #: Kept: if it were collected, it would close a descriptor that is another file's by now.
        self._abandoned: store_connection.Connection | None = None

    def connected(self) -> store_connection.Connection:
        """Return the connection, opened anew if it is gone.

        Raises:
            psycopg.Error: PostgreSQL cannot be reached.
        """
        if self._connection is not None and not self._connection.closed and self._is_cut_off(self._connection):
            self._abandoned, self._connection = self._connection, None
        if self._connection is None or self._connection.closed:
            self._connection = store_connection.connect(
                self.database, "pgq worker", patience=_STATEMENT_SECONDS, pins=store_connection.BY_INDEX
            )
            self._file = process_state.identity(self._connection.fileno())
        return self._connection

    def files(self) -> list[int]:
        """Return the descriptor of the connection, if there is one."""
        connection = self._connection
        return [] if connection is None or connection.closed else [connection.fileno()]

    def disconnect(self) -> bool:
        """Close the connection; return whether there was one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()
        return connection is not None

    def _is_cut_off(self, connection: store_connection.Connection) -> bool:
        """Whether a task closed its file. The number may be another file's by now, so nothing more is written there."""
        if process_state.identity(connection.fileno()) == self._file:
            return False
        self.surroundings.spoiled = self.surroundings.spoiled or "a task closed its connection to PostgreSQL"
        return True
