"""The processes of a pool: starts them, hears them, kills those that overstay, notes what the dead held, starts others.

Each child has a pipe of its own, so that no death can jam another's. What children say goes to the supervisor.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import multiprocessing
import os
import random
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID, uuid4

from pgq import codec, upkeep, worker
from pgq.board import Slot
from pgq.child import ChildConfig, enter
from pgq.conf import Settings

logger = logging.getLogger("pgq")

#: Seconds between two attempts to start a child that dies at once, at most.
_MAX_BOOT_PAUSE = 30.0


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
    #: Its place on the board; None: upkeep, which runs no tasks.
    slot: Slot | None
    state: State = State.STARTING
    #: Why the supervisor killed it; None: it did not.
    killed: str | None = None

    def tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(message)

    @property
    def left_well(self) -> bool:
        """Whether it has ended, and with nothing left in its hands."""
        return self.process.exitcode == 0 and self.state is State.LEAVING

    @property
    def cause(self) -> str:
        """What it died of."""
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"by {signal.Signals(-code).name}"
        return f"with exit code {code}"


@dataclass(frozen=True)
class Lost:
    """A dead worker whose tasks are to be made ready again."""

    worker: UUID
    #: The task to blame, if any.
    culprits: tuple[UUID, ...]
    #: Whether that task took its worker down, or was killed at its timeout.
    crash: bool
    #: What its history says of it, as JSON.
    error: str


@dataclass
class Place:
    """A place in the pool: who fills it, and when it may be filled again."""

    number: int
    main: Callable[..., None]
    child: Child | None = None
    not_before: float = 0.0
    failures: int = 0
    #: How many children have been started here.
    starts: int = 0

    @property
    def name(self) -> str:
        return "upkeep" if self.main is upkeep.main else f"worker {self.number}"


class Pool:
    """The workers and upkeep.

    Args:
        heard: Called with each message of a child.
    """

    def __init__(
        self,
        settings: Settings,
        log_format: str,
        selector: selectors.BaseSelector,
        heard: Callable[[Child, bytes], None],
    ) -> None:
        self.settings, self.log_format, self.selector, self.heard = settings, log_format, selector, heard
        self.context = _context(settings.start_method)
        self.places = [Place(number, worker.main) for number in range(settings.workers)]
        self.places.append(Place(settings.workers, upkeep.main))
        #: Dead workers of which PostgreSQL has not been told.
        self.lost: list[Lost] = []
        #: No child is replaced any more.
        self.closing = False

    # ------------------------------------------------------------------------------------------- who is there

    def children(self) -> list[Child]:
        """Return all children."""
        return [place.child for place in self.places if place.child is not None]

    def workers(self) -> list[Child]:
        """Return the workers."""
        return [child for child in self.children() if child.slot is not None]

    def any_worker(self, state: State) -> bool:
        """Return whether some worker is in that state."""
        return any(child.state is state for child in self.workers())

    def report(self) -> list[dict[str, Any]]:
        """Return what each worker does, for the table of pools."""
        now = time.monotonic()
        rows: list[dict[str, Any]] = []
        for place in self.places:
            child = place.child
            if place.main is not worker.main:
                continue
            if child is None or child.slot is None:
                rows.append({"number": place.number, "state": "restarting", "restarts": place.starts})
                continue
            seen = child.slot.read()
            rows.append({
                "number": child.number, "id": child.id.hex, "pid": child.process.pid, "state": child.state.value,
                "task": seen.task.hex if seen.task else None,
                "seconds": round(now - seen.started, 1) if seen.task else None,
                "succeeded": seen.succeeded, "failed": seen.failed, "restarts": place.starts - 1,
            })  # fmt: skip
        return rows

    # ------------------------------------------------------------------------------------------- starting

    def fill(self) -> None:
        """Start whoever is missing."""
        if self.closing:
            return
        now = time.monotonic()
        for place in self.places:
            if place.child is None and now >= place.not_before:
                try:
                    place.child = self._start(place)
                    place.starts += 1
                except (OSError, EOFError) as error:
                    # No process or no memory to be had, or the fork server died: do not try again at once.
                    self._boot_failed(place, f"could not be started: {error}")

    def next_start(self) -> list[float]:
        """Return the monotonic times at which `fill` has something to do."""
        return [] if self.closing else [place.not_before for place in self.places if place.child is None]

    def _start(self, place: Place) -> Child:
        id = uuid4()
        ours, theirs = self.context.Pipe()
        slot = Slot(self.context) if place.main is worker.main else None
        config = ChildConfig(
            id=id, number=place.number, pool=self.settings.name, database=self.settings.database,
            queues=self.settings.queues, log_format=self.log_format, log_level=self.settings.log_level,
        )  # fmt: skip
        arguments = (config, theirs) if slot is None else (config, theirs, slot)
        process = self.context.Process(target=enter, args=(place.main.__module__, *arguments), name=f"pgq {place.name}")
        process.start()
        theirs.close()
        child = Child(place.number, id, process, ours, slot)
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._listen(child))
        self.selector.register(process.sentinel, selectors.EVENT_READ, lambda: self._died(child))
        return child

    def _listen(self, child: Child) -> None:
        if child.pipe.closed:
            # Its death was noticed first, among the events of the same look.
            return
        try:
            while child.pipe.poll():
                self.heard(child, child.pipe.recv_bytes(64))
        except (EOFError, OSError):
            # It is dying; its sentinel says so too.
            with contextlib.suppress(KeyError):
                self.selector.unregister(child.pipe)

    def _boot_failed(self, place: Place, what: str) -> None:
        place.failures += 1
        pause = min(_MAX_BOOT_PAUSE, 0.1 * 2 ** min(place.failures - 1, 10)) * random.uniform(0.5, 1.0)
        place.not_before = time.monotonic() + pause
        logger.error("%s %s; the next one starts in %.1f s", place.name, what, pause)

    # ------------------------------------------------------------------------------------------- ending

    def tell_all(self, message: bytes) -> None:
        """Say something to all children."""
        for child in self.children():
            child.tell(message)

    def kill_overdue(self, now: float) -> None:
        """Kill the workers whose task has not stopped at its timeout."""
        for child in self.workers():
            if child.killed is not None or child.slot is None:
                continue
            seen = child.slot.read()
            if seen.task is not None and seen.deadline and now > seen.deadline:
                logger.error(
                    "task %s did not stop at its timeout: its worker %d is killed", seen.task.hex, child.number
                )
                child.killed = "timeout"
                child.process.kill()

    def kill_all(self, why: str) -> None:
        """Kill all children; nobody's task is to blame."""
        for child in self.children():
            child.killed = child.killed or why
            child.process.kill()

    def bury_all(self) -> None:
        """Kill whoever is left and wait for it."""
        for child in self.children():
            child.process.kill()
            child.process.join()
            self._bury(child)

    def _died(self, dead: Child) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(dead.process.sentinel)
        if dead.state is not State.LEAVING:
            self._listen(dead)
        dead.process.join()
        place = self.places[dead.number]
        place.child = None
        self._bury(dead)
        if not dead.left_well and dead.state is State.STARTING and not self.closing:
            self._boot_failed(place, f"died while starting, {dead.cause}")
        else:
            place.failures, place.not_before = 0, 0.0

    def _bury(self, dead: Child) -> None:
        """Note what a dead worker may have held, so that it is made ready again at once."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(dead.pipe)
        dead.pipe.close()
        if dead.slot is None or dead.left_well:
            return
        running = dead.slot.read().task
        if dead.killed is None:
            logger.error(
                "worker %d died, %s%s", dead.number, dead.cause, f", running task {running.hex}" if running else ""
            )
        # Told to hurry, nobody is to blame; at a timeout it is a failed attempt; else the task took its worker down.
        blamed = (running,) if running is not None and dead.killed in (None, "timeout") else ()
        at_timeout = dead.killed == "timeout"
        error = codec.encode({
            "exception": "pgq.errors.TaskTimeout" if at_timeout else "pgq.errors.WorkerDied",
            "message": "the task did not stop at its timeout" if at_timeout else f"the worker died, {dead.cause}",
            "traceback": "",
        })  # fmt: skip
        self.lost.append(Lost(dead.id, blamed, dead.killed is None, error))


def _context(start_method: str) -> Any:
    context: Any = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        # A new worker is then a fork of a process that has Django loaded: milliseconds instead of a second.
        context.set_forkserver_preload(["pgq.preload"])
    return context


@contextlib.contextmanager
def python_path() -> Iterator[None]:
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
