"""The three doors to PostgreSQL: the caller's connection, a worker's own, and a listener.

Enqueue uses the caller's, so it is part of the caller's transaction. Workers settle over one of their own, which user
code can neither close nor leave in a transaction.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, cast

import psycopg
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

#: What the functions of `pgq.store` take: Django's cursor or psycopg's.
Cursor: TypeAlias = "CursorWrapper | psycopg.Cursor[Any]"
Connection: TypeAlias = "psycopg.Connection[Any]"

#: So many seconds without an answer, and a connection is dead: TCP alone would wait for a quarter of an hour.
DEAD_AFTER = 15

_KEEPALIVES = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": DEAD_AFTER * 1000,
}


def wrapper(alias: str) -> BaseDatabaseWrapper:
    """Return Django's connection of that alias."""
    return connections[alias]


@contextmanager
def callers_cursor(alias: str) -> Iterator[CursorWrapper]:
    """Yield a cursor on the caller's connection, inside whatever transaction it is in."""
    with connections[alias].cursor() as cursor:
        yield cursor


def connect(alias: str, role: str) -> Connection:
    """Open a connection of our own with the parameters of a Django alias, in autocommit.

    Args:
        alias: Key in DATABASES.
        role: Shown as application_name: "pgq worker", "pgq supervisor" ...

    Django's cursor class (which binds on the client), its adapters (jsonb as text) and its pool stay behind; jsonb is
    always asked for as text, so that `pgq.codec` is its only reader.
    """
    parameters = dict(wrapper(alias).get_connection_params())
    for key in ("cursor_factory", "context", "pool", "prepare_threshold"):
        parameters.pop(key, None)
    options = wrapper(alias).settings_dict.get("OPTIONS", {})
    connection: Connection = psycopg.connect(
        **{**_KEEPALIVES, **parameters, "application_name": role},
        autocommit=True,
        prepare_threshold=options.get("prepare_threshold", 1),
    )
    return connection


def savepoint(cursor: Cursor) -> AbstractContextManager[Any]:
    """Return a savepoint in the transaction of this cursor, Django's or psycopg's."""
    if isinstance(cursor, CursorWrapper):
        from django.db import transaction

        return cast("AbstractContextManager[Any]", transaction.atomic(using=cursor.db.alias))
    return cast("AbstractContextManager[Any]", cursor.connection.transaction())


class Listener:
    """A connection that waits for notifications, and may be used for statements between two waits."""

    def __init__(self, connection: Connection, channel: str) -> None:
        self.connection = connection
        connection.execute(f'LISTEN "{channel}"')

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


class Backoff:
    """Growing pauses between attempts to reach PostgreSQL, jittered so that a fleet does not come back at once."""

    def __init__(self, first: float = 0.05, most: float = 5.0) -> None:
        self.first, self.most = first, most
        self.failures = 0

    def succeeded(self) -> None:
        self.failures = 0

    def next_pause(self) -> float:
        """Return the seconds to wait after one more failure."""
        self.failures += 1
        grown: float = self.first * 2 ** min(self.failures - 1, 16)
        return min(self.most, grown) * random.uniform(0.5, 1.0)
