"""A recurrence in plain English."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time
from itertools import pairwise

from pgq.recurrence.clock import listed, utc_of
from pgq.recurrence.cron import Cron, cron_of
from pgq.recurrence.rule import Recurrence
from pgq.recurrence.slots import MONTHS, anchored, meant_by, validate

# In words

_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTH_NAMES = (
    *("", "January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_NTH = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", "l": "last"}
_EVERY = {
    "D": "day",
    "W": "week",
    "BW": "two weeks",
    "M": "month",
    "BM": "two months",
    "Q": "three months",
    "Y": "year",
}
#: So many times of the day are still listed one by one.
_LISTED_TIMES = 6


def doubt(recurrence: Recurrence) -> str | None:
    """Return a warning for a cron expression that probably does not mean what its author thinks, or None.

    Beside another type it means nothing, as in Django-Q. And elsewhere seconds stand first: ``0 15 10 * * *`` is meant
    to be 10:15, and is each second of one minute a month.
    """
    if recurrence.cron and recurrence.kind != "C":
        said = f"cron: {recurrence.cron!r} has no use, since the type is {recurrence.kind}"
        return f"{said}; to fire by it, make that C (cron)"
    if recurrence.kind != "C" or recurrence.cron is None or len(recurrence.cron.split()) < 6:
        return None
    cron = cron_of(recurrence)
    if len(cron.seconds) < 60 or len(cron.minutes) == 60:
        return None
    return (
        f"cron: {recurrence.cron!r} means {describe(recurrence)}: the sixth field is the second, after minute, hour, "
        "day of month, month and day of week; leave it out, or put 0 there"
    )


def describe(recurrence: Recurrence, slot: datetime | None = None) -> str:
    """Return in words when it fires, by the local clock of its zone.

    Args:
        slot: One of its slots (aware), from which its months follow; None: the text leaves them out.

    Raises:
        ValueError: a recurrence that cannot be read.
    """
    kind = recurrence.kind
    if kind == "C":
        return _describe_cron(cron_of(recurrence))
    validate(recurrence)
    if kind == "O":
        return "once"
    if kind == "S":
        number = f"{recurrence.seconds:.6f}".rstrip("0").rstrip(".")
        return "every second" if number == "1" else f"every {number} seconds"
    if kind == "I":
        return "every minute" if recurrence.minutes in (None, 1) else f"every {recurrence.minutes} minutes"
    if kind == "H":
        return "every hour"
    at = "" if recurrence.wall is None else f" at {_clock_of(recurrence.wall)}"
    day = recurrence.day
    if day is None or kind == "D":
        return f"every {_EVERY[kind]}{at}"
    if kind in MONTHS:
        shorter = ", or the last day of shorter months" if kind != "Y" else ", or the last day if the month is shorter"
        months = "" if slot is None else _months_from(anchored(recurrence, slot), slot)
        on = f" on day {day} of {months or 'the month'}{shorter if day > 28 else ''}"
    else:
        on = f" on {_WEEKDAYS[day % 7]}"
    return f"every {_EVERY[kind]}{at}{on}"


def _months_from(recurrence: Recurrence, slot: datetime) -> str:
    """Return in words the months in which a schedule with this slot fires; "" if it fires in each."""
    step = MONTHS[recurrence.kind]
    if step == 1:
        return ""
    first = meant_by(recurrence, utc_of(slot, "slot"))[0].month
    return listed([_MONTH_NAMES[month] for month in range((first - 1) % step + 1, 13, step)])


def _describe_cron(cron: Cron) -> str:
    times, days = _times(cron), _days(cron)
    if not days and not cron.interval:
        days = " every day"
    months = f" in {_named(cron.months, _MONTH_NAMES)}" if len(cron.months) < 12 else ""
    years = f" in {listed(_spans(cron.years))}" if cron.years is not None else ""
    comma = "," if days and (months or years) else ""
    return f"{times}{days}{comma}{months}{years}"


def _times(cron: Cron) -> str:
    seconds, minutes, hours = cron.seconds, cron.minutes, cron.hours
    if len(seconds) * len(minutes) * len(hours) <= _LISTED_TIMES:
        return "at " + listed([_clock(h, m, s) for h in hours for m in minutes for s in seconds])
    if seconds != (0,):
        if len(minutes) == 60 and cron.interval and (cycle := _cycle(seconds, "second", "minute")):
            return cycle
        return _literal(cron)
    cycle = _cycle(minutes, "minute", "hour")
    if cron.interval:
        return cycle or ("every hour, on the hour" if minutes == (0,) else _literal(cron))
    step = _even(hours)
    if len(minutes) == 1 and step and len(hours) > 2:
        every = "every hour" if step == 1 else f"every {step} hours"
    elif cycle and (step == 1 or len(hours) == 1):
        every = cycle.partition(",")[0]
    else:
        return _literal(cron)
    return f"{every} from {_clock(hours[0], minutes[0], 0)} to {_clock(hours[-1], minutes[-1], 0)}"


def _cycle(values: Sequence[int], unit: str, whole: str) -> str | None:
    """Return in words values from 0 to 59 that go round evenly, such as 5, 25, 45; None if they do not."""
    step = _even(values)
    if not step or step * len(values) != 60:
        return None
    every = f"every {unit}" if step == 1 else f"every {step} {unit}s"
    return every if values[0] == 0 else f"{every}, from {unit} {values[0]} of the {whole}"


def _literal(cron: Cron) -> str:
    """Return the expression in words, field by field: never elegant, always true."""
    parts = [(cron.minutes, "minute", 60), (cron.hours, "hour", 24)]
    if cron.seconds != (0,):
        parts.insert(0, (cron.seconds, "second", 60))
    words = [
        f"every {unit}" if len(values) == full else f"{unit}{'s' * (len(values) > 1)} {listed(_spans(values))}"
        for values, unit, full in parts
    ]
    return ("" if words[0].startswith("every") else "at ") + " of ".join(words)


def _days(cron: Cron) -> str:
    """Return the days in words, with a space before; "" for every day."""
    if cron.near is not None:
        shorter = " or to the last day of shorter months" if cron.near > 28 else ""
        return f" on the day from Monday to Friday nearest to day {cron.near} of the month{shorter}"
    if cron.nth:
        which = [f"the {_NTH[number]} {_WEEKDAYS[weekday]}" for weekday, number in cron.nth]
        return f" on {listed(which)} of the month"
    words = []
    if cron.dates is not None:
        if len(cron.dates) == 31:
            return ""
        days = [f"day{'s' * (len(cron.dates) > 1)} {listed(_spans(cron.dates))}"] if cron.dates else []
        words.append(f"on {listed([*days, *(['the last day'] * cron.last_date)])} of the month")
    if cron.weekdays is not None:
        if len(cron.weekdays) == 7:
            return ""
        # Monday first: the week ends with Sunday, and "Saturday and Sunday" are neighbours.
        words.append(f"on {_named(sorted(day or 7 for day in cron.weekdays), (*_WEEKDAYS, 'Sunday'))}")
    return " " + " or ".join(words) if words else ""


def _clock(hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _clock_of(wall: time) -> str:
    return wall.isoformat("auto" if wall.second or wall.microsecond else "minutes")


def _even(values: Sequence[int]) -> int:
    """Return the step between values that are evenly spaced, else 0; one value has the step 0."""
    steps = {after - before for before, after in pairwise(values)}
    return steps.pop() if len(steps) == 1 else 0


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], value
        else:
            runs.append((value, value))
    return runs


def _spans(values: Sequence[int], names: Sequence[str] | None = None) -> list[str]:
    """Return the values as text, three or more in a row as "first to last"."""
    said = str if names is None else names.__getitem__
    spans: list[str] = []
    for first, last in _runs(values):
        if last - first < 2:
            spans += [said(value) for value in range(first, last + 1)]
        else:
            spans.append(f"{said(first)} to {said(last)}")
    return spans


def _named(values: Sequence[int], names: Sequence[str]) -> str:
    return listed(_spans(values, names))
