"""Cron expressions: parsed, and the next and the last time of one."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import count as numbers_from
from itertools import islice

from croniter import croniter

from pgq.errors import invalid
from pgq.recurrence.clock import NEAR, TICK, change_of, furthest, instant_of, last_instant, local_of, offset_of
from pgq.recurrence.rule import Recurrence

#: Longest cron expression, in characters; the longest with a use (all minutes listed) has about 200.
CRON_LENGTH = 500
#: As in croniter. The rarest date, the fifth weekday in a February, comes at least every 40 years.
_CRON_YEARS = 50


# Cron


@dataclass(frozen=True, slots=True, eq=False)
class Cron:
    """A parsed expression. All values are sorted. Compared by identity, so that it is a cheap key for `_dates`."""

    seconds: Sequence[int]
    minutes: Sequence[int]
    hours: Sequence[int]
    months: Sequence[int]
    #: None: every year.
    years: Sequence[int] | None
    #: Days of the month; None: the field is open.
    dates: Sequence[int] | None
    last_date: bool
    #: The working day nearest to this day of the month.
    near: int | None
    #: 0 Sunday to 6 Saturday; None: the field is open.
    weekdays: Sequence[int] | None
    #: Weekday and which of the month, "l" for the last.
    nth: Sequence[tuple[int, int | str]]

    @property
    def interval(self) -> bool:
        """Whether it repeats by the clock ("every five minutes") instead of naming times of the day."""
        return len(self.hours) == 24


_HASHED = re.compile(r"[hr](?:[(/].*)?", re.ASCII)
_CRON_HELP = "the fields are minute, hour, day of month, month, day of week, as in '30 9 * * 1-5'"


@lru_cache(maxsize=1024)
def _parse(expression: str, name: str | None) -> Cron:
    """Read a cron expression.

    Raises:
        ValueError: It cannot be read; the message has the reason.
    """
    text = expression.strip()
    if not text or len(text) > CRON_LENGTH:
        raise invalid("cron", f"must have from 1 to {CRON_LENGTH} characters, got {len(text)}; {_CRON_HELP}")
    if text.lower() == "@reboot":
        raise invalid("cron", "'@reboot' has no time; call async_task where the program starts")
    letters = {field[0] for field in text.lower().split() if _HASHED.fullmatch(field)}
    if "r" in letters:
        raise invalid("cron", "'R' draws another time in each process; use 'H', which is drawn from the name")
    if "h" in letters and not name:
        raise invalid("cron", "'H' is drawn from the name of the schedule; give it a name")
    try:
        # The name only where an H needs it: with a name, croniter reads @daily as "H H * * *".
        parsed = croniter(text, 0.0, hash_id=name if "h" in letters else None)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise invalid("cron", f"{str(error) or 'it cannot be read'}; {_CRON_HELP}") from error
    return _digest(text, parsed)


def _digest(text: str, parsed: croniter) -> Cron:
    fields: list[list[int | str]] = parsed.expanded
    nth = sorted(
        ((weekday, which) for weekday, many in parsed.nth_weekday_of_month.items() for which in many),
        key=lambda pair: (str(pair[1]), pair[0]),
    )
    near = min(parsed.nearest_weekday, default=None)
    dates_open, weekdays_open = fields[2][0] == "*", fields[4][0] == "*" and not nth
    if not dates_open and not weekdays_open and (nth or near is not None):
        # With both, croniter ignores one of them, or never fires.
        raise invalid(
            "cron", f"{text!r} gives both days, one of them with '#', 'L' or 'W'; put '*' in one, or use two schedules"
        )

    def numbers(index: int, low: int, high: int) -> tuple[int, ...]:
        values = fields[index]
        if "*" in values:
            return tuple(range(low, high + 1))
        return tuple(sorted(value for value in values if isinstance(value, int)))

    return Cron(
        seconds=numbers(5, 0, 59) if len(fields) > 5 else (0,),
        minutes=numbers(0, 0, 59),
        hours=numbers(1, 0, 23),
        months=numbers(3, 1, 12),
        years=numbers(6, 1, 9999) if len(fields) > 6 and "*" not in fields[6] else None,
        dates=None if dates_open else numbers(2, 1, 31),
        last_date="l" in fields[2],
        near=near,
        weekdays=None if weekdays_open else numbers(4, 0, 6),
        nth=tuple(nth),
    )


def cron_of(recurrence: Recurrence) -> Cron:
    if not isinstance(recurrence.cron, str):
        raise invalid("cron", f"give an expression; {_CRON_HELP}")
    # So that schedules with one expression share one entry of the cache.
    name = recurrence.name if "h" in recurrence.cron.lower() else None
    return _parse(recurrence.cron, name)


@lru_cache(maxsize=4096)
def _dates(cron: Cron, year: int, month: int) -> Sequence[int]:
    """Return the days of that month, sorted."""
    if month not in cron.months or (cron.years is not None and year not in cron.years):
        return ()
    first, length = monthrange(year, month)
    every = range(1, length + 1)

    def weekday(day: int) -> int:
        return (first + day) % 7

    if cron.near is not None:
        return (_nearest(cron.near, first, length),)
    if cron.nth:
        found: set[int] = set()
        for wanted, which in cron.nth:
            days = [day for day in every if weekday(day) == wanted]
            found.update(days[-1:] if isinstance(which, str) else days[which - 1 : which])
        return sorted(found)
    by_date = None if cron.dates is None else {d for d in every if d in cron.dates or (cron.last_date and d == length)}
    by_weekday = None if cron.weekdays is None else {day for day in every if weekday(day) in cron.weekdays}
    if by_date is None or by_weekday is None:
        return sorted(by_date if by_date is not None else by_weekday if by_weekday is not None else every)
    return sorted(by_date | by_weekday)


def _nearest(day: int, first: int, length: int) -> int:
    """Return the day from Monday to Friday nearest to `day`, in a month that begins on weekday `first` (Monday 0)."""
    day = min(day, length)
    weekday = (first + day - 1) % 7
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


def _walls(cron: Cron, start: datetime, backwards: bool = False) -> Iterator[datetime]:
    """Yield the local times (naive) that the expression names, from `start` (included) on, or back."""
    if start.microsecond:
        start = start.replace(microsecond=0) + timedelta(seconds=0 if backwards else 1)

    def part(values: Sequence[int], edge: int | None) -> Iterable[int]:
        if edge is not None:
            values = values[: bisect_right(values, edge)] if backwards else values[bisect_left(values, edge) :]
        return reversed(values) if backwards else values

    sign = -1 if backwards else 1
    begin = found = start.year * 12 + start.month - 1
    for index in numbers_from(begin, sign):
        year, month = index // 12, index % 12 + 1
        if not 1 <= year <= 9999 or abs(index - found) > 12 * _CRON_YEARS:
            return
        in_month = index == begin
        dates = _dates(cron, year, month)
        if dates:
            found = index
        for day in part(dates, start.day if in_month else None):
            in_day = in_month and day == start.day
            for hour in part(cron.hours, start.hour if in_day else None):
                in_hour = in_day and hour == start.hour
                for minute in part(cron.minutes, start.minute if in_hour else None):
                    in_minute = in_hour and minute == start.minute
                    for second in part(cron.seconds, start.second if in_minute else None):
                        yield datetime(year, month, day, hour, minute, second)


def cron_after(recurrence: Recurrence, after: datetime) -> Iterator[datetime]:
    """Yield the slots later than `after`, oldest first."""
    cron, zone = cron_of(recurrence), recurrence.zone
    if cron.interval:
        yield from _interval_after(cron, zone, after)
        return
    for wall in _walls(cron, furthest(after, zone) + TICK):
        slot = instant_of(wall, zone)
        if slot > after:
            yield slot
            after = slot


def _cron_until(recurrence: Recurrence, until: datetime) -> Iterator[datetime]:
    """Yield the slots up to `until`, latest first."""
    cron, zone = cron_of(recurrence), recurrence.zone
    if cron.interval:
        yield from _interval_until(cron, zone, until)
        return
    latest: datetime | None = None
    for wall in _walls(cron, furthest(until, zone), backwards=True):
        slot = instant_of(wall, zone)
        if latest is None or slot < latest:
            yield slot
            latest = slot


def _interval_after(cron: Cron, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Walk from one clock change to the next; between two of them, local time is UTC and a constant."""
    start = after + TICK
    while True:
        offset, near = offset_of(start, zone), start + NEAR
        change = change_of(start, near, zone) if offset_of(near, zone) != offset else None
        for wall in _walls(cron, local_of(start, zone)):
            slot = (wall - offset).replace(tzinfo=UTC)
            if change is not None and slot >= change:
                break
            if change is None and slot > near:
                # Begin again after it. Earlier changes do not matter: no time between start and wall matches.
                change = instant_of(wall, zone)
                break
            yield slot
        if change is None:
            return
        start = change


def _interval_until(cron: Cron, zone: tzinfo, until: datetime) -> Iterator[datetime]:
    """The same backwards."""
    top = until
    while True:
        offset, near = offset_of(top, zone), top - NEAR
        change = change_of(near, top, zone) if offset_of(near, zone) != offset else None
        again: datetime | None = None if change is None else change - TICK
        for wall in _walls(cron, local_of(top, zone), backwards=True):
            slot = (wall - offset).replace(tzinfo=UTC)
            if change is not None and slot < change:
                break
            if change is None and slot < near:
                again = last_instant(wall, zone)
                break
            yield slot
        if again is None:
            return
        top = again


def missed_cron(recurrence: Recurrence, slot: datetime, now: datetime, cap: int) -> list[datetime]:
    due: list[datetime] = []
    for found in islice(_cron_until(recurrence, now), cap):
        if found <= slot:
            break
        due.append(found)
    if len(due) < cap:
        due.append(slot)
    return due[::-1]
