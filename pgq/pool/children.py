"""The processes of a pool: started, heard, killed when overdue, and replaced when dead.

Each child has a pipe of its own, so that no death can jam another's. Children's messages go to the supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import multiprocessing
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID, uuid4

from pgq.codec.failures import as_json, without_traceback
from pgq.conf import Settings
from pgq.errors import TaskTimeout, WorkerDied
from pgq.ground import chance
from pgq.ground.private import fork_server_pids
from pgq.pool import boot
from pgq.pool.activity import Activity, ActivityCell
from pgq.pool.allowance import Allowance
from pgq.pool.child import enter
from pgq.pool.former_ids import FormerId
from pgq.pool.gate import Gate
from pgq.pool.orphans import adopt_orphans, children_of, kill_orphans
from pgq.pool.protocol import END_WITHIN_SECONDS, ENDING, STOP, TICKED, ChildConfig, Kind
from pgq.pool.seats import AT_ITS_END, AT_TIMEOUT, Child, Seat, State
from pgq.records import Blame

logger = logging.getLogger("pgq")

#: Seconds between two attempts to start a child that dies at once, at most.
_MAX_BOOT_PAUSE_SECONDS = 30.0
#: So many failures in a row in each of their seats mean that children do not start for now.
_HOPELESS_FAILURES = 5
#: Messages of one child that are read before the others' turn.
_MESSAGES_PER_ROUND = 64


class Children:
    """The workers and the upkeep process of a pool.

    Args:
        heard: Called with each message of a child.
        func_of: Returns the function of a task that runs, or None if that is not known. The cell has only the id.
        max_tasks: How many tasks all workers together may start; None: no limit.
    """

    def __init__(
        self,
        settings: Settings,
        log_format: str | None,
        log_level: str | None,
        selector: selectors.BaseSelector,
        heard: Callable[[Child, bytes], None],
        func_of: Callable[[UUID], str | None],
        max_tasks: int | None = None,
    ) -> None:
        self.settings, self.selector = settings, selector
        self.heard, self.func_of = heard, func_of
        self.log_format, self.log_level = log_format, log_level
        self.configured = boot.announce()
        self.context = _context(settings.start_method)
        self.gate = Gate(self.context, settings.workers)
        self.allowance = Allowance(max_tasks, settings.workers) if max_tasks is not None else None
        self.seats = [Seat(number, Kind.WORKER) for number in range(settings.workers)]
        self.seats.append(Seat(settings.workers, Kind.UPKEEP))
        #: Ids under which no worker claims any more, and whose rows have not been released.
        self.lost: list[FormerId] = []
        #: No child is replaced any more.
        self.closing = False
        #: A child has died, and what its tasks started may live on.
        self.orphaned = False
        #: Processes that this one had started before it had a pool.
        self.strangers: frozenset[int] = frozenset()

    # ------------------------------------------------------------------------------------------- who is there

    def all(self) -> list[Child]:
        """Return all children."""
        return [seat.child for seat in self.seats if seat.child is not None]

    def workers(self) -> list[Child]:
        """Return the workers."""
        return [child for child in self.all() if child.cell is not None]

    def any_worker(self, state: State) -> bool:
        """Return whether some worker is in that state."""
        return any(child.state is state for child in self.workers())

    def is_running(self) -> bool:
        """Return whether a task is running, by their cells: a worker that asked for more may still have some."""
        return any(child.cell is not None and child.cell.read().count for child in self.workers())

    def is_working(self) -> bool:
        """Return whether a worker is awake, or still runs a task."""
        return self.any_worker(State.AWAKE) or self.is_running()

    def report(self) -> list[dict[str, Any]]:
        """Return what each worker does, for the table of pools."""
        now = time.monotonic()
        return [seat.report(now) for seat in self.seats if seat.kind is Kind.WORKER]

    # ------------------------------------------------------------------------------------------- starting

    def fill(self) -> None:
        """Start the children that are missing."""
        if self.closing:
            return
        now = time.monotonic()
        for seat in self.seats:
            if seat.child is None and now >= seat.not_before:
                try:
                    seat.child = self._start(seat)
                    seat.starts += 1
                except (OSError, EOFError) as error:
                    # No process or no memory to be had, or the fork server died: do not try again at once.
                    self._boot_failed(seat, f"could not be started: {str(error) or 'what starts them has ended'}")

    def adopt_orphans(self) -> None:
        """Become the parent of what dead workers leave behind. Called once, before the first worker is started."""
        self.strangers = frozenset(children_of(os.getpid()))
        adopt_orphans()

    def next_start(self) -> list[float]:
        """Return the monotonic times at which `fill` has something to do."""
        return [] if self.closing else [seat.not_before for seat in self.seats if seat.child is None]

    def next_end(self) -> list[float]:
        """Return the monotonic times at which a child has to have ended."""
        return [child.ends_by for child in self.all() if child.ends_by < math.inf and child.killed is None]

    def _start(self, seat: Seat) -> Child:
        _check_for_room()
        id = uuid4()
        own_end, childs_end = self.context.Pipe()
        _bound_waits(own_end)
        cell = ActivityCell() if seat.kind is Kind.WORKER else None
        config = ChildConfig(
            id=id,
            number=seat.number,
            pool=self.settings.name,
            database=self.settings.database,
            queues=self.settings.queues,
            exclude_queues=self.settings.exclude_queues,
            log_format=self.log_format,
            log_level=self.log_level,
            databases=boot.database_names(),
            configured=self.configured,
        )
        arguments = (config, childs_end) if cell is None else (config, childs_end, cell, self.gate, self.allowance)
        process = self.context.Process(target=enter, args=(seat.kind, *arguments), name=f"pgq {seat.name}")
        process.start()
        childs_end.close()
        child = Child(seat.number, id, process, own_end, cell)
        self.selector.register(own_end, selectors.EVENT_READ, lambda: self._listen(child))
        self.selector.register(process.sentinel, selectors.EVENT_READ, lambda: self._died(child))
        return child

    def _listen(self, child: Child) -> None:
        if child.pipe.closed:
            # Its death was handled first, among the events of the same select.
            return
        try:
            # Not without end: the others are heard before a child that sends on and on is heard again.
            for _ in range(_MESSAGES_PER_ROUND):
                if not child.pipe.poll():
                    break
                message = child.pipe.recv_bytes(64)
                child.ticked = child.ticked or message == TICKED
                if message == ENDING:
                    child.ends_by = time.monotonic() + END_WITHIN_SECONDS
                self.heard(child, message)
        except (EOFError, OSError, ValueError) as error:
            if not isinstance(error, EOFError | ConnectionError):
                # A task can write to the pipe, too. A child whose messages cannot be read is of no use.
                logger.error("%s is killed: what it says is no message (%s)", child.process.name, error)
                child.process.kill()
            # It is dying, and `_died` is called by its sentinel.
            with contextlib.suppress(KeyError):
                self.selector.unregister(child.pipe)

    def _boot_failed(self, seat: Seat, what: str) -> None:
        seat.failures += 1
        seat.trouble = what
        pause = min(_MAX_BOOT_PAUSE_SECONDS, 0.1 * 2 ** min(seat.failures - 1, 10)) * chance.between(0.5, 1.0)
        seat.not_before = time.monotonic() + pause
        logger.error("%s %s; the next one starts in %.1f s", seat.name, what, pause)

    def hopeless(self) -> str | None:
        """Return why no worker, or no upkeep, can be started; None: they can, or may soon."""
        for kind in Kind:
            seats = [seat for seat in self.seats if seat.kind is kind]
            if all(seat.failures >= _HOPELESS_FAILURES and seat.is_vacant for seat in seats):
                last = max(seats, key=lambda seat: seat.not_before)
                return f"{last.name} {last.trouble}, as did the {last.failures - 1} before it; the log says more above"
        return None

    # ------------------------------------------------------------------------------------------- ending

    def close(self, *, upkeep: bool = True) -> None:
        """Tell all children to stop, and start no others. `upkeep`: False: it goes on for the tasks that run still."""
        self.closing = True
        for child in self.all() if upkeep else self.workers():
            child.post(STOP)

    def kill_overdue(self, now: float) -> None:
        """Kill the workers whose task has not stopped at its timeout, and the children that do not end."""
        for child in self.all():
            if now > child.ends_by and child.killed is None:
                logger.warning(
                    "%s has not ended %g s after its work was done and is killed: a function registered with atexit, a "
                    "receiver of pre_exit or a thread that is no daemon holds it up",
                    child.process.name,
                    END_WITHIN_SECONDS,
                )
                child.killed = AT_ITS_END
                child.process.kill()
        for child in self.workers():
            if child.killed is not None or child.cell is None:
                continue
            seen = child.cell.read()
            if seen.task is not None and seen.deadline and now > seen.deadline:
                child.killed = AT_TIMEOUT
                child.process.kill()
                logger.error(
                    "%s did not stop at its timeout: its worker %d is killed", self._named(seen.task), child.number
                )

    def _named(self, task: UUID) -> str:
        func = self.func_of(task)
        return f"task {task.hex} ({func})" if func else f"task {task.hex}"

    def kill_all(self, why: str) -> None:
        """Kill all children, and charge no task."""
        for child in self.all():
            child.killed = child.killed or why
            child.process.kill()

    def end_all(self) -> None:
        """Kill the children that are left, and wait for them."""
        for child in self.all():
            child.process.kill()
            child.process.join()
            self._record_death(child)
        self.kill_orphans()

    def kill_orphans(self) -> None:
        """Kill what the tasks of dead workers have left: programs, daemons, forks that hold a session open."""
        own = {child.process.pid for child in self.all()} | self.strangers | fork_server_pids()
        self.orphaned = not kill_orphans({pid for pid in own if pid is not None})

    def _died(self, dead: Child) -> None:
        self.orphaned = True
        with contextlib.suppress(KeyError):
            self.selector.unregister(dead.process.sentinel)
        if dead.state is not State.LEAVING:
            self._listen(dead)
        dead.process.join()
        seat = self.seats[dead.number]
        seat.child = None
        self._record_death(dead)
        if self.closing or dead.was_of_use:
            seat.failures, seat.not_before = 0, 0.0
        elif dead.left_well:
            self._boot_failed(seat, "left before it had done anything")
        else:
            when = "while starting" if dead.state is State.STARTING else "before it had done anything"
            self._boot_failed(seat, f"died {when}, {dead.cause}")

    def _record_death(self, dead: Child) -> None:
        """Note what a dead worker may have held, so that it is made ready again at once."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(dead.pipe)
        dead.pipe.close()
        if dead.cell is None:
            return
        self.gate.free_place_of(dead.cell)
        if self.allowance is not None:
            self.allowance.take_back(dead.number)
        if dead.left_well:
            return
        seen = dead.cell.read()
        running = seen.task
        if dead.killed is None:
            what = f", running {self._named(running)}" if running else ""
            others = f" and {seen.count - 1} more" if seen.count > 1 else ""
            logger.error("worker %d died, %s%s%s", dead.number, dead.cause, what, others)
        self.lost.append(FormerId(dead.id, _blame(dead, seen)))


