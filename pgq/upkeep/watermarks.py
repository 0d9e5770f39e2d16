"""Watermarks: the position in each lane up to which claims need not read."""

from __future__ import annotations

from pgq.store import connection as store_connection
from pgq.store import lanes
from pgq.upkeep.leadership import Leadership


class Watermarks:
    """Finds the last position that is safe to pass, and moves the watermarks there.

    A position is drawn before its transaction commits. So: read the sequence, then note the transactions that may hold
    a position which no other sees yet, and wait until each of them has ended. Then every position up to the one read is
    either visible or will never be. (CREATE INDEX CONCURRENTLY waits for lockers in the same way.)
    """

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership
        #: No unfinished transaction holds a position up to this one.
        self.safe = 0
        self.candidate: int | None = None
        self.before: list[str] = []
        #: As they were read last.
        self.marks: lanes.Marks | None = None

    def move(self, connection: store_connection.Connection) -> int:
        """Take the next step that needs no waiting; return how many watermarks moved."""
        cursor = connection.cursor()
        self.marks = lanes.marks(cursor)
        last, lowest = self.marks.last, self.marks.lowest
        self._look_for_safety(cursor, last)
        # While a backlog is worked off, no position is drawn, but watermarks below `safe` still move.
        if lowest is None or lowest >= self.safe:
            return 0
        with self.leadership.leading(connection) as leader:
            return lanes.advance(leader, safe=self.safe) if leader is not None else 0

    def _look_for_safety(self, cursor: store_connection.Cursor, last: int) -> None:
        if last < self.safe:
            # The sequence was set back.
            self.safe, self.candidate = 0, None
        if self.candidate is None:
            if last == self.safe:
                return
            # In this order: a transaction that draws a position after `last` was read draws a higher one.
            self.candidate, self.before = last, lanes.writers(cursor)
        if self.before:
            self.before = lanes.writers(cursor, self.before)
        if not self.before:
            self.safe, self.candidate = self.candidate, None
