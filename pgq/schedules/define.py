"""Checks, signs and writes a schedule."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from pgq import codec
from pgq.codec import signing
from pgq.codec.stored import StoredText
from pgq.conf import aliases, get_settings, places
from pgq.enqueue import make, registry
from pgq.enqueue.options import followed, path
from pgq.enqueue.signature import FINISHED, check_call, check_one
from pgq.errors import EnqueueError
from pgq.models import Schedule
from pgq.records import NewTask
from pgq.records.options import OF_SCHEDULE, TaskOptions
from pgq.recurrence import KINDS, Recurrence, doubt, kind_of
from pgq.recurrence.moments import as_project, aware

#: Fields of a schedule that come from neither its function nor the options of its tasks, without the name.
_TIMING = ("schedule_type", "minutes", "seconds", "cron", "repeats", "time_zone", "catch_up", "overlap", "jitter")
_GIVEN = (*_TIMING, "intended_date_kwarg")
_TEXTS = ("args", "kwargs", "options")
#: What its tasks are.
_ENQUEUED = ("func", "hook", "queue", "priority", *_TEXTS)
#: All fields of a schedule that code gives and firing leaves as they are.
LASTING = (*(name for name in _GIVEN if name != "repeats"), *_ENQUEUED)


def define(
    new: Schedule,
    func: str | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: TaskOptions,
    *,
    update: bool = False,
) -> Schedule:
    """Check, sign and write a schedule; return its row.

    Args:
        new: An unsaved row with the schedule's name and the fields from which its slots follow. next_run None: now, or
            the next slot that `cron` names.
        func, args, kwargs, options: Those of its tasks.
        update: Change the schedule of that name, if there is one.

    Raises:
        IntegrityError: There is one of that name, and `update` is not set.
        ValidationError: A field is wrong; the message names it.
        EnqueueError: The function, an argument or an option is wrong.
    """
    if new.cron is not None and kind_of(new.schedule_type) not in (None, Schedule.CRON):
        warnings.warn(f"cron: {new.cron!r} is left out: {_UNUSED_CRON % new.schedule_type}", UserWarning, stacklevel=3)
        new.cron = None
    complete(new, func, args, kwargs, options)
    alias = database_of_queue(new)
    _refuse_elsewhere(new.name, alias)
    with transaction.atomic(using=alias):
        rows = Schedule.objects.using(alias)
        found = rows.select_for_update().filter(name=new.name).first() if new.name else None
        if found is not None and not update:
            raise IntegrityError("A schedule with the same name already exists.")
        row = found or new
        if found is None or new.next_run is not None or not same_times(found, new):
            row.next_run = None if new.next_run is None else as_project(aware(new.next_run))
        row.paused, row.auto_paused = new.paused, False
        write(row, new, alias)
    _warn(row)
    return row


def database_of_queue(row: Schedule) -> str:
    """Return the alias of the database of a schedule: that of its queue, whose pools fire it."""
    return places.of_row("schedule", row.queue)


def _refuse_elsewhere(name: str | None, alias: str) -> None:
    """Raise IntegrityError if a schedule of that name lies in another database, where it would fire besides this one.

    Raises:
        OperationalError: One of the others cannot be reached, so that this is not known.
    """
    for other in aliases() if name else ():
        if other != alias and Schedule.objects.using(other).filter(name=name).exists():
            raise IntegrityError(
                f"A schedule with the same name already exists in the database {other!r}, where its queue lies, or lay "
                f"before: delete it there, or choose another name."
            )


def check_calls_of(
    func: str | None, count: int, names: Iterable[str], intended_date_kwarg: Any, hook: str | None
) -> None:
    """Raise unless the function of a schedule takes the calls that are fired, and its hook a finished task.

    Args:
        func, hook: Paths; None: it is not looked at.
        count, names: Number of its arguments, names of its keyword arguments.
        intended_date_kwarg: As the row has it, right or wrong.

    Raises:
        WrongCall: It does not; the message names args, kwargs or hook.
    """
    slot = [intended_date_kwarg] if isinstance(intended_date_kwarg, str) else []
    if func is not None:
        check_call(func, count, dict.fromkeys([*names, *slot]))
    if hook is not None:
        check_one("hook", hook, FINISHED)


def complete(
    new: Schedule,
    func: str | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: TaskOptions,
) -> None:
    """Check what an unsaved row is to enqueue, put it into the row as it is stored, and sign it.

    Raises:
        ValidationError, EnqueueError: See `define`.
    """
    new.schedule_type = _type(new.schedule_type, {field: getattr(new, field) for field in _NEEDS.values()})
    new.repeats = _repeats(new.repeats)
    options = _with_fixed(func, options)
    model = make.make_task(func, args, kwargs, options.of_columns().but(queue=None), first=None)
    check_calls_of(model.func, len(args), kwargs, new.intended_date_kwarg, model.hook)
    stored = codec.encode(_stored_options(options, model), where="q_options")
    new.func, new.hook, new.queue, new.priority = model.func, model.hook, options.queue, model.priority
    new.args, new.kwargs, new.options = map(StoredText, (model.args, model.kwargs, stored))
    new.signature = signing.sign_schedule(
        func=new.func, hook=new.hook, args=model.args, kwargs=model.kwargs, options=stored, queue=new.queue
    )


def write(row: Schedule, new: Schedule, alias: str, *, repeats: int | None = None) -> None:
    """Save a row with all that `complete` has put into `new`; its next run, whether it is paused and the rest stay.

    Args:
        repeats: How often it is to fire; None: as `new` says.

    Raises:
        ValidationError: A field is wrong; the message names it.
    """
    for field in (*_GIVEN, *_ENQUEUED, "signature"):
        setattr(row, field, new.__dict__[field])
    row.repeats = new.repeats if repeats is None else repeats
    row.error = row.day = row.wall_time = None
    row.full_clean(exclude=list(_TEXTS), validate_unique=False)
    if row.next_run is None:
        row.next_run = row.first_run()
    # All fields are computed above, so `save` must compute none from what has changed.
    row.remember(row.__dict__)
    row.save(using=alias)


def _with_fixed(func: str | Callable[..., Any], options: TaskOptions) -> TaskOptions:
    """Return the options of a schedule's tasks with those that the function's `@task` fixes.

    What was taken away, and a priority of 0 in place of the function's, stays marked by `reset`: firing adds what the
    function fixes to rows that do not say it, and must not add that again.
    """
    entry = registry.registered(path("func", func))
    if entry is None:
        return options
    taken = options.reset or frozenset()
    if options.priority == 0 and entry.options.priority:
        taken |= {"priority"}
    return options.over(entry.options).but(reset=taken or None)


def _stored_options(options: TaskOptions, model: NewTask) -> dict[str, Any]:
    """Return the options column of a schedule: given columns of its tasks, and their other options under "extra".

    Under "reset" are the names of those that do not hold though the function's `@task` fixes them.
    """
    # The values that a task has: a timeout of -1 is None there.
    stored = {key: getattr(model, name) for name, key in OF_SCHEDULE.items() if options.is_given(name)}
    if model.key is not None:
        # It may come from @task. When the schedule fires, the function is not loaded.
        stored["key"] = model.key
    if model.unique is not None:
        stored["unique"] = model.unique.stored()
    expires = _expires(options, model.func)
    if expires is not None:
        stored["expires"] = expires
    if extra := followed(options).stored():
        stored["extra"] = extra
    if options.reset:
        stored["reset"] = sorted(options.reset)
    return stored


def _expires(options: TaskOptions, func: str) -> float | None:
    """Return the seconds from its slot by which each task must have started; None: it may start at any time."""
    entry = registry.registered(func)
    expires = options.expires if entry is None else options.over(entry.options).expires
    if isinstance(expires, datetime):
        raise EnqueueError("expires", f"of a schedule's tasks must be a length of time, got {expires}")
    return expires or None


#: A warning and no error, as in Django-Q: such a schedule fired, though not at the hour that cron names.
_UNUSED_CRON = "schedule_type %r has no use for it; give schedule_type='C' or leave schedule_type out to fire by cron"
#: The field that a type needs.
_NEEDS = {Schedule.MINUTES: "minutes", Schedule.SECONDS: "seconds", Schedule.CRON: "cron"}


def _type(given: str | None, fields: Mapping[str, Any]) -> str:
    """Return the type that was given, or that the given fields are for.

    Raises:
        ValidationError: They contradict each other, or a field is missing; the message names both.
    """
    types = {field: letter for letter, field in _NEEDS.items()}
    filled = [field for field, value in fields.items() if value is not None]
    if given is None:
        if len(filled) > 1:
            raise ValidationError({filled[1]: f"{filled[1]}: {filled[0]} is given as well; give one of them"})
        return types[filled[0]] if filled else Schedule.ONCE
    given = kind_of(given)
    needed = _NEEDS.get(given)
    if needed is not None and needed not in filled:
        raise ValidationError({needed: f"{needed}: schedule_type {given!r} needs {needed}, which is not given"})
    for field in filled:
        if given in KINDS and field != needed:
            remedy = f"give schedule_type={types[field]!r}, or leave {field} out"
            raise ValidationError({field: f"{field}: schedule_type {given!r} has no use for it; {remedy}"})
    return given


def _repeats(repeats: Any) -> int:
    if isinstance(repeats, bool) or not isinstance(repeats, int):
        raise ValidationError({"repeats": f"repeats: must be a whole number, negative for ever; got {repeats!r}"})
    return max(repeats, -1)


def _warn(row: Schedule) -> None:
    warning = doubt(Recurrence.of(row, get_settings().zone))
    if warning is not None:
        warnings.warn(warning, UserWarning, stacklevel=4)


def same_times(row: Schedule, new: Schedule) -> bool:
    """Whether an update leaves the times as they are: then the next run stays where it is, at every deploy."""
    names = ("schedule_type", "minutes", "seconds", "cron", "time_zone")
    return row.next_run is not None and all(getattr(row, name) == getattr(new, name) for name in names)
