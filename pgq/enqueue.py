"""The one way in: checks what was asked for, makes a `NewTask` of it and writes it in the caller's transaction."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db import router, transaction

from pgq import codec, registry, signals, store, timing
from pgq.conf import Policy, Settings, get_settings, policy_of
from pgq.db import callers_cursor, execute_often, is_same_database, wrapper
from pgq.errors import EnqueueError, UnknownFunction
from pgq.ids import new_hexes, new_id, task_name
from pgq.options import NO_OPTIONS, TaskOptions, check_backoff, check_exception
from pgq.private import router_hints, set_alias
from pgq.records import PRIORITY_MAX, PRIORITY_MIN, NewTask
from pgq.signing import sign_blob, sign_task, signer_of_calls

if TYPE_CHECKING:
    from django.db.models import Manager, QuerySet

T = TypeVar("T")

_EARLIEST, _LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_TEXTS = ("queue", "name", "group", "hook")
#: Rows in one INSERT of enqueue_many: enough to forget the round trip, few enough to bound memory.
CHUNK = 2000


# ------------------------------------------------------------------------------------------------- options


def path(argument: str, func: str | Callable[..., Any]) -> str:
    """Return the dotted path by which a worker gets that very function; of one with @task, that of its registration.

    Raises:
        UnknownFunction: There is none; the message names the argument and says what to do.
    """
    try:
        if isinstance(func, registry.Decorated):
            entry = registry.registered(func.path)
            # Else another one of that name was registered since.
            return func.path if entry is not None and entry.func is func.func else registry.path_of(func.func)
        if not isinstance(func, str):
            registry.refuse_yield(func)
            return registry.path_of(func)
        if registry.registered(func) is None:
            found = registry.locate(func)
            if isinstance(found, registry.Decorated):
                # By another name, of a module that imports it: its options hold by that one, too.
                return found.path
            registry.refuse_yield(found)
    except EnqueueError as error:
        raise error.of(argument) from error.__cause__
    return func


@functools.lru_cache(maxsize=1000)
def _own_path(option: str, path: str) -> str:
    """Return the path that the exception class of a path gives as its own: by that one a worker recognises it."""
    try:
        found = registry.locate(path)
    except UnknownFunction as error:
        raise error.of(option) from error.__cause__
    return check_exception(option, found)  # type: ignore[arg-type]  # it refuses what is no exception class


def with_path(options: TaskOptions) -> TaskOptions:
    """Return options whose backoff, if it is a callable, is named by its path.

    Raises:
        UnknownFunction: It has none.
    """
    backoff = options.retry_backoff
    return options.but(retry_backoff={"callable": path("retry_backoff", backoff)}) if callable(backoff) else options


def followed(options: TaskOptions) -> TaskOptions:
    """Return options whose paths lead somewhere.

    Not for a decorator: what they lead to may import the very module that is being imported.

    Raises:
        UnknownFunction: There is nothing, or no exception class.
    """
    if options is NO_OPTIONS:
        return options
    if options.retry_backoff is not None:
        options = with_path(options)
        if isinstance(options.retry_backoff, Mapping) and "callable" in options.retry_backoff:
            named = {"callable": path("retry_backoff", options.retry_backoff["callable"])}
            options = options.but(retry_backoff=named)
    if options.retry_on is not None:
        options = options.but(retry_on=[_own_path("retry_on", item) for item in options.retry_on])
    if options.no_retry_on is not None:
        options = options.but(no_retry_on=[_own_path("no_retry_on", item) for item in options.no_retry_on])
    return options


def with_policy(options: TaskOptions, policy: Policy) -> TaskOptions:
    """Return a task's options with what the policy of its queue adds to them."""
    if policy.ack_failures and options.ack_failure is None:
        options = options.but(ack_failure=True)
    if policy.retry_backoff is not None and options.retry_backoff is None:
        options = with_path(options.but(retry_backoff=check_backoff("retry_backoff", policy.retry_backoff)))
    return options


def _options_text(options: TaskOptions, policy: Policy, settings: Settings) -> str:
    options = with_policy(followed(options), policy)
    # As in Django-Q, what the producer's settings say travels with the task.
    if settings.cached and options.cached is None:
        options = options.but(cached=settings.cached)
    stored = options.stored()
    return codec.encode(stored, where="options") if stored else "{}"


# ------------------------------------------------------------------------------------------------- making


