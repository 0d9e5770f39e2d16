"""The jobs of an APScheduler 3: those added to a scheduler that has not been started, and those in its stores.

Of APScheduler nothing is imported here: what a job is, is told by its attributes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from django.utils.module_loading import import_string

from pgq.config import Cron, Every, ScheduleConfig
from pgq.contrib.cron.found import Found, both_days, interval, named

#: The state of a scheduler that has not been started.
_STOPPED = 0
#: Where a scheduler keeps its stores, by alias. Only a started one says what is in them.
_STORES = "_jobstores"
#: An id that APScheduler has made.
_RANDOM = re.compile(r"[0-9a-f]{32}")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NTH = re.compile(rf"(1st|2nd|3rd|4th|5th|last) ({'|'.join(_DAYS)})")
_RANGE = re.compile(r"(\w+)(?:-(\w+))?(?:/(\d+))?")
_CALL_COMMAND = "django.core.management:call_command"
_BOTH_DAYS = (
    "day and day_of_week are both given: APScheduler fires if both fit, cron if one does; put '*' in one, and let the "
    "function look at the other"
)


class _Refused(Exception):
    """The schedule has no counterpart here; the message says why."""


def find(path: str) -> list[Found]:
    """Return the schedules of a scheduler, which is not started.

    Args:
        path: The dotted path of the scheduler, or of a function without arguments that returns it.

    Raises:
        ImportError: It cannot be imported, or its stores cannot be read.
    """
    try:
        scheduler = import_string(path)
        scheduler = scheduler if hasattr(scheduler, "get_jobs") else scheduler()
        all_of_them = list(_all(scheduler))
    except Exception as error:
        raise ImportError(f"{path}: {type(error).__name__}: {error}") from error
    return named(_found(each) for each in all_of_them)


def _all(scheduler: Any) -> Iterator[Any]:
    """Yield what it has; of one that has not been started also what its stores hold, which it reads when it starts."""
    added = list(scheduler.get_jobs())
    yield from added
    if scheduler.state == _STOPPED:
        ids = {each.id for each in added}
        for alias, store in getattr(scheduler, _STORES).items():
            store.start(scheduler, alias)
            yield from (each for each in store.get_all_jobs() if each.id not in ids)


def _found(given: Any) -> Found:
    source = f"{given.id}: {given.trigger}"
    try:
        fields = {**_what(given), **_when(given)}
    except _Refused as error:
        return Found(source, refused=str(error))
    config = ScheduleConfig(
        given.name if _RANDOM.fullmatch(given.id) else given.id,
        **fields,
        # Of one that is paused the next run is None; what was only added has none yet.
        enabled=getattr(given, "next_run_time", fields) is not None,
        overlap="skip" if getattr(given, "max_instances", 1) == 1 else "allow",
        # With a grace time it drops what was missed; here one task is made for all of it.
        catch_up=getattr(given, "misfire_grace_time", 1) is None and not getattr(given, "coalesce", False),
        jitter=getattr(given.trigger, "jitter", None) or 0,
    )
    return Found(source, config, notes=tuple(_notes(given)))


def _notes(given: Any) -> Iterator[str]:
    if given.executor != "default":
        yield f"executor={given.executor!r} is not carried over: PGQ['threads'] and PGQ['coroutines'] hold for all"
    grace = getattr(given, "misfire_grace_time", 1)
    if grace not in (None, 1):
        yield f"misfire_grace_time={grace} is not carried over: one task is made for all missed slots, however late"


def _what(given: Any) -> dict[str, Any]:
    """Return what it runs, as fields of a `ScheduleConfig`."""
    args, kwargs = list(given.args), dict(given.kwargs)
    if not given.func_ref:
        raise _Refused("its function has no name by which it could be imported")
    if given.func_ref == _CALL_COMMAND and args and isinstance(args[0], str):
        return {"command": args[0], "args": args[1:], "kwargs": kwargs}
    # Of a function with @task, APScheduler knows the class of the object.
    func = getattr(given.func, "module_path", None) or given.func_ref.replace(":", ".")
    return {"func": func, "args": args, "kwargs": kwargs}


# ------------------------------------------------------------------------------------------------- when


def _when(given: Any) -> dict[str, Any]:
    """Return when it fires, as fields of a `ScheduleConfig`."""
    trigger = given.trigger
    kind = type(trigger).__name__
    read = _TRIGGERS.get(kind)
    if read is None and kind != "DateTrigger":
        raise _Refused(f"{kind} has no counterpart here: take a schedule for each time")
    if (end := getattr(trigger, "end_date", None)) is not None:
        raise _Refused(f"it ends on {end:%Y-%m-%d}: a schedule here has no end, let the function look at the day")
    when = None if read is None else read(trigger)
    first = getattr(given, "next_run_time", None) or trigger.get_next_fire_time(None, datetime.now(UTC))
    if first is None or (when is None and first <= datetime.now(UTC)):
        raise _Refused("its time is over")
    if isinstance(when, Cron) and trigger.jitter:
        # That moment has a jitter in it, and is no slot of the clock.
        return {"when": when}
    return {"next_run": first} if when is None else {"when": when, "next_run": first}


def _zone(trigger: Any) -> str | None:
    name = str(trigger.timezone)
    return None if name == "local" else name


def _interval(trigger: Any) -> Every:
    every = interval(trigger.interval)
    if isinstance(every, str):
        raise _Refused(every)
    return every


def _calendar(trigger: Any) -> Every:
    steps = {unit: value for unit in ("years", "months", "weeks", "days") if (value := getattr(trigger, unit))}
    if len(steps) != 1:
        step = ", ".join(f"{value} {unit}" for unit, value in steps.items())
        raise _Refused(f"a step of {step} has no counterpart here")
    every = Every(**steps, time_zone=_zone(trigger))
    try:
        every.rule()
    except ValueError as error:
        raise _Refused(str(error)) from None
    return every


def _cron(trigger: Any) -> Cron:
    fields = {field.name: str(field) for field in trigger.fields}
    for name in ("year", "week"):
        if fields[name] != "*":
            raise _Refused(f"{name}={fields[name]!r} has no counterpart here: let the function look at the day")
    day, weekday = _day(fields["day"]), _weekday(fields["day_of_week"])
    if day.startswith("#"):
        # The second Friday of the month is said of the day of the week here.
        if weekday != "*":
            raise _Refused(_BOTH_DAYS)
        day, weekday = "*", day[1:]
    if both_days(day, weekday):
        raise _Refused(_BOTH_DAYS)
    parts = [fields["minute"], fields["hour"], day, fields["month"], weekday]
    if fields["second"] != "0":
        parts.append(fields["second"])
    return Cron(" ".join(parts), time_zone=_zone(trigger))


_TRIGGERS: dict[str, Callable[[Any], Cron | Every]] = {
    "CronTrigger": _cron,
    "IntervalTrigger": _interval,
    "CalendarIntervalTrigger": _calendar,
}


def _day(text: str) -> str:
    """Return the days of a month as cron has them; after a "#" what cron says of the day of the week."""
    nth = _NTH.fullmatch(text)
    if nth is not None:
        number = (_DAYS.index(nth[2]) + 1) % 7
        return f"#L{number}" if nth[1] == "last" else f"#{number}#{nth[1][0]}"
    if _NTH.search(text):
        raise _Refused(f"day={text!r} names several: take a schedule for each")
    return text.replace("last", "L")


def _weekday(text: str) -> str:
    """Return the days of a week by name: 0 is Monday there, and Sunday in cron."""
    if text == "*":
        return text
    days: set[int] = set()
    for part in text.split(","):
        if part.startswith("*/"):
            days |= set(range(0, 7, int(part[2:])))
            continue
        found = _RANGE.fullmatch(part)
        if found is None:
            raise _Refused(f"day_of_week={text!r} cannot be read")
        first = _number(found[1])
        last = _number(found[2]) if found[2] else 6 if found[3] else first
        days |= set(range(first, last + 1, int(found[3] or 1)))
    return ",".join(_DAYS[day] for day in sorted(days))


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else _DAYS.index(text.lower())
