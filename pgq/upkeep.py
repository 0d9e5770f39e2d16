"""Upkeep: the chores that keep the tables in order. One process in each pool; at each chore one of them leads.

=============  =====================================================================================
schedules      fire those that are due
due            make waiting tasks ready whose time has come
watermarks     move them up, so that claims do not walk over what is dead
rescue         make tasks ready again whose lease has run out
sweep          look at the ready rows without the watermarks, in case one is wrong
prune          delete the results that nobody wants kept, a little at a time
retention      drop the partitions in which all results are old
housekeeping   partitions of the coming weeks, pools that are gone
=============  =====================================================================================
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from uuid import UUID

import psycopg

from pgq import checkup, child, codec, db, retention, schedule, store
from pgq.conf import Settings, get_settings
from pgq.protocol import READY, TICKED, ChildConfig

logger = logging.getLogger("pgq")

#: Rows made ready or deleted in one statement: enough to keep up, few enough to hold no lock for long.
BATCH = 2000
#: Seconds that a chore's statement may take.
_PATIENCE = 30.0
#: Seconds until a chore that fails again and again is tried once more, unless it has more time anyway.
_MOST_PAUSE = 5.0
#: A lease older than the oldest one seen can only come from a claim that was being committed then.
_COMMIT_SLACK = timedelta(seconds=30)
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
#: Seconds for which a lease must have stayed unrenewed before our eyes: a short lease's whole length. No lease of a
#: living worker does for half as long, see `supervisor.RENEW_AFTER`.
PATIENCE = 60.0

RESCUE_ERROR = codec.encode({
    "exception": "pgq.errors.WorkerDied", "message": "the lease ran out: the worker, its host or its network is gone",
    "traceback": "",
})  # fmt: skip


class Leadership:
    """What to do when somebody else holds the leader's key.

    A leader holds it for one short transaction, and the server ends that of one that says nothing for 5 s. But any
    session can take the key and keep it. Then we lead without it: it only spares several pools the same work, while
    what keeps anything from being done twice are the locks of the rows and the fence of each schedule's slot.
    """

    #: Longer than any leader leads.
    PATIENCE = 10.0
    #: Seconds between two warnings.
    REMIND = 60.0

    def __init__(self) -> None:
        self.refused_since: float | None = None
        self.warned_at = float("-inf")

    def won(self) -> None:
        self.refused_since = None

    def refused(self, cursor: db.Cursor) -> bool:
        """Note that another has the key; return whether to lead without it."""
        now = time.monotonic()
        if self.refused_since is None:
            self.refused_since = now
        if now - self.refused_since < self.PATIENCE:
            return False
        holders = store.leader_holder(cursor)
        if not holders or any(holder.seconds is not None and holder.seconds < self.PATIENCE for holder in holders):
            return False
        if now - self.warned_at >= self.REMIND:
            self.warned_at = now
            who = ", ".join(f"pid {holder.pid} of {holder.user} ({holder.application})" for holder in holders)
            logger.warning(
                "upkeep: the leader's key is held since %.0f s and more by %s, who does not lead; we go on without it. "
                "Find out what that is, and end it: SELECT pg_terminate_backend(pid)",
                now - self.refused_since, who,
            )  # fmt: skip
        return True


_leadership = Leadership()


@contextlib.contextmanager
def leading(connection: db.Connection) -> Iterator[db.Cursor | None]:
    """Begin a transaction as the leader; yield a cursor, or None if another process leads at the moment."""
    with connection.transaction():
        cursor = connection.cursor()
        if store.lead(cursor):
            _leadership.won()
            yield cursor
        else:
            yield cursor if _leadership.refused(cursor) else None


class Watermarks:
    """Finds the last position that is safe to pass, and moves the watermarks there.

    A position is drawn before its transaction commits. So: read the sequence, then note who may hold a position nobody
    else sees yet, and wait until each of those transactions has ended. Then every position up to the one read is either
    visible or will never be. (CREATE INDEX CONCURRENTLY waits for lockers in the same way.)
    """

    def __init__(self) -> None:
        #: No unfinished transaction holds a position up to this one.
        self.safe = 0
        self.candidate: int | None = None
        self.before: list[str] = []

    def move(self, connection: db.Connection) -> int:
        """Take the next step that can be taken without waiting; return how many watermarks moved."""
        cursor = connection.cursor()
        last, lowest = store.positions(cursor)
        self._look_for_safety(cursor, last)
        # While a backlog is worked off, no position is drawn and the watermarks move all the same.
        if lowest is None or lowest >= self.safe:
            return 0
        with leading(connection) as leader:
            return store.advance(leader, safe=self.safe) if leader is not None else 0

    def _look_for_safety(self, cursor: db.Cursor, last: int) -> None:
        if last < self.safe:
            # Somebody has set the sequence back.
            self.safe, self.candidate = 0, None
        if self.candidate is None:
            if last == self.safe:
                return
            # In this order: a transaction that draws a position after `last` was read draws a higher one.
            self.candidate, self.before = last, store.writers(cursor)
        if self.before:
            self.before = store.writers(cursor, self.before)
        if not self.before:
            self.safe, self.candidate = self.candidate, None


class Rescue:
    """Finds leases that have run out, from the oldest living one on: below it everything is dead.

    The database's clock alone cannot say so: set forward, or after PostgreSQL was away for longer than a lease, it has
    every lease run out at once, while those who hold them live and are about to renew them. So a lease must also have
    stayed unrenewed for `patience` seconds of our own monotonic clock, in which we looked on all the time. A renewal
    writes the present time into the lease. So it is enough to remember what the database's clock said at each look:
    whoever renewed since then has a later time. No list of leases is kept, however many there are.

    Args:
        every: Seconds between two looks.
    """

    def __init__(self, retry: float, every: float) -> None:
        self.retry = retry
        self.patience = min(retry, PATIENCE)
        #: A longer pause than this between two looks is no looking on: we were frozen, or PostgreSQL was.
        self.gap = max(self.patience / 3, 3 * every)
        self.since = _BEGINNING
        #: When we looked (monotonic), and what the database's clock said then. Never more than patience / every.
        self.looks: deque[tuple[float, datetime]] = deque()

    def forget(self) -> None:
        """Begin to look on anew."""
        self.since = _BEGINNING
        self.looks.clear()

    def search(self, connection: db.Connection) -> int:
        """Rescue what is lost; return how many tasks."""
        began = time.monotonic()
        leases = store.oldest_lease(connection.cursor(), since=self.since)
        before = self._unrenewed_before(began, leases.now)
        if leases.ahead:
            self._correct(connection)
        expired = leases.now - timedelta(seconds=self.retry)
        if leases.oldest is not None and leases.oldest < expired:
            # Time in which nobody could have renewed it does not count: the disk may be full. So try whether it can be
            # written to; if not, this fails, and whoever calls us has us begin anew.
            store.touch_lease(connection.cursor(), since=self.since)
            if before is not None and leases.oldest < before:
                return self._rescue(connection, min(before, expired))
        self.since = min(leases.oldest or leases.now, leases.now - _COMMIT_SLACK)
        return 0

    def _unrenewed_before(self, began: float, now: datetime) -> datetime | None:
        """Return the time before which a lease was last renewed if nobody has renewed it while we looked on."""
        if self.looks:
            last, then = self.looks[-1]
            if now < then:
                # The clock went back. What it said before is later than what is written into leases now.
                self.forget()
            elif began - last > self.gap:
                self.forget()
        # Taken after the answer, so that what counts as waited for is never more than what was.
        self.looks.append((time.monotonic(), now))
        while len(self.looks) > 1 and began - self.looks[1][0] >= self.patience:
            self.looks.popleft()
        at, said = self.looks[0]
        return said if began - at >= self.patience else None

    def _correct(self, connection: db.Connection) -> None:
        with leading(connection) as cursor:
            count = store.correct_leases(cursor) if cursor is not None else 0
        if count:
            logger.warning("the clock of the database went back: %d leases lay in its future and begin now", count)

    def _rescue(self, connection: db.Connection, before: datetime) -> int:
        with leading(connection) as cursor:
            if cursor is None:
                return 0
            lost = store.rescue(
                cursor, workers=None, since=self.since, age=self.retry, before=before, culprits=None, crash=True,
                error=RESCUE_ERROR,
            )  # fmt: skip
            if lost:
                logger.warning("%d tasks had lost their workers and are ready again", len(lost))
                store.wake(cursor)
            return len(lost)


@dataclass(slots=True)
class Chore:
    """Something to do every so many seconds."""

    name: str
    every: float
    #: May return after how many seconds it is worth to be done again, if that is before its time.
    do: Callable[[db.Connection], float | None]
    next: float = 0.0
    #: How often it has failed in a row.
    failures: int = 0


class Upkeep:
    """The chores of one pool."""

    def __init__(self, settings: Settings, database: str) -> None:
        self.settings, self.database = settings, database
        self.watermarks = Watermarks()
        #: Seconds until something is known to be due.
        self.next_due: float | None = None
        tick = settings.tick
        look_on = max(tick, settings.retry / 6)
        self.rescue = Rescue(settings.retry, look_on)
        self.sweep = Chore("sweep", 10 * tick, self._sweep)
        self.kept = retention.Kept()
        #: The last id that this round of pruning has looked at; None: it begins.
        self.prune_before: UUID | None = None
        self.chores = [
            Chore("due", tick, self._due),
            Chore("watermarks", tick, self._move_watermarks),
            Chore("rescue", look_on, self._rescue),
            self.sweep,
            Chore("housekeeping", 60 * tick, self._housekeeping),
        ]
        if settings.save_limit > 0:
            # Counting per group, name or function reads all successes.
            self.prune_every = 10 * tick if settings.save_limit_per else tick
            self.prune = Chore("prune", self.prune_every, self._prune)
            self.chores.append(self.prune)
        if settings.keep_days is not None:
            self.retention = retention.Retention(settings.keep_days, 60 * tick, self.kept)
            self.chores.append(Chore("retention", 60 * tick, self._retain))

    def tick(self, connection: db.Connection) -> float:
        """Do each chore whose time has come; return the seconds until the next one's.

        Raises:
            psycopg.Error: PostgreSQL is gone, or takes no writes.
        """
        for chore in self.chores:
            now = time.monotonic()
            if now < chore.next:
                continue
            chore.next = now + chore.every
            try:
                again = chore.do(connection)
                chore.failures = 0
                if again is not None:
                    chore.next = min(chore.next, now + again)
            except Exception as error:
                # Others may not have been able to write either, and so not to renew.
                self.rescue.forget()
                if isinstance(error, psycopg.Error) and db.is_gone(connection, error):
                    chore.next = 0.0
                    # What answers next may be a standby, which knows less than we have seen.
                    self.watermarks = Watermarks()
                    raise
                self._chore_failed(chore, error)
                # The next one begins anew, by whatever settings the role or the database has by then.
                connection.close()
                return 0.0
        pause = min(chore.next for chore in self.chores) - time.monotonic()
        if self.next_due is not None:
            # Not much earlier than the tick would come anyway, or a due row that is locked would have us spin.
            pause = min(pause, max(self.next_due, 0.005))
            self.chores[0].next = min(self.chores[0].next, time.monotonic() + max(self.next_due, 0.005))
        return max(pause, 0.0)

    def _chore_failed(self, chore: Chore, error: Exception) -> None:
        """Have it wait, longer each time: a chore that fails must neither stop the others nor fill the log."""
        chore.failures += 1
        pause = min(chore.every * 2 ** (chore.failures - 1), max(chore.every, _MOST_PAUSE))
        chore.next = time.monotonic() + pause
        logger.error(
            "upkeep: %s failed, %d times in a row; next in %.1f s: %s: %s", chore.name, chore.failures, pause,
            type(error).__name__, error, exc_info=error if chore.failures == 1 else None,
        )  # fmt: skip

    def _due(self, connection: db.Connection) -> None:
        outlook = store.outlook(connection.cursor())
        self.next_due = (
            outlook.next_in if outlook.next_in is not None and outlook.next_in < self.settings.tick else None
        )
        if outlook.tasks_due or outlook.schedules_due:
            self.next_due = None
        if outlook.tasks_due:
            self._make_ready(connection)
        if outlook.schedules_due and self.settings.scheduler:
            with leading(connection) as cursor:
                if cursor is not None:
                    schedule.fire_due(cursor, self.settings)

    def _make_ready(self, connection: db.Connection) -> None:
        while True:
            with leading(connection) as cursor:
                count = store.due(cursor, limit=BATCH) if cursor is not None else 0
                if cursor is not None and count:
                    store.wake(cursor)
            if count < BATCH:
                return

    def _move_watermarks(self, connection: db.Connection) -> float | None:
        began = time.monotonic()
        if not self.watermarks.move(connection):
            return None
        # While tasks go through, each claim walks over what was claimed since the last move. Where there are a thousand
        # lanes the walk in each is short, and a move takes long: it has its share and no more.
        return max(self.settings.tick / 5, 20 * (time.monotonic() - began))

    def _rescue(self, connection: db.Connection) -> float | None:
        # There may be more than one statement takes.
        return 0.0 if self.rescue.search(connection) else None

    def _sweep(self, connection: db.Connection) -> None:
        began = time.monotonic()
        self._sweep_lanes(connection)
        self._redraw(connection)
        # Under a pinned horizon it walks over all that is dead. It is a safeguard, so it takes its share and no more.
        self.sweep.every = max(10 * self.settings.tick, 50 * (time.monotonic() - began))

    def _sweep_lanes(self, connection: db.Connection) -> None:
        with leading(connection) as cursor:
            if cursor is None:
                return
            mended = store.sweep(cursor)
            if mended:
                logger.info("upkeep: mended the lanes %s", mended)
                store.wake(cursor)

    def _redraw(self, connection: db.Connection) -> None:
        redrawn = BATCH
        while redrawn == BATCH:
            with leading(connection) as cursor:
                redrawn = store.redraw(cursor, limit=BATCH) if cursor is not None else 0
                if redrawn:
                    logger.info("upkeep: %d tasks had positions that were never drawn; they have new ones", redrawn)

    def _prune(self, connection: db.Connection) -> None:
        began, count = time.monotonic(), 0
        while time.monotonic() < began + self.settings.tick / 2:
            with leading(connection) as cursor:
                if cursor is None:
                    return
                deleted = self._prune_some(cursor)
            count += deleted.count
            self.prune_before = deleted.last
            if deleted.last is None:
                break
        # To look at results that stay, since others refer to them, has its share and no more.
        spent = time.monotonic() - began
        self.prune.every = self.prune_every if count >= BATCH else max(self.prune_every, 20 * spent)

    def _prune_some(self, cursor: db.Cursor) -> store.Deleted:
        """Delete the next results of this round."""
        per = self.settings.save_limit_per
        # Those that are to be kept are the newest, and this round has passed them.
        keep = self.settings.save_limit if per or self.prune_before is None else 0
        deleted = store.prune(cursor, keep=keep, limit=BATCH, per=per, before=self.prune_before)
        self.kept.name(deleted.kept)
        return deleted

    def _retain(self, connection: db.Connection) -> float | None:
        try:
            # Not as the leader: nobody need wait while we wait for a lock.
            self.retention.drop(connection)
            until = time.monotonic() + self.settings.tick / 2
            while time.monotonic() < until:
                with leading(connection) as cursor:
                    if cursor is None or not self.retention.step(cursor):
                        return None
        except psycopg.errors.UndefinedTable:
            logger.debug("upkeep: another pool has just dropped a partition")
            return None
        return self.settings.tick

    def _housekeeping(self, connection: db.Connection) -> None:
        with leading(connection) as cursor:
            if cursor is None:
                return
            store.forget_pools(cursor, age=max(60.0, 10 * self.settings.retry))
        try:
            with connection.transaction():
                # The tables are busy: give up at once rather than have everybody queue behind our lock.
                connection.execute("SET LOCAL lock_timeout = '200ms'")
                store.make_partitions(connection.cursor())
        except psycopg.errors.InsufficientPrivilege:
            logger.debug("upkeep: this role may not make partitions; whoever owns the tables should run pgq_clean")
        except psycopg.errors.LockNotAvailable:
            logger.debug("upkeep: the tables are busy; partitions are made later")


def _name_unused(connection: db.Connection, queues: Sequence[str]) -> None:
    """Say in the log which of the queues, as far as PostgreSQL knows, nobody uses: their names may be mistakes."""
    unused = store.unused_queues(connection.cursor(), queues)
    if unused:
        logger.info("nothing has been enqueued yet to %s: this pool waits for it", ", ".join(map(repr, unused)))


def main(config: ChildConfig, pipe: Connection) -> None:
    """Entry point of the upkeep process."""
    unnamed = config.queues
    upkeep = Upkeep(get_settings(), config.database)
    connection: db.Connection | None = None
    backoff = db.Backoff()
    pipe.send_bytes(READY)
    while True:
        try:
            if connection is None or connection.closed:
                connection = db.connect(config.database, "pgq upkeep", patience=_PATIENCE)
                checkup.require_tables(connection.cursor())
            pause = upkeep.tick(connection)
            backoff.succeeded()
            pipe.send_bytes(TICKED)
            if unnamed:
                _name_unused(connection, unnamed)
                unnamed = None
        except psycopg.Error as error:
            if connection is not None:
                with contextlib.suppress(psycopg.Error):
                    connection.close()
                connection = None
            pause = backoff.failed(error, "upkeep: PostgreSQL")
        except OSError:
            os._exit(1)
        try:
            # Only the supervisor's word to stop comes this way, or its end.
            if pipe.poll(pause):
                pipe.recv_bytes()
                break
        except (EOFError, OSError):
            os._exit(1)
    child.leave(0, pipe, "pgq upkeep")
