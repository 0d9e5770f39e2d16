"""The caller's connection: Django's, in whatever transaction the caller is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import psycopg
from django.conf import settings
from django.db import ProgrammingError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from psycopg.pq import TransactionStatus
from psycopg.types.datetime import TimestamptzLoader

from pgq.store.connection import Connection, Cursor
from pgq.store.listener import server_pid

T = TypeVar("T")


@contextmanager
def callers_cursor(alias: str) -> Iterator[CursorWrapper]:
    """Yield a cursor on the caller's connection, inside whatever transaction it is in. Its moments are aware."""
    with connections[alias].cursor() as cursor:
        if not settings.USE_TZ and isinstance(cursor.cursor, psycopg.Cursor):
            # Where Django would give naive ones.
            cursor.cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
        yield cursor


#: After so many of them on one connection, what is written again and again is prepared there.
_OFTEN = 5
#: What was prepared is gone, or another client of a pooler has prepared it.
_NOT_AS_PREPARED = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)
#: How often each of Django's connections was used for that; None: nothing may be prepared on it. Process-wide because
#: Django's connections are; each belongs to one thread, and takes its entry along.
_uses: WeakKeyDictionary[Connection, int | None] = WeakKeyDictionary()


def execute_often(alias: str, statement: Callable[[Cursor, T], None], what: T) -> None:
    """Have a function of `pgq.store` execute, on the caller's connection, what is executed again and again there.

    It is prepared once a connection has proved to be a busy one: to parse and plan an INSERT of one row takes the
    server as long as all the rest. In a transaction it is said as Django would: if what was prepared were gone
    (DISCARD ALL), the error would take the caller's transaction along.
    """
    django = connections[alias]
    connection = _busy_connection(django)
    if connection is not None:
        threshold = connection.prepare_threshold
        # Only for us: nothing else of what the caller executes here is to be prepared.
        connection.prepare_threshold = 0
        try:
            with django.wrap_database_errors:
                statement(psycopg.Cursor(connection), what)
            return
        except ProgrammingError as error:
            if not isinstance(error.__cause__, _NOT_AS_PREPARED):
                raise
            _uses[connection] = None
        finally:
            connection.prepare_threshold = threshold
    with django.cursor() as cursor:
        statement(cursor, what)


def _busy_connection(django: BaseDatabaseWrapper) -> Connection | None:
    """Return what is below Django's connection if statements may be prepared on it, and are worth it."""
    if django.queries_logged or django.execute_wrappers:
        # Somebody wants to see them.
        return None
    # As Django does for each cursor.
    django.validate_thread_sharing()
    django.close_if_health_check_failed()
    django.ensure_connection()
    connection = django.connection
    uses = _uses.get(connection, 0) if isinstance(connection, psycopg.Connection) else None
    if uses is None or connection.pgconn.transaction_status != TransactionStatus.IDLE or not connection.autocommit:
        return None
    if uses <= _OFTEN:
        uses += 1
        if uses == _OFTEN and connection.prepare_threshold is None:
            with django.wrap_database_errors:
                # A pooler has pids of its own, and what one transaction prepares the next one may not find.
                uses = uses if server_pid(connection) == connection.info.backend_pid else None
        _uses[connection] = uses
    return connection if uses is not None and uses > _OFTEN else None


def savepoint(cursor: Cursor) -> AbstractContextManager[Any]:
    """Return a savepoint in the transaction of this cursor, Django's or psycopg's."""
    if isinstance(cursor, CursorWrapper):
        from django.db import transaction

        return cast("AbstractContextManager[Any]", transaction.atomic(using=cursor.db.alias))
    return cast("AbstractContextManager[Any]", cursor.connection.transaction())
