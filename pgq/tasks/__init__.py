"""The public functions, with Django-Q's names, arguments and options.

Where they differ from Django-Q, its users asked for it (docs/migrate/django-q.md has the list): a chain stops at a
failure unless told otherwise, hooks are called whatever becomes of the result, ``count=`` waits for *at least* so many,
and waiting for a task that returned None ends when it has.
"""

from __future__ import annotations

from pgq.config.unique import Debounce, Unique
from pgq.enqueue.calls import TaskCall
from pgq.execution.call import current_task
from pgq.execution.context import Context
from pgq.ground.limits import Rate
from pgq.models import Schedule, Task
from pgq.tasks.async_task import aenqueue, aenqueue_many, async_task, enqueue_from, enqueue_many
from pgq.tasks.control import acancel, acancel_many, aretry, cancel, cancel_many, pause, resume, retry
from pgq.tasks.definition import TaskFunction, task
from pgq.tasks.enqueueable import BoundTask
from pgq.tasks.handle import TaskId
from pgq.tasks.iter_chain import async_chain, async_iter
from pgq.tasks.limits import drop_limit, set_limit
from pgq.tasks.objects import AsyncTask, Chain, Iter
from pgq.tasks.reading import (
    afetch,
    afetch_group,
    aresult,
    aresult_group,
    count_group,
    count_group_cached,
    delete_cached,
    delete_group,
    delete_group_cached,
    fetch,
    fetch_cached,
    fetch_group,
    fetch_group_cached,
    queue_size,
    result,
    result_cached,
    result_group,
    result_group_cached,
)
from pgq.tasks.scheduling import schedule

__all__ = [
    "AsyncTask",
    "BoundTask",
    "Chain",
    "Context",
    "Debounce",
    "Iter",
    "Rate",
    "Schedule",
    "Task",
    "TaskCall",
    "TaskFunction",
    "TaskId",
    "Unique",
    "acancel",
    "acancel_many",
    "aenqueue",
    "aenqueue_many",
    "afetch",
    "afetch_group",
    "aresult",
    "aresult_group",
    "aretry",
    "async_chain",
    "async_iter",
    "async_task",
    "cancel",
    "cancel_many",
    "count_group",
    "count_group_cached",
    "current_task",
    "delete_cached",
    "delete_group",
    "delete_group_cached",
    "drop_limit",
    "enqueue_from",
    "enqueue_many",
    "fetch",
    "fetch_cached",
    "fetch_group",
    "fetch_group_cached",
    "pause",
    "queue_size",
    "result",
    "result_cached",
    "result_group",
    "result_group_cached",
    "resume",
    "retry",
    "schedule",
    "set_limit",
    "task",
]