def make_task(
    func: str | Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: TaskOptions = NO_OPTIONS,
    *,
    id: UUID | None = None,
    remaining: int | None = None,
) -> NewTask:
    """Check a task and return it, signed and ready to be written.

    What is not said holds as `@task` fixed it, or else as PGQ says. An entry of PGQ["ALT_CLUSTERS"] that serves the
    task's queue takes the place of PGQ in that.

    Args:
        func: A function, or its dotted path.

    Raises:
        EnqueueError: Something is wrong; the message names the argument. Nothing has been written.
    """
    settings = get_settings()
    func_path = path("func", func)
    entry = registry.registered(func_path)
    if entry is not None:
        options = options.over(entry.options)
    args_text, kwargs_text = encode_arguments(args, kwargs or {}, settings)
    hook_path = None if options.hook is None else path("hook", options.hook)
    queue = options.queue or settings.default_queue
    policy = policy_of(queue)
    task = NewTask(
        id=id or new_id(),
        func=func_path,
        args=args_text,
        kwargs=kwargs_text,
        options=_options_text(options, policy, settings),
        queue=queue,
        priority=0 if options.priority is None else options.priority,
        name=_label(options.name),
        group=_label(options.group),
        hook=hook_path,
        timeout=_timeout(policy.timeout if options.timeout is None else options.timeout),
        max_attempts=policy.max_attempts if options.max_attempts is None else options.max_attempts,
        run_after=_moment(options.run_after),
        remaining=remaining,
    )
    _check(task)
    return signed(task)


def signed(task: NewTask) -> NewTask:
    """Return the task with its signature."""
    # As _replace(), in half the time, and each task pays for it. The signature is the last field.
    return NewTask._make((*task[:-1], sign_task(task)))


def encode_arguments(args: Sequence[Any], kwargs: Mapping[str, Any], settings: Settings) -> tuple[str, str]:
    """Return args and kwargs in their stored form.

    Raises:
        NotStorable: An argument has none, or they are too large together; the message says which.
    """
    return codec.encode_args(
        tuple(args),
        dict(kwargs),
        allow_pickle=settings.allow_pickle,
        sign=sign_blob if settings.allow_pickle else None,
        compress=settings.compress,
        limit=settings.max_payload,
    )


def _moment(run_after: datetime | timedelta | float | None) -> datetime | None:
    if run_after is None or isinstance(run_after, datetime):
        return None if run_after is None else timing.aware(run_after)
    try:
        if isinstance(run_after, int | float) and not isinstance(run_after, bool):
            run_after = timedelta(seconds=run_after)
        if isinstance(run_after, timedelta):
            return timing.now() + run_after
    except (ValueError, OverflowError):
        raise EnqueueError("run_after", f"leads to no date, got {run_after!r}") from None
    raise EnqueueError("run_after", f"must be a datetime, a timedelta or seconds, got {run_after!r}")


def _timeout(timeout: Any) -> float | None:
    if timeout is None or timeout == -1:
        return None
    # The upper bound (68 years) is that of the timer, which takes no more everywhere.
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 2**31:
        raise EnqueueError("timeout", f"must be seconds above 0, or -1 for no limit, got {timeout!r}")
    return float(timeout)


def _label(value: str | int | UUID | None) -> str | None:
    """Return a name or group as text: callers also give the key of a row, and look for it by the same key."""
    if type(value) is int or isinstance(value, UUID):
        return str(value)
    return value  # type: ignore[return-value]  # what else is no text is refused by `_check`


def _check(task: NewTask) -> None:
    """Raise EnqueueError if a field has a value that the table would refuse."""
    priority, attempts = task.priority, task.max_attempts
    if type(priority) is not int or not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise EnqueueError(
            "priority", f"must be a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}, got {priority!r}"
        )
    if type(attempts) is not int or not 0 <= attempts < 2**31:
        raise EnqueueError("max_attempts", f"must be a whole number, 0 (no limit) or above, got {attempts!r}")
    if task.run_after is not None and not _EARLIEST <= task.run_after <= _LATEST:
        raise EnqueueError("run_after", f"must be in the years 2 to 9998, got {task.run_after}")
    for field in _TEXTS:
        value = getattr(task, field)
        if value is not None:
            check_text(field, value)


def check_text(field: str, value: Any) -> None:
    """Raise EnqueueError unless the table would take that as the name of a queue, a group or a task."""
    if not isinstance(value, str):
        raise EnqueueError(field, f"must be a text, got {value!r}")
    if "\x00" in value or not value or not _fits(value):
        raise EnqueueError(
            field, f"must be 1 to 1000 bytes of UTF-8, without NUL or lone surrogates, got {value[:50]!r}"
        )


def _fits(text: str) -> bool:
    """Whether the text can be stored and takes no more than 1000 bytes: an index refuses 2700."""
    if text.isascii():
        return len(text) <= 1000
    try:
        return len(text.encode()) <= 1000
    except UnicodeEncodeError:
        return False


# ------------------------------------------------------------------------------------------------- writing


