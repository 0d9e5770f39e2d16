"""Writes new tasks in the caller's transaction: one, many, a call each, or from a query."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db import router, transaction

from pgq import signals
from pgq.codec.signing import signer_of_calls
from pgq.conf import database_of, get_settings
from pgq.enqueue import registry, unique
from pgq.enqueue.make import encode_arguments, key_maker, make_task
from pgq.enqueue.signature import FINISHED, check_call, check_calls, check_one
from pgq.enqueue.watched import is_watched, watched
from pgq.errors import EnqueueError
from pgq.ground.ids import new_hexes, task_name
from pgq.ground.private import router_hints, set_alias
from pgq.records import NewTask
from pgq.records.options import NO_OPTIONS, TaskOptions
from pgq.recurrence import moments
from pgq.store import queue as store_queue
from pgq.store.caller import aware_cursor, callers_cursor, execute_often
from pgq.store.connection import is_same_database, wrapper

if TYPE_CHECKING:
    from django.db.models import Manager, QuerySet

T = TypeVar("T")
#: Rows in one INSERT of enqueue_many: enough to forget the round trip, few enough to bound memory.
CHUNK = 2000


def announce(task: NewTask) -> None:
    """Send pre_enqueue, if it has receivers. They get a dict, as in Django-Q; what they change in it is not kept."""
    if signals.pre_enqueue.receivers:
        given = {name: getattr(task, name) for name in ("func", "group", "hook", "queue", "args", "kwargs")}
        made = {
            "id": task.id.hex,
            "name": task.name or task_name(task.id),
            "options": json.loads(task.options),
            "started": moments.as_project(moments.now()),
        }
        signals.send(signals.pre_enqueue, task=given | made)


def enqueue(task: NewTask, *, using: str | None = None) -> UUID:
    """Write one task in the caller's transaction; return its id, or that of the task that has its unique key.

    Args:
        using: Alias in DATABASES; None: that of the task's queue.

    Raises:
        NotUnique: Another task has its unique key, and the call wants to know.
    """
    announce(task)
    alias = using or database_of(task.queue)
    if task.unique is not None:
        return _write_part([task], alias)[0]
    if is_watched():
        with watched((task,), alias) as writing:
            execute_often(alias, store_queue.enqueue, writing.tasks[0])
    else:
        execute_often(alias, store_queue.enqueue, task)
    return task.id


def enqueue_dated(task: NewTask, *, using: str) -> datetime:
    """Write one task as `enqueue` does; return when PostgreSQL says it was enqueued, aware.

    Args:
        using: Alias in DATABASES.
    """
    announce(task)
    times: list[datetime] = []
    with watched((task,), using) as writing:
        execute_often(
            using,
            lambda cursor, new: times.append(store_queue.enqueue_dated(aware_cursor(cursor), new)),
            writing.tasks[0],
        )
    return times[-1]


def enqueue_all(tasks: Iterable[NewTask], *, using: str | None = None, chunk: int = CHUNK) -> list[UUID]:
    """Write many tasks, `chunk` of them a statement, holding no more of them in memory; return their ids.

    For one whose unique key another task has, the id of that one.

    Args:
        using: Alias in DATABASES; None: for each task that of its queue.
    """
    return [id for id, _ in _write_all(tasks, using, chunk)]


def _write_all(tasks: Iterable[NewTask], using: str | None, chunk: int) -> Iterator[tuple[UUID, bool]]:
    """Write many tasks; yield for each its id, or that of the task that has its key, and whether it was written."""
    for batch in _chunks(tasks, chunk):
        for task in batch:
            announce(task)
        written: dict[UUID, UUID] = {}
        for alias, part in _by_database(batch, using):
            written.update(zip((task.id for task in part), _write_part(part, alias), strict=True))
        yield from ((written[task.id], written[task.id] == task.id) for task in batch)


def _write_part(tasks: list[NewTask], alias: str) -> list[UUID]:
    """Write tasks of one database; return for each its id, or that of the task that has its key."""
    with callers_cursor(alias) as cursor, watched(tuple(tasks), alias) as writing:
        if all(task.unique is None for task in tasks):
            store_queue.enqueue_many(cursor, writing.tasks)
            return [task.id for task in tasks]
        ids = unique.write_many(cursor, writing.tasks)
        writing.count = sum(id == task.id for id, task in zip(ids, tasks, strict=True))
        return ids


def _by_database(tasks: list[NewTask], using: str | None) -> Iterable[tuple[str, list[NewTask]]]:
    if using is not None or not get_settings().databases:
        return [(using or database_of(tasks[0].queue), tasks)]
    parts: dict[str, list[NewTask]] = {}
    for task in tasks:
        parts.setdefault(database_of(task.queue), []).append(task)
    return parts.items()


def check_chunk(chunk: Any) -> None:
    """Raise EnqueueError unless that many rows can be in one statement."""
    if type(chunk) is not int or chunk < 1:
        raise EnqueueError("chunk", f"must be a whole number, 1 or above, got {chunk!r}")


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def enqueue_calls(
    func: str | Callable[..., Any],
    calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]],
    options: TaskOptions = NO_OPTIONS,
    *,
    chunk: int = CHUNK,
    using: str | None = None,
) -> list[str]:
    """Write a task for each call, `chunk` of them a statement; return their ids, 32 hex digits each.

    For a call whose unique key another task has, its id, as an `Existing`.

    What the calls have in common is checked once.

    Args:
        calls: The arguments and keyword arguments of each.
        options: The same for all.
        using: Alias in DATABASES; None: that of their queue.
    """
    model = _model(func, options)
    using = using or database_of(model.queue)
    if model.run_after is not None or model.unique is not None or signals.pre_enqueue.receivers:
        # The INSERT compares the time with the database's clock, which COPY cannot, and keys with those that are there;
        # and receivers get each task.
        made = (make_task(func, args, kwargs, options) for args, kwargs in calls)
        written = _write_all(made, using, chunk)
        return [id.hex if is_new else unique.Existing(id.hex) for id, is_new in written]
    settings, key = get_settings(), key_maker(func, options)
    if isinstance(key, str):
        model = model._replace(key=key)
    ids: list[str] = []
    with watched((model,), using, ids) as writing, callers_cursor(using) as cursor:
        [model] = writing.tasks
        sign_call = signer_of_calls(model)
        for batch in _chunks(calls, chunk):
            # Before the COPY: a lazy argument, or the iterator of calls, may query the database on this connection.
            texts = [encode_arguments(args, kwargs, settings) for args, kwargs in batch]
            check_calls(model.func, batch)
            new = new_hexes(len(texts))
            # During the COPY: while the last rows are signed, the server works on the first.
            if callable(key):
                calls_keys = [key(*call) for call in batch]
                keyed = zip(new, texts, calls_keys, strict=True)
                with_keys = ((id, *text, sign_call(id, *text, own), own) for id, text, own in keyed)
                store_queue.enqueue_keyed_calls(cursor, model, with_keys)
            else:
                rows = ((id, *text, sign_call(id, *text, key)) for id, text in zip(new, texts, strict=True))
                store_queue.enqueue_calls(cursor, model, rows)
            ids += new
    return ids


def _model(func: str | Callable[..., Any], options: TaskOptions) -> NewTask:
    """Return a task that has all but the arguments of those to be written."""
    model = make_task(func, options=options, first=None, keyed=False)
    if model.hook is not None:
        check_one("hook", model.hook, FINISHED)
    return model


def enqueue_rows(
    func: str | Callable[..., Any],
    queryset: QuerySet[Any] | Manager[Any],
    args: Sequence[str],
    options: TaskOptions,
    *,
    run: Callable[[NewTask], object] | None = None,
) -> int:
    """Do what `pgq.tasks.enqueue_from` does, with options that were read already.

    Args:
        run: Called with each task, in place of writing it; for who runs tasks at once.
    """
    model = _model(func, options)
    if registry.registered(model.func) is None and model.func not in get_settings().allowed:
        raise EnqueueError(
            "func", f"{model.func!r} must be registered with @task, since rows made by the database are not signed"
        )
    from django.db.models import F, Func, JSONField, Manager, QuerySet

    rows: Any = queryset.all() if isinstance(queryset, Manager) else queryset
    if not isinstance(rows, QuerySet):
        raise EnqueueError("queryset", f"must be a QuerySet, got a {type(rows).__name__}; enqueue_many takes a list")
    if isinstance(args, str) or not all(isinstance(name, str) for name in args):
        raise EnqueueError("args", f"must be a list of names of columns or annotations, got {args!r}")
    check_call(model.func, len(args))
    columns = Func(*[F(name) for name in args], function="jsonb_build_array", output_field=JSONField())
    query = rows.annotate(_pgq_args=columns).values_list("_pgq_args", flat=True)
    alias = database_of(model.queue)
    if run is not None:
        made = [make_task(func, row, {}, options) for row in query]
        for task in made:
            run(task)
        return len(made)
    key = key_maker(func, options)
    if _is_read_there(rows, alias) and not callable(key) and model.unique is None:
        model = model._replace(key=key)
        text, parameters = query.query.get_compiler(alias).as_sql()
        with watched((model,), alias) as writing, callers_cursor(alias) as cursor:
            writing.count = store_queue.enqueue_from(cursor, text, parameters, writing.tasks[0])
            return writing.count
    if wrapper(query.db).vendor != "postgresql":
        raise EnqueueError("queryset", f"is of {query.db!r}, which is no PostgreSQL; use enqueue_many with its values")
    with transaction.atomic(using=alias):
        ids = enqueue_calls(func, ((row, {}) for row in query.iterator(CHUNK)), options)
        return sum(not isinstance(id, unique.Existing) for id in ids)


def _is_read_there(queryset: QuerySet[Any], alias: str) -> bool:
    """Whether the rows of a query are in the database of that alias, by whatever alias they would be read."""
    if queryset.db == alias or is_same_database(queryset.db, alias):
        return True
    # Without using(), a router may have chosen a replica of the database that these rows are written to.
    return set_alias(queryset) is None and router.db_for_write(queryset.model, **router_hints(queryset)) == alias
