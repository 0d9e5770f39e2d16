"""After each task: nothing that it did to Django's connections may reach the next one."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from psycopg.pq import TransactionStatus

logger = logging.getLogger("pgq")

#: Statements that leave something behind in the session: after one of them the connection is not used again.
_LASTING = re.compile(
    r"\s*(SET(?!\s+LOCAL\b)|RESET|LISTEN|LOAD|PREPARE|DECLARE|CREATE\s+(LOCAL\s+|GLOBAL\s+)?TEMP)"
    r"|.*\b(set_config|pg_advisory_lock|pg_try_advisory_lock)\b",
    re.IGNORECASE | re.DOTALL,
)


def _watch(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    if isinstance(sql, str) and _LASTING.match(sql):
        context["connection"].pgq_spoiled = True
    return execute(sql, params, many, context)


#: The main thread's connections. Asking Django for them costs more than most tasks have to do with a database.
_connections: list[BaseDatabaseWrapper] = []


def _connected(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _watch not in connection.execute_wrappers:
        connection.execute_wrappers.append(_watch)
    if connection not in _connections and threading.current_thread() is threading.main_thread():
        _connections.append(connection)


def watch_connections() -> None:
    """Begin to note which connections a task spoils. Called once in each worker."""
    connection_created.connect(_connected, dispatch_uid="pgq.hygiene")


def clean_up(task: str) -> None:
    """Bring Django's connections back to where a task expects them; close those that cannot be trusted.

    Args:
        task: Id of the task that has just run, for the log.
    """
    for connection in _connections:
        if connection.connection is None:
            continue
        trouble = _trouble(connection)
        if trouble is None:
            # Errors, CONN_MAX_AGE and autocommit that was switched off are Django's own to see.
            connection.close_if_unusable_or_obsolete()
            continue
        logger.warning("task %s left the connection %r %s; it is closed", task, connection.alias, trouble)
        _discard(connection)


def _trouble(connection: BaseDatabaseWrapper) -> str | None:
    if connection.in_atomic_block or connection.savepoint_ids:
        return "inside a transaction"
    if getattr(connection, "pgq_spoiled", False):
        return "with session settings of its own"
    info = getattr(connection.connection, "info", None)
    if info is not None and info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
        return "with an open transaction"
    return None


def _discard(connection: BaseDatabaseWrapper) -> None:
    connection.pgq_spoiled = False  # type: ignore[attr-defined]
    # Django refuses to close inside an atomic block; it is no longer inside one, whatever it believes.
    connection.in_atomic_block = False
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.run_on_commit = []
    try:
        connection.close()
    except Exception:
        connection.connection = None


def forget_connections() -> None:
    """In a new process: drop connections that were inherited from its parent, without a word to the server."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None
    pools = getattr(type(connections[DEFAULT_DB_ALIAS]), "_connection_pools", None)
    if pools:
        pools.clear()
