"""Waiting for what becomes of tasks: in threads and in coroutines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError
from django.db.models import QuerySet

from pgq.conf import asked, get_settings
from pgq.errors import NotCommitted
from pgq.execution import result_cache
from pgq.ground import ids
from pgq.models import QueuedTask, Task
from pgq.store import connection as store_connection
from pgq.store import queue
from pgq.store.caller import callers_cursor
from pgq.tasks import hub
from pgq.tasks.waiters import LoopWaiter, Place, ThreadWaiter, Waiter, Wanted

T = TypeVar("T")

#: Seconds of quick looks before a thread asks the hub.
_QUICK, _FIRST_PAUSE = 0.06, 0.001
#: Seconds after which a waiter looks for itself if the hub has not looked for it.
_TICK = 5.0


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """What is waited for, and how the caller sees it.

    Attributes:
        wanted: What the hub is told.
        read: Reads the caller's view once: None if it is not there yet. It must not be inside a REPEATABLE READ
            transaction, which would show it the same again and again.
        of_task: Turns the finished task, as the hub has read it, into what `read` returns.
        refuse: Called once before a wait inside a transaction: raises if what is waited for cannot come before the
            transaction has ended.
    """

    wanted: Wanted
    read: Callable[[], T | None]
    of_task: Callable[[Task], T]
    refuse: Callable[[], None]

    def first(self, wait: int, *, alone: bool) -> tuple[T | None, tuple[Place, ...]]:
        """Look once, in the caller's thread; return what was found, and where to wait for it: in which databases.

        Args:
            wait: Milliseconds; 0: do not wait; -1: for ever.
            alone: The hub's view is as good unless the caller is in a transaction. Then its connection is left alone:
                a thousand requests that wait need not have one each.
        """
        aliases = asked()
        in_transaction = any(map(_in_transaction, aliases))
        found = None if alone and wait and not in_transaction and not self.wanted.cached else self._read(wait)
        if found is not None or wait == 0:
            return found, ()
        if in_transaction:
            self.refuse()
        return None, tuple(map(Place.of_caller, aliases))

    def _read(self, wait: int) -> T | None:
        """Read once. While one of several databases is away, who is to wait may still get it from another."""
        try:
            return self.read()
        except (OperationalError, InterfaceError):
            if wait == 0 or len(asked()) == 1:
                raise
            return None

    def again(self, *, is_last: bool) -> T | None:
        """Look again, in the caller's thread. If the server is gone, that is an error only in the last look."""
        aliases = asked()
        try:
            return self.read()
        except (OperationalError, InterfaceError):
            if any(map(_in_transaction, aliases)):
                raise
            # A server that was started anew does not know the old connection.
            for alias in aliases:
                store_connection.wrapper(alias).close()
            if not is_last:
                return None
        return self.read()


def _in_transaction(alias: str) -> bool:
    django = store_connection.wrapper(alias)
    # Asked whether it is in autocommit, Django would connect.
    return django.in_atomic_block or (django.connection is not None and not django.get_autocommit())


@contextlib.contextmanager
def _waiting(places: Sequence[Place], waiter: Waiter) -> Iterator[None]:
    """Have the hubs of these databases serve a waiter; it is woken by the one that has something for it."""
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(hub.waiting(place, waiter))
        yield


def _until(wait: int) -> float:
    return float("inf") if wait < 0 else time.monotonic() + wait / 1000


def wait_for(look: Look[T], wait: int) -> T | None:
    """Wait in this thread; return None when the time is over.

    Args:
        wait: Milliseconds; 0: look once; -1: for ever.
    """
    until = _until(wait)
    found, places = look.first(wait, alone=False)
    if not places:
        return found
    pause, quick_until = _FIRST_PAUSE, min(until, time.monotonic() + _QUICK)
    while time.monotonic() < quick_until:
        time.sleep(max(0.0, min(pause, until - time.monotonic())))
        found = look.again(is_last=False)
        if found is not None:
            return found
        pause *= 1.5
    while True:
        waiter = ThreadWaiter(look.wanted)
        with _waiting(places, waiter):
            while True:
                left = until - time.monotonic()
                woken = waiter.wait(max(0.0, min(left, _TICK)))
                if woken or left <= _TICK or not waiter.looked:
                    break
                waiter.looked = False
        if waiter.task is not None:
            return look.of_task(waiter.task)
        is_last = time.monotonic() >= until
        found = look.again(is_last=is_last)
        if found is not None or is_last:
            return found


