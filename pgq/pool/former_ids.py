"""Ids under which no worker claims any more: what lies under them, and what turns up later, is made ready again.

A worker dies, or its connection breaks, while PostgreSQL carries out its claim. The claim commits all the same, some
time later, and its rows then carry an id that no supervisor renews: they would wait for the end of their lease, and be
charged a crash that never was. So rows with the id are searched for when its worker is lost, and again for as long as a
commit may take. The later searches also find the rows that the first one had to leave, since a transaction of the dead
worker still locked them and was rolled back afterwards.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pgq.records import Blame
from pgq.store import lanes, leases
from pgq.store.connection import Cursor
from pgq.store.metrics import count_crashes

#: Seconds for which a claim may be on its way to its commit after its worker was lost.
_LATE_COMMIT_SECONDS = 60.0
#: Seconds after which the server has begun with what a dead process had sent it.
_UNDER_WAY_SECONDS = 0.2
#: For so long PostgreSQL may carry out a claim before its worker gives it up.
_LONGEST_CLAIM = timedelta(seconds=30)
#: Seconds between the first two searches; between two at most, while a claim may commit; and after that, when only a
#: network could still hold one back.
_FIRST_PAUSE, _MOST_PAUSE, _CALM_PAUSE = 0.1, 0.8, 5.0


@dataclass(frozen=True)
class FormerId:
    """An id under which no worker claims any more; what it holds is to be made ready again."""

    worker: UUID
    #: What is charged for the worker's death; None: nothing.
    blame: Blame | None = None


@dataclass
class _Followed:
    """A former id whose rows are searched for."""

    worker: UUID
    #: What is still to be charged: a transaction may have locked the row of the task.
    blame: Blame | None
    #: No lease that it holds is older.
    since: datetime
    #: When (monotonic) the last search is due.
    until: float


class FormerIds:
    """The former ids whose rows one supervisor searches for."""

    def __init__(self) -> None:
        self._followed: list[_Followed] = []
        self._pause = _FIRST_PAUSE
        #: When (monotonic) to search again.
        self.next_search = math.inf
        #: The transactions that may be one of a lost worker's; None: not known, and from when on (monotonic) to ask.
        self._writers: list[str] | None = None
        self._ask_from = 0.0

    def release(self, cursor: Cursor, former: FormerId, since: datetime) -> int:
        """Make ready what an id holds, and search for it from now on; return how many tasks.

        Args:
            since: No lease of a living worker is older.

        Raises:
            psycopg.Error: Nothing was done.
        """
        until = time.monotonic() + _LATE_COMMIT_SECONDS
        followed = _Followed(former.worker, former.blame, since - _LONGEST_CLAIM, until)
        released = _release(cursor, [followed])
        now = time.monotonic()
        self._followed.append(followed)
        self._pause, self.next_search = _FIRST_PAUSE, now + _FIRST_PAUSE
        self._writers, self._ask_from = None, now + _UNDER_WAY_SECONDS
        return released

    def search_again(self, cursor: Cursor) -> int:
        """Make ready what has turned up under the ids; return how many tasks."""
        now = time.monotonic()
        # In this order: what has ended before is seen by what follows.
        under_way = self.may_commit(cursor)
        released = _release(cursor, self._followed)
        self._followed = [followed for followed in self._followed if followed.until > now]
        self._pause = min(2 * self._pause, _MOST_PAUSE)
        pause = self._pause if under_way else _CALM_PAUSE
        self.next_search = now + pause if self._followed else math.inf
        return released

    def may_commit(self, cursor: Cursor) -> bool:
        """Return whether a claim of a lost worker may still commit: a transaction is open that may be its own.

        Whose transactions those are cannot be seen through a pooler. So all are meant that wrote to the table when the
        last worker was lost, until the last of them has ended.
        """
        if not self._followed:
            return False
        if time.monotonic() < self._ask_from:
            return True
        self._writers = lanes.writers(cursor, self._writers)
        return bool(self._writers)


def _release(cursor: Cursor, followed: list[_Followed]) -> int:
    """Make ready what these ids hold; return how many tasks."""
    uncharged = [each for each in followed if each.blame is None]
    released = sum(_charge(cursor, each, each.blame) for each in followed if each.blame is not None)
    if uncharged:
        since = min(each.since for each in uncharged)
        released += len(leases.release_uncharged(cursor, [each.worker for each in uncharged], since=since))
    return released


def _charge(cursor: Cursor, followed: _Followed, blame: Blame) -> int:
    found = leases.release_worker(cursor, followed.worker, blame, since=followed.since)
    # A task is charged once. What a claim brings that commits later was not running when its worker died.
    if blame.task is None or any(freed.charged for freed in found):
        followed.blame = None
    count_crashes(cursor, found)
    return len(found)
