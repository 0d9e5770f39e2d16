"""The three doors to PostgreSQL: the caller's connection, a worker's own, and a listener.

Enqueue uses the caller's, so it is part of the caller's transaction. Workers settle over one of their own, which user
code can neither close nor leave in a transaction.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

import psycopg
from django.conf import settings
from django.db import ProgrammingError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from psycopg.pq import TransactionStatus
from psycopg.types.datetime import TimestamptzLoader

from pgq.store_statement import sql

logger = logging.getLogger("pgq")
T = TypeVar("T")

#: What the functions of `pgq.store` take: Django's cursor or psycopg's.
Cursor: TypeAlias = "CursorWrapper | psycopg.Cursor[Any]"
Connection: TypeAlias = "psycopg.Connection[Any]"

#: So many seconds without an answer, and a connection is dead: TCP alone would wait for a quarter of an hour.
DEAD_AFTER = 15

_KEEPALIVES = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": DEAD_AFTER * 1000,
}

#: What our own sessions need, whatever ALTER ROLE or ALTER DATABASE says for all sessions. Claims and receipts rely on
#: READ COMMITTED: they look at a row again after waiting for it. (Not default_transaction_read_only: who sets that
#: means us too, and we wait until it is lifted.) The last ones have the server, too, notice that we are gone.
_PINS = {
    "default_transaction_isolation": "read committed",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    # With hundreds of queues the planner takes each lane for a short one, reads all of it by bitmap and sorts it, for a
    # few hundred tasks: by the index of ready rows they come in order, and no others are read.
    "enable_bitmapscan": "off",
    # To compile one of our statements takes a hundred times as long as to run it.
    "jit": "off",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{DEAD_AFTER}s",
}
#: What a worker's sessions need besides. It joins a batch with a table, by ctid or id. While the table is small the
#: planner would rather read all of it, for each batch; and keep that plan when the table has grown. With these there is
#: one plan whatever the numbers, so it is made once: to plan a claim takes as long as to claim five tasks.
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
                uses = uses if _server_pid(connection) == connection.info.backend_pid else None
        _uses[connection] = uses
    return connection if uses is not None and uses > _OFTEN else None


def is_gone(connection: Connection, error: psycopg.Error) -> bool:
    """Whether it is the connection that failed, and not the statement.

    Also if it is one to a server that takes no writes (a standby, a default): it has to be opened anew, which may lead
    to another server, since a DSN may name several with target_session_attrs.
    """
    state = error.sqlstate
    return connection.closed or state is None or state == "25006" or state.startswith(("08", "57P", "25P03"))


class _Patient(psycopg.Connection[Any]):
    """A connection that gives an answer up after some seconds, and then is closed.

    TCP notices a peer that is gone, but not one that takes all and says nothing: a pooler or a tunnel that hangs.
    """

    patience: float | None = None
    #: Called ten times a second while an answer is waited for.
    meanwhile: Callable[[], None] | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        if self.patience is None and self.meanwhile is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(self._look_up(gen, time.monotonic()), *args, **kwargs)
        except _NoAnswer as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer for {self.patience:g} s") from error

    def _look_up(self, gen: Generator[Any, Any, Any], began: float) -> Generator[Any, Any, Any]:
        """Pass everything through. Now and then psycopg is asked to go on with nothing ready; then it is our turn."""
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
) -> Connection:
    """Open a connection of our own with the parameters of a Django alias, in autocommit.

    Args:
        alias: Key in DATABASES.
        role: Shown as application_name: "pgq worker", "pgq supervisor" ...
        patience: Seconds that a statement may take: then the server cancels it, and a second later we give up on the
            server. None: for ever.
        meanwhile: Called ten times a second while a statement is waited for.
        pins: Settings of the session, besides those that all of ours have.

    Django's cursor class (which binds on the client), its adapters (jsonb as text) and its pool stay behind; jsonb is
    always asked for as text, so that `pgq.codec` is its only reader.
    """
    parameters = dict(wrapper(alias).get_connection_params())
    for key in ("cursor_factory", "context", "pool", "prepare_threshold"):
        parameters.pop(key, None)
    options = wrapper(alias).settings_dict.get("OPTIONS", {})
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
    """Become the role that DATABASES has in OPTIONS["assume_role"], as Django's own connections do."""
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
        # What one transaction prepares the next one may not find.
        connection.prepare_threshold = None
    # For transactions also behind a pooler.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED


