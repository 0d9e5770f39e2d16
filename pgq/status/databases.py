"""Looks into each of several databases at the same time, so that one that is away holds up none of the others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import psycopg

from pgq import conf
from pgq.store import connection as store_connection
from pgq.store.connection import Cursor

T = TypeVar("T")

#: Seconds after which a database that has not answered is said to be away.
PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Away:
    """A database that did not answer, or could not be read."""

    error: BaseException


class _Look(threading.Thread, Generic[T]):
    """Reads one database over a connection of its own. A daemon: the process may end while a connect still waits."""

    def __init__(self, alias: str, read: Callable[[str, Cursor], T], role: str, patience: float) -> None:
        super().__init__(name=f"pgq look at {alias}", daemon=True)
        self.alias, self.read, self.role, self.patience = alias, read, role, patience
        self.found: T | Away = Away(psycopg.OperationalError(f"no answer for {patience:g} s"))

    def run(self) -> None:
        try:
            with conf.at(self.alias), contextlib.closing(self._connection()) as connection:
                self.found = self.read(self.alias, connection.cursor())
        except BaseException as error:
            self.found = Away(error)

    def _connection(self) -> store_connection.Connection:
        return store_connection.connect(self.alias, self.role, patience=self.patience)


def look(read: Callable[[str, Cursor], T], role: str, *, patience: float = PATIENCE) -> dict[str, T | Away]:
    """Return by alias what was read of each database that `pgq.conf.asked` names.

    Args:
        read: Takes the alias and a cursor; called in a thread for each, with that database at hand.
        role: Shown as application_name.
        patience: Seconds that all of it may take.

    Raises:
        Exception: What `read` raised that is no error of PostgreSQL.
    """
    looks = [_Look(alias, read, role, patience) for alias in conf.asked()]
    until = time.monotonic() + patience
    for each in looks:
        each.start()
    for each in looks:
        each.join(max(0.0, until - time.monotonic()))
    seen = {each.alias: each.found for each in looks}
    for found in seen.values():
        if isinstance(found, Away) and not isinstance(found.error, psycopg.Error):
            raise found.error
    return seen
