"""Retention: drops the weekly partitions of pgq_task in which every result is old, failures too.

To know that all are old, upkeep reads each once: a few at a time, by the index of the ids, from where it stopped. At a
result that is still needed it waits. So no statement costs more because there is more history, and an old result costs
one reading, not a deletion.

Only where a foreign key of another table refers to results, they are deleted one by one, and a partition is dropped
when it is empty: else PostgreSQL would first read both tables whole, and no worker could settle anything meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from pgq.store import connection as store_connection
from pgq.store import overview, results

logger = logging.getLogger("pgq")

#: Results read in one statement.
RESULTS_PER_LOOK = 2000
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)
#: Seconds until results that other tables refer to are read again.
_REFERENCED_REST_SECONDS = 3600.0


class Kept:
    """Logs once for each foreign key that it keeps results which upkeep would delete."""

    def __init__(self) -> None:
        self.named: set[str] = set()

    def name(self, references: Iterable[str]) -> None:
        for reference, count in Counter(references).items():
            if reference not in self.named:
                self.named.add(reference)
                logger.warning(
                    "upkeep: results that are to be deleted stay, since other rows refer to them (%d so far): %s. "
                    "They are deleted when no row refers to them any more",
                    count,
                    reference,
                )


@dataclass(slots=True)
class _Look:
    """How far a partition has been read."""

    partition: results.Expired
    after: UUID = _FIRST
    #: It was read to its end: all results are old.
    through: bool = False
    #: Foreign keys refer to results: these are deleted one by one.
    referenced: bool = False
    #: It rests until this time (monotonic).
    next: float = 0.0


def by_both_clocks(cursor: store_connection.Cursor) -> datetime:
    """Return the earlier time of two, PostgreSQL's and this host's.

    What is old by the later one only may not be: setting a clock right that went forward does not bring back what was
    deleted.
    """
    return min(overview.now(cursor), datetime.now(UTC))


class Retention:
    """What one upkeep process knows of the old partitions.

    Args:
        days: The age at which results are old.
        rest: Seconds until a partition that is needed or busy is tried again; and between the end of reading a
            partition and its drop: by then PostgreSQL has counted the rows that were written to it meanwhile.
        kept: Logs the references to results.
    """

    def __init__(self, days: float, rest: float, kept: Kept | None = None) -> None:
        self.age, self.rest = timedelta(days=days), rest
        self.kept = kept or Kept()
        self.looks: dict[str, _Look] = {}

    def before(self, cursor: store_connection.Cursor) -> datetime:
        """Return the time before which results are old."""
        return by_both_clocks(cursor) - self.age

    def step(self, cursor: store_connection.Cursor) -> bool:
        """Read some more results; return whether there are others to read now."""
        before = self.before(cursor)
        partitions = results.expired(cursor, before)
        # A partition that changed since is read anew: a task that was run again may have settled in the part read.
        known = self.looks
        self.looks = {one.name: known[one.name] for one in partitions if one.name in known}
        for partition in partitions:
            if not partition.droppable:
                logger.debug("upkeep: this role may not drop %s; its owner should run pgq_clean", partition.name)
            elif partition.live:
                self.looks.pop(partition.name, None)
            elif self._go_on(cursor, self._look(cursor, partition), before):
                return True
        return False

    def _look(self, cursor: store_connection.Cursor, partition: results.Expired) -> _Look:
        look = self.looks.get(partition.name)
        if look is None or look.partition != partition:
            look = self.looks[partition.name] = _Look(partition, referenced=bool(results.references(cursor)))
        return look

    def _go_on(self, cursor: store_connection.Cursor, look: _Look, before: datetime) -> bool:
        if look.through or time.monotonic() < look.next:
            return False
        if look.referenced:
            return self._delete(cursor, look, before)
        last, needed = results.expired_look(
            cursor, look.partition.name, after=look.after, before=before, now=before + self.age, limit=RESULTS_PER_LOOK
        )
        if needed or last is None:
            look.through = not needed
            look.next = time.monotonic() + self.rest
            return False
        look.after = last
        return True

    def _delete(self, cursor: store_connection.Cursor, look: _Look, before: datetime) -> bool:
        """Delete what is old among the next results; return whether there are others."""
        old = results.Old(_LAST, _LAST, before, None)
        deleted = results.clean(cursor, old, after=look.after, to=look.partition.upper, limit=RESULTS_PER_LOOK)
        self.kept.name(deleted.kept)
        if deleted.last is not None:
            look.after = deleted.last
            return True
        remains, _ = results.expired_look(
            cursor, look.partition.name, after=_FIRST, before=before, now=before + self.age, limit=1
        )
        look.after, look.through = _FIRST, remains is None
        look.next = time.monotonic() + (self.rest if look.through else max(self.rest, _REFERENCED_REST_SECONDS))
        return False

    def drop(self, connection: store_connection.Connection) -> None:
        """Drop the partitions that were read to the end some time ago and have not changed since."""
        for name, look in list(self.looks.items()):
            if not look.through or time.monotonic() < look.next:
                continue
            look.next = time.monotonic() + self.rest
            try:
                with connection.transaction():
                    cursor = connection.cursor()
                    gone = results.drop_expired(cursor, look.partition, self.before(cursor))
            except psycopg.errors.LockNotAvailable:
                logger.debug("upkeep: the tables are busy; %s is dropped later", name)
            except psycopg.errors.InsufficientPrivilege:
                logger.debug("upkeep: this role may not drop %s; its owner should run pgq_clean", name)
            except psycopg.errors.ForeignKeyViolation:
                # The foreign key is new.
                look.referenced, look.through, look.after = True, False, _FIRST
            else:
                del self.looks[name]
                if gone:
                    logger.info("upkeep: dropped %s: all its results are older than %s", name, self.age)
