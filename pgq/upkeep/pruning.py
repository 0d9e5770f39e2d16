"""Pruning: deletes results beyond `save_limit`, those whose `keep` is over, and what tasks said that are gone.

Each goes on where it stopped, for half a tick at most, so that no other chore waits for it.
"""

from __future__ import annotations

import time
from uuid import UUID

from pgq.conf import Settings
from pgq.store import connection as store_connection
from pgq.store import progress, results
from pgq.upkeep import retention
from pgq.upkeep.chore import ROWS_PER_STATEMENT, Chore
from pgq.upkeep.leadership import Leadership

#: Ticks between two looks for results whose `keep` is over.
EXPIRE_TICKS = 10
_FIRST_ID = UUID(int=0)


class Pruning:
    """The rounds of one pool."""

    def __init__(self, settings: Settings, leadership: Leadership) -> None:
        self.leadership, self.tick = leadership, settings.tick
        self.limit, self.per = settings.save_limit, settings.save_limit_per
        self.kept = retention.Kept()
        #: The last id that this round of pruning has read; None: the round begins.
        self._before: UUID | None = None
        #: The same of the round that deletes results whose `keep` is over.
        self._expired: results.Expiry | None = None
        #: The last id for which pgq_progress was read.
        self._progress_after = _FIRST_ID
        # Counting per group, name or function reads all successes.
        self._every = 10 * self.tick if self.per else self.tick
        self._chore = Chore("prune", self._every, self.prune)
        self.chores = [Chore("expire", EXPIRE_TICKS * self.tick, self.expire)]
        if self.limit > 0:
            self.chores.append(self._chore)

    def prune(self, connection: store_connection.Connection) -> None:
        """Delete the oldest successes beyond the limit."""
        began, count = time.monotonic(), 0
        while time.monotonic() < began + self.tick / 2:
            with self.leadership.leading(connection) as cursor:
                if cursor is None:
                    return
                deleted = self._prune_some(cursor)
            count += deleted.count
            self._before = deleted.last
            if deleted.last is None:
                break
        # Reading results that stay, since other rows refer to them, gets a twentieth of the time.
        spent = time.monotonic() - began
        self._chore.every = self._every if count >= ROWS_PER_STATEMENT else max(self._every, 20 * spent)

    def expire(self, connection: store_connection.Connection) -> float | None:
        """Delete the results whose `keep` is over."""
        until = time.monotonic() + self.tick / 2
        while time.monotonic() < until:
            with self.leadership.leading(connection) as cursor:
                if cursor is None:
                    return None
                now = retention.by_both_clocks(cursor)
                self._expired = results.expire(cursor, now=now, limit=ROWS_PER_STATEMENT, behind=self._expired)
                self.kept.name(self._expired.kept)
            if self._expired.last is None:
                self._expired = None
                return None
        return self.tick

    def _prune_some(self, cursor: store_connection.Cursor) -> results.Deleted:
        """Delete the next results of this round."""
        # The results to keep are the newest: after its first statement this round is past them.
        keep = self.limit if self.per or self._before is None else 0
        deleted = results.prune(cursor, keep=keep, limit=ROWS_PER_STATEMENT, per=self.per, before=self._before)
        self.kept.name(deleted.kept)
        return deleted

    def prune_progress(self, connection: store_connection.Connection) -> None:
        """Delete what tasks said that are gone."""
        until = time.monotonic() + self.tick / 2
        while time.monotonic() < until:
            with self.leadership.leading(connection) as cursor:
                if cursor is None:
                    return
                pruned = progress.prune_progress(cursor, after=self._progress_after, limit=ROWS_PER_STATEMENT)
            self._progress_after = pruned.last or _FIRST_ID
            if pruned.last is None:
                return
