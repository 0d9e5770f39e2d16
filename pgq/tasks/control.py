"""What operators and callers do to tasks and queues; psql has the same functions, from migrations_sql/0002."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from asgiref.sync import sync_to_async

from pgq.conf import database_of, get_settings, places
from pgq.enqueue.make import check_text
from pgq.errors import StillReferenced
from pgq.execution import ending
from pgq.ground import ids
from pgq.store import lanes, results
from pgq.store import queue as store_queue
from pgq.store.caller import callers_cursor


def _id(task_id: str | UUID) -> UUID:
    id = ids.parse_id(task_id)
    if id is None:
        raise ValueError(f"task_id: must be an id (32 hex digits), got {task_id!r}")
    return id


def cancel(task_id: str | UUID) -> str:
    """Cancel a task, in the caller's transaction.

    A task that no worker holds, whatever it waits for, ends here as failed, with `TaskCancelled`: its result
    is written, and its hook, its chain and its group's collector hear of it. A running one is interrupted.

    Args:
        task_id: Of the task.

    Returns:
        ``queued``: it has ended without running; ``running``: it is being interrupted; ``finished``: too late;
        ``unknown``.

    Raises:
        ValueError: Not an id.
    """
    id = _id(task_id)
    return _cancel([id])[id]


async def acancel(task_id: str | UUID) -> str:
    """Do the same as `cancel` in a coroutine, by the caller's connection and in its transaction."""
    return await sync_to_async(cancel)(task_id)


def cancel_many(task_ids: Iterable[str | UUID]) -> dict[str, str]:
    """Cancel many tasks, 500 of them a statement, all in one transaction of each database.

    Args:
        task_ids: Ids, as enqueuing returns them; in any order.

    Returns:
        For each id (32 hex digits) what `cancel` returns.

    Raises:
        ValueError: One of them is not an id. Nothing was cancelled.
    """
    return {id.hex: found for id, found in _cancel([_id(each) for each in task_ids]).items()}


async def acancel_many(task_ids: Iterable[str | UUID]) -> dict[str, str]:
    """Do the same as `cancel_many` in a coroutine, by the caller's connection and in its transaction."""
    return await sync_to_async(cancel_many)(task_ids)


def _cancel(task_ids: Sequence[UUID]) -> dict[UUID, str]:
    found: dict[UUID, str] = {}

    def look() -> bool | None:
        states = ending.cancel([id for id in task_ids if id not in found])
        found.update((id, state) for id, state in states.items() if state != "unknown")
        return True if len(found) == len(set(task_ids)) else None

    places.first(look)
    return dict.fromkeys(task_ids, "unknown") | found


def retry(task_id: str | UUID) -> bool:
    """Run a finished task again, under its id and with its history; or release a parked or waiting one now.

    Args:
        task_id: Of the task.

    Returns:
        Whether there was such a task.

    Raises:
        ValueError: Not an id.
        StillReferenced: A foreign key of another table refers to the finished task, which would leave its table.
    """
    id = _id(task_id)
    return places.first(lambda: _retry_here(id) or None) is not None


def _retry_here(id: UUID) -> bool:
    with callers_cursor(get_settings().database) as cursor:
        found = store_queue.retry_finished(cursor, id)
        if found is None:
            keepers = " or ".join(name for name, keeps in results.references(cursor).items() if keeps)
            raise StillReferenced(
                f"task {id.hex} is not run again under its id: it would leave pgq_task, and another table refers to it "
                f"there: {keepers}. Enqueue it anew, or let go of it there first"
            )
        return found


async def aretry(task_id: str | UUID) -> bool:
    """Do the same as `retry` in a coroutine, by the caller's connection and in its transaction."""
    return await sync_to_async(retry)(task_id)


def pause(queue: str) -> None:
    """Stop claims from a queue. Running tasks finish; enqueuing goes on.

    Raises:
        EnqueueError: That is no name of a queue.
    """
    check_text("queue", queue)
    with callers_cursor(database_of(queue)) as cursor:
        lanes.pause(cursor, queue)


def resume(queue: str) -> None:
    """Allow claims from a queue again.

    Raises:
        EnqueueError: That is no name of a queue.
    """
    check_text("queue", queue)
    with callers_cursor(database_of(queue)) as cursor:
        lanes.resume(cursor, queue)