def savepoint(cursor: Cursor) -> AbstractContextManager[Any]:
    """Return a savepoint in the transaction of this cursor, Django's or psycopg's."""
    if isinstance(cursor, CursorWrapper):
        from django.db import transaction

        return cast("AbstractContextManager[Any]", transaction.atomic(using=cursor.db.alias))
    return cast("AbstractContextManager[Any]", cursor.connection.transaction())


def shares_sessions(connection: Connection, another: Callable[[], Connection]) -> bool:
    """Return whether a pooler gives each transaction whatever session of the server is free: then LISTEN is in vain.

    Args:
        another: Opens one more connection in the same way; only called if there is a pooler.
    """
    if _server_pid(connection) == connection.info.backend_pid:
        return False
    ours, theirs = set(), set()
    with another() as other:
        for _ in range(3):
            theirs.add(_server_pid(other))
            ours.add(_server_pid(connection))
    # Where each has a session of its own, no two are in the same one, and none ever changes.
    return bool(ours & theirs) or len(ours) > 1 or len(theirs) > 1


def _server_pid(connection: Connection) -> int:
    row = connection.execute(sql("server_pid"), prepare=False).fetchone()
    assert row is not None
    return int(row[0])


class Listener:
    """A connection that waits for notifications, and may be used for statements between two waits.

    Args:
        another: Opens one more connection in the same way, to find out whether a pooler stands between.
        deaf: Why to listen must not be tried for now; None: try it.
    """

    def __init__(
        self,
        connection: Connection,
        *channels: str,
        another: Callable[[], Connection] | None = None,
        deaf: str | None = None,
    ) -> None:
        self.connection, self.channels = connection, channels
        #: Why no notification will come, so that polling has to do; None: they come.
        self.deaf = deaf
        self.pooled = another is not None and shares_sessions(connection, another)
        if self.pooled:
            # Nor should it be tried: it would stay behind in a session of the server that another client gets.
            self.deaf = "a pooler in transaction mode stands between"
        elif deaf is None:
            self.listen()

    def listen(self) -> None:
        """Begin to listen, or note why that is impossible.

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


def message(error: BaseException) -> str:
    """Return what an error says, in one line and without its details: those hold whole rows, arguments and all."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((primary or str(error)).split()) or type(error).__name__


class Backoff:
    """Growing pauses between attempts to reach PostgreSQL, jittered so that a fleet does not come back at once.

    Says in the log what is wrong: each new message, but no more than one in a second, an old one again after half a
    minute; and that PostgreSQL answers again.
    """

    def __init__(self, first: float = 0.05, most: float = 1.0) -> None:
        self.first, self.most = first, most
        self.failures = 0
        #: When (monotonic) the last attempt failed; the first one of this outage.
        self.failed_at = self.since = 0.0
        self.said: set[str] = set()
        self.said_at = -60.0
        self.silent = True

    def succeeded(self) -> None:
        """PostgreSQL has answered. Cheap while nothing is wrong."""
        if not self.failures:
            return
        now = time.monotonic()
        if not self.silent:
            self.silent = True
            logger.warning("PostgreSQL answers again after %.1f s and %d attempts", now - self.since, self.failures)
        # If answers and failures alternate, the pauses must grow all the same.
        if now - self.failed_at > self.most:
            self.failures = 0
            self.said.clear()

    def next_pause(self) -> float:
        """Return the seconds to wait after one more failure."""
        self.failed_at = time.monotonic()
        if not self.failures:
            self.since = self.failed_at
        self.failures += 1
        grown: float = self.first * 2 ** min(self.failures - 1, 16)
        return min(self.most, grown) * random.uniform(0.5, 1.0)

    def failed(self, error: psycopg.Error, what: str = "PostgreSQL") -> float:
        """Log an error, unless it says nothing new, and return the seconds to wait before the next attempt."""
        pause = self.next_pause()
        text = message(error)
        if self.failed_at - self.said_at >= (30.0 if text in self.said else 1.0):
            self.said.add(text)
            self.said_at, self.silent = self.failed_at, False
            logger.warning(
                "%s: %s; attempt %d failed, trying again in %.2f s", what, text, self.failures, pause
            )  # fmt: skip
        return pause
