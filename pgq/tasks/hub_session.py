"""The hub's session of PostgreSQL (hub.py): it listens for settlements, looks for them, and reads finished tasks."""

from __future__ import annotations

import contextlib
import json
import logging
import select
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from typing import Any
from uuid import UUID

import psycopg

from pgq.codec.stored import StoredText
from pgq.fields import StoredField
from pgq.models import Task
from pgq.recurrence.moments import as_project
from pgq.store import pools, queue, results
from pgq.store.connection import Connection
from pgq.store.listener import Listener

logger = logging.getLogger("pgq")

#: Seconds for which the flag is raised, and after which it is raised again.
_FLAG, _RAISE_AFTER = 2.0, 0.9


class Session:
    """The session of a hub."""

    def __init__(self, connection: Connection, connect: Callable[[], Connection]) -> None:
        self.connection = connection
        #: Whether notifications arrive, so that there is no need to poll.
        self.hears = False
        self._raised = float("-inf")
        with self._unless_closed():
            self.hears = not Listener(connection, "pgq_settled", another=connect).deaf
            # Settling transactions must not be asked for a notification that would fail their commit.
            pools.try_notify(connection.cursor())

    @contextlib.contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """Have it poll if this role or this server does not allow the rest."""
        try:
            yield
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            logger.debug("waiting for results without notifications: %s", error)
            self.hears = False

    def keep_flag(self, now: float) -> bool:
        """Raise the flag if it is time; return whether it was down before."""
        if not self.hears or now < self._raised + _RAISE_AFTER:
            return False
        was_down = now > self._raised + _FLAG
        with self._unless_closed():
            queue.await_settled(self.connection.cursor(), milliseconds=int(_FLAG * 1000))
            self._raised = now
        return was_down

    def wait(self, other: int, seconds: float) -> bool:
        """Wait for a notification or for the descriptor `other`, so long at most; return whether the first has come."""
        if not self.hears:
            readable(seconds, other)
            return False
        # What came during another statement, psycopg has kept.
        if self._drain():
            return True
        number = self.connection.fileno()
        return number in readable(seconds, other, number) and self._drain()

    def _drain(self) -> bool:
        return sum(1 for _ in self.connection.notifies(timeout=0)) > 0

    def finished(self, alias: str, ids: Iterable[UUID], *, whole: bool) -> dict[UUID, Task]:
        """Return those of these tasks that have finished, as the ORM would.

        Args:
            whole: With all fields; else the others are deferred.
        """
        columns, rows = results.settled(self.connection.cursor(), list(ids), whole=whole)
        # Of columns that this release does not know, the ORM would know nothing either.
        fields = {field.column: field for field in Task._meta.concrete_fields}
        known = [(at, fields[column]) for at, column in enumerate(columns) if column in fields]
        names = [field.attname for _, field in known]
        readers = [(at, _reader(field)) for at, field in known]
        id_at = columns.index("id")
        return {
            row[id_at]: Task.from_db(
                alias,
                names,
                [row[at] if read is None or row[at] is None else read(row[at]) for at, read in readers],
            )
            for row in rows
        }


def _reader(field: Any) -> Callable[[Any], Any] | None:
    """Return what makes of a value the one that a model instance holds which the ORM has read; None: it is the same."""
    if isinstance(field, StoredField):
        return StoredText
    kind = field.get_internal_type()
    if kind == "JSONField":
        return json.loads
    if kind == "DateTimeField":
        return lambda moment: as_project(moment.astimezone(UTC))
    return _hex if kind == "UUIDField" else None


def _hex(id: UUID) -> str:
    return id.hex


def readable(seconds: float, *descriptors: int) -> set[int]:
    """Wait for one of these, so long at most; return those that have something to read."""
    poll = select.poll()
    for number in descriptors:
        poll.register(number, select.POLLIN)
    return {number for number, _ in poll.poll(max(0.0, seconds) * 1000)}
