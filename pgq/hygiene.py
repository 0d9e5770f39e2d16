"""After each task: nothing that it did to Django's connections or to its process may reach the next one.

What can be put back is put back: the directory, signal handlers, the environment ... What cannot (a lowered limit, a
closed file, a heap of threads) is a reason to replace the worker, once it has settled what it has.

A look at everything costs more than a short task. So one is taken after each task that ran for some milliseconds, after
the first runs of each function, after a task that a glance (half a microsecond) finds to have changed something, and
before more is claimed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import resource
import select
import signal
import sys
import threading
from _signal import getsignal  # type: ignore[import-not-found]  # signal's makes enums of it, which takes a microsecond
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from psycopg.pq import TransactionStatus
from psycopg.sql import Composable

from pgq import traits
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
    # A program has few texts, and says them again and again.
    return _lasting(sql) if len(sql) < 10_000 else _LASTING.search(sql) is not None


@lru_cache(maxsize=1000)
def _lasting(sql: str) -> bool:
    return _LASTING.search(sql) is not None


# ------------------------------------------------------------------------------------------- Django's connections

#: The main thread's connections. Asking Django for them costs more than most tasks have to do with a database.
_connections: list[BaseDatabaseWrapper] = []


class _Elsewhere:
    """Connections of other threads."""

    seen = False
    #: When those of the coroutines' thread were looked at (monotonic).
    looked = 0.0


#: Seconds after which a look at a connection is repeated where it takes a change of threads.
_LOOK_AGAIN = 1.0


def _connected(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _watch not in connection.execute_wrappers:
        connection.execute_wrappers.append(_watch)
    if threading.current_thread() is not threading.main_thread():
        _Elsewhere.seen = True
    elif connection not in _connections:
        _connections.append(connection)


def has_connections_elsewhere() -> bool:
    """Whether a thread other than the main one has ever connected to a database."""
    return _Elsewhere.seen


def is_time_to_refresh(now: float) -> bool:
    """Whether `refresh_own_connections` was not called for a second, though other threads have connections."""
    if not _Elsewhere.seen or now < _Elsewhere.looked + _LOOK_AGAIN:
        return False
    _Elsewhere.looked = now
    return True


def refresh_connections() -> None:
    """Before tasks run in the main thread: close those of its connections that have grown too old, or are dead."""
    if _connections:
        _refresh(_connections)


def refresh_own_connections() -> None:
    """Do the same for the connections of another thread."""
    if _Elsewhere.seen:
        _refresh(connections.all(initialized_only=True))


def _refresh(used: Iterable[BaseDatabaseWrapper]) -> None:
    for connection in used:
        if connection.connection is None or connection.in_atomic_block:
            continue
        try:
            # As Django does when a request begins; after it CONN_HEALTH_CHECKS has the next statement look once.
            connection.close_if_unusable_or_obsolete()
            # The server says something though nothing was asked: as a rule, that it has ended the session.
            if connection.connection is not None and _has_news(connection.connection) and not connection.is_usable():
                connection.close()
        except Exception:
            _discard(connection)


def _has_news(raw: Any) -> bool:
    pgconn = getattr(raw, "pgconn", None)
    if pgconn is None:
        # Not PostgreSQL's.
        return False
    if raw.closed:
        return True
    # Without a word to the server, in a microsecond.
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def clean_own_connections(claim: Claim) -> None:
    """Do for the connections of a thread that is not the main one what is done for that one's after each task."""
    if _Elsewhere.seen:
        _clean_connections(claim, connections.all(initialized_only=True))


def watch_connections() -> None:
    """Begin to note which connections a task spoils. Called once in each worker."""
    connection_created.connect(_connected, dispatch_uid="pgq.hygiene")