def _blame(dead: Child, seen: Activity) -> Blame | None:
    """Return what a worker's death is charged to.

    Killed by a stop: no task. Killed at a task's timeout: a failed attempt of the task. Died by itself: a crash.
    """
    at_timeout = dead.killed == AT_TIMEOUT
    if seen.task is None or (dead.killed is not None and not at_timeout):
        return None
    error = (
        TaskTimeout("the task did not stop at its timeout")
        if at_timeout
        else WorkerDied(f"the worker died, {dead.cause}")
    )
    # Of several that ran, the cell names one.
    return Blame(
        None if seen.count > 1 and not at_timeout else seen.task,
        crash=not at_timeout,
        error=as_json(without_traceback(error)),
    )


def _bound_waits(pipe: Connection) -> None:
    """Let no read or write take longer than a moment: half a message, or a full pipe, must not hold up the others."""
    moment = struct.pack("ll", 0, 200_000)
    with socket.socket(fileno=os.dup(pipe.fileno())) as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, moment)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, moment)


def _check_for_room() -> None:
    """Check that the kernel would start one more process. To its limits a thread counts as one.

    The fork server does not outlive a fork that fails, and its children, busy or not, would die with it.

    Raises:
        OSError: There is no room.
    """
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError as error:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    thread.join()


def _context(start_method: str) -> Any:
    context: Any = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        # A new worker is then a fork of a process that has Django loaded: milliseconds instead of a second.
        context.set_forkserver_preload(["pgq.pool.preload"])
    return context


@contextlib.contextmanager
def python_path() -> Iterator[None]:
    """Let the fork server import what this process can: it is started without this one's sys.path."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
