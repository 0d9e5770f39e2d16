"""Reading what became of tasks: by id or name, by group, from the database or the cache, at once or waiting."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from pgq.conf import get_settings
from pgq.execution import result_cache
from pgq.models import Task
from pgq.tasks import waiting


def _in_cache(cached: Any) -> bool:
    return bool(get_settings().cached if cached is None else cached)


def fetch(task_id: str | UUID, wait: int = 0, cached: Any = None) -> Task | None:
    """Return the finished `Task` of that id or name, or None if it has not finished in time.

    Args:
        wait: Milliseconds; 0: read once; -1: for ever.
        cached: Read the cache; None: as PGQ["cached"] says.

    Raises:
        NotCommitted: It is waited for inside of the transaction that has enqueued it, without which it cannot run.
    """
    return waiting.fetch(task_id, wait, cached=_in_cache(cached))


def fetch_cached(task_id: str | UUID, wait: int = 0, broker: Any = None) -> Task | None:
    """Return the finished task from the cache; saving it makes it last."""
    return fetch(task_id, wait, cached=True)


def result(task_id: str | UUID, wait: int = 0, cached: Any = None) -> Any:
    """Return what a task returned, or the text of its failure; None also if it has not finished in time.

    To distinguish these, `fetch` the task: it is None only if the task has not finished. Arguments as for `fetch`.
    """
    found = fetch(task_id, wait, cached)
    return None if found is None else found.result


def result_cached(task_id: str | UUID, wait: int = 0, broker: Any = None) -> Any:
    """Return what a task returned, from the cache."""
    return result(task_id, wait, cached=True)


def fetch_group(
    group_id: str, failures: bool = True, wait: int = 0, count: int | None = None, cached: Any = None
) -> QuerySet[Task] | list[Task] | None:
    """Return the finished tasks of a group, newest first, or None if there is none.

    It is a queryset, as in Django-Q; a list if it comes from the cache.

    Args:
        failures: With those that failed.
        wait: Milliseconds to wait for the first, or for `count`; -1: for ever.
        count: How many to wait for, failures included.

    Raises:
        NotCommitted: As for `fetch`.
    """
    wait = -1 if count and not wait else wait
    return waiting.fetch_group(group_id, failures=failures, wait=wait, count=count, cached=_in_cache(cached)) or None


def fetch_group_cached(
    group_id: str, failures: bool = True, wait: int = 0, count: int | None = None, broker: Any = None
) -> QuerySet[Task] | list[Task] | None:
    """Return the finished tasks of a group from the cache."""
    return fetch_group(group_id, failures, wait, count, cached=True)


def result_group(
    group_id: str, failures: bool = False, wait: int = 0, count: int | None = None, cached: Any = None
) -> list[Any] | None:
    """Return the results of a group, newest first, or None if there is none. Arguments as for `fetch_group`."""
    found = fetch_group(group_id, failures, wait, count, cached)
    return None if found is None else [finished.result for finished in found]


def result_group_cached(
    group_id: str, failures: bool = False, wait: int = 0, count: int | None = None, broker: Any = None
) -> list[Any] | None:
    """Return the results of a group from the cache."""
    return result_group(group_id, failures, wait, count, cached=True)


def count_group(group_id: str, failures: bool = False, cached: Any = None) -> int:
    """Return how many tasks of a group have finished; `failures`: how many of them have failed."""
    return waiting.count_group(group_id, failures=failures, cached=_in_cache(cached))


def count_group_cached(group_id: str, failures: bool = False, broker: Any = None) -> int:
    """Return how many tasks of a group are in the cache."""
    return count_group(group_id, failures, cached=True)


def delete_group(group_id: str, tasks: bool = False, cached: Any = None) -> Any:
    """Take the label off a group's finished tasks and return how many; with `tasks` delete them."""
    if _in_cache(cached):
        return result_cache.delete_group(group_id)
    return Task.delete_group(group_id, tasks)


def delete_group_cached(group_id: str, broker: Any = None) -> int:
    """Take a group's finished tasks out of the cache."""
    return result_cache.delete_group(group_id)


def delete_cached(task_id: str, broker: Any = None) -> bool:
    """Take a finished task out of the cache."""
    return result_cache.delete(task_id)


def queue_size(broker: Any = None) -> int:
    """Return how many tasks are ready and not yet running."""
    return waiting.queued().filter(lock=None, run_after=None, parked=None, remaining=None).count()
