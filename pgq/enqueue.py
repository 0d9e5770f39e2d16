"""The one way in: checks what was asked for, makes a `NewTask` of it and writes it in the caller's transaction."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import router, transaction

from pgq import backoff as backoffs
from pgq import codec, dotted, registry, signals, store, timing
from pgq.conf import Policy, Settings, get_settings, policy_of
from pgq.db import callers_cursor, execute_often, is_same_database, wrapper
from pgq.errors import EnqueueError, UnknownFunction, UnknownOption
from pgq.ids import new_hexes, new_id, task_name
from pgq.private import router_hints, set_alias
from pgq.records import PRIORITY_MAX, PRIORITY_MIN, NewTask, Options
from pgq.signing import sign_blob, sign_task, signer_of_calls

if TYPE_CHECKING:
    from django.db.models import Manager, QuerySet

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: Options that stay with a task in its options column, with what they mean.
EXTRA = {
    "save": "False: keep no result of a success",
    "cached": "keep the result in the cache: seconds, True (for ever) or False",
    "ack_failure": "True: a failure is final, whatever attempts are left",
    "ack": "'task': settle this task by itself, at once",
    "sensitive": "True: the admin shows a digest of the arguments and of the result instead of them",
}
#: The same for what our own code asks for, and users do not.
_INNER = {
    "backoff": "seconds before the next attempt",
    "retry_on": "exceptions to retry, as dotted paths; others are final",
    "no_retry_on": "exceptions that are final, as dotted paths",
    "chain": "the links that follow this one",
    "chain_pass": "give the next link this one's result",
    "chain_on_failure": "go on to the next link after a failure",
    "collector": "id of the task that waits for this one",
    "index": "place of this one's result among those collected",
    "collects": "group whose tasks are forgotten once this one has their results",
    "hook_of": "id of the task this one is the hook of",
    "forget": "the task this is the hook of is forgotten once the hook has run",
}
#: What `@task` fixes, and what one call may say.
TASK_OPTIONS = ("queue", "priority", "timeout", "max_attempts", "retry_backoff", "retry_on", "no_retry_on", "atomic",
                *EXTRA)  # fmt: skip
CALL_OPTIONS = ("queue", "priority", "run_after", "name", "group", "hook", "timeout", "max_attempts", "retry_backoff",
                "retry_on", "no_retry_on", *EXTRA)  # fmt: skip
_EARLIEST, _LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_TEXTS = ("queue", "name", "group", "hook")
#: Rows in one INSERT of enqueue_many: enough to forget the round trip, few enough to bound memory.
CHUNK = 2000


def make_task(
    func: str | Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    queue: str | None = None,
    priority: int | None = None,
    run_after: datetime | timedelta | float | None = None,
    name: str | int | UUID | None = None,
    group: str | int | UUID | None = None,
    hook: str | Callable[..., Any] | None = None,
    timeout: float | None = None,
    max_attempts: int | None = None,
    retry_backoff: Any = None,
    retry_on: Iterable[type[BaseException] | str] | None = None,
    no_retry_on: Iterable[type[BaseException] | str] | None = None,
    id: UUID | None = None,
    remaining: int | None = None,
    schedule: int | None = None,
    slot: datetime | None = None,
    **extra: Any,
) -> NewTask:
    """Check a task and return it, signed and ready to be written.

    Args:
        func: A function, or its dotted path.
        queue: None: that of @task, or PGQ["default_queue"]. An entry of PGQ["ALT_CLUSTERS"] that serves it takes the
            place of PGQ in what follows.
        priority: -100 to 100, larger is sooner.
        run_after: A moment, or a delay as timedelta or seconds.
        name, group: A text, or the key of a row (a number or a UUID), which is kept as text.
        timeout: Seconds one attempt may run; None: that of @task or PGQ["timeout"]; -1: no limit.
        max_attempts: Attempts that may fail; 0: no limit; None: that of @task or PGQ["max_attempts"].
        retry_backoff: See `pgq.backoff`; also a callable at the top of a module.
        retry_on, no_retry_on: Exception classes or their dotted paths.
        extra: See `EXTRA`.

    Raises:
        EnqueueError: Something is wrong; the message names the argument. Nothing has been written.
    """
    settings = get_settings()
    func_path = path("func", func)
    fixed = _fixed_options(func_path)
    args_text, kwargs_text = encode_arguments(args, kwargs or {}, settings)
    hook_path = None if hook is None else path("hook", hook)
    queue = queue or fixed.queue or settings.default_queue
    policy = policy_of(queue)
    task = NewTask(
        id=id or new_id(),
        func=func_path,
        args=args_text,
        kwargs=kwargs_text,
        options=_options_text(fixed.extra, extra, retry_backoff, retry_on, no_retry_on, policy, settings),
        queue=queue,
        priority=_first(priority, fixed.priority, 0),
        name=_label(name),
        group=_label(group),
        hook=hook_path,
        timeout=_timeout(_first(timeout, fixed.timeout, policy.timeout)),
        max_attempts=_first(max_attempts, fixed.max_attempts, policy.max_attempts),
        run_after=_moment(run_after),
        remaining=remaining,
        schedule=schedule,
        slot=slot,
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


def _first(*values: Any) -> Any:
    for value in values:
        if value is not None:
            return value
    return None


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


_NO_OPTIONS = Options()


def _fixed_options(path: str) -> Options:
    entry = registry.registered(path)
    return entry.options if entry is not None else _NO_OPTIONS


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


def unknown_option(given: object, known: Iterable[str], *, of: str | None = None) -> UnknownOption:
    """Return the error for an option that there is not: it names the nearest of those there are, and all of them.

    Args:
        of: The argument that holds it; None: it is an argument itself.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    field, what = (str(given), "there is no such option") if of is None else (of, f"there is no option {given}")
    return UnknownOption(field, f"{what}{f'; did you mean {near[0]}?' if near else '.'} There are {', '.join(names)}.")


