"""pgq's own connections to PostgreSQL, beside Django's."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias

import psycopg
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from pgq.store.texts import sql

#: What the functions of `pgq.store.statement` take: Django's cursor or psycopg's.
Cursor: TypeAlias = "CursorWrapper | psycopg.Cursor[Any]"
Connection: TypeAlias = "psycopg.Connection[Any]"

#: Seconds without a reply after which a connection is dead: TCP alone would wait for a quarter of an hour.
DEAD_AFTER = 15

_KEEPALIVES = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": DEAD_AFTER * 1000,
}

#: Settings that pgq's sessions need, whatever ALTER ROLE or ALTER DATABASE sets for all sessions. Claim and settle rely
#: on READ COMMITTED: they check a row again after waiting for it. (Not default_transaction_read_only: an operator who
#: sets that means pools too, which wait until it is lifted.) By the last ones the server notices a client that is gone.
_PINS = {
    "default_transaction_isolation": "read committed",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    # With hundreds of queues the planner takes each lane for short, reads all of it by bitmap and sorts it. By the
    # index of ready rows the few hundred tasks of a claim come in order, and no others are read.
    "enable_bitmapscan": "off",
    # Compiling one of pgq's statements takes a hundred times as long as running it.
    "jit": "off",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{DEAD_AFTER}s",
}
#: Settings that a worker's sessions need besides. They join a batch with a table by ctid or id. While the table is
#: small, the planner would read all of it for each batch, and keep that plan when the table has grown. These settings
#: give one plan for all sizes, which is made once: planning a claim takes as long as claiming five tasks.
BY_INDEX = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}


def wrapper(alias: str) -> BaseDatabaseWrapper:
    """Return Django's connection of that alias."""
    return connections[alias]


def is_same_database(alias: str, other: str) -> bool:
    """Whether two aliases lead to the same database of the same server, perhaps with another role or other options."""
    one, two = connections[alias].settings_dict, connections[other].settings_dict
    return all(one[key] == two[key] for key in ("ENGINE", "HOST", "PORT", "NAME"))


class _Patient(psycopg.Connection[Any]):
    """A connection that closes itself after some seconds without a reply.

    TCP notices a peer that is gone, but not one that receives and never replies: a pooler or a tunnel that hangs.
    """

    patience: float | None = None
    #: Called ten times a second during the wait for a reply.
    meanwhile: Callable[[], None] | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        if self.patience is None and self.meanwhile is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(self._interleaved(gen, time.monotonic()), *args, **kwargs)
        except _NoAnswer as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer for {self.patience:g} s") from error

    def _interleaved(self, gen: Generator[Any, Any, Any], began: float) -> Generator[Any, Any, Any]:
        """Pass everything through. When psycopg resumes it with nothing ready, call `meanwhile` and check the time."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready:
                    if self.meanwhile is not None:
                        self.meanwhile()
                    if self.patience is not None and time.monotonic() > began + self.patience:
                        raise _NoAnswer
                wanted = gen.send(ready)
        except StopIteration as stop:
            return stop.value


class _NoAnswer(Exception):
    pass


def connect(
    alias: str,
    role: str,
    *,
    patience: float | None = None,
    meanwhile: Callable[[], None] | None = None,
    pins: Mapping[str, str] | None = None,
    django: BaseDatabaseWrapper | None = None,
) -> Connection:
    """Open a connection with the parameters of a Django alias, in autocommit.

    Args:
        alias: Key in DATABASES.
        role: Shown as application_name: "pgq worker", "pgq supervisor" ...
        patience: Seconds that a statement may take: then the server cancels it, and a second later the connection
            closes itself. None: no limit.
        meanwhile: Called ten times a second during the wait for a reply.
        pins: Settings of the session, besides those of all pgq's sessions.
        django: The connection of Django whose parameters to take; None: the one that the calling thread has.

    Django's cursor class (which binds on the client), its adapters (jsonb as text) and its pool are left out;
    statements select jsonb as text, so that `pgq.codec` is its only reader.
    """
    django = wrapper(alias) if django is None else django
    parameters = dict(django.get_connection_params())
    for key in ("cursor_factory", "context", "pool", "prepare_threshold"):
        parameters.pop(key, None)
    options = django.settings_dict.get("OPTIONS", {})
    connection = _Patient.connect(
        **{**_KEEPALIVES, **parameters, "application_name": role},
        autocommit=True,
        prepare_threshold=options.get("prepare_threshold", 1),
    )
    try:
        connection.patience = min(patience or DEAD_AFTER, DEAD_AFTER)
        _assume_role(connection, options.get("assume_role"))
        _pin_session(connection, patience, options, pins or {})
        connection.patience = None if patience is None else patience + 1
        connection.meanwhile = meanwhile
    except BaseException:
        connection.close()
        raise
    return connection


def _assume_role(connection: Connection, name: str | None) -> None:
    """Become the role of OPTIONS["assume_role"] in DATABASES, as Django's own connections do."""
    if name:
        connection.execute(sql("assume_role"), {"name": name}, prepare=False)


def _pin_session(
    connection: Connection, patience: float | None, options: Mapping[str, Any], more: Mapping[str, str]
) -> None:
    pins = {**_PINS, **more, "statement_timeout": str(int((patience or 0) * 1000))}
    if connection.info.server_version >= 170000:
        pins["transaction_timeout"] = "0"
    parameters = {"names": list(pins), "values": list(pins.values()), "pid": connection.info.backend_pid}
    pinned = connection.execute(sql("pin_session"), parameters, prepare=False).rowcount
    if not pinned and "prepare_threshold" not in options:
        # Behind a pooler, a transaction may not find what an earlier one prepared.
        connection.prepare_threshold = None
    # Behind a pooler, too: this is sent with each BEGIN.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED


def limit_lock_wait(cursor: Cursor, limit: str) -> str:
    """Let each statement of this transaction fail after so long a wait for a lock, "300ms"; return the former limit."""
    cursor.execute(sql("limit_lock_wait"), {"limit": limit})
    return str(cursor.fetchall()[0][0])
