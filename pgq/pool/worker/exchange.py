"""What a worker exchanges with PostgreSQL: it claims tasks, settles them, and gives back what it has not started.

The main thread settles what has finished together with its next claim. Behind a task that runs long the guard settles
and gives back (see guard.py). So each method may be called by either thread, but for `settle_and_claim` and `disown`,
which are the main thread's. The connection is the worker's own: user code never touches it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import UUID, uuid4

import psycopg

from pgq.conf import Queues
from pgq.execution import settle as settling
from pgq.execution.tally import Tally
from pgq.ground import events
from pgq.pool import protocol
from pgq.pool.activity import ActivityCell
from pgq.pool.allowance import Share
from pgq.pool.gate import Gate
from pgq.pool.protocol import ChildConfig
from pgq.pool.worker.session import Session
from pgq.pool.worker.surroundings import Surroundings
from pgq.records import Claim, Claimed, Report
from pgq.store import connection as store_connection
from pgq.store import leases, pools, queue
from pgq.store.outage import Backoff, message
from pgq.store.turns import Turns

logger = logging.getLogger("pgq")

T = TypeVar("T")

#: What PostgreSQL answers to a report that it will never take.
_REFUSED = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.NotSupportedError,
    psycopg.errors.ProgramLimitExceeded,
)


class Exchange:
    """The tasks that a worker holds, and its connection.

    A task that was claimed is in `waiting`, or runs, or is in `finished` or `returning`, until PostgreSQL has confirmed
    that it is settled or given back. If it were in none, its lease would be renewed as long as the worker lives, and
    no worker would run it.

    Args:
        cell: Shows the supervisor that the worker is inside the gate.
        surroundings: Spoiled when a task has closed the connection.
        post: Sends a message to the supervisor.
        share: What this worker has of the pool's allowance; None: there is no limit.

    Attributes:
        waiting: Claimed and not started.
        finished: Run and not settled.
        returning: To be given back, and PostgreSQL has not confirmed it yet.
        urgent: One of `finished` is to be settled at once.
        in_doubt: From sending a claim until its commit is confirmed: the worker may hold rows that it never saw.
        broke: The connection broke. The next one may lead to a standby that never got this worker's last reports.
    """

    def __init__(
        self,
        config: ChildConfig,
        cell: ActivityCell,
        gate: Gate,
        surroundings: Surroundings,
        post: Callable[[bytes], None],
        share: Share | None = None,
    ) -> None:
        self.config, self.cell, self.gate, self.post = config, cell, gate, post
        self.share = share
        self.waiting: deque[Claim] = deque()
        self.finished: deque[Report] = deque()
        self.returning: list[Claim] = []
        self.urgent = self.in_doubt = self.broke = False
        #: The `worker` of the claims.
        self._id = config.id
        self.turns = Turns(Queues(config.queues, config.exclude_queues))
        #: Held by the thread that uses the connection.
        self._lock = threading.Lock()
        self.session = Session(config.database, surroundings)
        self._backoff, self.tally = Backoff(), Tally()

    def settle_and_claim(self, size: int, places: int = 1) -> int:
        """Settle what has finished and claim up to `size` tasks, in one transaction; return how many were claimed.

        Args:
            places: How many of them can run here at the same time.

        Raises:
            psycopg.Error: Nothing was settled, and nothing is lost. The claim may commit all the same (see `in_doubt`).
        """
        with self.gate.passage(self.cell, max(size, len(self.finished))), self._settling() as cursor:
            self.in_doubt = True
            claimed = self.turns.claim(cursor, limit=size, worker=self._id, receipt=uuid4(), places=places)
        self.in_doubt = False
        if claimed:
            self.waiting.extend(claimed)
            if events.claim.listeners:
                events.claim.tell(Claimed(tuple(claimed), self.config.number))
        return len(claimed)

    def settle(self, *, insist: bool) -> None:
        """Settle what has finished. `insist`: until PostgreSQL takes it."""
        self.urgent = False
        while self.finished or (insist and self._was_put_back()):
            freed = any(report.claim.strand is not None for report in list(self.finished))
            try:
                with self._settling() as cursor:
                    if freed:
                        # This worker may not claim again at once: so others are woken, in this pool and elsewhere.
                        pools.wake(cursor)
            except psycopg.Error as error:
                self.wait_for_postgresql(error)
                if not insist:
                    return
            else:
                if freed:
                    self.post(protocol.MORE)

    def give_back(self, *, insist: bool) -> None:
        """Release what was claimed and not started. `insist`: until PostgreSQL takes it."""
        while self.waiting or self.returning:
            try:
                with self._lock:
                    # If the release fails, PostgreSQL may have carried it out: so these must not be started any more.
                    self.returning += _taken(self.waiting)
                    leases.release(self.session.connected().cursor(), self.returning)
                    if self.share is not None:
                        self.share.give_back(len(self.returning))
                    self.returning = []
            except psycopg.Error as error:
                self.wait_for_postgresql(error)
                if not insist:
                    return
            else:
                self.post(protocol.MORE)

    def execute(self, statement: Callable[[store_connection.Cursor], object]) -> None:
        """Call a function that executes a statement, with the worker's connection, while no other thread uses that."""
        with self._lock:
            statement(self.session.connected().cursor())

    def disown(self, running: Callable[[], list[Claim]]) -> None:
        """If the worker may hold rows that it never saw, go on under a new id: the supervisor releases the old one's.

        The commit of a claim may have taken place though its reply was lost, or may take place yet. Those rows carry
        the worker's id, so the supervisor would renew their leases as long as it lives, and no worker would run them.

        Args:
            running: Returns the claims of the tasks that run beside the main thread.
        """
        if not (self.in_doubt or self.broke):
            return
        self.give_back(insist=True)
        self.settle(insist=True)
        id = uuid4()
        self._rename_running(running, id)
        self._id = id
        self.post(protocol.RENAMED + id.bytes)
        self.in_doubt = self.broke = False

    def _rename_running(self, running: Callable[[], list[Claim]], id: UUID) -> None:
        """Put the running tasks under the new id: released with the old one, they would run twice."""
        while claims := running():
            try:
                with self._lock:
                    leases.rename(self.session.connected().cursor(), claims, worker=id)
                return
            except psycopg.Error as error:
                self.wait_for_postgresql(error)

    def _was_put_back(self) -> bool:
        """Wait until the other thread has settled; return whether it put anything back, which must not be lost."""
        with self._lock:
            return bool(self.finished)

    # --------------------------------------------------------------------------------------------- settling

    @contextlib.contextmanager
    def _settling(self) -> Iterator[store_connection.Cursor]:
        """Settle what has finished, and let the caller do more in the same transaction.

        Raises:
            psycopg.Error: Nothing was written, and nothing is lost.
        """
        with self._lock:
            with (
                self._put_back_on_error() as reports,
                settling.transaction(self.session.connected(), reports, self.config.pool) as cursor,
            ):
                counted = bool(reports) and self.tally.is_due(time.monotonic()) and self.tally.write(cursor.connection)
                yield cursor
            if counted:
                self.tally.confirm()
            self._backoff.succeeded()

    @contextlib.contextmanager
    def _put_back_on_error(self) -> Iterator[list[Report]]:
        """Take what has finished. On an error put it back, or, if a report was the cause, settle one by one.

        Raises:
            psycopg.Error: Also for any other Exception: what a row holds must not take the worker down.
        """
        reports: list[Report] = []
        try:
            reports.extend(_taken(self.finished))
            yield reports
        except BaseException as error:
            if isinstance(error, Exception) and _is_refused(self, reports, error):
                self._settle_one_by_one(reports, error)
            else:
                self.finished.extendleft(reversed(reports))
            if isinstance(error, psycopg.Error) or not isinstance(error, Exception):
                raise
            raise psycopg.DataError(f"{type(error).__name__}: {error}") from error

    def _settle_one_by_one(self, reports: list[Report], error: Exception) -> None:
        """Settle each report by itself, so that the refused one spoils no other."""
        logger.error(
            "a batch of %d reports was refused, so they are settled one by one: %s", len(reports), message(error)
        )
        for report in reports:
            less = report
            for lessen in (settling.without_what_was_refused, settling.without_options, settling.parked, None):
                try:
                    with settling.transaction(self.session.connected(), [less], self.config.pool):
                        break
                except Exception as refused:
                    if isinstance(refused, psycopg.Error) and not isinstance(refused, _REFUSED):
                        # The connection failed, not the report.
                        self.finished.append(report)
                        break
                    if lessen is not None:
                        less = lessen(less, refused)
                    else:
                        logger.exception("task %s cannot be settled at all", report.claim.id.hex)

    # --------------------------------------------------------------------------------------------- the connection

    def wait_for_postgresql(self, error: psycopg.Error) -> None:
        """Close the connection and pause, longer each time, before the next attempt to reach PostgreSQL."""
        with self._lock:
            self.broke |= self.session.disconnect()
        # The pause is not cut short by a stop: that does not make PostgreSQL come back.
        time.sleep(self._backoff.failed(error))


def _is_refused(exchange: Exchange, reports: list[Report], error: Exception) -> bool:
    """Whether the cause is a report that PostgreSQL, or pgq's code, does not take."""
    if not isinstance(error, psycopg.Error):
        return True
    if not reports or not isinstance(error, _REFUSED):
        return False
    try:
        # Out of transaction ids, PostgreSQL refuses all writes with such errors.
        queue.begin_writing(exchange.session.connected().cursor())
    except psycopg.Error:
        return False
    return True


def flush_tally(exchange: Exchange, *, attempts: int = 1) -> None:
    """Write what was counted, in a transaction of its own: the worker sleeps, leaves, or runs one task for long.

    Args:
        attempts: How often it is tried while PostgreSQL is away; a flush that may be written already is sent again.
    """
    for _ in range(attempts):
        try:
            exchange.execute(lambda cursor: exchange.tally.write_all(cursor.connection))
            return
        except psycopg.Error as error:
            exchange.wait_for_postgresql(error)


def _taken(items: deque[T]) -> Iterator[T]:
    """Take all there is. Another thread may take or add at the same time."""
    with contextlib.suppress(IndexError):
        while True:
            yield items.popleft()
