"""The one connection of a supervisor to PostgreSQL: notifications, leases, heartbeats, and what dead workers held.

It is opened again whenever it breaks. Each statement is a transaction of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg

from pgq import __version__
from pgq.conf import Settings
from pgq.ground import events
from pgq.pool.children import Children
from pgq.pool.former_ids import FormerIds
from pgq.pool.liveness import Pulse
from pgq.pool.notifications import Notifications
from pgq.pool.protocol import CANCEL
from pgq.pool.sleepers import Sleepers
from pgq.records import Rescued
from pgq.status import findings
from pgq.status.findings import Outdated
from pgq.store import connection as store_connection
from pgq.store import leases, pools
from pgq.store.listener import Listener
from pgq.store.outage import Backoff, message

logger = logging.getLogger("pgq")

#: Seconds for which a pool that ends waits for the claims that workers were killed in, at most.
_AWAIT_COMMITS_SECONDS = 2.0
#: Seconds after which a pool that has never reached PostgreSQL logs that as an error, and one that runs once gives up.
_GIVE_UP_SECONDS = 10.0
#: How much further back a renewal reaches than the one before did: a claim's lease begins before its commit.
_SLACK = timedelta(seconds=5)
#: Seconds after which a lease is renewed at the latest, however long it is: pools may differ in `retry`, and what
#: counts as abandoned is decided by the pool that rescues (see `rescue.UNRENEWED_SECONDS`).
RENEW_AFTER_SECONDS = 20.0


@dataclass
class Clock:
    """Something to do again and again."""

    every: float
    next: float = field(default_factory=time.monotonic)

    def due(self, now: float) -> bool:
        if now < self.next:
            return False
        self.next = now + self.every
        return True


class Session:
    """The connection of one pool, and all that goes over it.

    Args:
        selector: Of the supervisor's loop, which a notification wakes.
        every: Seconds between two renewals, and between two heartbeats.
        meanwhile: Called again and again while a statement waits for its answer.
    """

    def __init__(
        self,
        settings: Settings,
        selector: selectors.BaseSelector,
        children: Children,
        sleepers: Sleepers,
        pulse: Pulse,
        *,
        every: float,
        meanwhile: Callable[[], None] | None,
    ) -> None:
        self.settings, self.selector, self.meanwhile = settings, selector, meanwhile
        self.children, self.sleepers, self.pulse = children, sleepers, pulse
        #: Of this pool, its key in pgq_worker.
        self.id = uuid4()
        self.began = time.monotonic()
        self.listener: Listener | None = None
        self.listener_fd = -1
        self.backoff = Backoff()
        self.reconnect_at = 0.0
        #: Whether all statements of a round have ever succeeded. Children are not started before.
        self.has_worked = False
        #: Why they do not, at the moment.
        self.trouble: psycopg.Error | None = None
        self.notifications = Notifications(settings.database, settings.poll)
        #: No lease of this pool's workers is older.
        self.leases_since = leases.BEFORE_ALL_LEASES
        #: Of workers that died, or lost their connection.
        self.former_ids = FormerIds()
        self.heartbeat, self.renewal = Clock(every), Clock(every)

    # ------------------------------------------------------------------------------------------- each round of the loop

    def next_times(self) -> list[float]:
        """Return the monotonic times at which `do_what_is_due` has something to do."""
        if self.listener is None:
            return [self.reconnect_at]
        return [self.heartbeat.next, self.renewal.next, self.former_ids.next_search, *self.sleepers.next_poll()]

    def do_what_is_due(self, now: float) -> None:
        """Connect if there is no connection; send what is due."""
        if self.listener is None and now >= self.reconnect_at:
            self._connect()
        if self.listener is not None:
            try:
                self._send_what_is_due(self.listener, now)
            except psycopg.Error as error:
                self._disconnected(error)
        if self.listener is not None:
            self.backoff.succeeded()
            self.has_worked, self.trouble = True, None

    def _send_what_is_due(self, listener: Listener, now: float) -> None:
        cursor = listener.connection.cursor()
        if self.children.lost:
            self._release_lost()
        if now >= self.former_ids.next_search:
            self._release_late(cursor)
        if self.renewal.due(now):
            self._renew(cursor)
        if self.heartbeat.due(now):
            self._beat(cursor)
            self.notifications.check(listener)
        if not self.children.closing:
            self.sleepers.poll_queue(cursor, now, notified=not listener.deaf)
        # Notifications that came during these statements do not make the socket readable.
        self._notified()

    def hopeless(self, now: float) -> str | None:
        """Return why PostgreSQL cannot be used until it, or its tables, are mended; None: it can, or may soon."""
        if self.trouble is None:
            return None
        never = not self.has_worked and now - self.began > _GIVE_UP_SECONDS
        return message(self.trouble) if never or isinstance(self.trouble, Outdated) else None

    def is_drained(self) -> bool:
        """Return whether no task is ready, nor may become so by a claim that a dead worker has sent."""
        if self.listener is None or self.children.lost:
            return False
        try:
            cursor = self._cursor()
            return not self.former_ids.may_commit(cursor) and not self.sleepers.find_ready(cursor)
        except psycopg.Error as error:
            self._disconnected(error)
            return False

    def leave(self) -> None:
        """Make ready what the workers held that were killed, and take this pool out of the table."""
        if self.listener is not None:
            with contextlib.suppress(psycopg.Error):
                self._release_lost()
                self._await_late_commits()
                pools.goodbye(self._cursor(), self.id)
                self.listener.connection.close()
        if self.children.lost:
            logger.warning(
                "PostgreSQL could not be told of %d lost workers; their leases will run out", len(self.children.lost)
            )

    # ------------------------------------------------------------------------------------------- the connection

    def _cursor(self) -> store_connection.Cursor:
        assert self.listener is not None
        return self.listener.connection.cursor()

    def _connect(self) -> None:
        try:
            # A statement that takes longer than this would keep the leases from being renewed in time.
            patience = min(float(store_connection.DEAD_AFTER), max(2.0, self.settings.retry / 4))
            connection = store_connection.connect(
                self.settings.database, "pgq supervisor", patience=patience, meanwhile=self.meanwhile
            )
        except psycopg.Error as error:
            self._disconnected(error)
            return
        try:
            findings.require_tables(connection.cursor(), self.settings.database)
            self.listener = self.notifications.listen(connection)
        except psycopg.Error as error:
            connection.close()
            self._disconnected(error)
            return
        self.listener_fd = self.listener.fileno()
        self.selector.register(self.listener_fd, selectors.EVENT_READ, self._notified)
        # It may be a standby that took over, in whose past no lease was renewed.
        self.leases_since = leases.BEFORE_ALL_LEASES
        self.heartbeat.next = self.renewal.next = 0.0
        self.sleepers.wake_all()

    def _disconnected(self, error: psycopg.Error) -> None:
        self.pulse.connected = False
        self.pulse.outdated = str(error) if isinstance(error, Outdated) else None
        if self.listener is not None:
            # It may have failed before it was registered.
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(self.listener_fd)
            with contextlib.suppress(psycopg.Error):
                self.listener.connection.close()
            self.listener = None
        self.trouble = error
        # Missing tables are logged by the supervisor as an error, and not here as a failed attempt.
        pause = self.backoff.next_pause() if isinstance(error, Outdated) else self.backoff.failed(error)
        self.reconnect_at = time.monotonic() + pause

    def _notified(self) -> None:
        if self.listener is None:
            return
        try:
            channels = self.listener.drain()
            if "pgq_control" in channels:
                self._cancel(leases.cancelled(self._cursor(), self._workers(), since=self.leases_since))
        except psycopg.Error as error:
            self._disconnected(error)
            return
        wakes = channels.count("pgq_wake")
        if wakes:
            self.sleepers.wake(wakes)

    # ------------------------------------------------------------------------------------------- what workers hold

    def _workers(self) -> list[UUID]:
        return [child.id for child in self.children.workers()]

    def _renew(self, cursor: store_connection.Cursor) -> None:
        age = min(self.settings.retry / 3, RENEW_AFTER_SECONDS)
        renewal = leases.renew(cursor, self._workers(), since=self.leases_since, age=age)
        # Younger leases were left alone, and a claim may have been committing meanwhile.
        self.leases_since = renewal.at - timedelta(seconds=age) - _SLACK
        self.pulse.renewed()
        self._cancel(renewal.cancelled)

    def _cancel(self, tasks: Sequence[tuple[UUID, UUID]]) -> None:
        for task, worker in tasks:
            for child in self.children.workers():
                if child.id == worker:
                    child.post(CANCEL + task.bytes)

    def _beat(self, cursor: store_connection.Cursor) -> None:
        closing = self.children.closing
        status = "stopping" if closing else "working" if self.children.is_working() else "idle"
        pools.heartbeat(
            cursor,
            id=self.id,
            name=self.settings.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self.settings.served,
            status=status,
            version=__version__,
            workers=json.dumps(self.children.report()),
            retry=self.settings.retry,
            clock=time.time(),
            stalled=None if closing else self.pulse.waited(cursor),
        )

    def func_of(self, task: UUID) -> str | None:
        """Ask for the function of a task that runs here, for the log."""
        # If the connection is broken, the next statement finds that as well.
        with contextlib.suppress(psycopg.Error):
            return leases.func_of(self._cursor(), task) if self.listener is not None else None
        return None

    def _release_lost(self) -> None:
        """Release what the ids hold under which no worker claims any more."""
        cursor = self._cursor()
        while self.children.lost:
            released = self.former_ids.release(cursor, self.children.lost[0], self.leases_since)
            self.children.lost.pop(0)
            self._released(cursor, released, "of a lost worker")

    def _release_late(self, cursor: store_connection.Cursor) -> None:
        self._released(cursor, self.former_ids.search_again(cursor), "whose claim was never confirmed")

    def _released(self, cursor: store_connection.Cursor, count: int, which: str) -> None:
        if count:
            logger.info("%d tasks %s are ready again", count, which)
            if events.rescue.listeners:
                events.rescue.tell(Rescued(count, which))
            self.sleepers.wake(1)
            pools.wake(cursor)

    def _await_late_commits(self) -> None:
        """Wait for the claims that workers were killed in: no other process knows whose they were."""
        cursor = self._cursor()
        until = time.monotonic() + _AWAIT_COMMITS_SECONDS
        while self.former_ids.may_commit(cursor) and time.monotonic() < until:
            time.sleep(0.05)
            self._release_late(cursor)
        self._release_late(cursor)
