"""Who waits for results: a thread or a coroutine; for what; and of which database.

A waiter is woken once by the hub (hub.py): with the finished task, if it waits for an id, or with None, which means
"look yourself".
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from pgq.ground.ids import WORDS
from pgq.models import Task
from pgq.store import connection as store_connection

_WORDS = frozenset(WORDS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is waited for: a task by id, or by name (both if the text may be either), or so many tasks of a group."""

    id: UUID | None = None
    name: str | None = None
    group: str | None = None
    count: int = 1
    #: Whether all fields of the task are asked for, or its result only.
    whole: bool = True
    #: It is in the cache, of which PostgreSQL knows nothing: any settlement may be the one.
    cached: bool = False
    #: It may lie in several databases, so that no one of them can say that all of it has come.
    scattered: bool = False

    @property
    def is_vague(self) -> bool:
        """Whether no statement can say that it has come: then any settlement is a reason to look."""
        if self.cached or self.scattered:
            return True
        return self.id is None and self.name is not None and _is_made_from_an_id(self.name)


def _is_made_from_an_id(name: str) -> bool:
    words = name.split("-")
    return len(words) == 4 and _WORDS.issuperset(words)


@dataclass(frozen=True, slots=True)
class Place:
    """A database, as the caller's connection names it: in a test another one than the settings named at first."""

    key: tuple[str, ...]
    #: A copy of Django's connection that was never connected, for its parameters.
    django: BaseDatabaseWrapper

    @classmethod
    def of_caller(cls, alias: str) -> Place:
        """Return that of an alias, as the calling thread has it."""
        django = store_connection.wrapper(alias)
        told = django.settings_dict
        return cls((alias, *(repr(told.get(name)) for name in ("HOST", "PORT", "NAME", "USER", "OPTIONS"))), django)

    @property
    def alias(self) -> str:
        return self.key[0]


class ThreadWaiter:
    """A thread that waits."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        #: Whether the hub has looked for it, so that there was no result.
        self.looked = False
        self.task: Task | None = None
        self._woken = threading.Event()

    def wake(self, task: Task | None) -> None:
        self.task = task
        self._woken.set()

    def wait(self, seconds: float) -> bool:
        """Wait to be woken, for so long at most; return whether that has happened."""
        return self._woken.wait(seconds)


class LoopWaiter:
    """A coroutine that waits on the running loop."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.looked = False
        self.task: Task | None = None
        self.loop = asyncio.get_running_loop()
        self._woken = False
        self._future: asyncio.Future[None] | None = None

    def wake_here(self, task: Task | None) -> None:
        """Wake it, on its loop."""
        self._woken, self.task = True, task
        self._go_on()

    def _go_on(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken, for so long at most; return whether that has happened."""
        if not self._woken:
            # Not asyncio.wait or timeout, which take several turns of the loop for each of a thousand waiters.
            self._future = self.loop.create_future()
            timer = self.loop.call_later(seconds, self._go_on)
            try:
                await self._future
            finally:
                timer.cancel()
        return self._woken


Waiter = ThreadWaiter | LoopWaiter


def wake(woken: Iterable[tuple[Waiter, Task | None]]) -> None:
    """Wake these: the coroutines of one loop by one call, since each call costs a system call."""
    of_loops: dict[asyncio.AbstractEventLoop, list[tuple[LoopWaiter, Task | None]]] = {}
    for waiter, task in woken:
        if isinstance(waiter, LoopWaiter):
            of_loops.setdefault(waiter.loop, []).append((waiter, task))
        else:
            waiter.wake(task)
    for loop, pairs in of_loops.items():
        # A closed loop has nothing left that waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake_here, pairs)


def _wake_here(pairs: Iterable[tuple[LoopWaiter, Task | None]]) -> None:
    for waiter, task in pairs:
        waiter.wake_here(task)
