"""The supervisor: one loop that waits for children, signals, notifications and the clock, and acts on them.

Runs no user code. One connection to PostgreSQL serves LISTEN, the look at the queue while somebody sleeps, lease
renewal and the heartbeat.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from pgq import __version__, checkup, db, store
from pgq.checkup import Outdated
from pgq.conf import Settings
from pgq.former_ids import FormerId, FormerIds
from pgq.health_server import HealthServer
from pgq.pool import Child, Pool, State, python_path
from pgq.protocol import BYE, CANCEL, IDLE, LARGE, MORE, READY, RENAMED, STOP, TICKED, WAKE
from pgq.pulse import Pulse

logger = logging.getLogger("pgq")

#: Seconds between the first two looks at the queue; they double, up to `poll`.
_FIRST_LOOK = 0.02
#: Share of the queue of notifications that should never be in use.
_FULL = 0.1
#: Seconds for which a pool that ends waits for the claims that workers were killed in, at most.
_AWAIT_COMMITS = 2.0
#: Seconds after which a pool that has never reached PostgreSQL says so as an error, and one that runs once gives up.
_GIVE_UP = 10.0
#: Seconds between two errors that say why nothing runs.
_COMPLAIN_AGAIN = 60.0
#: Seconds until LISTEN is tried again after it cost us the session.
_LISTEN_AGAIN = 30.0
#: A lease shorter than this could run out between two looks at the clock.
_SLACK = timedelta(seconds=5)
#: Seconds after which a lease is renewed at the latest, however long it is: pools may differ in `retry`, and what
#: counts as abandoned is for the one that rescues to say (see `rescue.UNRENEWED_SECONDS`).
RENEW_AFTER = 20.0


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


class Supervisor:
    """One pool.

    Args:
        settings: With what the command line overrides already put in.
        run_once: Stop as soon as nothing is ready any more.
        log_format, log_level: What the command line says of them, if it does.
        reload: Asked once a second; True means that the code has changed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_once: bool = False,
        log_format: str | None = None,
        log_level: str | None = None,
        reload: Callable[[], bool] | None = None,
    ) -> None:
        self.settings, self.run_once, self.reload = settings, run_once, reload
        self.id = uuid4()
        self.selector = selectors.DefaultSelector()
        self.pool = Pool(settings, log_format, log_level, self.selector, self._heard, self._func_of)
        self.listener: db.Listener | None = None
        self.listener_fd = -1
        self.backoff = db.Backoff()
        self.reconnect_at = 0.0
        self.began = time.monotonic()
        #: Whether PostgreSQL has ever taken all that we had to say. Children are not started before.
        self.has_worked = False
        #: Why PostgreSQL does not, at the moment.
        self.trouble: psycopg.Error | None = None
        #: What was said last of why nothing runs, and when (monotonic) to say it again.
        self.complaint = ""
        self.complain_at = 0.0
        #: Why a pool that runs once could run nothing; None: it could.
        self.failed: str | None = None
        #: How often the pool was told to stop.
        self.stops = 0
        self.kill_at: float | None = None
        self.restart = False
        self.ticked = False
        #: Somebody notified while nobody slept: the next to fall asleep is woken.
        self.missed_wake = False
        self.said_asleep = 0
        self.all_busy_since: float | None = None
        self.look_pause = _FIRST_LOOK
        #: Why no notification reaches us, as far as the log knows; and when (monotonic) to try it again.
        self.deaf: str | None = None
        self.listen_at = 0.0
        self.said_full = self.said_large = False
        self.look_at = 0.0
        self.leases_since = store.BEFORE_ALL_LEASES
        #: Of workers that died, or lost their connection.
        self.former_ids = FormerIds()
        beat = max(0.5, min(settings.retry / 4, 5.0))
        self.heartbeat = Clock(beat)
        self.renewal = Clock(beat)
        self.pulse = Pulse(self.pool, settings, beat)
        self.health: HealthServer | None = None
        if settings.health_port is not None:
            self.health = HealthServer(settings.health_host, settings.health_port, self.pulse.trouble)
            self.selector.register(self.health.fileno(), selectors.EVENT_READ, self.health.look)
        self.second = Clock(1.0)

    # ------------------------------------------------------------------------------------------- life

    def run(self) -> bool:
        """Run the pool until it is told to stop; return whether it should be started anew (SIGHUP)."""
        with self._signals(), python_path():
            logger.info(
                "pool %s: %d workers on %s, queues %s, pid %d", self.settings.name, self.settings.workers,
                self.settings.database, ", ".join(self.settings.queues) if self.settings.queues else "all", os.getpid(),
            )  # fmt: skip
            self.pool.adopt_orphans()
            try:
                while not self._finished():
                    if self.has_worked:
                        self.pool.fill()
                    self._wait()
                    self._look_round()
            finally:
                self._leave()
        return self.restart

    def _finished(self) -> bool:
        return self.stops > 0 and not self.pool.children()

    def _wait(self) -> None:
        now = time.monotonic()
        times = []
        if self.reload:
            times.append(self.second.next)
        times += self.pool.next_end()
        if self.has_worked:
            times += self.pool.next_start()
        if self.kill_at is not None:
            times.append(self.kill_at)
        if self.listener is None:
            # Nothing of what is to be said to PostgreSQL can be.
            times.append(self.reconnect_at)
        else:
            times += [self.heartbeat.next, self.renewal.next, self.former_ids.next_look]
            if self.pool.any_worker(State.ASLEEP):
                times.append(self.look_at)
        if self.pool.orphaned or self.pool.any_worker(State.AWAKE) or self.pool.is_running():
            # The board tells what is running without asking anybody; look when it may be overdue.
            times.append(now + 0.1)
        for key, _ in self.selector.select(max(0.0, min(times) - now)):
            key.data()

    def _look_round(self) -> None:
        now = time.monotonic()
        if self.health is not None:
            self.health.look()
        self.pool.kill_overdue(now)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = None
            self.pool.kill_all("the pool was told to hurry")
        if self.reload and self.second.due(now) and not self.stops and self.reload():
            logger.info("the code has changed: reloading")
            self._ask_to_restart()
        if self.listener is None and now >= self.reconnect_at:
            self._connect()
        if self.listener is not None:
            try:
                self._talk(now)
                if self.listener is not None:
                    self.backoff.succeeded()
                    self.has_worked, self.trouble = True, None
            except psycopg.Error as error:
                self._disconnected(error)
        if self.pool.orphaned:
            self.pool.kill_orphans()
        if self.run_once and self.ticked and not self.stops and self._drained():
            self._stop("nothing is left to do")
        if not self.stops and (why := self._why_nothing_runs(now)) is not None:
            self._complain(why, now)

    def _why_nothing_runs(self, now: float) -> str | None:
        """Say why nothing runs and nothing will, unless somebody mends it; None: something does, or may soon."""
        if self.trouble is None:
            return self.pool.hopeless()
        if isinstance(self.trouble, Outdated) or (not self.has_worked and now - self.began > _GIVE_UP):
            return db.message(self.trouble)
        return None

    def _complain(self, why: str, now: float) -> None:
        if self.run_once:
            self.failed = why
            self._stop("nothing can be run")
        elif why != self.complaint or now >= self.complain_at:
            self.complaint, self.complain_at = why, now + _COMPLAIN_AGAIN
            logger.error("nothing can be run: %s", why)

    def _leave(self) -> None:
        self.pool.bury_all()
        if self.listener is not None:
            with contextlib.suppress(psycopg.Error):
                self._release_lost()
                self._await_late_commits()
                store.goodbye(self.listener.connection.cursor(), self.id)
                self.listener.connection.close()
        if self.pool.lost:
            logger.warning(
                "PostgreSQL could not be told of %d lost workers; their leases will run out", len(self.pool.lost)
            )
        if self.health is not None:
            self.health.close()
        self.selector.close()
        logger.info("pool %s has stopped", self.settings.name)

    # ------------------------------------------------------------------------------------------- PostgreSQL

    def _connect(self) -> None:
        try:
            # Whoever waits longer than this for one answer cannot renew leases in time.
            patience = min(float(db.DEAD_AFTER), max(2.0, self.settings.retry / 4))
            # A lock on a table of ours must not make the pool look merely slow: then a probe needs its answer most.
            look = self.health.look if self.health is not None else None
            connection = db.connect(self.settings.database, "pgq supervisor", patience=patience, meanwhile=look)
        except psycopg.Error as error:
            self._disconnected(error)
            return
        try:
            checkup.require_tables(connection.cursor())
            self.listener = self._listen(connection)
            self._say_if_deaf(self.listener.deaf)
        except psycopg.Error as error:
            connection.close()
            self._disconnected(error)
            return
        self.listener_fd = self.listener.fileno()
        self.selector.register(self.listener_fd, selectors.EVENT_READ, self._notified)
        # It may be a standby that took over, in whose past nobody has renewed.
        self.leases_since = store.BEFORE_ALL_LEASES
        # Whatever was said while nobody listened is lost: look at once.
        self.heartbeat.next = self.renewal.next = self.look_at = 0.0
        self._wake(self.settings.workers)

    def _listen(self, connection: db.Connection) -> db.Listener:
        deaf = self.deaf if time.monotonic() < self.listen_at else None
        try:
            return db.Listener(connection, "pgq_wake", "pgq_control", another=self._another, deaf=deaf)
        except psycopg.Error as error:
            self._cannot_listen(error)
            raise

    def _cannot_listen(self, error: psycopg.Error) -> None:
        """It ended the session, as with a broken queue of notifications: work on without, and try it again later."""
        self.listen_at = time.monotonic() + _LISTEN_AGAIN
        self._say_if_deaf(db.message(error))

    def _another(self) -> db.Connection:
        return db.connect(self.settings.database, "pgq supervisor", patience=float(db.DEAD_AFTER))

    def _say_if_deaf(self, why: str | None) -> None:
        if why == self.deaf:
            return
        self.deaf = why
        if why:
            logger.warning(
                "no notification reaches us (%s): sleeping workers look at the queue instead, every %g s at least",
                why, self.settings.poll,
            )  # fmt: skip
        else:
            logger.info("notifications reach us again")

    def _try_notifications(self, cursor: db.Cursor) -> None:
        """Try whether notifications can be sent. If not, nobody must be asked to: his commit would fail."""
        assert self.listener is not None
        if self.listener.pooled:
            return
        try:
            usage = store.try_notify(cursor)
            if self.listener.deaf and time.monotonic() >= self.listen_at:
                self.listener.listen()
            why = self.listener.deaf
        except psycopg.OperationalError as error:
            if self.listener.connection.closed:
                self._cannot_listen(error)
                raise
            why, usage = db.message(error), 0.0
            self.listener.deaf = why
        self._say_if_deaf(why)
        if usage > _FULL and not self.said_full:
            logger.warning(
                "the queue of notifications is %.0f %% full: a session that listens is in a long transaction",
                100 * usage,
            )
        self.said_full = usage > _FULL

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
        # That the tables are missing is said as what it is, an error, and not as a failed attempt.
        pause = self.backoff.next_pause() if isinstance(error, Outdated) else self.backoff.failed(error)
        self.reconnect_at = time.monotonic() + pause

    def _talk(self, now: float) -> None:
        """Say and ask what is due."""
        assert self.listener is not None
        cursor = self.listener.connection.cursor()
        if self.pool.lost:
            self._release_lost()
        if now >= self.former_ids.next_look:
            self._release_late(cursor)
        if self.renewal.due(now):
            self._renew(cursor)
        if self.heartbeat.due(now):
            self._beat(cursor)
            self._try_notifications(cursor)
        if not self.stops:
            self._look_at_queue(cursor, now)
        # Notifications that came during these statements do not make the socket readable.
        self._notified()

    def _renew(self, cursor: db.Cursor) -> None:
        workers = [child.id for child in self.pool.workers()]
        age = min(self.settings.retry / 3, RENEW_AFTER)
        renewal = store.renew(cursor, workers, since=self.leases_since, age=age)
        # Younger leases were left alone, and a claim may have been committing meanwhile.
        self.leases_since = renewal.at - timedelta(seconds=age) - _SLACK
        self.pulse.renewed()
        self._cancel(renewal.cancelled)

    def _beat(self, cursor: db.Cursor) -> None:
        status = (
            "stopping"
            if self.stops
            else "working"
            if self.pool.any_worker(State.AWAKE) or self.pool.is_running()
            else "idle"
        )
        stalled = None if self.stops else self.pulse.look(cursor)
        store.heartbeat(
            cursor, id=self.id, name=self.settings.name, host=socket.gethostname(), pid=os.getpid(),
            queues=self.settings.queues, status=status, version=__version__, workers=json.dumps(self.pool.report()),
            retry=self.settings.retry, clock=time.time(), stalled=stalled,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------- sleeping and waking

    def _look_at_queue(self, cursor: db.Cursor, now: float) -> None:
        """While somebody sleeps, say so to those who enqueue, and look at the queue at growing intervals."""
        if not self.pool.any_worker(State.ASLEEP):
            if self.said_asleep and self.all_busy_since is not None and now - self.all_busy_since > 0.1:
                store.all_awake(cursor, said=self.said_asleep)
                self.said_asleep = 0
            return
        if now < self.look_at:
            return
        assert self.listener is not None
        poll = self.settings.poll
        flag = None if self.listener.deaf else int(poll * 1500) + 500
        self.said_asleep, ready = store.peek(cursor, milliseconds=flag, queues=self.settings.queues)
        if ready:
            self._wake(1)
        self.look_pause = min(self.look_pause * 2, poll)
        self.look_at = now + self.look_pause * random.uniform(0.9, 1.0)

    def _notified(self) -> None:
        if self.listener is None:
            return
        try:
            channels = self.listener.drain()
            if "pgq_control" in channels:
                self._ask_for_cancelled()
        except psycopg.Error as error:
            self._disconnected(error)
            return
        wakes = channels.count("pgq_wake")
        if wakes:
            self._wake(wakes)

    def _wake(self, count: int) -> None:
        """Wake up to `count` sleepers; remember it if nobody sleeps."""
        for child in self.pool.workers():
            if count <= 0:
                return
            if child.state is State.ASLEEP:
                child.state = State.AWAKE
                child.tell(WAKE)
                count -= 1
        if count > 0:
            self.missed_wake = True
        if not self.pool.any_worker(State.ASLEEP):
            self.all_busy_since = time.monotonic()

    def _fell_asleep(self, sleeper: Child) -> None:
        sleeper.state = State.ASLEEP
        self.all_busy_since = None
        if self.missed_wake:
            self.missed_wake = False
            self._wake(1)
        elif not self.said_asleep or self.look_pause >= self.settings.poll:
            # The flag was down, or may soon be: raise it, and look soon, since somebody may just have missed it.
            self.look_pause = _FIRST_LOOK / 2
            self.look_at = 0.0

    # ------------------------------------------------------------------------------------------- cancelling

    def _ask_for_cancelled(self) -> None:
        assert self.listener is not None
        workers = [child.id for child in self.pool.workers()]
        self._cancel(store.cancelled(self.listener.connection.cursor(), workers, since=self.leases_since))

    def _cancel(self, tasks: Sequence[tuple[UUID, UUID]]) -> None:
        for task, holder in tasks:
            for child in self.pool.workers():
                if child.id == holder:
                    child.tell(CANCEL + task.bytes)

    # ------------------------------------------------------------------------------------------- children

    def _heard(self, speaker: Child, message: bytes) -> None:
        if message == READY:
            speaker.state = State.AWAKE
            # Who looks at pgq_worker sees a new worker at once.
            self.heartbeat.next = 0.0
            if self.stops:
                speaker.tell(STOP)
        elif message == IDLE:
            self._fell_asleep(speaker)
        elif message == MORE and self.pool.any_worker(State.ASLEEP):
            self._wake(1)
        elif message == TICKED:
            self.ticked = True
            self.pulse.ticked()
        elif message.startswith(RENAMED):
            renamed = UUID(bytes=message[1:])
            if any(child.id == renamed for child in self.pool.workers()):
                raise ValueError("it says to be another worker")
            self.pool.lost.append(FormerId(speaker.id))
            speaker.id = renamed
            self.renewal.next = 0.0
        elif message.startswith(LARGE):
            self._is_large(int.from_bytes(message[1:]))
        elif message == BYE:
            speaker.state = State.LEAVING

    def _is_large(self, kilobytes: int) -> None:
        if self.said_large:
            return
        self.said_large = True
        logger.warning(
            "max_rss is %d kB, and a worker takes %d kB before its first task: each is replaced after a second and a "
            "task at least. max_rss is in kilobytes", self.settings.max_rss, kilobytes,
        )  # fmt: skip

    def _func_of(self, task: UUID) -> str | None:
        """Ask for the function of a task that runs here, for the log."""
        if self.listener is None:
            return None
        # What is wrong with the connection, the next statement finds as well.
        with contextlib.suppress(psycopg.Error):
            return store.func_of(self.listener.connection.cursor(), task)
        return None

    def _release_lost(self) -> None:
        """Tell PostgreSQL of the ids under which no worker claims any more."""
        assert self.listener is not None
        cursor = self.listener.connection.cursor()
        while self.pool.lost:
            released = self.former_ids.release(cursor, self.pool.lost[0], self.leases_since)
            self.pool.lost.pop(0)
            self._released(cursor, released, "of a lost worker")

    def _release_late(self, cursor: db.Cursor) -> None:
        self._released(cursor, self.former_ids.look_again(cursor), "whose claim was never confirmed")

    def _released(self, cursor: db.Cursor, count: int, which: str) -> None:
        if count:
            logger.info("%d tasks %s are ready again", count, which)
            self._wake(1)
            store.wake(cursor)

    def _await_late_commits(self) -> None:
        """Do not leave behind what workers were killed in: with us ends the knowledge whose claim it was."""
        assert self.listener is not None
        cursor = self.listener.connection.cursor()
        until = time.monotonic() + _AWAIT_COMMITS
        while self.former_ids.may_commit(cursor) and time.monotonic() < until:
            time.sleep(0.05)
            self._release_late(cursor)
        self._release_late(cursor)

    # ------------------------------------------------------------------------------------------- stopping

    @contextlib.contextmanager
    def _signals(self) -> Any:
        """Turn signals into events of the loop."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._signalled(ours.recv(64)))
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        for number in handled:
            signal.signal(number, lambda *_: None)
        fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            if not self.restart:
                # Python puts back the default for handlers of its own when it ends, and a late signal would then give
                # a pool that stopped well the exit code of one that was killed. (Not before an exec, which inherits.)
                for number in handled:
                    signal.signal(number, signal.SIG_IGN)
            ours.close()
            theirs.close()

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number != signal.SIGHUP:
                # Told to stop while it reloads, it must not come back.
                self.restart = False
            if number == signal.SIGHUP:
                logger.info("SIGHUP: reloading")
                self._ask_to_restart()
            elif number == signal.SIGQUIT:
                self._stop("SIGQUIT")
                self.pool.kill_all("the pool was told to quit")
            elif number in (signal.SIGINT, signal.SIGTERM):
                self._stop(signal.Signals(number).name)

    def _ask_to_restart(self) -> None:
        if not self.stops:
            self.restart = True
            self._stop("reload")

    def _stop(self, why: str) -> None:
        """First: finish what runs. Second: within a few seconds. Third: now."""
        self.stops += 1
        self.pulse.stopping = True
        now = time.monotonic()
        if self.stops == 1:
            logger.info("stopping (%s): running tasks finish, the others are given back", why)
            self.pool.closing = True
            self.pool.tell_all(STOP)
            if self.settings.grace is not None:
                self.kill_at = now + self.settings.grace
        elif self.stops == 2:
            logger.warning("stopping (%s): running tasks have %.0f s left", why, self.settings.kill_after)
            self.kill_at = now + self.settings.kill_after
        else:
            logger.warning("stopping (%s): now", why)
            self.pool.kill_all("the pool was told to stop now")

    def _drained(self) -> bool:
        """Whether all workers sleep and nothing is ready."""
        workers = self.pool.workers()
        if len(workers) < self.settings.workers or self.missed_wake or self.pool.lost or self.listener is None:
            return False
        if any(worker.state is not State.ASLEEP for worker in workers) or self.pool.is_running():
            return False
        try:
            cursor = self.listener.connection.cursor()
            if self.former_ids.may_commit(cursor):
                return False
            _, ready = store.peek(cursor, milliseconds=0, queues=self.settings.queues)
        except psycopg.Error as error:
            self._disconnected(error)
            return False
        return not ready
