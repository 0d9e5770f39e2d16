"""The supervisor: starts the workers and upkeep, wakes them, renews their leases, kills and replaces them.

Runs no user code. Talks to each child over a pipe of its own, so that no death can jam another's. One connection serves
LISTEN, the look at the queue while somebody sleeps, lease renewal and the heartbeat.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import multiprocessing
import os
import random
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID, uuid4

import psycopg

from pgq import __version__, codec, db, store, upkeep, worker
from pgq.board import Slot
from pgq.child import BYE, CANCEL, IDLE, MORE, READY, STOP, TICKED, WAKE, ChildConfig
from pgq.conf import Settings

logger = logging.getLogger("pgq")

#: Seconds within which a child that dies has not really started.
_BOOT = 5.0
_MAX_BOOT_PAUSE = 30.0
_FIRST_LOOK = 0.02
#: A lease shorter than this could run out between two looks at the clock.
_SLACK = timedelta(seconds=5)


class State(enum.Enum):
    """Of a child."""

    STARTING = "starting"
    AWAKE = "working"
    ASLEEP = "idle"
    LEAVING = "leaving"


@dataclass(eq=False)
class Child:
    """A process of the pool, as the supervisor sees it."""

    number: int
    id: UUID
    process: BaseProcess
    pipe: Connection
    slot: Slot | None
    started: float
    state: State = State.STARTING
    #: Why the supervisor killed it; None: it did not.
    killed: str | None = None

    @property
    def is_worker(self) -> bool:
        return self.slot is not None

    def tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(message)


@dataclass(frozen=True)
class Lost:
    """A dead worker whose tasks are to be released as soon as PostgreSQL can be reached."""

    worker: UUID
    culprits: tuple[UUID, ...]
    crash: bool
    error: str


@dataclass
class Place:
    """A place in the pool: who fills it, and when it may be filled again."""

    number: int
    start: Callable[[int], Child]
    child: Child | None = None
    not_before: float = 0.0
    failures: int = 0


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
        log_format: "plain" or "json".
        reload: Asked once a second; True means that the code has changed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_once: bool = False,
        log_format: str = "plain",
        reload: Callable[[], bool] | None = None,
    ) -> None:
        self.settings, self.run_once, self.log_format, self.reload = settings, run_once, log_format, reload
        self.id = uuid4()
        self.context = _context(settings.start_method)
        self.places = [Place(number, self._start_worker) for number in range(settings.workers)]
        self.places.append(Place(settings.workers, self._start_upkeep))
        self.selector = selectors.DefaultSelector()
        self.listener: db.Listener | None = None
        self.listener_fd = -1
        self.backoff = db.Backoff()
        self.reconnect_at = 0.0
        self.lost: list[Lost] = []
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
        self.look_at = 0.0
        self.leases_since = datetime(2000, 1, 1, tzinfo=UTC)
        beat = max(0.5, min(settings.retry / 4, 5.0))
        self.heartbeat = Clock(beat)
        self.renewal = Clock(beat)
        self.second = Clock(1.0)

    # ------------------------------------------------------------------------------------------- life

    def run(self) -> bool:
        """Run the pool until it is told to stop; return whether it should be started anew (SIGHUP)."""
        with self._signals(), _python_path():
            logger.info(
                "pool %s: %d workers on %s, queues %s, pid %d", self.settings.name, self.settings.workers,
                self.settings.database, ", ".join(self.settings.queues) if self.settings.queues else "all", os.getpid(),
            )  # fmt: skip
            try:
                while not self._finished():
                    self._fill_places()
                    self._wait()
                    self._look_round()
            finally:
                self._leave()
        return self.restart

    def _finished(self) -> bool:
        return self.stops > 0 and not self._children()

    def _children(self) -> list[Child]:
        return [place.child for place in self.places if place.child is not None]

    def _workers(self) -> list[Child]:
        return [child for child in self._children() if child.is_worker]

    def _wait(self) -> None:
        now = time.monotonic()
        times = [self.heartbeat.next, self.renewal.next]
        if self.reload:
            times.append(self.second.next)
        times += [place.not_before for place in self.places if place.child is None and not self.stops]
        if self.kill_at is not None:
            times.append(self.kill_at)
        if self.listener is None:
            times.append(self.reconnect_at)
        elif self._somebody_sleeps():
            times.append(self.look_at)
        for child in self._workers():
            if child.state is State.AWAKE:
                # The slot tells which task is running without asking anybody; look when it may be overdue.
                times.append(now + 0.1)
                break
        for key, _ in self.selector.select(max(0.0, min(times) - now)):
            key.data()

    def _look_round(self) -> None:
        now = time.monotonic()
        self._kill_overdue(now)
        if self.kill_at is not None and now >= self.kill_at:
            self._kill_all("the pool was told to hurry")
        if self.reload and self.second.due(now) and not self.stops and self.reload():
            logger.info("the code has changed: reloading")
            self._ask_to_restart()
        if self.listener is None and now >= self.reconnect_at:
            self._connect()
        if self.listener is not None:
            try:
                self._talk(now)
                self.backoff.succeeded()
            except psycopg.Error as error:
                self._disconnected(error)
        if self.run_once and self.ticked and not self.stops and self._drained():
            self._stop("nothing is left to do")

    def _leave(self) -> None:
        for child in self._children():
            child.process.kill()
            child.process.join()
            self._bury(child)
        if self.listener is not None:
            with contextlib.suppress(psycopg.Error):
                self._release_lost()
                store.goodbye(self.listener.connection.cursor(), self.id)
                self.listener.connection.close()
        if self.lost:
            logger.warning("PostgreSQL could not be told of %d dead workers; their leases will run out", len(self.lost))
        self.selector.close()
        logger.info("pool %s has stopped", self.settings.name)

    # ------------------------------------------------------------------------------------------- PostgreSQL

    def _connect(self) -> None:
        try:
            connection = db.connect(self.settings.database, "pgq supervisor")
            self.listener = db.Listener(connection, "pgq_wake")
            connection.execute('LISTEN "pgq_control"')
        except psycopg.Error as error:
            self._disconnected(error)
            return
        self.listener_fd = self.listener.fileno()
        self.selector.register(self.listener_fd, selectors.EVENT_READ, self._notified)
        # Whatever was said while nobody listened is lost: look at once.
        self.heartbeat.next = self.renewal.next = self.look_at = 0.0
        self._wake(len(self.places))

    def _disconnected(self, error: psycopg.Error) -> None:
        if self.listener is not None:
            self.selector.unregister(self.listener_fd)
            with contextlib.suppress(psycopg.Error):
                self.listener.connection.close()
            self.listener = None
        pause = self.backoff.next_pause()
        self.reconnect_at = time.monotonic() + pause
        logger.warning("PostgreSQL: %s; trying again in %.2f s", str(error).strip() or type(error).__name__, pause)

    def _talk(self, now: float) -> None:
        """Say and ask what is due."""
        assert self.listener is not None
        cursor = self.listener.connection.cursor()
        if self.lost:
            self._release_lost()
        if self.renewal.due(now):
            self._renew(cursor)
        if self.heartbeat.due(now):
            self._beat(cursor)
        if not self.stops:
            self._look_at_queue(cursor, now)
        # Notifications that came during these statements do not make the socket readable.
        self._notified()

    def _renew(self, cursor: db.Cursor) -> None:
        workers = [child.id for child in self._workers()]
        age = self.settings.retry / 3
        renewal = store.renew(cursor, workers, since=self.leases_since, age=age)
        # Younger leases were left alone, and a claim may have been committing meanwhile.
        self.leases_since = renewal.at - timedelta(seconds=age) - _SLACK
        self._cancel(renewal.cancelled)

    def _beat(self, cursor: db.Cursor) -> None:
        now = time.monotonic()
        rows = []
        for place in self.places[:-1]:
            child = place.child
            if child is None or child.slot is None:
                rows.append({"number": place.number, "state": "restarting"})
                continue
            seen = child.slot.read()
            rows.append({
                "number": child.number, "id": child.id.hex, "pid": child.process.pid, "state": child.state.value,
                "task": seen.task.hex if seen.task else None,
                "seconds": round(now - seen.started, 1) if seen.task else None,
                "succeeded": seen.succeeded, "failed": seen.failed,
            })  # fmt: skip
        status = "stopping" if self.stops else "idle" if not self._somebody_works() else "working"
        store.heartbeat(
            cursor, id=self.id, name=self.settings.name, host=socket.gethostname(), pid=os.getpid(),
            queues=self.settings.queues, status=status, version=__version__, workers=json.dumps(rows),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------- sleeping and waking

    def _somebody_sleeps(self) -> bool:
        return any(child.state is State.ASLEEP for child in self._workers())

    def _somebody_works(self) -> bool:
        return any(child.state is State.AWAKE for child in self._workers())

    def _look_at_queue(self, cursor: db.Cursor, now: float) -> None:
        """While somebody sleeps, say so to those who enqueue, and look at the queue at growing intervals."""
        if not self._somebody_sleeps():
            if self.said_asleep and self.all_busy_since is not None and now - self.all_busy_since > 0.1:
                store.all_awake(cursor, said=self.said_asleep)
                self.said_asleep = 0
            return
        if now < self.look_at:
            return
        poll = self.settings.poll
        self.said_asleep, ready = store.peek(cursor, milliseconds=int(poll * 1500) + 500, queues=self.settings.queues)
        if ready:
            self._wake(1)
        self.look_pause = min(self.look_pause * 2, poll)
        self.look_at = now + self.look_pause * random.uniform(0.9, 1.0)

    def _notified(self) -> None:
        if self.listener is None:
            return
        try:
            channels = self.listener.drain()
        except psycopg.Error as error:
            self._disconnected(error)
            return
        if "pgq_control" in channels:
            self._ask_for_cancelled()
        wakes = channels.count("pgq_wake")
        if wakes:
            self._wake(wakes)

    def _wake(self, count: int) -> None:
        """Wake up to `count` sleepers; remember it if nobody sleeps."""
        for child in self._workers():
            if count <= 0:
                return
            if child.state is State.ASLEEP:
                child.state = State.AWAKE
                child.tell(WAKE)
                count -= 1
        if count > 0:
            self.missed_wake = True
        if not self._somebody_sleeps():
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
        workers = [child.id for child in self._workers()]
        self._cancel(store.cancelled(self.listener.connection.cursor(), workers, since=self.leases_since))

    def _cancel(self, tasks: Sequence[tuple[UUID, UUID]]) -> None:
        for task, holder in tasks:
            for child in self._workers():
                if child.id == holder:
                    child.tell(CANCEL + task.bytes)

    # ------------------------------------------------------------------------------------------- children

    def _fill_places(self) -> None:
        if self.stops:
            return
        now = time.monotonic()
        for place in self.places:
            if place.child is None and now >= place.not_before:
                try:
                    place.child = place.start(place.number)
                except OSError as error:
                    # No process or no memory to be had: what we need least is to try at once again.
                    self._boot_failed(place, f"could not be started: {error}")

    def _config(self, number: int, id: UUID) -> ChildConfig:
        return ChildConfig(
            id=id, number=number, pool=self.settings.name, database=self.settings.database, queues=self.settings.queues,
            log_format=self.log_format, log_level=self.settings.log_level, supervisor_pid=os.getpid(),
        )  # fmt: skip

    def _start_worker(self, number: int) -> Child:
        return self._start(number, worker.main, Slot(self.context))

    def _start_upkeep(self, number: int) -> Child:
        return self._start(number, upkeep.main, None)

    def _start(self, number: int, main: Callable[..., None], slot: Slot | None) -> Child:
        id = uuid4()
        ours, theirs = self.context.Pipe()
        arguments = (self._config(number, id), theirs) + ((slot,) if slot is not None else ())
        process = self.context.Process(target=main, args=arguments, name=f"pgq {number}")
        process.start()
        theirs.close()
        new = Child(number, id, process, ours, slot, time.monotonic())
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._heard(new))
        self.selector.register(process.sentinel, selectors.EVENT_READ, lambda: self._died(new))
        return new

    def _heard(self, speaker: Child) -> None:
        try:
            while speaker.pipe.poll():
                self._understand(speaker, speaker.pipe.recv_bytes(64))
        except (EOFError, OSError):
            # It is dying; its sentinel says so too.
            with contextlib.suppress(KeyError):
                self.selector.unregister(speaker.pipe)

    def _understand(self, speaker: Child, message: bytes) -> None:
        if message == READY:
            speaker.state = State.AWAKE
            # Who looks at pgq_worker sees a new worker at once.
            self.heartbeat.next = 0.0
            if self.stops:
                speaker.tell(STOP)
        elif message == IDLE:
            self._fell_asleep(speaker)
        elif message == MORE:
            self._wake_another()
        elif message == TICKED:
            self.ticked = True
        elif message == BYE:
            speaker.state = State.LEAVING

    def _wake_another(self) -> None:
        if self._somebody_sleeps():
            self._wake(1)

    def _kill_overdue(self, now: float) -> None:
        for child in self._workers():
            if child.killed is not None or child.slot is None:
                continue
            seen = child.slot.read()
            if seen.task is not None and seen.deadline and now > seen.deadline:
                logger.error(
                    "task %s did not stop at its timeout: its worker %d is killed", seen.task.hex, child.number
                )
                child.killed = "timeout"
                child.process.kill()

    def _kill_all(self, why: str) -> None:
        self.kill_at = None
        for child in self._children():
            child.killed = child.killed or why
            child.process.kill()

    def _died(self, dead: Child) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(dead.process.sentinel)
        if dead.state is not State.LEAVING:
            self._heard(dead)
        dead.process.join()
        place = self.places[dead.number]
        place.child = None
        self._bury(dead)
        if self.stops:
            return
        left_well = dead.process.exitcode == 0 and dead.state is State.LEAVING
        if not left_well and dead.state is State.STARTING:
            self._boot_failed(place, f"died while starting, {_cause(dead)}")
        else:
            place.failures = 0
            place.not_before = 0.0

    def _boot_failed(self, place: Place, what: str) -> None:
        place.failures += 1
        pause = min(_MAX_BOOT_PAUSE, 0.1 * 2 ** min(place.failures - 1, 10)) * random.uniform(0.5, 1.0)
        place.not_before = time.monotonic() + pause
        name = "upkeep" if place is self.places[-1] else f"worker {place.number}"
        logger.error("%s %s; the next one starts in %.1f s", name, what, pause)

    def _bury(self, dead: Child) -> None:
        """Note what a dead worker may have held, so that it is released at once."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(dead.pipe)
        dead.pipe.close()
        if dead.slot is None or (dead.process.exitcode == 0 and dead.state is State.LEAVING):
            return
        running = dead.slot.read().task
        cause = _cause(dead)
        if dead.killed is None:
            logger.error("worker %d died, %s%s", dead.number, cause, f", running task {running.hex}" if running else "")
        # Told to hurry, nobody is to blame; at a timeout it is a failed attempt; else the task took its worker down.
        blamed = (running,) if running is not None and dead.killed in (None, "timeout") else ()
        exception = "pgq.errors.TaskTimeout" if dead.killed == "timeout" else "pgq.errors.WorkerDied"
        message = "the task did not stop at its timeout" if dead.killed == "timeout" else f"the worker died, {cause}"
        error = codec.encode({"exception": exception, "message": message, "traceback": ""})
        self.lost.append(Lost(dead.id, blamed, dead.killed is None, error))

    def _release_lost(self) -> None:
        assert self.listener is not None
        cursor = self.listener.connection.cursor()
        while self.lost:
            lost = self.lost[0]
            released = store.rescue(
                cursor, workers=[lost.worker], since=self.leases_since, age=-3600, culprits=lost.culprits,
                crash=lost.crash, error=lost.error,
            )  # fmt: skip
            self.lost.pop(0)
            if released:
                logger.info("%d tasks of a dead worker are ready again", len(released))
                self._wake(1)
                store.wake(cursor)

    # ------------------------------------------------------------------------------------------- stopping

    @contextlib.contextmanager
    def _signals(self) -> Any:
        """Turn signals into events of the loop, for as long as the pool runs."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._signalled(ours.recv(64)))
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        before = {number: signal.signal(number, lambda *_: None) for number in handled}
        fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                logger.info("SIGHUP: reloading")
                self._ask_to_restart()
            elif number == signal.SIGQUIT:
                self._stop("SIGQUIT")
                self._kill_all("the pool was told to quit")
            elif number in (signal.SIGINT, signal.SIGTERM):
                self._stop(signal.Signals(number).name)

    def _ask_to_restart(self) -> None:
        if not self.stops:
            self.restart = True
            self._stop("reload")

    def _stop(self, why: str) -> None:
        """First: finish what runs. Second: within a few seconds. Third: now."""
        self.stops += 1
        now = time.monotonic()
        if self.stops == 1:
            logger.info("stopping (%s): running tasks finish, the others are given back", why)
            for place in self.places:
                if place.child is not None:
                    place.child.tell(STOP)
            if self.settings.grace is not None:
                self.kill_at = now + self.settings.grace
        elif self.stops == 2:
            logger.warning("stopping (%s): running tasks have %.0f s left", why, self.settings.kill_after)
            self.kill_at = now + self.settings.kill_after
        else:
            logger.warning("stopping (%s): now", why)
            self._kill_all("the pool was told to stop now")

    def _drained(self) -> bool:
        """Whether all workers sleep and nothing is ready."""
        workers = self._workers()
        if len(workers) < self.settings.workers or self.missed_wake or self.lost or self.listener is None:
            return False
        if any(worker.state is not State.ASLEEP for worker in workers):
            return False
        try:
            _, ready = store.peek(self.listener.connection.cursor(), milliseconds=0, queues=self.settings.queues)
        except psycopg.Error as error:
            self._disconnected(error)
            return False
        return not ready


def _cause(dead: Child) -> str:
    code = dead.process.exitcode
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _context(start_method: str) -> Any:
    context: Any = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        # A new worker is then a fork of a process that has Django loaded: milliseconds instead of a second.
        context.set_forkserver_preload(["pgq.preload"])
    return context


@contextlib.contextmanager
def _python_path() -> Any:
    """Let the fork server import what we can: it is started without our sys.path."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
