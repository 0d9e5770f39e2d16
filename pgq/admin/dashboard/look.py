"""One look at the tables for one page: read-only, each statement bounded in time, and a part that fails fails alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

import psycopg
from django.db import DatabaseError, connections, transaction
from django.utils.translation import gettext as _

from pgq.store import outage, overview
from pgq.store.caller import aware_cursor
from pgq.store.connection import Cursor

T = TypeVar("T")

#: Seconds that one statement of a page may take, and seconds after which a page begins no other one.
STATEMENT_SECONDS, PAGE_SECONDS = 2.0, 5.0

logger = logging.getLogger("pgq")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What was read, or why it was not."""

    value: T | None = None
    #: For people; None: it was read.
    fault: str | None = None


class Look:
    """Reads for one page. Use it in ``with``: what it opened ends with it, and nothing it did is kept."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._atomic: Any = None
        self._began = perf_counter()
        #: Name and milliseconds of each part, for the header Server-Timing.
        self.timings: list[tuple[str, float]] = []

    def __enter__(self) -> Look:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._end()

    def __call__(self, name: str, read: Callable[[Cursor], T]) -> Seen[T]:
        """Call what reads with a cursor; return what it returned, or why it could not be read.

        A statement that fails fails its transaction. So the next part begins another one.
        """
        if perf_counter() - self._began > PAGE_SECONDS:
            return Seen(fault=_("Left out: the parts above took %d s already.") % PAGE_SECONDS)
        began = perf_counter()
        try:
            with self._cursor() as cursor:
                return Seen(read(cursor))
        except DatabaseError as error:
            self._end()
            return Seen(fault=_explain(error))
        except psycopg.Error as error:
            self._end()
            return Seen(fault=_explain(error))
        finally:
            self.timings.append((name, 1000 * (perf_counter() - began)))

    @contextmanager
    def _cursor(self) -> Iterator[Cursor]:
        connection = connections[self._alias]
        if self._atomic is None:
            self._atomic = transaction.atomic(using=self._alias)
            self._atomic.__enter__()
            with connection.cursor() as cursor:
                overview.read_only(cursor, seconds=STATEMENT_SECONDS)
        with connection.cursor() as cursor:
            yield aware_cursor(cursor)

    def _end(self) -> None:
        """Roll back, also to a savepoint: so the settings of `read_only` end here, whatever transaction is around."""
        atomic, self._atomic = self._atomic, None
        if atomic is not None:
            transaction.set_rollback(True, using=self._alias)
            atomic.__exit__(None, None, None)


def _explain(error: BaseException) -> str:
    cause = outage.cause_of(error)
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return _("Left out: it took longer than %d s.") % STATEMENT_SECONDS
    if isinstance(cause, psycopg.errors.LockNotAvailable):
        return _("Left out: another session has locked a table. The doctor names it.")
    logger.warning("a part of the dashboard could not be read: %s", outage.in_a_log(error))
    return _("It could not be read: %s") % str(error).partition("\n")[0]
