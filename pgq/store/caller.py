"""The caller's connection: Django's, in the transaction that the caller has open, if any."""

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
    """Yield a cursor on the caller's connection, inside its open transaction, if any. Moments come back aware."""
    with connections[alias].cursor() as cursor:
        yield aware_cursor(cursor)


def aware_cursor(cursor: Any) -> Any:
    """Have moments come back aware through a cursor on the caller's connection, Django's or psycopg's; return it."""
    own = cursor.cursor if isinstance(cursor, CursorWrapper) else cursor
    if not settings.USE_TZ and isinstance(own, psycopg.Cursor):
        # Without USE_TZ, Django's own loader returns naive ones.
        own.adapters.register_loader("timestamptz", TimestamptzLoader)
    return cursor


#: After so many uses of one connection, the statement is prepared there.
_OFTEN = 5
#: The prepared statement is gone, or another client of a pooler has prepared it.
_NOT_AS_PREPARED = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)
#: How often each of Django's connections was used so; None: nothing may be prepared on it. Process-wide because
#: Django's connections are; each belongs to one thread, and its entry goes with it.
_uses: WeakKeyDictionary[Connection, int | None] = WeakKeyDictionary()


def execute_often(alias: str, statement: Callable[[Cursor, T], None], what: T) -> None:
    """Call a function of `pgq.store` that executes a frequent statement, with a cursor on the caller's connection.

    On a busy connection the statement is prepared: to parse and plan an INSERT of one row takes the server as long as
    all the rest. Not inside a transaction: if the prepared statement were gone (DISCARD ALL), the error would abort the
    caller's transaction.
    """
    django = connections[alias]
    connection = _busy_connection(django)
    if connection is not None:
        threshold = connection.prepare_threshold
        # Only for this statement: psycopg must prepare none of the caller's own.
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
    """Return the psycopg connection below Django's if the statement may be prepared on it, and is used often enough."""
    if django.queries_logged or django.execute_wrappers:
        # The project logs or wraps statements, which only Django's cursor lets it do.
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
                # A pooler shows another pid. Behind one, a transaction may not find what an earlier one prepared.
                uses = uses if server_pid(connection) == connection.info.backend_pid else None
        _uses[connection] = uses
    return connection if uses is not None and uses > _OFTEN else None


def savepoint(cursor: Cursor) -> AbstractContextManager[Any]:
    """Return a savepoint in the transaction of this cursor, Django's or psycopg's."""
    if isinstance(cursor, CursorWrapper):
        from django.db import transaction

        return cast("AbstractContextManager[Any]", transaction.atomic(using=cursor.db.alias))
    return cast("AbstractContextManager[Any]", cursor.connection.transaction())