def check_names(options: Iterable[str], known: Collection[str]) -> None:
    for name in options:
        if name not in known:
            raise unknown_option(name, known)


def _exception_path(option: str, value: type[BaseException] | str) -> str:
    if isinstance(value, str):
        return value
    if not (isinstance(value, type) and issubclass(value, BaseException)):
        raise EnqueueError(option, f"must hold exception classes or their dotted paths, got {value!r}")
    try:
        return dotted.path_in_memory(value)
    except dotted.Unnamed as error:
        raise UnknownFunction(option, f"{value.__name__} {error}") from None


@functools.lru_cache(maxsize=1000)
def _own_path(option: str, path: str) -> str:
    """Return the path that the exception class of a path gives as its own: by that one a worker recognises it."""
    try:
        found = registry.locate(path)
    except UnknownFunction as error:
        raise error.of(option) from error.__cause__
    return _exception_path(option, found)  # type: ignore[arg-type]  # it refuses what is no exception class


def make_extra(
    extra: Mapping[str, Any],
    retry_backoff: Any = None,
    retry_on: Iterable[type[BaseException] | str] | None = None,
    no_retry_on: Iterable[type[BaseException] | str] | None = None,
    *,
    follow: bool = True,
) -> dict[str, Any]:
    """Check the options that stay with a task and return them as they are stored.

    Args:
        follow: Make sure that paths given as text lead somewhere. Not for a decorator: what they lead to may import
            the very module that is being imported.
    """
    options = {key: value for key, value in extra.items() if value is not None}
    for key in options:
        if key not in EXTRA and key not in _INNER:
            raise unknown_option(key, CALL_OPTIONS)
    if options.get("ack") not in (None, "task", "batch"):
        raise EnqueueError("ack", f"must be 'task' or 'batch', got {options['ack']!r}")
    if retry_backoff is not None:
        options["backoff"] = _stored_backoff(retry_backoff)
    for option, types in (("retry_on", retry_on), ("no_retry_on", no_retry_on)):
        if types is not None:
            listed = list(types) if isinstance(types, Iterable) and not isinstance(types, str) else [types]
            options[option] = [_exception_path(option, item) for item in listed]
    return _followed(options) if follow else options


def _followed(options: dict[str, Any]) -> dict[str, Any]:
    """Return options whose paths lead somewhere, or raise UnknownFunction."""
    backoff = options.get("backoff")
    if isinstance(backoff, Mapping) and "callable" in backoff:
        options["backoff"] = {"callable": path("retry_backoff", backoff["callable"])}
    for option in ("retry_on", "no_retry_on"):
        if option in options:
            options[option] = [_own_path(option, item) for item in options[option]]
    return options


def _stored_backoff(retry_backoff: Any) -> Any:
    if callable(retry_backoff):
        retry_backoff = {"callable": path("retry_backoff", retry_backoff)}
    try:
        backoffs.validate(retry_backoff)
    except ValueError as error:
        raise EnqueueError("retry_backoff", str(error)) from None
    return retry_backoff


def _options_text(
    fixed: Mapping[str, Any],
    extra: Mapping[str, Any],
    retry_backoff: Any,
    retry_on: Iterable[type[BaseException] | str] | None,
    no_retry_on: Iterable[type[BaseException] | str] | None,
    policy: Policy,
    settings: Settings,
) -> str:
    if not (
        extra
        or fixed
        or retry_backoff is not None
        or retry_on is not None
        or no_retry_on is not None
        or policy.ack_failures
        or policy.retry_backoff is not None
        or settings.cached
    ):
        return "{}"
    options = _followed({**fixed, **make_extra(extra, retry_backoff, retry_on, no_retry_on, follow=False)})
    # As in Django-Q, what the producer's settings say travels with the task.
    if settings.cached:
        options.setdefault("cached", settings.cached)
    return codec.encode(with_policy(options, policy), where="options")


def with_policy(options: dict[str, Any], policy: Policy) -> dict[str, Any]:
    """Return a task's options with what the policy of its queue adds to them."""
    if policy.ack_failures:
        options.setdefault("ack_failure", True)
    if policy.retry_backoff is not None:
        options.setdefault("backoff", _stored_backoff(policy.retry_backoff))
    return options


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
    *,
    chunk: int = CHUNK,
    **options: Any,
) -> list[str]:
    """Write a task for each call, `chunk` of them a statement; return their ids, 32 hex digits each.

    What they have in common is checked once.

    Args:
        calls: The arguments and keyword arguments of each.
        options: As for `make_task`, the same for all.
    """
    model = make_task(func, **options)
    if model.run_after is not None or signals.pre_enqueue.receivers:
        # Only the database can say whether that time has come; and receivers are told of each task.
        made = (make_task(func, args, kwargs, **options) for args, kwargs in calls)
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
        options: As in `make_task`, the same for all.

    Returns:
        The number of tasks.

    Raises:
        EnqueueError: The function is not registered, or there is no query of PostgreSQL.
        FieldError: The query has no such column.
    """
    model = make_task(func, **options)
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
        return len(enqueue_calls(func, ((row, {}) for row in query.iterator(CHUNK)), **options))


def _is_read_there(queryset: QuerySet[Any], alias: str) -> bool:
    """Whether the rows of a query are in the database of that alias, by whatever alias they would be read."""
    if queryset.db == alias or is_same_database(queryset.db, alias):
        return True
    # Nobody has said using(): a router chose a replica of the database that these rows are written to.
    return set_alias(queryset) is None and router.db_for_write(queryset.model, **router_hints(queryset)) == alias
