"""Reading what became of tasks: by id or name, by group, from the database or the cache, at once or waiting."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import QuerySet

from pgq.conf import get_settings, places
from pgq.execution import result_cache
from pgq.models import Task
from pgq.tasks import raising, waiting


def _in_cache(cached: Any) -> bool:
    return bool(get_settings().cached if cached is None else cached)


def fetch(task_id: str | UUID, wait: int = 0, cached: Any = None) -> Task | None:
    """Return the finished `Task` of that id or name, or None if it has not finished in time.

    Args:
        task_id: The id of the task, or its name.
        wait: Milliseconds; 0: read once; -1: for ever.
        cached: Read the cache; None: as PGQ["cached"] says.

    Raises:
        NotCommitted: It is waited for inside of the transaction that has enqueued it, without which it cannot run.
    """
    return waiting.wait_for(waiting.look_for_task(task_id, cached=_in_cache(cached)), wait)


async def afetch(task_id: str | UUID, wait: int = 0, cached: Any = None) -> Task | None:
    """Do the same as `fetch` in a coroutine.

    Any number of coroutines wait by one session of PostgreSQL, and the caller's connection is not used unless it is in
    a transaction, whose own view counts first.
    """
    return await waiting.await_for(waiting.look_for_task(task_id, cached=_in_cache(cached)), wait)


def fetch_cached(task_id: str | UUID, wait: int = 0, broker: Any = None) -> Task | None:
    """Return the finished task from the cache; saving it makes it last.

    Args:
        task_id, wait: As for `fetch`.
        broker: Ignored.
    """
    return fetch(task_id, wait, cached=True)


def result(task_id: str | UUID, wait: int = 0, cached: Any = None, *, raise_error: bool = False) -> Any:
    """Return what a task returned, or the text of its failure; None also if it has not finished in time.

    To distinguish these, `fetch` the task: it is None only if the task has not finished; or have errors raised.
    The other arguments are those of `fetch`.

    Args:
        raise_error: Raise the failure, or that the task has not finished, instead of returning it.

    Raises:
        NotCommitted: As for `fetch`.
        NotFinished: A TimeoutError: it has not finished in time. Only with `raise_error`, as all that follow.
        Exception: What the task raised, if its class is one of a module that this process has imported. It is made
            without the class's own ``__init__``, so it has text and type, but no further attributes. Its ``__cause__``
            is a `TaskFailed`, which has the traceback.
        TaskFailed: It failed otherwise.
    """
    look = waiting.look_for_task(task_id, cached=_in_cache(cached), whole=False)
    found = waiting.wait_for(look, wait)
    return _value(found, task_id, raise_error)


async def aresult(task_id: str | UUID, wait: int = 0, cached: Any = None, *, raise_error: bool = False) -> Any:
    """Do the same as `result` in a coroutine; see `afetch`."""
    look = waiting.look_for_task(task_id, cached=_in_cache(cached), whole=False)
    found = await waiting.await_for(look, wait)
    return _value(found, task_id, raise_error)


def _value(found: Task | None, task_id: str | UUID, raise_error: bool) -> Any:
    if raise_error:
        found = raising.check(found, task_id)
    return None if found is None else found.result


def result_cached(task_id: str | UUID, wait: int = 0, broker: Any = None, *, raise_error: bool = False) -> Any:
    """Return what a task returned, from the cache.

    Args:
        task_id, wait, raise_error: As for `result`.
        broker: Ignored.
    """
    return result(task_id, wait, cached=True, raise_error=raise_error)


def fetch_group(
    group_id: str, failures: bool = True, wait: int = 0, count: int | None = None, cached: Any = None
) -> QuerySet[Task] | list[Task] | None:
    """Return the finished tasks of a group, newest first, or None if there is none.

    It is a queryset, as in Django-Q; a list if it comes from the cache, or from several databases.

    Args:
        group_id: The name of the group.
        cached: Read the cache; None: as PGQ["cached"] says.
        failures: With those that failed.
        wait: Milliseconds to wait for the first, or for `count`; -1: for ever.
        count: How many to wait for, failures included.

    Raises:
        NotCommitted: As for `fetch`.
    """
    in_cache = _in_cache(cached)
    look = waiting.look_for_group(group_id, count=count, cached=in_cache)
    waiting.wait_for(look, _group_wait(wait, count))
    return waiting.found_of_group(group_id, failures=failures, cached=in_cache) or None


async def afetch_group(
    group_id: str, failures: bool = True, wait: int = 0, count: int | None = None, cached: Any = None
) -> list[Task] | None:
    """Do the same as `fetch_group` in a coroutine; always return a list, or None. See `afetch`."""
    in_cache = _in_cache(cached)

    def read() -> list[Task]:
        return list(waiting.found_of_group(group_id, failures=failures, cached=in_cache))

    look = waiting.look_for_group(group_id, count=count, cached=in_cache)
    await waiting.await_for(look, _group_wait(wait, count))
    return await sync_to_async(read)() or None


def _group_wait(wait: int, count: int | None) -> int:
    return -1 if count and not wait else wait


def fetch_group_cached(
    group_id: str, failures: bool = True, wait: int = 0, count: int | None = None, broker: Any = None
) -> QuerySet[Task] | list[Task] | None:
    """Return the finished tasks of a group from the cache.

    Args:
        group_id, failures, wait, count: As for `fetch_group`.
        broker: Ignored.
    """
    return fetch_group(group_id, failures, wait, count, cached=True)


def result_group(
    group_id: str, failures: bool = False, wait: int = 0, count: int | None = None, cached: Any = None
) -> list[Any] | None:
    """Return the results of a group, newest first, or None if there is none. Arguments as for `fetch_group`."""
    found = fetch_group(group_id, failures, wait, count, cached)
    return None if found is None else [finished.result for finished in found]


async def aresult_group(
    group_id: str, failures: bool = False, wait: int = 0, count: int | None = None, cached: Any = None
) -> list[Any] | None:
    """Do the same as `result_group` in a coroutine; see `afetch`."""
    found = await afetch_group(group_id, failures, wait, count, cached)
    return None if found is None else [finished.result for finished in found]


def result_group_cached(
    group_id: str, failures: bool = False, wait: int = 0, count: int | None = None, broker: Any = None
) -> list[Any] | None:
    """Return the results of a group from the cache.

    Args:
        group_id, failures, wait, count: As for `fetch_group`.
        broker: Ignored.
    """
    return result_group(group_id, failures, wait, count, cached=True)


def count_group(group_id: str, failures: bool = False, cached: Any = None) -> int:
    """Return how many tasks of a group have finished; `failures`: how many of them have failed.

    Args:
        group_id, cached: As for `fetch_group`.
    """
    return waiting.count_group(group_id, failures=failures, cached=_in_cache(cached))


def count_group_cached(group_id: str, failures: bool = False, broker: Any = None) -> int:
    """Return how many tasks of a group are in the cache.

    Args:
        group_id: The name of the group.
        failures: As for `count_group`.
        broker: Ignored.
    """
    return count_group(group_id, failures, cached=True)


def delete_group(group_id: str, tasks: bool = False, cached: Any = None) -> Any:
    """Take the label off a group's finished tasks and return how many; with `tasks` delete them.

    Args:
        group_id, cached: As for `fetch_group`.
    """
    if _in_cache(cached):
        return result_cache.delete_group(group_id)
    return Task.delete_group(group_id, tasks)


def delete_group_cached(group_id: str, broker: Any = None) -> int:
    """Take a group's finished tasks out of the cache.

    Args:
        group_id: The name of the group.
        broker: Ignored.
    """
    return result_cache.delete_group(group_id)


def delete_cached(task_id: str, broker: Any = None) -> bool:
    """Take a finished task out of the cache.

    Args:
        task_id: Of the task.
        broker: Ignored.
    """
    return result_cache.delete(task_id)


def queue_size(broker: Any = None) -> int:
    """Return how many tasks are ready and not yet running.

    Args:
        broker: Ignored.
    """
    ready = {"lock": None, "run_after": None, "parked": None, "remaining": None}
    return sum(places.each(lambda: waiting.queued().filter(**ready).count()))
