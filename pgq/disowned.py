"""Ids under which no worker claims any more: what lies under them, and what turns up later, is made ready again.

A worker dies, or its connection breaks, while PostgreSQL carries out its claim. The claim commits all the same, some
time later, and its rows then carry an id that no supervisor renews: they would wait for the end of their lease, and be
charged a crash that never was. So an id is looked for when its worker is lost, and again for as long as a commit may
take. The later looks also find the rows that the first one had to leave, since a transaction of the dead worker still
locked them and was rolled back afterwards.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pgq import store
from pgq.db import Cursor

#: Seconds for which a claim may be on its way to its commit after its worker was lost.
_LATE_COMMIT = 60.0
#: Seconds after which the server has begun with what a dead process had sent it.
_UNDER_WAY = 0.2
#: Seconds for which PostgreSQL may carry out a claim before its worker gives it up.
_LONGEST_CLAIM = 30.0
#: Seconds between the first two looks; between two looks at most, while a claim may commit; and after that, when only
#: a network could still hold one back.
_FIRST_PAUSE, _MOST_PAUSE, _CALM_PAUSE = 0.1, 0.8, 5.0
#: Every lease is older than this, also one from before the database's clock was set back.
_ANY_AGE = -1e9


@dataclass(frozen=True)
class Lost:
    """An id under which no worker claims any more; what it holds is to be made ready again."""

    worker: UUID
    #: The tasks to blame; None: several ran, and nobody knows which.
    culprits: tuple[UUID, ...] | None = ()
    #: Whether they took their worker down, or were killed at their timeout.
    crash: bool = False
    #: What the history of a culprit says of it, as JSON.
    error: str = "{}"


@dataclass(frozen=True)
class _Followed:
    """A lost id that was looked for once."""

    lost: Lost
    #: No lease that it holds is older.
    since: datetime
    #: When (monotonic) the last look is due.
    until: float


class Disowned:
    """The ids that one supervisor looks for."""

    def __init__(self) -> None:
        self._followed: list[_Followed] = []
        self._pause = _FIRST_PAUSE
        #: When (monotonic) to look again.
        self.next_look = math.inf
        #: The transactions that may be one of a lost worker's; None: not known, and from when on (monotonic) to ask.
        self._writers: list[str] | None = None
        self._ask_from = 0.0

    def release(self, cursor: Cursor, lost: Lost, since: datetime) -> int:
        """Make ready what an id holds, and look for it from now on; return how many tasks.

        Args:
            since: No lease of a living worker is older.

        Raises:
            psycopg.Error: Nothing was done.
        """
        released = _rescue(cursor, [lost], since)
        now = time.monotonic()
        # A claim that commits later was not running when its worker died: it is nobody's crash.
        late = dataclasses.replace(lost, culprits=lost.culprits or ())
        self._followed.append(_Followed(late, since - timedelta(seconds=_LONGEST_CLAIM), now + _LATE_COMMIT))
        self._pause, self.next_look = _FIRST_PAUSE, now + _FIRST_PAUSE
        self._writers, self._ask_from = None, now + _UNDER_WAY
        return released

    def look_again(self, cursor: Cursor) -> int:
        """Make ready what has turned up under the ids; return how many tasks."""
        now = time.monotonic()
        # In this order: what has ended before is seen by what follows.
        under_way = self.may_commit(cursor)
        alike: defaultdict[tuple[bool, str], list[_Followed]] = defaultdict(list)
        for followed in self._followed:
            alike[followed.lost.crash, followed.lost.error].append(followed)
        released = sum(
            _rescue(cursor, [each.lost for each in group], min(each.since for each in group))
            for group in alike.values()
        )
        self._followed = [followed for followed in self._followed if followed.until > now]
        self._pause = min(2 * self._pause, _MOST_PAUSE)
        pause = self._pause if under_way else _CALM_PAUSE
        self.next_look = now + pause if self._followed else math.inf
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
        self._writers = store.writers(cursor, self._writers)
        return bool(self._writers)


def _rescue(cursor: Cursor, lost: list[Lost], since: datetime) -> int:
    culprits = None if lost[0].culprits is None else [task for each in lost for task in each.culprits or ()]
    released = store.rescue(
        cursor, workers=[each.worker for each in lost], since=since, age=_ANY_AGE, culprits=culprits,
        crash=lost[0].crash, error=lost[0].error,
    )  # fmt: skip
    return len(released)
