"""Slots: the places of a worker where tasks run beside the main thread, as coroutines on one event loop or in threads.

So a task that only waits needs no process of its own. The main thread claims a task, starts it in a slot and goes on;
the thread that the task ran in hands over the report. Tasks in slots share a process. If that dies, any of them may be
the cause, so each is charged a crash. A task that one more crash would fail is therefore not run in a slot, but alone
in the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
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

from pgq.conf import Settings
from pgq.enqueue import registry
from pgq.errors import PgqError, TaskCancelled
from pgq.execution import call as calling
from pgq.execution import context as contexts
from pgq.execution.atomic import Atomic
from pgq.execution.call import CANCELLED
from pgq.pool.worker.connections import Connections
from pgq.pool.worker.forks import Forks
from pgq.records import Call, Claim, Report

logger = logging.getLogger("pgq")


class Begun(enum.Enum):
    """Whether a task was started in a slot."""

    STARTED = enum.auto()
    NO_ROOM = enum.auto()


class Free:
    """How many slots of a kind are free."""

    def __init__(self, number: int) -> None:
        self.number = number


class Running:
    """A task that runs in a slot. `free` counts the slots of its kind that are free."""

    def __init__(self, call: Call, settings: Settings, free: Free) -> None:
        self.call, self.free = call, free
        self.claim: Claim = call.claim
        timeout = self.claim.timeout
        #: Monotonic time at which the supervisor kills the worker for it; 0: never.
        self.deadline = call.started + timeout + settings.kill_after if timeout is not None else 0.0
        self.over = False

    def is_due_before(self, deadline: float) -> bool:
        """Whether the worker is to be killed for this one before it is for one with that deadline (0: never)."""
        return bool(self.deadline) and (not deadline or self.deadline < deadline)


class RunningCoroutine(Running):
    """A task on the event loop. Touched by the loop's thread only."""

    task: asyncio.Task[None] | None = None

    def __init__(self, call: Call, settings: Settings, free: Free) -> None:
        super().__init__(call, settings, free)
        #: The asyncio tasks that it has started on the loop and that have not ended.
        self.started: set[asyncio.Task[Any]] = set()

    def cancel(self) -> None:
        if self.task is not None and not self.over:
            self.task.cancel()


class RunningThread(Running):
    """A task in a thread. Its function can be interrupted between two steps of Python code, and once."""

    def __init__(self, call: Call, settings: Settings, free: Free) -> None:
        super().__init__(call, settings, free)
        #: Held to change `ident`, so that no interruption is on its way once that is None.
        self.lock = threading.Lock()
        #: The thread's, while the function may be interrupted.
        self.ident: int | None = None
        self.why: PgqError | None = None

    def interrupt(self, why: PgqError) -> None:
        """Raise this exception in the function. Called from another thread."""
        with self.lock:
            if self.ident is not None:
                self.why = why
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(type(why)))
                self.ident = None

    def interruptible(self) -> Callable[..., Any]:
        """Return the task's function, wrapped: only inside the wrapper can an interruption be raised."""
        func = self.call.func

        @functools.wraps(func)
        def function(*args: Any, **kwargs: Any) -> Any:
            try:
                self.ident = threading.get_ident()
                try:
                    return func(*args, **kwargs)
                finally:
                    # An interruption on its way is raised here at the latest. Once this lock was taken, none follows.
                    with self.lock:
                        self.ident = None
            except BaseException as error:
                # Python raises in another thread only a class: the message is in `why`.
                if self.why is not None and type(error) is type(self.why):
                    raise self.why from error
                raise

        return function


