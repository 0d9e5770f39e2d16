"""`async_task`, `enqueue_many` and `enqueue_from`: Django-Q's names and options, translated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import transaction

from pgq.conf import get_settings
from pgq.enqueue.calls import all_arguments, several
from pgq.enqueue.make import make_task
from pgq.enqueue.options import path
from pgq.enqueue.places import beside, database_for, queue_for
from pgq.enqueue.signature import check_one
from pgq.enqueue.write import CHUNK, check_chunk, enqueue, enqueue_calls, enqueue_rows
from pgq.execution import inline
from pgq.ground.ids import new_id
from pgq.records import NewTask
from pgq.records.options import TaskOptions, unknown_option
from pgq.tasks.handle import TaskId, task_ids
from pgq.tasks.words import WORDS, split_call, split_options

if TYPE_CHECKING:
    from django.db.models import Manager, QuerySet


def submit(new: NewTask, sync: bool) -> TaskId[Any]:
    """Write one task, or run it at once if `sync`; return its id."""
    id = inline.run(new) if sync else enqueue(new)
    return TaskId.of(id, created=id is new.id or id == new.id)


def async_task(func: str | Callable[..., Any], *args: Any, **kwargs: Any) -> TaskId[Any]:
    """Enqueue a call of a function, in the caller's transaction on the database of its queue.

    Args:
        func: A function at the top of a module, its dotted path, or a Task object of django.tasks, whose queue,
            priority and time hold unless others are given.
        args, kwargs: The function's, but for these options: hook, group, save, sync, cached, ack_failure, timeout
            (seconds), task_name, cluster (or queue), priority (-100 to 100), run_after (a moment, timedelta or
            seconds), max_attempts, retry_backoff, retry_on, no_retry_on, ack, sensitive. Those inside q_options win;
            key, unique, debounce, expires, keep and backoff stand there alone, so that no argument is taken for one.

    Returns:
        The task's id: 32 hex digits.

    Raises:
        WrongCall: The function cannot be called with these arguments, or the hook with a finished task.
        EnqueueError: Something else is wrong; the message names the argument. Nothing was written.
    """
    given, options, sync = split_call(kwargs)
    return submit(make_task(func, args, given, options), sync)


async def aenqueue(func: str | Callable[..., Any], *args: Any, **kwargs: Any) -> TaskId[Any]:
    """Do the same as `async_task` in a coroutine, by the caller's connection and in its transaction.

    Arguments, options and errors are those of `async_task`.
    """
    return await sync_to_async(async_task)(func, *args, **kwargs)


def enqueue_many(
    func: str | Callable[..., Any],
    calls: Iterable[Any],
    *,
    then: str | Callable[..., Any] | None = None,
    chunk: int = CHUNK,
    **options: Any,
) -> list[TaskId[Any]]:
    """Enqueue many calls of a function, `chunk` of them in one statement, all in one transaction.

    Args:
        func: As for `async_task`.
        calls: What to call it with: each a tuple of arguments, a dict of keyword arguments, a `TaskCall` of it, or one
            single argument. May be a generator of any length.
        then: Called with the name of the group once all of them have settled, however they ended.
        options: As for `async_task`, the same for all.

    Returns:
        The ids, in the order of the calls.

    Raises:
        WrongCall, EnqueueError: As for `async_task`. Nothing was written.
    """
    given, chosen, sync = split_options(options)
    for name in given:
        raise unknown_option(name, WORDS)
    return write_calls(func, calls, chosen, sync=sync, then=then, chunk=chunk)


def write_calls(
    func: str | Callable[..., Any],
    calls: Iterable[Any],
    chosen: TaskOptions,
    *,
    sync: bool,
    then: str | Callable[..., Any] | None,
    chunk: int,
) -> list[TaskId[Any]]:
    """Do what `enqueue_many` does, with options that were read already."""
    check_chunk(chunk)
    arguments = all_arguments(func, several("calls", calls))
    if then is not None:
        then = path("then", then)
        check_one("then", then, "the name of the group")
    collector = new_id()
    of_then, alias = TaskOptions(queue=chosen.queue), database_for(func, chosen)
    if then is not None:
        chosen = chosen.but(group=chosen.group or collector.hex)
        of_then = beside(then, of_then, queue_for(func, chosen), "then")
    if sync:
        ran = [submit(make_task(func, args, kwargs, chosen), sync) for args, kwargs in arguments]
        if then is not None:
            inline.run(make_task(then, (chosen.group,), options=of_then))
        return ran
    if then is not None:
        chosen = chosen.but(collector=collector.hex)
    with transaction.atomic(using=alias):
        ids = task_ids(enqueue_calls(func, arguments, chosen, chunk=chunk, using=alias))
        if then is not None:
            # Last, since only now their number is known. No worker sees any of them before the commit.
            written = sum(id.created for id in ids)
            last = make_task(then, (chosen.group,), options=of_then, id=collector, remaining=written or None)
            enqueue(last, using=alias)
    return ids


async def aenqueue_many(
    func: str | Callable[..., Any],
    calls: Iterable[Any],
    *,
    then: str | Callable[..., Any] | None = None,
    chunk: int = CHUNK,
    **options: Any,
) -> list[TaskId[Any]]:
    """Do the same as `enqueue_many` in a coroutine, by the caller's connection and in its transaction.

    Args:
        func, then, chunk, options: As for `enqueue_many`.
        calls: As for `enqueue_many`. A generator runs in the thread that has the caller's connection.
    """
    return await sync_to_async(enqueue_many)(func, calls, then=then, chunk=chunk, **options)


def enqueue_from(
    func: str | Callable[..., Any], queryset: QuerySet[Any] | Manager[Any], args: Sequence[str], **options: Any
) -> int:
    """Enqueue one task for each row of a query, in one INSERT ... SELECT: no row comes to Python.

    A query that would be read from a replica of that database is read there, where the tasks are written. One of
    another PostgreSQL is read by this process, a chunk at a time, and the tasks are written in one transaction. If
    PGQ["sync"] says so, all rows are read, and the tasks run at once.

    Args:
        queryset: The rows, or a manager of them.
        func: A function registered with @task, or its path: rows made by the database cannot be signed.
        args: Names of the query's columns or annotations, in the order of the function's arguments. They come as JSON
            has them: a date as its text.
        options: As for `async_task`, by the names of `TaskOptions`; the same for all.

    Returns:
        The number of tasks.

    Raises:
        WrongCall: The function cannot be called with so many arguments.
        EnqueueError: The function is not registered, or there is no query of PostgreSQL.
        FieldError: The query has no such column.
    """
    return write_rows(func, queryset, args, TaskOptions.of(**options))


def write_rows(
    func: str | Callable[..., Any], queryset: QuerySet[Any] | Manager[Any], args: Sequence[str], options: TaskOptions
) -> int:
    """Do what `enqueue_from` does, with options that were read already."""
    return enqueue_rows(func, queryset, args, options, run=inline.run if get_settings().sync else None)
