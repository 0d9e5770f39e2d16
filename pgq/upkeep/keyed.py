"""What upkeep does for the lanes of keys: watermarks, idle lanes, the sweep, and the watermark of strands."""

from __future__ import annotations

import logging
import time

from pgq.store import connection as store_connection
from pgq.store import keyed, lanes, pools
from pgq.store.keyed import FIRST_LANE, LaneLook, LaneOfKey
from pgq.upkeep.leadership import Leadership

logger = logging.getLogger("pgq")

#: Lanes looked at in one statement.
_LANES = 2000
#: Positions by which the watermark of a lane without ready rows may lag behind: it is no use to write it each time.
_LAG = 4096
#: Seconds that a lane is without ready rows before it is marked as idle: each mark costs the next insert a write.
_QUIET_SECONDS = 2.0
#: Lanes without ready rows, above which they are marked at once: each costs each claim a probe.
_MANY_EMPTY = 500
#: Seconds that a lane is idle before it is deleted.
FORGET_SECONDS = 600.0


class KeyedLanes:
    """Keeps the lanes of keys.

    A position, and a strand, is drawn before its transaction commits. As in `Watermarks`: read both sequences, note the
    transactions that may hold what no other session sees yet, and wait until each of them has ended.
    """

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership
        #: No unfinished transaction holds a position, or a strand, up to these.
        self.safe = self.safe_strand = 0
        #: What was read last, and the transactions of then that have not ended.
        self.candidate: tuple[int, int] | None = None
        self.before: list[str] = []
        #: Where the round of all lanes stands.
        self.behind = FIRST_LANE
        #: The lanes that have no ready row, and since when (monotonic).
        self.empty: dict[LaneOfKey, float] = {}
        #: How often the making of lanes was left to upkeep when it last swept for that.
        self.missed = -1
        #: Sweep when the transactions that ran at that time have ended: they may have missed a mark, or a lane.
        self.sweep_after: float | None = None
        #: The same of what has happened since that was set.
        self.sweep_again: float | None = None
        #: Since when (monotonic) the sequences that are safe now were read.
        self.safe_since = self.candidate_since = 0.0

    def keep(self, connection: store_connection.Connection, marks: lanes.Marks) -> bool:
        """Take the next step that needs no waiting; return whether there is more to do soon."""
        if (
            not marks.keyed
            and marks.strand == marks.strand_low
            and marks.missed == self.missed
            and not self.sweep_after
        ):
            self.empty.clear()
            return False
        cursor = connection.cursor()
        self._look_for_safety(cursor, lanes.marks(cursor))
        self._raise_strand_low(cursor, marks)
        if marks.missed != self.missed:
            self.missed = marks.missed
            self._sweep_later()
            self.sweep(connection)
        if marks.keyed:
            self._advance(connection, cursor)
        if self.sweep_after is not None and self.safe_since > self.sweep_after:
            self.sweep_after, self.sweep_again = self.sweep_again, None
            self.sweep(connection)
        return True

    def _sweep_later(self) -> None:
        now = time.monotonic()
        if self.sweep_after is None:
            self.sweep_after = now
        else:
            self.sweep_again = now

    def sweep(self, connection: store_connection.Connection) -> None:
        """Find ready rows that no claim finds, and bring their lanes into use."""
        with self.leadership.leading(connection) as leader:
            mended = keyed.sweep_keyed(leader) if leader is not None else []
            if mended and leader is not None:
                logger.info("upkeep: brought %d lanes of keys into use", len(mended))
                pools.wake(leader)

    def forget(self, cursor: store_connection.Cursor) -> None:
        """Delete lanes that have been idle for long, and what rates no longer need."""
        keyed.forget_keyed(cursor, age=FORGET_SECONDS)
        keyed.forget_rates(cursor)

    def _look_for_safety(self, cursor: store_connection.Cursor, marks: lanes.Marks) -> None:
        if marks.last < self.safe or marks.strand < self.safe_strand:
            # A sequence was set back.
            self.safe = self.safe_strand = 0
            self.candidate = None
        if self.candidate is None:
            self.candidate_since = time.monotonic()
            # The sequences were read before. In this order: what a transaction draws that is not among these writers is
            # higher.
            self.candidate, self.before = (marks.last, marks.strand), lanes.writers(cursor)
        if self.before:
            self.before = lanes.writers(cursor, self.before)
        if not self.before:
            self.safe, self.safe_strand = self.candidate
            self.safe_since, self.candidate = self.candidate_since, None

    def _raise_strand_low(self, cursor: store_connection.Cursor, marks: lanes.Marks) -> None:
        if marks.strand_low > marks.strand:
            keyed.reset_strand_low(cursor)
        elif marks.strand_low < self.safe_strand:
            keyed.raise_strand_low(cursor, safe=self.safe_strand)

    def _advance(self, connection: store_connection.Connection, cursor: store_connection.Cursor) -> None:
        """Look at the next lanes of the round: move their watermarks, mark those as idle that are empty for long."""
        looks = keyed.look_at_lanes(cursor, behind=self.behind, limit=_LANES)
        self.behind = _lane(looks[-1]) if len(looks) == _LANES else FIRST_LANE
        now = time.monotonic()
        moving, idle = [], []
        for look in looks:
            lane = _lane(look)
            if look.first is not None:
                self.empty.pop(lane, None)
                if look.low < min(look.first - 1, self.safe):
                    moving.append(lane)
            elif now - self.empty.setdefault(lane, now) >= _QUIET_SECONDS or len(self.empty) > _MANY_EMPTY:
                idle.append(lane)
            elif look.low < self.safe - _LAG:
                moving.append(lane)
        if moving:
            self._move(connection, moving, idle=False)
        if idle and self._move(connection, idle, idle=True):
            for lane in idle:
                self.empty.pop(lane, None)
            self._sweep_later()

    def _move(self, connection: store_connection.Connection, chosen: list[LaneOfKey], *, idle: bool) -> int:
        with self.leadership.leading(connection) as leader:
            return keyed.advance_keyed(leader, chosen, safe=self.safe, idle=idle) if leader is not None else 0


def _lane(look: LaneLook) -> LaneOfKey:
    return LaneOfKey(look.priority, look.queue, look.key)
