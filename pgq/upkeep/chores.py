"""The chores that keep the tables in order, and when each is due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import psycopg

from pgq.conf import Settings
from pgq.schedules import fire
from pgq.store import connection as store_connection
from pgq.store import lanes, pools, results, unique
from pgq.store.outage import is_gone
from pgq.upkeep import metrics, retention
from pgq.upkeep.chore import ROWS_PER_STATEMENT, Chore
from pgq.upkeep.keyed import KeyedLanes
from pgq.upkeep.leadership import Leadership
from pgq.upkeep.pruning import Pruning
from pgq.upkeep.rescue import Rescue
from pgq.upkeep.watermarks import Watermarks

logger = logging.getLogger("pgq")

#: Seconds until a chore that fails again and again is tried once more, unless it has more time anyway.
_LONGEST_PAUSE_SECONDS = 5.0

#: See `Upkeep`.
EndTasks = Callable[[store_connection.Cursor, int], Sequence[Callable[[], None]]]
#: Tasks that end in one transaction. Python makes what follows each, so they are fewer than `ROWS_PER_STATEMENT`.
_ENDED_AT_ONCE = 500


class Upkeep:
    """The chores of one pool.

    Args:
        end_tasks: Ends up to so many tasks that no worker holds and that are not to run, by a cursor; returns for each
            what is to be called after the commit. None: only workers end them.
    """

    def __init__(self, settings: Settings, database: str, end_tasks: EndTasks | None = None) -> None:
        self.settings, self.database, self.end_tasks = settings, database, end_tasks
        self.leadership = Leadership()
        self.watermarks = Watermarks(self.leadership)
        self.keyed = KeyedLanes(self.leadership)
        tick = settings.tick
        look_on = max(tick, settings.retry / 6)
        self.rescue = Rescue(self.leadership, retry=settings.retry, every=look_on)
        self.sweep = Chore("sweep", 10 * tick, self._sweep)
        self.pruning = Pruning(settings, self.leadership)
        #: The failure of a chore that was logged last, and when (monotonic).
        self.said = "", 0.0
        self.chores = [
            Chore("due", tick, self._due),
            Chore("watermarks", tick, self._move_watermarks),
            Chore("keys", tick, self._keep_keyed),
            Chore("rescue", look_on, self._rescue),
            self.sweep,
            *self.pruning.chores,
            Chore("housekeeping", 60 * tick, self._housekeeping),
            # Not at once: a pool that starts has more urgent things to do, and nothing was counted yet.
            Chore(
                "metrics",
                metrics.EVERY,
                metrics.Metrics(settings, self.leadership).do,
                next=time.monotonic() + metrics.EVERY,
            ),
        ]
        if settings.keep_days is not None:
            self.retention = retention.Retention(settings.keep_days, 60 * tick, self.pruning.kept)
            self.chores.append(Chore("retention", 60 * tick, self._retain))

    def tick(self, connection: store_connection.Connection) -> float:
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
                    chore.next = min(chore.next, time.monotonic() + again)
            except Exception as error:
                # What failed here may have kept supervisors from renewing.
                self.rescue.forget()
                if isinstance(error, psycopg.Error) and is_gone(connection, error):
                    chore.next = 0.0
                    # The next connection may lead to a promoted standby that lacks the last positions.
                    self.watermarks, self.keyed = Watermarks(self.leadership), KeyedLanes(self.leadership)
                    raise
                self._chore_failed(chore, error)
                # A new connection begins with the settings that the role or the database has by then.
                connection.close()
                return 0.0
        return max(min(chore.next for chore in self.chores) - time.monotonic(), 0.0)

    def _chore_failed(self, chore: Chore, error: Exception) -> None:
        """Log the error and let the chore wait, longer each time: it must neither stop the others nor fill the log."""
        chore.failures += 1
        pause = min(chore.every * 2 ** (chore.failures - 1), max(chore.every, _LONGEST_PAUSE_SECONDS))
        chore.next = time.monotonic() + pause
        text = f"{type(error).__name__}: {error}"
        level = logging.DEBUG if self._said_just_now(text) else logging.ERROR
        details = error if chore.failures == 1 else None
        message = "upkeep: %s failed, %d times in a row; next in %.1f s: %s"
        logger.log(level, message, chore.name, chore.failures, pause, text, exc_info=details)

    def _said_just_now(self, text: str) -> bool:
        """Whether another chore has failed of the same: a locked table would else be ten tracebacks in a second."""
        last, at = self.said
        now = time.monotonic()
        # Below, PostgreSQL 19 says which table was waited for.
        first_line = text.partition("\n")[0]
        if first_line == last and now < at + 1.0:
            return True
        self.said = first_line, now
        return False

    def _due(self, connection: store_connection.Connection) -> float | None:
        outlook = lanes.outlook(connection.cursor())
        if outlook.tasks_ended and self.end_tasks is not None:
            self._end(connection, self.end_tasks)
        if outlook.tasks_due:
            self._make_ready(connection)
        if outlook.schedules_due and self.settings.scheduler:
            with self.leadership.leading(connection) as cursor:
                if cursor is not None:
                    fire.fire_due(cursor, self.settings)
        if outlook.tasks_due or outlook.schedules_due or outlook.tasks_ended or outlook.next_in is None:
            return None
        # Not sooner than in 5 ms: while another session has a due row locked, upkeep would spin.
        return max(outlook.next_in, 0.005)

    def _end(self, connection: store_connection.Connection, end_tasks: EndTasks) -> None:
        announcements: Sequence[Callable[[], None]] = [lambda: None] * _ENDED_AT_ONCE
        while len(announcements) == _ENDED_AT_ONCE:
            with self.leadership.leading(connection) as cursor:
                announcements = end_tasks(cursor, _ENDED_AT_ONCE) if cursor is not None else ()
            for announce in announcements:
                announce()

    def _make_ready(self, connection: store_connection.Connection) -> None:
        while True:
            with self.leadership.leading(connection) as cursor:
                count = lanes.due(cursor, limit=ROWS_PER_STATEMENT) if cursor is not None else 0
                if cursor is not None and count:
                    pools.wake(cursor)
            if count < ROWS_PER_STATEMENT:
                return

    def _move_watermarks(self, connection: store_connection.Connection) -> float | None:
        began = time.monotonic()
        if not self.watermarks.move(connection):
            return None
        # Each claim walks over the entries of all tasks claimed since the last move, so moves are frequent. With a
        # thousand lanes these walks are short and a move takes long: then it gets a twentieth of the time.
        return max(self.settings.tick / 5, 20 * (time.monotonic() - began))

    def _keep_keyed(self, connection: store_connection.Connection) -> float | None:
        began, marks = time.monotonic(), self.watermarks.marks
        if marks is None or not self.keyed.keep(connection, marks):
            return None
        return max(self.settings.tick / 5, 20 * (time.monotonic() - began))

    def _rescue(self, connection: store_connection.Connection) -> float | None:
        # A statement takes 1000 rows at most, so there may be more.
        return 0.0 if self.rescue.search(connection) else None

    def _sweep(self, connection: store_connection.Connection) -> None:
        began = time.monotonic()
        self._sweep_lanes(connection)
        self.keyed.sweep(connection)
        self._redraw(connection)
        # Under a pinned horizon it walks over all dead entries. As a mere safeguard it gets a fiftieth of the time.
        self.sweep.every = max(10 * self.settings.tick, 50 * (time.monotonic() - began))

    def _sweep_lanes(self, connection: store_connection.Connection) -> None:
        with self.leadership.leading(connection) as cursor:
            if cursor is None:
                return
            mended = lanes.sweep(cursor)
            if mended:
                logger.info("upkeep: mended the lanes %s", mended)
                pools.wake(cursor)

    def _redraw(self, connection: store_connection.Connection) -> None:
        redrawn = ROWS_PER_STATEMENT
        while redrawn == ROWS_PER_STATEMENT:
            with self.leadership.leading(connection) as cursor:
                redrawn = lanes.redraw(cursor, limit=ROWS_PER_STATEMENT) if cursor is not None else 0
                if redrawn:
                    logger.info("upkeep: %d tasks had positions that were never drawn; they have new ones", redrawn)

    def _retain(self, connection: store_connection.Connection) -> float | None:
        try:
            # Not as the leader: other pools' chores must not wait while this process waits for a lock.
            self.retention.drop(connection)
            until = time.monotonic() + self.settings.tick / 2
            while time.monotonic() < until:
                with self.leadership.leading(connection) as cursor:
                    if cursor is None or not self.retention.step(cursor):
                        return None
        except psycopg.errors.UndefinedTable:
            logger.debug("upkeep: another pool has just dropped a partition")
            return None
        return self.settings.tick

    def _housekeeping(self, connection: store_connection.Connection) -> None:
        with self.leadership.leading(connection) as cursor:
            if cursor is None:
                return
            pools.forget_pools(cursor, age=max(60.0, 10 * self.settings.retry))
            self.keyed.forget(cursor)
            unique.prune_keys(cursor, limit=10 * ROWS_PER_STATEMENT)
        self.pruning.prune_progress(connection)
        try:
            with connection.transaction():
                # If the tables are busy, give up soon: each claim and settle would queue behind this lock request.
                cursor = connection.cursor()
                store_connection.limit_lock_wait(cursor, "200ms")
                results.make_partitions(cursor)
        except psycopg.errors.InsufficientPrivilege:
            logger.debug("upkeep: this role may not make partitions; the owner of the tables should run pgq_clean")
        except psycopg.errors.LockNotAvailable:
            logger.debug("upkeep: the tables are busy; partitions are made later")