def announce(task: NewTask) -> None:
    """Send pre_enqueue, if anybody listens. Receivers see a dict, as in Django-Q; what they change is not kept."""
    if signals.pre_enqueue.receivers:
        signals.send(signals.pre_enqueue, task={
            "id": task.id.hex, "name": task.name or task_name(task.id), "func": task.func, "group": task.group,
            "hook": task.hook, "queue": task.queue, "args": task.args, "kwargs": task.kwargs,
            "options": json.loads(task.options), "started": timing.as_project(timing.now()),
        })  # fmt: skip


def enqueue(task: NewTask, *, using: str | None = None) -> UUID:
    """Write one task in the caller's transaction; return its id.

    Args:
        using: Alias in DATABASES; None: PGQ["database"].
    """
    announce(task)
    execute_often(using or get_settings().database, store.enqueue, task)
    return task.id


def enqueue_all(tasks: Iterable[NewTask], *, using: str | None = None, chunk: int = CHUNK) -> list[UUID]:
    """Write many tasks, `chunk` of them a statement, without ever holding more of them in memory; return their ids."""
    ids: list[UUID] = []
    with callers_cursor(using or get_settings().database) as cursor:
        for batch in _chunks(tasks, chunk):
            for task in batch:
                announce(task)
            store.enqueue_many(cursor, batch)
            ids.extend(task.id for task in batch)
    return ids


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
) -> list[str]:
    """Write a task for each call, `chunk` of them a statement; return their ids, 32 hex digits each.

    What they have in common is checked once.

    Args:
        calls: The arguments and keyword arguments of each.
        options: The same for all.
    """
    model = make_task(func, options=options)
    if model.run_after is not None or signals.pre_enqueue.receivers:
        # Only the database can say whether that time has come; and receivers are told of each task.
        made = (make_task(func, args, kwargs, options) for args, kwargs in calls)
        return [id.hex for id in enqueue_all(made, chunk=chunk)]
    settings, sign_call = get_settings(), signer_of_calls(model)
    ids: list[str] = []
    with callers_cursor(settings.database) as cursor:
        for batch in _chunks(calls, chunk):
            # Before the COPY: what is lazy, in an argument or in the calls, may ask the database.
            texts = [encode_arguments(args, kwargs, settings) for args, kwargs in batch]
            new = new_hexes(len(texts))
            # During the COPY: the server works on the first rows meanwhile.
            rows = ((id, *text, sign_call(id, *text)) for id, text in zip(new, texts, strict=True))
            store.enqueue_calls(cursor, model, rows)
            ids += new
    return ids


def enqueue_from(
    func: str | Callable[..., Any], queryset: QuerySet[Any] | Manager[Any], args: Sequence[str], **options: Any
) -> int:
    """Enqueue one task for each row of a query, in one INSERT ... SELECT on PGQ["database"]: no row comes to Python.

    A query that would be read from a replica of that database is read there, where the tasks are written. One of
    another PostgreSQL is read by this process, a chunk at a time, and the tasks are written in one transaction.

    Args:
        func: A function registered with @task, or its path: rows made by the database cannot be signed.
        args: Names of the query's columns or annotations, in the order of the function's arguments. They come as JSON
            has them: a date as its text.
        options: As for `async_task`, by the names of `TaskOptions`; the same for all.

    Returns:
        The number of tasks.

    Raises:
        EnqueueError: The function is not registered, or there is no query of PostgreSQL.
        FieldError: The query has no such column.
    """
    said = TaskOptions.of(**options)
    model = make_task(func, options=said)
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
    columns = Func(*[F(name) for name in args], function="jsonb_build_array", output_field=JSONField())
    query = rows.annotate(_pgq_args=columns).values_list("_pgq_args", flat=True)
    alias = get_settings().database
    if _is_read_there(rows, alias):
        text, parameters = query.query.get_compiler(alias).as_sql()
        with callers_cursor(alias) as cursor:
            return store.enqueue_from(cursor, text, parameters, model)
    if wrapper(query.db).vendor != "postgresql":
        raise EnqueueError("queryset", f"is of {query.db!r}, which is no PostgreSQL; use enqueue_many with its values")
    with transaction.atomic(using=alias):
        return len(enqueue_calls(func, ((row, {}) for row in query.iterator(CHUNK)), said))


def _is_read_there(queryset: QuerySet[Any], alias: str) -> bool:
    """Whether the rows of a query are in the database of that alias, by whatever alias they would be read."""
    if queryset.db == alias or is_same_database(queryset.db, alias):
        return True
    # Nobody has said using(): a router chose a replica of the database that these rows are written to.
    return set_alias(queryset) is None and router.db_for_write(queryset.model, **router_hints(queryset)) == alias
