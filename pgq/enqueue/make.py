"""Checks a call's function, arguments and options and makes a `NewTask` of them, signed and ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import FunctionType
from typing import Any
from uuid import UUID

from pgq import codec
from pgq.codec.signing import sign_blob, signed
from pgq.conf import Settings, get_settings, policy_of
from pgq.enqueue import django_tasks, keys, registry, unique
from pgq.enqueue.options import options_text, path
from pgq.enqueue.signature import FINISHED, check_call, check_one
from pgq.errors import EnqueueError
from pgq.ground.ids import new_id
from pgq.records import PRIORITY_MAX, PRIORITY_MIN, NewTask, UniqueCall
from pgq.records.options import NO_OPTIONS, TaskOptions
from pgq.recurrence import moments

_EARLIEST, _LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_TEXTS = ("queue", "name", "group", "hook")


# ------------------------------------------------------------------------------------------------- making


def make_task(
    func: str | Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: TaskOptions = NO_OPTIONS,
    *,
    id: UUID | None = None,
    remaining: int | None = None,
    first: tuple[str, ...] | None = (),
    keyed: bool = True,
) -> NewTask:
    """Check a task and return it, signed and ready to be written.

    An option that is not given is that of `@task`, or else that of PGQ. An entry of PGQ["ALT_CLUSTERS"] that serves the
    task's queue takes the place of PGQ here.

    Args:
        func: A function, or its dotted path.
        first: What the function gets before these arguments, besides its context, in words; None: whether the call fits
            the function is not looked at, and its hook neither.
        keyed: Whether the task gets its key; else it is a model for others, whose keys depend on their arguments.

    Raises:
        WrongCall: The function cannot be called with these arguments, or the hook with a finished task.
        EnqueueError: Something else is wrong; the message names the argument. Nothing has been written.
    """
    settings = get_settings()
    func_path = path("func", func)
    entry = registry.registered(func_path)
    options = _with_those_of_task(func, entry, options)
    args_text, kwargs_text = encode_arguments(args, kwargs or {}, settings)
    hook_path = None if options.hook is None else path("hook", options.hook)
    if first is not None:
        check_call(func_path, len(args), kwargs or (), first, func if isinstance(func, FunctionType) else None)
        if hook_path is not None:
            check_one("hook", hook_path, FINISHED)
    queue = options.queue or settings.default_queue
    policy = policy_of(queue)
    run_after, call, expires_at = _moment(options.run_after), None, None
    if options is not NO_OPTIONS:
        if options.unique or options.debounce:
            call = _unique(func_path, entry, args, kwargs or {}, options) if keyed else UniqueCall("", "start")
        if call is not None:
            options = options.but(is_unique=call.until)
            run_after = _put_off(call, run_after)
        expires_at = _expiry(options.expires, run_after)
    task = NewTask(
        id=id or new_id(),
        func=func_path,
        args=args_text,
        kwargs=kwargs_text,
        options=options_text(options, policy, settings),
        queue=queue,
        priority=0 if options.priority is None else options.priority,
        name=_label(options.name),
        group=_label(options.group),
        hook=hook_path,
        timeout=_timeout(policy.timeout if options.timeout is None else options.timeout),
        max_attempts=policy.max_attempts if options.max_attempts is None else options.max_attempts,
        run_after=run_after,
        remaining=remaining,
        key=_key(func_path, entry, args, kwargs or {}, options) if keyed and options is not NO_OPTIONS else None,
        expires_at=expires_at,
        unique=call,
    )
    _check(task)
    return signed(task)


def _with_those_of_task(
    func: str | Callable[..., Any], entry: registry.Registered | None, options: TaskOptions
) -> TaskOptions:
    """Return the options of a call and those of its function that the call does not give."""
    if not isinstance(func, str):
        options = options.over(django_tasks.options_of(func))
    return options if entry is None else options.over(entry.options)


def _key(
    func_path: str,
    entry: registry.Registered | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: TaskOptions,
) -> str | None:
    return keys.key_of(options, func_path, None if entry is None else entry.func, args, kwargs)


def _unique(
    func_path: str,
    entry: registry.Registered | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: TaskOptions,
) -> UniqueCall | None:
    func = registry.locate(func_path) if entry is None else entry.func
    return unique.call_of(options, func_path, func, (args, kwargs))


def _put_off(call: UniqueCall, run_after: datetime | None) -> datetime | None:
    """Return when a debounced call may run, or the time as it is."""
    if call.quiet is None:
        return run_after
    if run_after is not None:
        raise EnqueueError("debounce", "says when the task may run: leave run_after out")
    return moments.now() + timedelta(seconds=call.quiet)


def _expiry(expires: datetime | float | None, run_after: datetime | None) -> datetime | None:
    """Return the moment by which a task must have started; None: it may start at any time."""
    if expires is None:
        return None
    if isinstance(expires, datetime):
        moment = moments.aware(expires)
        if run_after is not None and moment <= run_after:
            raise EnqueueError("expires", f"is not after run_after, so the task could never start: {expires}")
        return moment
    # As long as it waits for its time, none of this passes.
    return max(moments.now(), run_after or moments.now()) + timedelta(seconds=expires)


def key_maker(func: str | Callable[..., Any], options: TaskOptions) -> keys.KeyMaker | str | None:
    """Return the key that all calls of a function have with these options (None: none), or what makes it of a call."""
    func_path = path("func", func)
    entry = registry.registered(func_path)
    options = _with_those_of_task(func, entry, options)
    return keys.maker(options, func_path, None if entry is None else entry.func)


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
        return None if run_after is None else moments.aware(run_after)
    try:
        if isinstance(run_after, int | float) and not isinstance(run_after, bool):
            run_after = timedelta(seconds=run_after)
        if isinstance(run_after, timedelta):
            return moments.now() + run_after
    except (ValueError, OverflowError):
        raise EnqueueError("run_after", f"leads to no date, got {run_after!r}") from None
    raise EnqueueError("run_after", f"must be a datetime, a timedelta or seconds, got {run_after!r}")


def _timeout(timeout: Any) -> float | None:
    if timeout is None or timeout == -1:
        return None
    # The bound (68 years) is that of the timer: some systems take no more.
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 2**31:
        raise EnqueueError("timeout", f"must be seconds above 0, or -1 for no limit, got {timeout!r}")
    return float(timeout)


def _label(value: str | int | UUID | None) -> str | None:
    """Return a name or group as text: a caller may give the key of a row, and later search by the same key."""
    if type(value) is int or isinstance(value, UUID):
        return str(value)
    return value  # type: ignore[return-value]  # `_check` refuses all else that is no text


def _check(task: NewTask) -> None:
    """Raise EnqueueError if a field has a value that the table would refuse."""
    priority, attempts = task.priority, task.max_attempts
    if type(priority) is not int or not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise EnqueueError(
            "priority", f"must be a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}, got {priority!r}"
        )
    if type(attempts) is not int or not 0 <= attempts < 2**31:
        raise EnqueueError("max_attempts", f"must be a whole number, 0 (no limit) or above, got {attempts!r}")
    if task.run_after is not None:
        _check_moment("run_after", task.run_after)
    if task.expires_at is not None:
        _check_moment("expires", task.expires_at)
    for field in _TEXTS:
        value = getattr(task, field)
        if value is not None:
            check_text(field, value)


def _check_moment(field: str, moment: datetime) -> None:
    if not _EARLIEST <= moment <= _LATEST:
        raise EnqueueError(field, f"must be in the years 2 to 9998, got {moment}")


def check_text(field: str, value: Any) -> None:
    """Raise EnqueueError unless the table takes the value as the name of a queue, a group or a task."""
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
