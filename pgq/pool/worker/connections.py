"""Django's connections in a worker: watched, and left clean after each task."""

from __future__ import annotations

import contextlib
import logging
import re
import select
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from psycopg.pq import TransactionStatus
from psycopg.sql import Composable

from pgq.records import Claim

logger = logging.getLogger("pgq")


#: Statements that leave something behind in the session: after one of them the connection is not used again.
_LASTING = re.compile(
    # At the beginning of the text or of a later statement in it.
    r"(?:^|;|\*/|--[^\n]*\n)\s*"
    r"(?:SET(?!\s+(?:LOCAL|CONSTRAINTS|TRANSACTION)\b)|RESET|DISCARD|LISTEN|LOAD|PREPARE|DECLARE)\b"
    r"|\b(?:CREATE|INTO)\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?\b"
    r"|\bset_config\b(?!.*,\s*true\s*\))|\bpg_(?:try_)?advisory_lock(?:_shared)?\b",
    re.IGNORECASE | re.DOTALL,
)


def _watch(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    if _leaves_something(sql):
        context["connection"].pgq_spoiled = True
    return execute(sql, params, many, context)


def _leaves_something(sql: Any) -> bool:
    if isinstance(sql, Composable):
        sql = sql.as_string(None)
    elif isinstance(sql, bytes):
        sql = sql.decode("latin-1")
    # A program has few statements, and executes each of them again and again.
    return _lasting(sql) if len(sql) < 10_000 else _LASTING.search(sql) is not None


@lru_cache(maxsize=1000)
def _lasting(sql: str) -> bool:
    return _LASTING.search(sql) is not None


#: Seconds between two refreshes of the connections that all coroutines share: each refresh takes a change of threads.
_REFRESH_SECONDS = 1.0


class Connections:
    """Django's connections of one worker process.

    Attributes:
        main: Those of the main thread. To ask Django for them would take longer than a short task.
        elsewhere: Whether another thread has ever connected to a database.
    """

    def __init__(self) -> None:
        self.main: list[BaseDatabaseWrapper] = []
        self.elsewhere = False
        self._refreshed = 0.0

    def watch(self) -> None:
        """Begin to note which connections there are, and which of them a task spoils. Called once."""
        connection_created.connect(self._note, dispatch_uid="pgq.pool.worker.connections")

    def _note(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        if _watch not in connection.execute_wrappers:
            connection.execute_wrappers.append(_watch)
        if threading.current_thread() is not threading.main_thread():
            self.elsewhere = True
        elif connection not in self.main:
            self.main.append(connection)

    def refresh(self) -> None:
        """Before tasks run in the main thread: close those of its connections that have grown too old, or are dead."""
        if self.main:
            _refresh(self.main)

    def clean(self, claim: Claim) -> None:
        """After a task in the main thread: bring its connections back to where the next task expects them."""
        _clean(claim, self.main)

    def refresh_own(self) -> None:
        """Refresh those of the calling thread, which is not the main one."""
        if self.elsewhere:
            _refresh(connections.all(initialized_only=True))

    def clean_own(self, claim: Claim) -> None:
        """Clean those of the calling thread, which is not the main one."""
        if self.elsewhere:
            _clean(claim, connections.all(initialized_only=True))

    def is_time_to_refresh(self, now: float) -> bool:
        """Whether a second has passed since this was last true, and threads beside the main one have connections."""
        if not self.elsewhere or now < self._refreshed + _REFRESH_SECONDS:
            return False
        self._refreshed = now
        return True


def _refresh(used: Iterable[BaseDatabaseWrapper]) -> None:
    for connection in used:
        if connection.connection is None or connection.in_atomic_block:
            continue
        try:
            # As Django does when a request begins; after it CONN_HEALTH_CHECKS has the next statement check once.
            connection.close_if_unusable_or_obsolete()
            # The server has sent something unasked: as a rule, that it has ended the session.
            if connection.connection is not None and _has_news(connection.connection) and not connection.is_usable():
                connection.close()
        except Exception:
            _discard(connection)


def _has_news(raw: Any) -> bool:
    pgconn = getattr(raw, "pgconn", None)
    if pgconn is None:
        # Another database's driver.
        return False
    if raw.closed:
        return True
    # Takes a microsecond: nothing is sent to the server.
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def _clean(claim: Claim, used: Iterable[BaseDatabaseWrapper]) -> None:
    for connection in used:
        if connection.connection is None:
            continue
        trouble = _trouble(connection)
        if trouble is None:
            # Django itself sees errors, CONN_MAX_AGE, and autocommit that was switched off.
            connection.close_if_unusable_or_obsolete()
            continue
        logger.warning("task %s left the connection %r %s; it is closed", claim.id.hex, connection.alias, trouble)
        _discard(connection)


def _trouble(connection: BaseDatabaseWrapper) -> str | None:
    if connection.in_atomic_block or connection.savepoint_ids:
        return "inside a transaction"
    if getattr(connection, "pgq_spoiled", False):
        return "with session settings of its own"
    raw = connection.connection
    info = getattr(raw, "info", None)
    if info is not None and info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
        return "with an open transaction"
    # Set on psycopg's own connection, where Django does not see it. Both reads ask the client library, not the server.
    if getattr(raw, "autocommit", connection.autocommit) != connection.autocommit:
        return "with another autocommit than Django believes"
    if info is not None and info.parameter_status("TimeZone") not in (connection.timezone_name, None):
        return "in another time zone"
    return None


def _discard(connection: BaseDatabaseWrapper) -> None:
    connection.pgq_spoiled = False  # type: ignore[attr-defined]
    # Django refuses to close a connection inside an atomic block. The transaction ends with the session.
    connection.in_atomic_block = False
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.run_on_commit = []
    with contextlib.suppress(Exception):
        # psycopg's first: Django would give it back to its pool, if it has one.
        if connection.connection is not None:
            connection.connection.close()
    try:
        connection.close()
    except Exception:
        connection.connection = None
