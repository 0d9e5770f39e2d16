"""`schedule()`: Django-Q's name and words for `pgq.schedules.define`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pgq.enqueue import django_tasks
from pgq.errors import EnqueueError
from pgq.models import Schedule
from pgq.records.options import NO_OPTIONS, OF_SCHEDULE
from pgq.schedules import commands
from pgq.schedules import define as schedules
from pgq.tasks.words import WORDS_OF_SCHEDULE, options_of, words_of


def schedule(
    func: str | Callable[..., Any] | None = None,
    *args: Any,
    command: str | None = None,
    command_args: Sequence[Any] = (),
    command_kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
    hook: str | Callable[..., Any] | None = None,
    schedule_type: str | None = None,
    minutes: int | None = None,
    seconds: float | None = None,
    cron: str | None = None,
    repeats: int = -1,
    next_run: datetime | None = None,
    cluster: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    time_zone: str | None = None,
    catch_up: bool | None = None,
    overlap: str = "allow",
    jitter: float = 0,
    paused: bool = False,
    intended_date_kwarg: str | None = None,
    q_options: Mapping[str, Any] | None = None,
    update: bool = False,
    **kwargs: Any,
) -> Schedule:
    """Enqueue a call of a function again and again, or once at a time.

    Args:
        paused: Do not fire until it is resumed.
        func: A function at the top of a module, its dotted path, or a Task object of django.tasks.
        args, kwargs: The function's: anything that a task can be given, not only literals. Keywords that are options
            of `async_task`, such as ``timeout``, are options of the tasks, as if they stood in q_options.
        command: Instead of a function, the name of a management command. Its result is the end of what it prints.
        command_args, command_kwargs: The command's, each argument apart: ``["--verbose"]``, ``{"verbosity": 0}``.
        name: Unique. Also the group of the tasks, unless q_options name one.
        schedule_type: One of the letters of `Schedule`: ONCE, SECONDS, MINUTES, HOURLY, DAILY ... CRON, or the word
            for it, such as "daily"; None: what `minutes`, `seconds` or `cron` is for, or else ONCE.
        minutes, seconds: The interval, for MINUTES and SECONDS.
        cron: For CRON: five fields, or six with seconds as the last. With another type it has no use, and a warning
            says so.
        repeats: How often; negative: for ever; 0: not at all. ONCE with a negative number is deleted after it has run.
        next_run: The first slot; None: now, or the next one that `cron` names.
        cluster, queue: Where the tasks go. Like each option of the tasks that is not given, it is then that of the
            function's `@task`, or else that of PGQ.
        priority: -100 to 100, larger is sooner.
        time_zone: Whose days and hours are meant; None: PGQ["time_zone"] or TIME_ZONE.
        catch_up: Fire missed slots, or one for all of them; None: as PGQ["catch_up"] says.
        overlap: ``allow``; ``skip`` a slot while a task of this schedule waits or runs; ``queue_one``: let one wait.
        jitter: Seconds by which each task is delayed at most, at random.
        intended_date_kwarg: Give the task its slot as this keyword argument (ISO text).
        q_options: group, task_name, timeout, max_attempts and the other options of `async_task`.
        update: Change the schedule of that name, if there is one.

    Raises:
        IntegrityError: There is one of that name, and `update` is not set.
        ValidationError: A field is wrong; the message names it.
        WrongCall: The function cannot be called with these arguments, or the hook with a finished task.
        EnqueueError: The function, an argument or an option is wrong.
    """
    kwargs, words = words_of(kwargs, q_options, WORDS_OF_SCHEDULE)
    # What a form leaves empty counts as not given.
    may_be_empty = ("hook", *OF_SCHEDULE.values())
    words = {word: value for word, value in words.items() if value != "" or word not in may_be_empty}
    # A Task object of django.tasks says where its calls go.
    fixed = NO_OPTIONS if func is None or isinstance(func, str) else django_tasks.options_of(func)
    own = {
        "hook": hook,
        "queue": queue or cluster or fixed.queue,
        "priority": fixed.priority if priority is None else priority,
    }
    options = options_of({**words, **{word: value for word, value in own.items() if value not in (None, "")}})
    new = new_row(
        name=name,
        schedule_type=schedule_type,
        minutes=minutes,
        seconds=seconds,
        cron=cron,
        repeats=repeats,
        next_run=next_run,
        time_zone=time_zone,
        catch_up=catch_up,
        overlap=overlap,
        jitter=jitter,
        paused=paused,
        intended_date_kwarg=intended_date_kwarg,
    )
    func, args, kwargs = _call(func, args, kwargs, command, command_args, command_kwargs)
    return schedules.define(new, func, args, kwargs, options, update=update)


def new_row(**fields: Any) -> Schedule:
    """Return an unsaved schedule for `define`. What a form leaves empty counts as not given."""
    for name in ("name", "cron", "time_zone", "intended_date_kwarg"):
        fields[name] = fields[name] or None
    return Schedule(**fields)


def _call(
    func: str | Callable[..., Any] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    command: str | None,
    command_args: Sequence[Any],
    command_kwargs: Mapping[str, Any] | None,
) -> tuple[str | Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return the function that a schedule calls, with its arguments."""
    if command is None:
        if func is None:
            raise EnqueueError("func", "give a function, or a command")
        if command_args or command_kwargs:
            raise EnqueueError("command", "command_args and command_kwargs are given, and no command")
        return func, args, kwargs
    if args or kwargs:
        raise EnqueueError("command", "the arguments of a command go into command_args and command_kwargs")
    return commands.call_of(command, func, command_args, command_kwargs)
