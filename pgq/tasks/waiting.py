"""Waiting for what becomes of tasks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from django.db.models import QuerySet

from pgq import ids
from pgq.conf import get_settings
from pgq.errors import NotCommitted
from pgq.execution import result_cache
from pgq.models import QueuedTask, Task
from pgq.store import connection as store_connection
from pgq.store import pools, queue
from pgq.store.caller import callers_cursor
from pgq.store.listener import Listener

T = TypeVar("T")

#: Milliseconds of quick reads before it is worth a connection to listen.
_QUICK = 60
_FIRST_PAUSE, _LAST_PAUSE = 0.001, 1.0


def wait_for(read: Callable[[], T | None], wait: int, refuse: Callable[[], None]) -> T | None:
    """Call `read` until it returns something, or the time is over.

    Args:
        read: Reads the database once. It must not be inside a REPEATABLE READ transaction, which would show it the
            same again and again.
        wait: Milliseconds; 0: read once; -1: for ever.
        refuse: Called once before the wait, inside a transaction: raises if what is waited for cannot come before the
            transaction has ended.
    """
    found = read()
    if found is not None or wait == 0:
        return found
    if not store_connection.wrapper(get_settings().database).get_autocommit():
        refuse()
    began = time.monotonic()
    until = float("inf") if wait < 0 else began + wait / 1000
    pause = _FIRST_PAUSE
    while time.monotonic() < min(until, began + _QUICK / 1000):
        time.sleep(max(0.0, min(pause, until - time.monotonic())))
        found = read()
        if found is not None:
            return found
        pause *= 1.5
    with _listener() as listener:
        while True:
            # After the flag is up and before the wait: what was settled in between is seen here.
            if listener is not None:
                queue.await_settled(listener.connection.cursor(), milliseconds=int(_LAST_PAUSE * 2000))
            found = read()
            left = until - time.monotonic()
            if found is not None or left <= 0:
                return found
            if listener is None:
                time.sleep(min(pause, left))
                pause = min(pause * 2, _LAST_PAUSE)
            else:
                try:
                    listener.wait(min(_LAST_PAUSE, left))
                except psycopg.Error:
                    listener = None


@contextlib.contextmanager
def _listener() -> Iterator[Listener | None]:
    """Yield a listener, or None if no notification can be had: then polling has to do."""

    def connect() -> store_connection.Connection:
        return store_connection.connect(get_settings().database, "pgq waiting for results")

    with contextlib.ExitStack() as stack:
        listener: Listener | None = None
        with contextlib.suppress(psycopg.Error):
            connection = connect()
            stack.callback(_close, connection)
            made = Listener(connection, "pgq_settled", another=connect)
            # Settling transactions must not be asked for a notification that would fail their commit.
            pools.try_notify(connection.cursor())
            listener = None if made.deaf else made
        yield listener


def _close(connection: store_connection.Connection) -> None:
    with contextlib.suppress(psycopg.Error):
        connection.close()


def fetch(id_or_name: str | UUID, wait: int = 0, *, cached: bool = False) -> Task | None:
    """Return the finished task, or None if it has not finished in time.

    Args:
        wait: Milliseconds; 0: read once; -1: for ever.
        cached: Read the cache, not in the database.

    Raises:
        NotCommitted: A wait would be in vain: this transaction has enqueued it, and has not ended.
    """

    def refuse() -> None:
        id = ids.parse_id(id_or_name)
        own, _ = _written_here(**({"name": str(id_or_name)} if id is None else {"id": id}))
        if own:
            raise _not_committed(f"task {id_or_name}")

    return wait_for(lambda: (result_cache.find if cached else Task.get_task)(id_or_name), wait, refuse)


def _written_here(**which: Any) -> tuple[int, int]:
    with callers_cursor(get_settings().database) as cursor:
        return queue.written_here(cursor, **which)


def _not_committed(what: str) -> NotCommitted:
    return NotCommitted(
        f"{what}: enqueued by this transaction, so no worker sees it before the commit, and to wait for it here is in "
        "vain; wait after the commit (ATOMIC_REQUESTS: @non_atomic_requests); in a test call pgq.testing.drain() first"
    )


def fetch_group(
    group: str, *, failures: bool = True, wait: int = 0, count: int | None = None, cached: bool = False
) -> QuerySet[Task] | list[Task]:
    """Return the finished tasks of a group, newest first: of the database as a queryset, of the cache as a list.

    Args:
        failures: With those that failed.
        wait: Milliseconds to wait for the first, or for `count` of them, failures included; -1: for ever.
        count: Wait until so many have finished, or more; then, or when the time is over, return what there is.

    Raises:
        NotCommitted: A wait would be in vain: so many can only finish if this transaction ends.
    """

    def read() -> bool | None:
        return True if count_group(group, cached=cached) >= (count or 1) else None

    def refuse() -> None:
        own, others = _written_here(group=group)
        if own and count_group(group, cached=cached) + others < (count or 1):
            raise _not_committed(f"group {group}, {own} of its tasks")

    wait_for(read, wait, refuse)
    if cached:
        found = list(reversed(result_cache.find_group(group)))
        return [task for task in found if failures or task.success]
    return Task.get_task_group(group, failures=failures)


def count_group(group: str, *, failures: bool = False, cached: bool = False) -> int:
    """Return how many tasks of a group have finished; `failures`: how many of them have failed."""
    if not cached:
        return Task.get_group_count(group, failures=failures)
    if not failures:
        return len(result_cache.group_ids(group))
    return sum(1 for task in result_cache.find_group(group) if not task.success)


def queued() -> QuerySet[QueuedTask]:
    """Return all live tasks."""
    return QueuedTask.objects.using(get_settings().database)
