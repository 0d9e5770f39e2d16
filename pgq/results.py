"""Reading results, and waiting for them.

A wait first looks a few times in quick succession, since most results are near; then it opens a connection that
listens, says so (so that settling notifies), and looks again whenever it is told that something was settled, and now
and then in case it was not told.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import UUID

import psycopg
from django.db.models import QuerySet

from pgq import db, ids, store
from pgq.conf import get_settings
from pgq.models import QueuedTask, Task

T = TypeVar("T")

#: Milliseconds of quick looks before it is worth a connection to listen.
_QUICK = 60
_FIRST_PAUSE, _LAST_PAUSE = 0.001, 1.0


def wait_for(look: Callable[[], T | None], wait: int) -> T | None:
    """Call `look` until it returns something, or the time is over.

    Args:
        look: Looks once at the database. It must not be inside a REPEATABLE READ transaction, which would show it the
            same again and again.
        wait: Milliseconds; 0: look once; -1: for ever.
    """
    found = look()
    if found is not None or wait == 0:
        return found
    began = time.monotonic()
    until = float("inf") if wait < 0 else began + wait / 1000
    pause = _FIRST_PAUSE
    while time.monotonic() < min(until, began + _QUICK / 1000):
        time.sleep(max(0.0, min(pause, until - time.monotonic())))
        found = look()
        if found is not None:
            return found
        pause *= 1.5
    with _listener() as listener:
        while True:
            # After the flag is up and before the wait: what was settled in between is seen here.
            if listener is not None:
                store.await_settled(listener.connection.cursor(), milliseconds=int(_LAST_PAUSE * 2000))
            found = look()
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
def _listener() -> Iterator[db.Listener | None]:
    """Yield a listener, or None if there is no connection to be had: then polling has to do."""
    try:
        connection = db.connect(get_settings().database, "pgq waiting for results")
    except psycopg.Error:
        yield None
        return
    try:
        yield db.Listener(connection, "pgq_settled")
    finally:
        with contextlib.suppress(psycopg.Error):
            connection.close()


def finished() -> QuerySet[Task]:
    """Return all finished tasks, where PGQ["database"] has them."""
    return Task.objects.using(get_settings().database)


def find(id_or_name: str | UUID) -> Task | None:
    """Return the finished task of that id or name; of several of a name the newest.

    Raises:
        TypeError: Neither a text nor a UUID.
    """
    if not isinstance(id_or_name, str | UUID):
        raise TypeError(f"a task is found by its id or name, not by {id_or_name!r}")
    id = ids.parse_id(id_or_name)
    if id is not None:
        found = finished().filter(pk=id).first()
        if found is not None:
            return found
    named = finished().filter(name=str(id_or_name)).order_by("-id").first()
    return named or _find_by_words(str(id_or_name))


def _find_by_words(words: str) -> Task | None:
    """Find a task by the four words that its id stands for."""
    oldest = finished().order_by("id").values_list("id", flat=True).first()
    if oldest is None:
        return None
    now_ms = time.time_ns() // 1_000_000
    for low, high in ids.name_ranges(words, max(UUID(str(oldest)).int >> 80, now_ms - 90 * 86_400_000), now_ms):
        for id in finished().filter(id__gte=low, id__lte=high).order_by("-id").values_list("id", flat=True):
            if ids.task_name(UUID(str(id))) == words:
                return finished().filter(pk=id).first()
    return None


def fetch(id_or_name: str | UUID, wait: int = 0) -> Task | None:
    """Return the finished task, or None if it has not finished in time (milliseconds)."""
    return wait_for(lambda: find(id_or_name), wait)


def queued() -> QuerySet[QueuedTask]:
    """Return all live tasks."""
    return QueuedTask.objects.using(get_settings().database)
