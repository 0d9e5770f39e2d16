"""An outage of PostgreSQL: the pauses between attempts, and the log messages."""

from __future__ import annotations

import logging
import time

import psycopg
from django.db import Error

from pgq.ground import chance
from pgq.store.connection import Connection

logger = logging.getLogger("pgq")

#: What PostgreSQL says if the tables are missing or old.
MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedColumn)


def cause_of(error: BaseException) -> BaseException:
    """Return psycopg's error of which Django has made this one; else this one."""
    return error.__cause__ if isinstance(error, Error) and error.__cause__ is not None else error


def is_gone(connection: Connection, error: psycopg.Error) -> bool:
    """Whether the connection has failed, and not only the statement.

    A connection to a server that takes no writes (a standby, a default) counts as failed: a new one may lead to another
    server, since a DSN may name several with target_session_attrs.
    """
    state = error.sqlstate
    return connection.closed or state is None or state == "25006" or state.startswith(("08", "57P", "25P03"))


def message(error: BaseException) -> str:
    """Return the message of an error in one line and without its details: those hold whole rows, arguments and all."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((primary or str(error)).split()) or type(error).__name__


def in_a_log(error: BaseException) -> str:
    """Return that message as one line of at most 500 characters of ASCII, also where it quotes values of rows.

    One event is one line: the project's own format of its log may escape nothing.
    """
    return ascii(message(cause_of(error))[:500])


class Backoff:
    """Growing pauses between attempts to reach PostgreSQL, jittered so that a fleet does not come back at once.

    Logs each new message, but no more than one in a second, and an old one again after half a minute; and that
    PostgreSQL answers again.
    """

    def __init__(self, first: float = 0.05, most: float = 1.0) -> None:
        self.first, self.most = first, most
        self.failures = 0
        #: When (monotonic) the last attempt failed; the first one of this outage.
        self.failed_at = self.since = 0.0
        self.logged: set[str] = set()
        self.logged_at = -60.0
        #: Nothing was logged in this outage.
        self.silent = True

    def succeeded(self) -> None:
        """Note that PostgreSQL has answered. Cheap while nothing is wrong."""
        if not self.failures:
            return
        now = time.monotonic()
        if not self.silent:
            self.silent = True
            logger.warning("PostgreSQL answers again after %.1f s and %d attempts", now - self.since, self.failures)
        # If answers and failures alternate, the pauses must grow all the same.
        if now - self.failed_at > self.most:
            self.failures = 0
            self.logged.clear()

    def next_pause(self) -> float:
        """Return the seconds to wait after one more failure."""
        self.failed_at = time.monotonic()
        if not self.failures:
            self.since = self.failed_at
        self.failures += 1
        grown: float = self.first * 2 ** min(self.failures - 1, 16)
        return min(self.most, grown) * chance.between(0.5, 1.0)

    def failed(self, error: psycopg.Error, what: str = "PostgreSQL") -> float:
        """Log an error, unless its message was logged lately; return the seconds to wait before the next attempt."""
        pause = self.next_pause()
        text = message(error)
        if self.failed_at - self.logged_at >= (30.0 if text in self.logged else 1.0):
            self.logged.add(text)
            self.logged_at, self.silent = self.failed_at, False
            logger.warning("%s: %s; attempt %d failed, trying again in %.2f s", what, text, self.failures, pause)
        return pause