class Slots:
    """The slots of one worker, and the tasks that run in them.

    Args:
        database: Alias of the database that has pgq's tables.
        pool: Name of the pool, kept with the results of atomic tasks.
        ended: Is given what came of a task, in the thread that the task ran in.
        changed: Called when fewer tasks run in slots than before.

    Attributes:
        running: The tasks that run in slots, by id.
        used: Whether a task has ever run in a slot.
    """

    def __init__(
        self,
        settings: Settings,
        database: str,
        pool: str,
        connections: Connections,
        forks: Forks,
        ended: Callable[[Report], None],
        changed: Callable[[], None],
    ) -> None:
        self.settings, self.database, self.pool = settings, database, pool
        self.connections, self.forks = connections, forks
        self.ended, self.changed = ended, changed
        self.running: dict[UUID, Running] = {}
        self.used = False
        #: Held for changes of `running`, `_deadlines` and the free slots; notified when a task has ended.
        self._changing = threading.Condition()
        self._deadlines: list[tuple[float, int, Running]] = []
        self._numbers = itertools.count()
        self._on_loop = Free(settings.coroutines)
        self._in_threads = Free(settings.threads)
        #: Kept here, since a loop holds its tasks by weak references.
        self._refreshing: asyncio.Task[None] | None = None
        #: What `kind_for` returns, by function: a worker has one release of the code.
        self._kinds: dict[str, Free | None] = {}

    # --------------------------------------------------------------------------------------------- main thread

    def kind_for(self, call: Call) -> Free | None:
        """Return what counts the free slots for such a task, or None: it runs in the main thread."""
        claim = call.claim
        kind = self._kinds.get(claim.func, ...)
        if kind is ...:
            kind = self._kinds[claim.func] = self._usual_kind(call)
        if kind is None or (claim.crashes and claim.crashes >= self.settings.max_crashes - 1):
            return None
        return kind

    def _usual_kind(self, call: Call) -> Free | None:
        if registry.is_async(call.func):
            return None if self.settings.coroutines == 1 or registry.is_atomic(call.claim.func) else self._on_loop
        return None if self.settings.threads == 1 else self._in_threads

    def start(self, call: Call, kind: Free, *, patience: float) -> Begun:
        """Start a task; NO_ROOM if no slot of that kind has become free for so many seconds."""
        running = (RunningCoroutine if kind is self._on_loop else RunningThread)(call, self.settings, kind)
        with self._changing:
            if not self._changing.wait_for(lambda: kind.number > 0, patience):
                return Begun.NO_ROOM
            kind.number -= 1
            self.used = True
            self.running[call.claim.id] = running
            if running.deadline:
                heapq.heappush(self._deadlines, (running.deadline, next(self._numbers), running))
        if isinstance(running, RunningCoroutine):
            self._loop.call_soon_threadsafe(self._start, running)
        else:
            self._threads.submit(self._run_in_thread, running)
        return Begun.STARTED

    def claims(self) -> list[Claim]:
        """Return the claims of the tasks that run in slots."""
        return [running.claim for running in list(self.running.values())]

    def room(self) -> int:
        """Return how many more tasks could run on the loop; 0 also if all threads are busy."""
        if self.settings.threads > 1 and not self._in_threads.number:
            return 0
        return self._on_loop.number

    def wait_until(self, condition: Callable[[], bool], patience: float | None = None) -> None:
        """Wait until that holds, `patience` seconds at most (None: without end).

        It is checked again when a task in a slot has ended, and by `recheck`.
        """
        with self._changing:
            self._changing.wait_for(condition, patience)

    # --------------------------------------------------------------------------------------------- any thread

    def recheck(self) -> None:
        """Have the main thread, if it is in `wait_until`, check its condition again."""
        with self._changing:
            self._changing.notify_all()

    def most_urgent(self) -> Running | None:
        """Return the running task for which the worker is to be killed first; without timeouts, the oldest one."""
        with self._changing:
            while self._deadlines and self._deadlines[0][2].over:
                heapq.heappop(self._deadlines)
            if self._deadlines:
                return self._deadlines[0][2]
            return next(iter(self.running.values()), None)

    def cancel(self, task: UUID) -> None:
        """Stop a task, if it runs in a slot here."""
        running = self.running.get(task)
        if running is not None:
            contexts.note_cancelled(running.claim)
        if isinstance(running, RunningCoroutine):
            self._loop.call_soon_threadsafe(running.cancel)
        elif isinstance(running, RunningThread):
            running.interrupt(TaskCancelled(CANCELLED))

    def interrupt_overdue(self, now: float) -> None:
        """Raise TaskTimeout in the threads whose task's time is up. The loop interrupts its own."""
        if self.settings.threads == 1:
            return
        for running in list(self.running.values()):
            timeout = running.claim.timeout
            if isinstance(running, RunningThread) and timeout is not None and now > running.call.started + timeout:
                running.interrupt(calling.ran_too_long(timeout))

    def _done(self, running: Running, report: Report) -> None:
        running.over = True
        # First, so that a thread that sees no task in a slot any more finds the reports of all.
        self.ended(report)
        with self._changing:
            del self.running[running.claim.id]
            running.free.number += 1
            self._changing.notify_all()
        self.changed()

    # --------------------------------------------------------------------------------------------- the loop's thread

    @functools.cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        # Its type differs between Pythons.
        loop.set_task_factory(cast("Any", self._make_task))
        threading.Thread(target=loop.run_forever, name="pgq loop", daemon=True).start()
        return loop

    def _start(self, running: RunningCoroutine) -> None:
        if self.connections.is_time_to_refresh(time.monotonic()):
            # In the one thread in which all coroutines use the ORM, before this one does: a loop begins tasks in turn.
            self._refreshing = asyncio.Task(sync_to_async(self.connections.refresh_own)(), loop=self._loop)
        running.task = asyncio.Task(self._run(running), loop=self._loop)

    async def _run(self, running: RunningCoroutine) -> None:
        with _or_die():
            report = await calling.run_coroutine(running.call, self.settings)
            self.forks.leave()
            # A cancellation from here on would interrupt pgq's code.
            running.over = True
            for task in running.started:
                task.cancel()
            if self.connections.elsewhere:
                # Those of the one thread in which all coroutines use the ORM.
                await sync_to_async(self.connections.clean_own)(running.claim)
            self._done(running, report)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """Note which task starts an asyncio task: as under `asyncio.run`, that ends with the task."""
        task = asyncio.Task(coroutine, loop=loop, **options)
        claim = calling.running_claim()
        running = self.running.get(claim.id) if claim is not None else None
        if isinstance(running, RunningCoroutine):
            running.started.add(task)
            task.add_done_callback(running.started.discard)
        return task

    # --------------------------------------------------------------------------------------------- a slot's thread

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.settings.threads, thread_name_prefix="pgq slot")

    def _run_in_thread(self, running: RunningThread) -> None:
        with _or_die():
            self.connections.refresh_own()
            call = running.call._replace(func=running.interruptible())
            report = Atomic(self.database, self.pool, self.settings).run(call, self.forks.leave)
            self.connections.clean_own(running.claim)
            self._done(running, report)


@contextlib.contextmanager
def _or_die() -> Iterator[None]:
    """End the worker if pgq's code fails: else the lease of its task would be renewed as long as the worker lives."""
    try:
        yield
    except BaseException:
        logger.exception("a task beside the main thread cannot be dealt with, so its worker ends")
        os._exit(1)