async def await_for(look: Look[T], wait: int) -> T | None:
    """Do the same in a coroutine. What reads the database, does so in the thread that has the caller's connections."""
    until = _until(wait)
    found, places = await sync_to_async(look.first)(wait, alone=True)
    if not places:
        return found
    while True:
        waiter = LoopWaiter(look.wanted)
        with _waiting(places, waiter):
            while True:
                left = until - time.monotonic()
                woken = await waiter.wait(max(0.0, min(left, _TICK)))
                if woken or left <= _TICK or not waiter.looked:
                    break
                waiter.looked = False
        if waiter.task is not None:
            return look.of_task(waiter.task)
        is_last = time.monotonic() >= until
        if is_last and waiter.looked and not look.wanted.is_vague and len(places) == 1:
            # It is not there: to look for it again might take a connection.
            return None
        found = await sync_to_async(look.again)(is_last=is_last)
        if found is not None or is_last:
            return found


def look_for_task(id_or_name: str | UUID, *, cached: bool = False, whole: bool = True) -> Look[Task]:
    """Return how to wait for a finished task.

    Args:
        whole: With all its fields; else those may be deferred that do not tell the result.
        cached: It is in the cache, not in the database.
    """
    id = ids.parse_id(id_or_name)

    def read() -> Task | None:
        return (result_cache.find if cached else Task.get_task)(id_or_name)

    def refuse() -> None:
        own, _ = _written_here(**({"name": str(id_or_name)} if id is None else {"id": id}))
        if own:
            raise _not_committed(f"task {id_or_name}")

    return Look(Wanted(id=id, name=str(id_or_name), cached=cached, whole=whole), read, lambda task: task, refuse)


def look_for_group(group: str, *, count: int | None = None, cached: bool = False) -> Look[bool]:
    """Return how to wait until so many tasks of a group have finished, failures included.

    Args:
        count: How many; None: one.
    """
    number = count or 1

    def read() -> bool | None:
        return True if count_group(group, cached=cached) >= number else None

    def refuse() -> None:
        own, others = _written_here(group=group)
        if own and count_group(group, cached=cached) + others < number:
            raise _not_committed(f"group {group}, {own} of its tasks")

    wanted = Wanted(group=group, count=number, cached=cached, scattered=len(asked()) > 1)
    return Look(wanted, read, lambda task: True, refuse)


def found_of_group(group: str, *, failures: bool = True, cached: bool = False) -> QuerySet[Task] | list[Task]:
    """Return the finished tasks of a group, newest first: of the database as a queryset, of the cache as a list.

    Args:
        failures: With those that failed.
    """
    if cached:
        found = list(reversed(result_cache.find_group(group)))
        return [task for task in found if failures or task.success]
    return Task.get_task_group(group, failures=failures)


def _written_here(**which: Any) -> tuple[int, int]:
    written = [0, 0]
    for alias in asked():
        # Where no transaction is open, nothing waits for its commit.
        if _in_transaction(alias):
            with callers_cursor(alias) as cursor:
                written = [sum(pair) for pair in zip(written, queue.written_here(cursor, **which), strict=True)]
    return written[0], written[1]


def _not_committed(what: str) -> NotCommitted:
    return NotCommitted(
        f"{what}: enqueued by this transaction, so no worker sees it before the commit, and to wait for it here is in "
        "vain; wait after the commit (ATOMIC_REQUESTS: @non_atomic_requests); in a test call pgq.testing.drain() first"
    )


def count_group(group: str, *, failures: bool = False, cached: bool = False) -> int:
    """Return how many tasks of a group have finished; `failures`: how many of them have failed."""
    if not cached:
        return Task.get_group_count(group, failures=failures)
    if not failures:
        return len(result_cache.group_ids(group))
    return sum(1 for task in result_cache.find_group(group) if not task.success)


def queued() -> QuerySet[QueuedTask]:
    """Return all live tasks of the database at hand."""
    return QueuedTask.objects.using(get_settings().database)
