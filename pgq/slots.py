"""Where tasks run beside the main thread: `async def` tasks share one event loop, other tasks may have threads.

So a task that only waits needs no process of its own. The main thread claims, hands over and goes on; the thread a task
ran in hands over what came of it. Tasks in flight share a process, and if it dies nobody knows which of them did it:
each is charged. So a task that one more death would fail is not run here, but alone in the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from uuid import UUID

from asgiref.sync import sync_to_async

from pgq import execute, hygiene, registry
from pgq.atomic import Atomic
from pgq.conf import Settings
from pgq.errors import PgqError, TaskCancelled
from pgq.execute import CANCELLED, Call
from pgq.records import Claim, Receipt

logger = logging.getLogger("pgq")


class Flight:
    """A task that runs beside the main thread."""

    def __init__(self, call: Call, settings: Settings, place: threading.Semaphore) -> None:
        self.call, self.place = call, place
        self.claim: Claim = call.claim
        timeout = self.claim.timeout
        #: Monotonic time at which the supervisor kills the worker for it; 0: never.
        self.deadline = call.started + timeout + settings.kill_after if timeout is not None else 0.0
        self.over = False

    def is_due_before(self, deadline: float) -> bool:
        """Whether the worker is to be killed for this one before it is for one with that deadline (0: never)."""
        return bool(self.deadline) and (not deadline or self.deadline < deadline)


class CoroutineFlight(Flight):
    """A task on the event loop. Touched by the loop's thread only."""

    task: asyncio.Task[None] | None = None

    def __init__(self, call: Call, settings: Settings, place: threading.Semaphore) -> None:
        super().__init__(call, settings, place)
        #: What it has started on the loop and not awaited.
        self.started: set[asyncio.Task[Any]] = set()

    def cancel(self) -> None:
        if self.task is not None and not self.over:
            self.task.cancel()


class ThreadFlight(Flight):
    """A task in a thread. Its function can be interrupted between two steps of Python code, and once."""

    def __init__(self, call: Call, settings: Settings, place: threading.Semaphore) -> None:
        super().__init__(call, settings, place)
        self.lock = threading.Lock()
        #: Of the thread, while the function may be interrupted.
        self.ident: int | None = None
        self.why: PgqError | None = None

    def interrupt(self, why: PgqError) -> None:
        """Raise that in the function. Called from another thread."""
        with self.lock:
            if self.ident is not None:
                self.why = why
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(type(why)))
                self.ident = None

    def interruptible(self) -> Callable[..., Any]:
        """Return the task's function with the only place around it where an interruption can hit."""
        func = self.call.func

        @functools.wraps(func)
        def function(*args: Any, **kwargs: Any) -> Any:
            try:
                self.ident = threading.get_ident()
                try:
                    return func(*args, **kwargs)
                finally:
                    # An interruption on its way hits us here at the latest. Once we have had the lock, none comes.
                    with self.lock:
                        self.ident = None
            except BaseException as error:
                # What is raised in another thread is a class, and so says nothing.
                if self.why is not None and type(error) is type(self.why):
                    raise self.why from error
                raise

        return function


