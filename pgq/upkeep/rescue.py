"""Rescue: finds leases that have run out, by the database's clock and by the upkeep process's own."""

from __future__ import annotations

import logging
import time
from collections import deque
from datetime import datetime, timedelta

from pgq.codec import failures
from pgq.errors import WorkerDied
from pgq.ground import events
from pgq.records import Rescued
from pgq.store import connection as store_connection
from pgq.store import leases as store_leases
from pgq.store import pools
from pgq.store.metrics import count_crashes
from pgq.upkeep.leadership import Leadership

logger = logging.getLogger("pgq")

#: A lease older than the oldest one seen can only come from a claim that was being committed then.
_COMMIT_SLACK = timedelta(seconds=30)
#: Seconds for which this process must have seen a lease unrenewed: a short lease's whole length. The lease of a living
#: worker is renewed within half of that, see `session.RENEW_AFTER_SECONDS`.
UNRENEWED_SECONDS = 60.0

RESCUE_ERROR = failures.as_json(
    failures.without_traceback(WorkerDied("the lease ran out: the worker, its host or its network is gone"))
)


class Rescue:
    """Finds leases that have run out, from the oldest living one on: the index entries below it are dead.

    The database's clock alone is not enough: when it is set forward, or PostgreSQL was away for longer than a lease, by
    it every lease has run out, while the workers live and their supervisors are about to renew. So a lease must also
    have stayed unrenewed for `unrenewed` seconds of this process's monotonic clock, during which it searched without a
    gap. A renewal writes the database's time into the lease. So it is enough to keep the database's time of each
    search: a lease that was renewed since has a later one. No list of leases is kept, however many there are.

    Args:
        retry: Seconds of a lease.
        every: Seconds between two searches.
    """

    def __init__(self, leadership: Leadership, *, retry: float, every: float) -> None:
        self.leadership, self.retry = leadership, retry
        self.unrenewed = min(retry, UNRENEWED_SECONDS)
        #: Seconds; a longer pause between two searches is a gap: this process was frozen, or PostgreSQL was.
        self.gap = max(self.unrenewed / 3, 3 * every)
        self.since = store_leases.BEFORE_ALL_LEASES
        #: The searches: monotonic time, and the database's time then. Never more than unrenewed / every of them.
        self.looks: deque[tuple[float, datetime]] = deque()

    def forget(self) -> None:
        """Begin anew: no lease has been seen unrenewed."""
        self.since = store_leases.BEFORE_ALL_LEASES
        self.looks.clear()

    def search(self, connection: store_connection.Connection) -> int:
        """Rescue tasks whose leases are lost; return how many."""
        began = time.monotonic()
        leases = store_leases.oldest_lease(connection.cursor(), since=self.since)
        before = self._unrenewed_before(began, leases.now)
        if leases.ahead:
            self._correct(connection)
        expired = leases.now - timedelta(seconds=self.retry)
        if leases.oldest is not None and leases.oldest < expired:
            # Time in which no supervisor could write a renewal does not count: the disk may be full. So this writes the
            # row, unchanged; if PostgreSQL refuses, `Upkeep.tick` calls `forget`.
            store_leases.touch_lease(connection.cursor(), since=self.since)
            if before is not None and leases.oldest < before:
                return self._rescue(connection, min(before, expired))
        self.since = min(leases.oldest or leases.now, leases.now - _COMMIT_SLACK)
        return 0

    def _unrenewed_before(self, began: float, now: datetime) -> datetime | None:
        """Return the time before which a lease was last renewed if it was seen unrenewed for long enough."""
        if self.looks:
            last, then = self.looks[-1]
            if now < then:
                # The clock went back. The times kept are later than those that renewals write now.
                self.forget()
            elif began - last > self.gap:
                self.forget()
        # Taken after the reply, so that the time counted is never longer than the time that passed.
        self.looks.append((time.monotonic(), now))
        while len(self.looks) > 1 and began - self.looks[1][0] >= self.unrenewed:
            self.looks.popleft()
        at, then = self.looks[0]
        return then if began - at >= self.unrenewed else None

    def _correct(self, connection: store_connection.Connection) -> None:
        with self.leadership.leading(connection) as cursor:
            count = store_leases.correct_leases(cursor) if cursor is not None else 0
        if count:
            logger.warning("the clock of the database went back: %d leases lay in its future and begin now", count)

    def _rescue(self, connection: store_connection.Connection, before: datetime) -> int:
        with self.leadership.leading(connection) as cursor:
            if cursor is None:
                return 0
            lost = store_leases.rescue_expired(
                cursor, since=self.since, before=before, age=self.retry, error=RESCUE_ERROR
            )
            if lost:
                logger.warning("%d tasks had lost their workers and are ready again", len(lost))
                if events.rescue.listeners:
                    events.rescue.tell(Rescued(len(lost), "of expired leases"))
                pools.wake(cursor)
                count_crashes(cursor, lost)
            return len(lost)
