"""Rescue: leases that have run out, seen by the database's clock and by our own."""

from __future__ import annotations

import logging
import time
from collections import deque
from datetime import datetime, timedelta

from pgq.codec import failures
from pgq.errors import WorkerDied
from pgq.store import connection as store_connection
from pgq.store import leases as store_leases
from pgq.store import pools
from pgq.upkeep.leadership import Leadership

logger = logging.getLogger("pgq")

#: A lease older than the oldest one seen can only come from a claim that was being committed then.
_COMMIT_SLACK = timedelta(seconds=30)
#: Seconds for which a lease must have stayed unrenewed before our eyes: a short lease's whole length. No lease of a
#: living worker does for half as long, see `session.RENEW_AFTER_SECONDS`.
UNRENEWED_SECONDS = 60.0

RESCUE_ERROR = failures.as_json(
    failures.without_traceback(WorkerDied("the lease ran out: the worker, its host or its network is gone"))
)


class Rescue:
    """Finds leases that have run out, from the oldest living one on: below it everything is dead.

    The database's clock alone cannot say so: set forward, or after PostgreSQL was away for longer than a lease, it has
    every lease run out at once, while those who hold them live and are about to renew them. So a lease must also have
    stayed unrenewed for `unrenewed` seconds of our own monotonic clock, in which we looked on all the time. A renewal
    writes the present time into the lease. So it is enough to remember what the database's clock said at each look:
    a lease that was renewed since then has a later time. No list of leases is kept, however many there are.

    Args:
        retry: Seconds of a lease.
        every: Seconds between two looks.
    """

    def __init__(self, leadership: Leadership, *, retry: float, every: float) -> None:
        self.leadership, self.retry = leadership, retry
        self.unrenewed = min(retry, UNRENEWED_SECONDS)
        #: A longer pause than this between two looks is no looking on: we were frozen, or PostgreSQL was.
        self.gap = max(self.unrenewed / 3, 3 * every)
        self.since = store_leases.BEFORE_ALL_LEASES
        #: When we looked (monotonic), and what the database's clock said then. Never more than unrenewed / every.
        self.looks: deque[tuple[float, datetime]] = deque()

    def forget(self) -> None:
        """Begin to look on anew."""
        self.since = store_leases.BEFORE_ALL_LEASES
        self.looks.clear()

    def search(self, connection: store_connection.Connection) -> int:
        """Rescue what is lost; return how many tasks."""
        began = time.monotonic()
        leases = store_leases.oldest_lease(connection.cursor(), since=self.since)
        before = self._unrenewed_before(began, leases.now)
        if leases.ahead:
            self._correct(connection)
        expired = leases.now - timedelta(seconds=self.retry)
        if leases.oldest is not None and leases.oldest < expired:
            # Time in which no supervisor could have renewed it does not count: the disk may be full. So try whether it
            # can be written to; if not, this fails, and `Upkeep.tick` has us begin anew (`forget`).
            store_leases.touch_lease(connection.cursor(), since=self.since)
            if before is not None and leases.oldest < before:
                return self._rescue(connection, min(before, expired))
        self.since = min(leases.oldest or leases.now, leases.now - _COMMIT_SLACK)
        return 0

    def _unrenewed_before(self, began: float, now: datetime) -> datetime | None:
        """Return the time before which a lease was last renewed if no supervisor has renewed it while we looked on."""
        if self.looks:
            last, then = self.looks[-1]
            if now < then:
                # The clock went back. What it said before is later than what is written into leases now.
                self.forget()
            elif began - last > self.gap:
                self.forget()
        # Taken after the answer, so that what counts as waited for is never more than what was.
        self.looks.append((time.monotonic(), now))
        while len(self.looks) > 1 and began - self.looks[1][0] >= self.unrenewed:
            self.looks.popleft()
        at, said = self.looks[0]
        return said if began - at >= self.unrenewed else None

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
                pools.wake(cursor)
            return len(lost)