class Slots:
    """The tasks in flight of one worker, and the places there are.

    Args:
        database: Alias of the database that has pgq's tables.
        pool: Name of the pool, kept with the results of atomic tasks.
        landed: Is given what came of a task, and whether that is settled, in the thread the task ran in.
        changed: Called when other tasks are in flight than before.
    """

    def __init__(
        self,
        settings: Settings,
        database: str,
        pool: str,
        landed: Callable[[Receipt, bool], None],
        changed: Callable[[], None],
    ) -> None:
        self.settings, self.database, self.pool, self.landed, self.changed = settings, database, pool, landed, changed
        self.flights: dict[UUID, Flight] = {}
        #: Whether there has ever been one.
        self.used = False
        #: Held for changes of `flights` and `_deadlines`; notified when a task lands.
        self._landing = threading.Condition()
        self._deadlines: list[tuple[float, int, Flight]] = []
        self._numbers = itertools.count()
        self._on_loop = threading.Semaphore(settings.coroutines)
        self._in_threads = threading.Semaphore(settings.threads)
        #: Kept, since a loop does not keep its tasks.
        self._refreshing: asyncio.Task[None] | None = None
        #: By function. A worker has one release of the code.
        self._places: dict[str, threading.Semaphore | None] = {}

    # --------------------------------------------------------------------------------------------- main thread

    def place_for(self, call: Call) -> threading.Semaphore | None:
        """Return what counts the places for such a task, or None: it runs in the main thread."""
        claim = call.claim
        place = self._places.get(claim.func, ...)
        if place is ...:
            place = self._places[claim.func] = self._usual_place(call)
        if place is None or (claim.crashes and claim.crashes >= self.settings.max_crashes - 1):
            return None
        return place

    def _usual_place(self, call: Call) -> threading.Semaphore | None:
        if registry.is_async(call.func):
            return None if self.settings.coroutines == 1 or registry.is_atomic(call.claim.func) else self._on_loop
        return None if self.settings.threads == 1 else self._in_threads

    def start(self, call: Call, place: threading.Semaphore, *, patience: float) -> bool:
        """Start a task; return False if no place has become free for so many seconds."""
        if not place.acquire(timeout=patience):
            return False
        kind = CoroutineFlight if place is self._on_loop else ThreadFlight
        flight = kind(call, self.settings, place)
        self.used = True
        with self._landing:
            self.flights[call.claim.id] = flight
            if flight.deadline:
                heapq.heappush(self._deadlines, (flight.deadline, next(self._numbers), flight))
        if isinstance(flight, CoroutineFlight):
            self._loop.call_soon_threadsafe(self._take_off, flight)
        else:
            self._threads.submit(self._run_in_thread, flight)
        return True

    def room(self) -> int:
        """Return how many more tasks could run on the loop; 0 also if all threads are busy."""
        if self.settings.threads > 1 and not self._in_threads._value:
            return 0
        return self._on_loop._value

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until that holds, looking again whenever a task has landed or somebody has called `look_again`."""
        with self._landing:
            self._landing.wait_for(condition)

    # --------------------------------------------------------------------------------------------- any thread

    def look_again(self) -> None:
        """Have whoever waits here look whether he still needs to."""
        with self._landing:
            self._landing.notify_all()

    def most_urgent(self) -> Flight | None:
        """Return the task in flight that is to be killed first; with no timeouts, the one that started first."""
        with self._landing:
            while self._deadlines and self._deadlines[0][2].over:
                heapq.heappop(self._deadlines)
            if self._deadlines:
                return self._deadlines[0][2]
            return next(iter(self.flights.values()), None)

    def cancel(self, task: UUID) -> None:
        """Stop a task, if it is in flight here."""
        flight = self.flights.get(task)
        if isinstance(flight, CoroutineFlight):
            self._loop.call_soon_threadsafe(flight.cancel)
        elif isinstance(flight, ThreadFlight):
            flight.interrupt(TaskCancelled(CANCELLED))

    def interrupt_overdue(self, now: float) -> None:
        """Raise TaskTimeout in those whose time is up. The loop sees to its own."""
        if self.settings.threads == 1:
            return
        for flight in list(self.flights.values()):
            timeout = flight.claim.timeout
            if isinstance(flight, ThreadFlight) and timeout is not None and now > flight.call.started + timeout:
                flight.interrupt(execute.ran_too_long(timeout))

    def _land(self, flight: Flight, receipt: Receipt, settled: bool = False) -> None:
        flight.over = True
        # First: whoever sees that nothing is in flight any more must find what came of it.
        self.landed(receipt, settled)
        with self._landing:
            del self.flights[flight.claim.id]
            flight.place.release()
            self._landing.notify_all()
        self.changed()

    # --------------------------------------------------------------------------------------------- the loop's thread

    @functools.cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        # Its type differs between Pythons.
        loop.set_task_factory(cast("Any", self._make_task))
        threading.Thread(target=loop.run_forever, name="pgq loop", daemon=True).start()
        return loop

    def _take_off(self, flight: CoroutineFlight) -> None:
        if hygiene.is_time_to_refresh(time.monotonic()):
            # In the one thread in which all coroutines use the ORM, before this one does: a loop begins tasks in turn.
            self._refreshing = asyncio.Task(sync_to_async(hygiene.refresh_own_connections)(), loop=self._loop)
        flight.task = asyncio.Task(self._fly(flight), loop=self._loop)

    async def _fly(self, flight: CoroutineFlight) -> None:
        with _no_way_out():
            receipt = await execute.run_coroutine(flight.call, self.settings)
            hygiene.forked.leave()
            # Nothing may interrupt what follows.
            flight.over = True
            for task in flight.started:
                task.cancel()
            if hygiene.has_connections_elsewhere():
                # Those of the one thread in which all coroutines use the ORM.
                await sync_to_async(hygiene.clean_own_connections)(flight.claim)
            self._land(flight, receipt)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """Note who starts what, as `asyncio.run` does for one: it ends with its task."""
        task = asyncio.Task(coroutine, loop=loop, **options)
        claim = execute.current_task()
        flight = self.flights.get(claim.id) if claim is not None else None
        if isinstance(flight, CoroutineFlight):
            flight.started.add(task)
            task.add_done_callback(flight.started.discard)
        return task

    # --------------------------------------------------------------------------------------------- a slot's thread

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.settings.threads, thread_name_prefix="pgq slot")

    def _run_in_thread(self, flight: ThreadFlight) -> None:
        with _no_way_out():
            hygiene.refresh_own_connections()
            call = flight.call._replace(func=flight.interruptible())
            receipt, settled = run_to_end(call, Atomic(self.database, self.pool, self.settings))
            hygiene.clean_own_connections(flight.claim)
            self._land(flight, receipt, settled)


def run_to_end(call: Call, atomic: Atomic) -> tuple[Receipt, bool]:
    """Run a call in this thread; return its receipt, and whether that is settled. Never raises."""
    receipt = execute.run_call(call, atomic.settings, atomic.begin)
    # Before anything is said on a connection that a fork shares with the worker.
    hygiene.forked.leave()
    return atomic.end(receipt) if atomic.is_open else (receipt, False)


@contextlib.contextmanager
def _no_way_out() -> Iterator[None]:
    """End the worker if our own code fails: what is in flight would keep its lease for ever, and nobody would know."""
    try:
        yield
    except BaseException:
        logger.exception("a task beside the main thread cannot be dealt with, so its worker ends")
        os._exit(1)