def _clean_connections(claim: Claim, used: Iterable[BaseDatabaseWrapper]) -> None:
    """Bring Django's connections back to where a task expects them; close those that cannot be trusted."""
    for connection in used:
        if connection.connection is None:
            continue
        trouble = _trouble(connection)
        if trouble is None:
            # Errors, CONN_MAX_AGE and autocommit that was switched off are Django's own to see.
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
    # Set behind Django's back, on psycopg's own connection. Neither asks the server.
    if getattr(raw, "autocommit", connection.autocommit) != connection.autocommit:
        return "with another autocommit than Django believes"
    if info is not None and info.parameter_status("TimeZone") not in (connection.timezone_name, None):
        return "in another time zone"
    return None


def _discard(connection: BaseDatabaseWrapper) -> None:
    connection.pgq_spoiled = False  # type: ignore[attr-defined]
    # Django refuses to close inside an atomic block; it is no longer inside one, whatever it believes.
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


def forget_connections() -> None:
    """In a new process: drop connections that were inherited from its parent, without a word to the server."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None
    pools = getattr(type(connections[DEFAULT_DB_ALIAS]), "_connection_pools", None)
    if pools:
        pools.clear()


# ------------------------------------------------------------------------------------------- the process

#: A look, and a close one, take less than a twentieth of a task that ran for so many seconds.
_LONG, _LONGER = 0.005, 0.010
#: Runs of a function after each of which a look is taken.
_FIRST_RUNS = 20


class Surroundings:
    """What a worker's process is like before its first task, and ought to be like before each.

    Args:
        files: Descriptors that the worker lives by, besides the standard ones.
        threads: Threads that it will start itself to run tasks in, each of which may have connections.

    Attributes:
        spoiled: Why the process is of no more use, or None.
    """

    def __init__(self, files: Iterable[int] = (), threads: int = 0) -> None:
        self.spoiled: str | None = None
        self.files = {number: traits.identity(number) for number in (0, 1, 2, *files)}
        self.lasting = {name: read() for name, read in traits.LASTING.items()}
        self.counts = self._count()
        self.counts["threads"] += threads
        self.counts["open files"] += 2 * threads
        self.runs: defaultdict[str, int] = defaultdict(int)
        self.complained: set[tuple[str, str]] = set()
        self._remember({trait: trait.read() for trait in traits.TRAITS})

    def clean_up(self, claim: Claim, seconds: float, *, alone: bool = True) -> None:
        """Undo what a task did that has just run for so long. Called after each: see above for what that may cost.

        Args:
            alone: Nothing else runs in this process: what changed is this task's doing, and nobody relies on it.
        """
        if _connections:
            _clean_connections(claim, _connections)
        if not alone:
            return
        func = claim.func
        self.runs[func] += 1
        if seconds > _LONGER or self.runs[func] <= _FIRST_RUNS:
            self.look_closely(claim)
        elif seconds > _LONG or self._is_different_at_a_glance():
            self.look(claim)

    def look(self, claim: Claim) -> None:
        """Compare everything with what it was, and put it back."""
        self.adopt()
        for trait, before in self.states.items():
            if traits.read(trait) == before:
                continue
            with contextlib.suppress(Exception):
                trait.put_back(before)
            if traits.read(trait) != before:
                self.spoiled = f"{trait.name} cannot be put back"
            # The next runs of this function are looked after, too.
            self.runs[claim.func] = 0
            if not trait.is_common:
                self._complain(claim, f"changed {trait.name}")
        self._remember(self.states)
        # Nobody can see whether it was seeded, and whoever knows the seed knows what comes next.
        random.seed()
        for number, file in self.files.items():
            if traits.identity(number) != file:
                self.spoiled = f"file descriptor {number} is not what it was"
        self.spoiled = self.spoiled or self._find_lasting()
        if self.spoiled:
            self._complain(claim, f"spoiled its worker, which is replaced: {self.spoiled}")

    def look_closely(self, claim: Claim) -> None:
        """Look at what is not worth a look after each task, too. Called between two claims as well."""
        self.look(claim)
        if self.spoiled is None:
            self.spoiled = self._find_leaks()
            if self.spoiled:
                # It may have been any of its tasks, or all of them.
                logger.warning("a worker is replaced: its tasks have left %s", self.spoiled)

    def _find_lasting(self) -> str | None:
        for name, read in traits.LASTING.items():
            if read() != self.lasting[name]:
                return f"{name} changed"
        return None

    def _find_leaks(self) -> str | None:
        for name, count in self._count().items():
            if count > self.counts[name] + traits.SPARE[name]:
                return f"{count} {name}"
        return None

    @staticmethod
    def _count() -> dict[str, int]:
        try:
            return traits.counts()
        except OSError as error:
            # Not Linux; or not a single file can be opened any more.
            full = error.errno in (errno.EMFILE, errno.ENFILE)
            return {
                **dict.fromkeys(traits.SPARE, 0),
                "open files": resource.getrlimit(resource.RLIMIT_NOFILE)[0] * full,
            }

    def adopt(self) -> None:
        """Let what modules did at their import stay: it happens once, and those who import them later rely on it."""
        if len(sys.modules) > self.modules:
            self._remember({
                trait: trait.adopt(before, trait.read()) if trait.adopt is not None else before
                for trait, before in self.states.items()
            })  # fmt: skip

    def _complain(self, claim: Claim, what: str) -> None:
        if (claim.func, what) not in self.complained:
            self.complained.add((claim.func, what))
            logger.warning("task %s (%s) %s", claim.id.hex, claim.func, what)

    def _remember(self, states: dict[traits.Trait, Any]) -> None:
        self.states, self.modules = states, len(sys.modules)
        by_name = {trait.name: value for trait, value in states.items()}
        self.environment, self.path = by_name["environment variables"], by_name["sys.path"]
        self.stdout, self.on_cancel = sys.stdout, getsignal(signal.SIGUSR2)
        self.on_child = getsignal(signal.SIGCHLD)

    def _is_different_at_a_glance(self) -> bool:
        return (
            sys.stdout is not self.stdout
            or getsignal(_SIGUSR2) is not self.on_cancel
            or getsignal(_SIGCHLD) is not self.on_child
            or sys.path != self.path
            or traits.environment() != self.environment
        )


#: As plain ints, which C takes faster than members of an enum.
_SIGUSR2, _SIGCHLD = int(signal.SIGUSR2), int(signal.SIGCHLD)


# ------------------------------------------------------------------------------------------- forks of a worker


class Forked:
    """Whether this process is a worker or a fork of one, made by a task with os.fork or multiprocessing.

    A fork shares the worker's connection to PostgreSQL and its pipe. It must never speak there, and not keep the
    session alive when the worker is dead: so what the worker lives by is closed in it.
    """

    def __init__(self) -> None:
        self.is_fork = False
        #: Asked in the fork for the descriptors to close.
        self.files: Callable[[], Collection[int]] = tuple

    def watch(self, files: Callable[[], Collection[int]]) -> None:
        """Begin to watch. Called once in each worker."""
        self.files = files
        os.register_at_fork(after_in_child=self._after_fork)

    def leave(self) -> None:
        """End here if this is a child that the task made and let return. The worker is its parent, and settles."""
        if self.is_fork:
            os._exit(0)

    def _after_fork(self) -> None:
        self.is_fork = True
        for number in self.files():
            with contextlib.suppress(OSError):
                os.close(number)


forked = Forked()


# ------------------------------------------------------------------------------------------- when memory runs out

#: So much more willingly than its supervisor is a worker given up when memory runs out (of 1,000).
_MORE_WILLINGLY = 200


def offer_to_oom_killer() -> None:
    """Ask the kernel to kill this process, not the supervisor, when memory runs out. What tasks start inherits it."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = min(1000, int(file.read()) + _MORE_WILLINGLY)
        file.seek(0)
        file.write(str(score))
