"""When a schedule fires: pure calendar arithmetic, no database, no settings.

A slot is an aware UTC instant at which a schedule is to fire. The kinds are Django-Q's letters, and 'S'::

    O once        S every n seconds   I every n minutes   H hourly
    D daily       W weekly            BW biweekly         M monthly
    BM bimonthly  Q quarterly         Y yearly            C cron

* S, I and H count elapsed time and know nothing of the local clock.
* D, W, BW, M, BM, Q, Y and cron with named hours mean *wall times*: each date and time named fires once, at the first
  instant at which the local clock shows it **or anything later**. So a time that a clock change repeats fires the first
  time only; a time that it skips fires when the skipped stretch ends (02:30 at 03:00); several times in one skipped
  stretch fire together, once. On a date that does not exist (Pacific/Apia, 2011-12-30) nothing is lost either: its run
  comes at 00:00 of the next date, which still has its own.
* Cron whose hour field covers all 24 hours (``*``, ``*/1``, ``0-23``) means an *interval*: it fires whenever the local
  clock shows a matching time, both times in a repeated hour, never in a skipped one. What counts is the set of hours,
  not its spelling: ``*/2`` names twelve hours exactly as ``0,2,4,...,22`` does, and ``*/24`` is a daily midnight run
  which no clock change may double or lose.

Cron is croniter's dialect: five fields, seconds as a *sixth*, a year as a seventh; ``@hourly`` to ``@yearly``; if both
days are given, either will do. croniter parses. The walk through the calendar is ours, because croniter fires a fixed
time twice when the clocks go back, and because a cron that missed a year must be read backwards from its end.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from itertools import count as numbers_from
from itertools import islice, pairwise
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter

from pgq.errors import invalid

KINDS = ("O", "S", "I", "H", "D", "W", "BW", "M", "BM", "Q", "Y", "C")
#: Seconds.
SHORTEST, LONGEST = 0.1, 100 * 366 * 86400.0
#: Longest cron expression, in characters; the longest with a use (all minutes listed) has about 200.
CRON_LENGTH = 500

_DAYS = {"D": 1, "W": 7, "BW": 14}
_MONTHS = {"M": 1, "BM": 2, "Q": 3, "Y": 12}
_CALENDAR = _DAYS.keys() | _MONTHS.keys()
_TICK = timedelta(microseconds=1)
#: Longer than any clock change (24 hours, at the date line), shorter than the time between two (a week).
_NEAR = timedelta(hours=26)
#: A slot no farther from where its anchor puts it was moved by new rules for the zone; farther, by somebody's hand.
_MOVED = timedelta(hours=3)
#: As in croniter. The rarest date, the fifth weekday in a February, comes at least every 40 years.
_CRON_YEARS = 50


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How a schedule recurs. Nothing is checked here: see `validate`."""

    kind: str
    #: For 'I'. None means 1, as in Django-Q.
    minutes: int | None = None
    #: For 'S'.
    seconds: float | None = None
    #: For 'C'.
    cron: str | None = None
    #: Whose local time is meant.
    zone: tzinfo = UTC
    #: Day to come back to. M, BM, Q, Y: of the month, 1 to 31; W, BW: of the week, Monday 1 to Sunday 7.
    day: int | None = None
    #: Local time to come back to after a clock change has moved a slot.
    wall: time | None = None
    #: The schedule's name: an ``H`` in a cron expression is drawn from it.
    name: str | None = None

    @classmethod
    def of(cls, schedule: Any, zone: tzinfo) -> Recurrence:
        """Return how a schedule recurs.

        Args:
            schedule: A `pgq.schedule.Due` or a `pgq.models.Schedule`.
            zone: Whose local time is meant if the schedule names none.

        Raises:
            ValueError: Its time zone is unknown.
        """
        return cls(
            kind=schedule.schedule_type,
            minutes=schedule.minutes,
            seconds=schedule.seconds,
            cron=schedule.cron,
            zone=parse_zone(schedule.time_zone, zone),
            day=schedule.day,
            wall=schedule.wall_time,
            name=schedule.name,
        )


def anchored(recurrence: Recurrence, slot: datetime) -> Recurrence:
    """Return the recurrence with `day` and `wall` as they are to be stored next to this slot.

    Anchors that explain the slot are kept, others are taken from it: who moves ``next_run`` by more than three hours,
    or to another day, moves the schedule. (A smaller difference may come from new rules for the zone, and must not
    last: to move a schedule by so little, clear the anchors as well.) Both are None for kinds without a calendar.

    Raises:
        ValueError: a naive slot, or one within a day or two of either end of the calendar.
    """
    if recurrence.kind not in _CALENDAR:
        return replace(recurrence, day=None, wall=None)
    try:
        _, wall, day = _meant(recurrence, _utc(slot, "next_run"))
    except OverflowError:
        raise invalid("next_run", f"{slot} is at the end of the calendar; take a nearer date") from None
    return replace(recurrence, day=day if recurrence.kind != "D" else None, wall=wall)


def next_slot(recurrence: Recurrence, after: datetime) -> datetime | None:
    """Return the slot that follows the one just fired, in UTC and strictly later.

    For cron `after` may be any instant. None: never again (once, no further date of a cron, or past the year 9999).

    Raises:
        ValueError: naive `after`, or a recurrence that `validate` refuses.
    """
    after = _utc(after, "after")
    try:
        if recurrence.kind == "O":
            return None
        if recurrence.kind == "C":
            return next(_cron_after(recurrence, after), None)
        if recurrence.kind in _CALENDAR:
            return next(slot for slot in _calendar_after(recurrence, after) if slot > after)
        return after + _step(recurrence)
    except OverflowError:
        return None


def upcoming(recurrence: Recurrence, first: datetime, count: int) -> list[datetime]:
    """Return up to `count` slots, the first of them `first`."""
    slots: list[datetime] = []
    slot: datetime | None = _utc(first, "first")
    recurrence = anchored(recurrence, first)
    while slot is not None and len(slots) < count:
        slots.append(slot)
        slot = next_slot(recurrence, slot)
    return slots


def missed(recurrence: Recurrence, slot: datetime, now: datetime, cap: int) -> tuple[list[datetime], datetime | None]:
    """Return the slots due from `slot` to `now`, both included and oldest first, and the first slot after `now`.

    Of more than `cap` slots the *latest* are returned: what is done late is done for the freshest data, and the work
    is that of `cap` slots however long nobody fired. With a cap of 1 an outage ends in one run, for the latest slot.
    `slot` itself counts even if a cron expression does not name it: somebody asked for that run.

    Raises:
        ValueError: as `next_slot`.
    """
    slot, now = _utc(slot, "slot"), _utc(now, "now")
    if slot > now:
        return [], slot
    if recurrence.kind == "O":
        return [slot][:cap], None
    if recurrence.kind == "C":
        return _missed_cron(recurrence, slot, now, cap), next_slot(recurrence, now)
    if recurrence.kind in _CALENDAR:
        return _missed_calendar(recurrence, slot, now, cap)
    step = _step(recurrence)
    last = (now - slot) // step
    due = [slot + step * number for number in range(max(0, last - cap + 1), last + 1)]
    try:
        return due, slot + step * (last + 1)
    except OverflowError:
        return due, None


def validate(recurrence: Recurrence, now: datetime | None = None) -> None:
    """Refuse a recurrence that cannot fire as it says. `now` (aware) is for tests.

    Raises:
        ValueError: the message begins with the name of the column and says what to do.
    """
    kind, minutes, seconds = recurrence.kind, recurrence.minutes, recurrence.seconds
    if kind not in KINDS:
        raise invalid("schedule_type", f"{kind!r} is none of {', '.join(KINDS)}")
    if kind == "I" and minutes is not None and (type(minutes) is not int or not 1 <= minutes <= LONGEST // 60):
        raise invalid("minutes", f"must be a whole number from 1 to {LONGEST // 60:.0f}, got {minutes!r}")
    if kind == "S":
        if type(seconds) not in (int, float) or seconds is None:
            raise invalid("seconds", f"give the number of seconds between two runs, got {seconds!r}")
        if not isfinite(seconds) or not SHORTEST <= seconds <= LONGEST:
            raise invalid("seconds", f"must be from {SHORTEST} to {LONGEST:.0f}, got {seconds!r}")
    if kind == "C":
        _validate_cron(recurrence, now or datetime.now(UTC))
    days = 31 if kind in _MONTHS else 7
    if kind in _CALENDAR and recurrence.day is not None and not 1 <= recurrence.day <= days:
        raise invalid("day", f"must be from 1 to {days}, or nothing to take it from next_run; got {recurrence.day!r}")
    if kind in _CALENDAR and recurrence.wall is not None and recurrence.wall.tzinfo is not None:
        raise invalid("wall_time", f"must have no time zone, the schedule's is meant; got {recurrence.wall!r}")


def parse_zone(name: str | None, default: tzinfo) -> tzinfo:
    """Return the zone of that IANA name; the default for None and for nothing.

    Raises:
        ValueError: unknown here, with the names it may have been meant for.
    """
    if name is None or not name.strip():
        return default
    name = name.strip()
    # Each host has its own "localtime"; "right/" counts leap seconds, which no other clock here does.
    if name not in ("localtime", "posixrules") and not name.startswith(("right/", "posix/")):
        try:
            return ZoneInfo(name)
        except (LookupError, OSError, ValueError):
            pass
    names = {known.casefold(): known for known in sorted(available_timezones() - {"localtime"})}
    wanted = name.casefold().replace(" ", "_")[:100]
    close = [names[key] for key in names if key.rpartition("/")[2] == wanted]
    close += [names[key] for key in get_close_matches(wanted, names, n=3, cutoff=0.7)]
    hint = f"did you mean {_listed(list(dict.fromkeys(close))[:3], 'or')}?" if close else "use one such as Europe/Paris"
    raise invalid("time_zone", f"{name[:100]!r} is no time zone known here; {hint}")


# Instants and wall times


def _utc(moment: datetime, field: str) -> datetime:
    if moment.tzinfo is None:
        raise invalid(field, f"{moment!r} has no time zone; an aware datetime is needed")
    return moment.astimezone(UTC)


def _local(instant: datetime, zone: tzinfo) -> datetime:
    """What the local clock shows, without zone and fold."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which the local clock shows this time or a later one."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _local(instant, zone) == wall:
        return instant
    # A skipped time. With fold=1 it is read by the clock after the change, which gives an instant before it.
    return _change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant, zone)


def _change(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The first instant with another offset than `low`; there must be one up to `high`."""
    before = _offset(low, zone)
    # Clocks change on whole seconds.
    start = low.replace(microsecond=0)
    # This many seconds after start the clock has not changed; so many more, and it has.
    same, other = 0, -((start - high) // timedelta(seconds=1))
    while other - same > 1:
        middle = (same + other) // 2
        if _offset(start + timedelta(seconds=middle), zone) == before:
            same = middle
        else:
            other = middle
    return start + timedelta(seconds=other)


def _furthest(instant: datetime, zone: tzinfo) -> datetime:
    """The latest time that the local clock has shown up to this instant.

    That is what it shows now, but for the second pass of a repeated stretch.
    """
    aware = instant.astimezone(zone)
    wall = aware.replace(tzinfo=None, fold=0)
    if not aware.fold:
        return wall
    first = wall.replace(tzinfo=zone).astimezone(UTC)
    end = _change(first, instant, zone) + _offset(first, zone)
    return end.replace(tzinfo=None) - _TICK


# Elapsed time and calendar


def _step(recurrence: Recurrence) -> timedelta:
    validate(recurrence)
    if recurrence.kind == "S":
        return timedelta(seconds=recurrence.seconds or 0)
    return timedelta(minutes=60 if recurrence.kind == "H" else recurrence.minutes or 1)


def _meant(recurrence: Recurrence, slot: datetime) -> tuple[date, time, int]:
    """Return the local date and time that the slot stands for, and the day to come back to.

    The slot itself does not say: a clock change may have put it an hour off, or on the next date.
    """
    kind, zone = recurrence.kind, recurrence.zone
    shown = _local(slot, zone)
    wall = shown.time() if recurrence.wall is None else recurrence.wall
    best: tuple[timedelta, date] | None = None
    for days in (0, -1, 1):
        day = shown.date() + timedelta(days)
        if not _on_day(kind, day, recurrence.day):
            continue
        distance = abs(_instant(datetime.combine(day, wall), zone) - slot)
        if distance <= _MOVED and (best is None or distance < best[0]):
            best = distance, day
        if not distance:
            break
    if best is None:
        return shown.date(), shown.time(), _day(kind, shown.date())
    return best[1], wall, recurrence.day or _day(kind, best[1])


def _day(kind: str, day: date) -> int:
    return day.day if kind in _MONTHS else day.isoweekday()


def _on_day(kind: str, day: date, anchor: int | None) -> bool:
    if anchor is None or kind == "D":
        return True
    if kind in _MONTHS:
        return day.day == min(anchor, monthrange(day.year, day.month)[1])
    return day.isoweekday() == anchor


def _date(kind: str, first: date, day: int, number: int) -> date:
    """Return the date that comes `number` steps after the first."""
    if kind in _DAYS:
        return first + timedelta(days=_DAYS[kind] * number)
    year, month = divmod(first.year * 12 + first.month - 1 + _MONTHS[kind] * number, 12)
    if year > 9999:
        raise OverflowError(f"year {year}")
    return date(year, month + 1, min(day, monthrange(year, month + 1)[1]))


def _calendar_after(recurrence: Recurrence, slot: datetime) -> Iterator[datetime]:
    """Yield the slots of a calendar kind that follow the one that `slot` stands for.

    The first may be the same instant: two dates share one where one of them does not exist.
    """
    meant, wall, day = _meant(recurrence, slot)
    for number in numbers_from(1):
        yield _instant(datetime.combine(_date(recurrence.kind, meant, day, number), wall), recurrence.zone)


def _missed_calendar(
    recurrence: Recurrence, slot: datetime, now: datetime, cap: int
) -> tuple[list[datetime], datetime | None]:
    kind, zone = recurrence.kind, recurrence.zone
    meant, wall, day = _meant(recurrence, slot)

    def at(number: int) -> datetime:
        return _instant(datetime.combine(_date(kind, meant, day, number), wall), zone) if number else slot

    today = _local(now, zone).date()
    if kind in _DAYS:
        steps = (today - meant).days // _DAYS[kind]
    else:
        steps = ((today.year - meant.year) * 12 + today.month - meant.month) // _MONTHS[kind]
    # From a little before, since clock changes put slots a date later.
    last = max(0, steps - 2)
    following: datetime | None = None
    try:
        while (following := at(last + 1)) <= now:
            last += 1
    except OverflowError:
        following = None
    due: list[datetime] = []
    for number in range(last, -1, -1):
        if len(due) >= cap:
            break
        # Not twice the instant that two dates share.
        if not due or at(number) < due[-1]:
            due.append(at(number))
    return due[::-1], following


# Cron


@dataclass(frozen=True, slots=True, eq=False)
class _Cron:
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
        """It follows the clock, rather than name times of the day."""
        return len(self.hours) == 24


_HASHED = re.compile(r"[hr](?:[(/].*)?", re.ASCII)
_CRON_HELP = "the fields are minute, hour, day of month, month, day of week, as in '30 9 * * 1-5'"


@lru_cache(maxsize=1024)
def _parse(expression: str, name: str | None) -> _Cron:
    """Read a cron expression.

    Raises:
        ValueError: with croniter's reason, or ours.
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
        # Without need for it no name is given: with one, croniter reads @daily as "H H * * *".
        parsed = croniter(text, 0.0, hash_id=name if "h" in letters else None)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise invalid("cron", f"{str(error) or 'it cannot be read'}; {_CRON_HELP}") from error
    return _digest(text, parsed)


def _digest(text: str, parsed: croniter) -> _Cron:
    fields: list[list[int | str]] = parsed.expanded
    nth = sorted(
        ((weekday, which) for weekday, many in parsed.nth_weekday_of_month.items() for which in many),
        key=lambda pair: (str(pair[1]), pair[0]),
    )
    near = min(parsed.nearest_weekday, default=None)
    dates_open, weekdays_open = fields[2][0] == "*", fields[4][0] == "*" and not nth
    if not dates_open and not weekdays_open and (nth or near is not None):
        # croniter ignores one of the two then, or never fires.
        raise invalid(
            "cron", f"{text!r} gives both days, one of them with '#', 'L' or 'W'; put '*' in one, or use two schedules"
        )

    def numbers(index: int, low: int, high: int) -> tuple[int, ...]:
        values = fields[index]
        if "*" in values:
            return tuple(range(low, high + 1))
        return tuple(sorted(value for value in values if isinstance(value, int)))

    return _Cron(
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


def _cron(recurrence: Recurrence) -> _Cron:
    if not isinstance(recurrence.cron, str):
        raise invalid("cron", f"give an expression; {_CRON_HELP}")
    # So that schedules with one expression share one entry of the cache.
    name = recurrence.name if "h" in recurrence.cron.lower() else None
    return _parse(recurrence.cron, name)


def _validate_cron(recurrence: Recurrence, now: datetime) -> None:
    _cron(recurrence)
    if next_slot(recurrence, now) is None:
        raise invalid("cron", f"{recurrence.cron!r} names no date that is still to come; check day, month and year")


@lru_cache(maxsize=4096)
def _dates(cron: _Cron, year: int, month: int) -> Sequence[int]:
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


def _walls(cron: _Cron, start: datetime, backwards: bool = False) -> Iterator[datetime]:
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


def _cron_after(recurrence: Recurrence, after: datetime) -> Iterator[datetime]:
    """Yield the slots later than `after`, oldest first."""
    cron, zone = _cron(recurrence), recurrence.zone
    if cron.interval:
        yield from _interval_after(cron, zone, after)
        return
    for wall in _walls(cron, _furthest(after, zone) + _TICK):
        slot = _instant(wall, zone)
        if slot > after:
            yield slot
            after = slot


def _cron_until(recurrence: Recurrence, until: datetime) -> Iterator[datetime]:
    """Yield the slots up to `until`, latest first."""
    cron, zone = _cron(recurrence), recurrence.zone
    if cron.interval:
        yield from _interval_until(cron, zone, until)
        return
    latest: datetime | None = None
    for wall in _walls(cron, _furthest(until, zone), backwards=True):
        slot = _instant(wall, zone)
        if latest is None or slot < latest:
            yield slot
            latest = slot


def _interval_after(cron: _Cron, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Walk from one clock change to the next; between two of them, local time is UTC and a constant."""
    start = after + _TICK
    while True:
        offset, near = _offset(start, zone), start + _NEAR
        change = _change(start, near, zone) if _offset(near, zone) != offset else None
        for wall in _walls(cron, _local(start, zone)):
            slot = (wall - offset).replace(tzinfo=UTC)
            if change is not None and slot >= change:
                break
            if change is None and slot > near:
                # Begin again there. Changes on the way do not matter: no time between start and wall matches.
                change = _instant(wall, zone)
                break
            yield slot
        if change is None:
            return
        start = change


def _interval_until(cron: _Cron, zone: tzinfo, until: datetime) -> Iterator[datetime]:
    """The same backwards."""
    top = until
    while True:
        offset, near = _offset(top, zone), top - _NEAR
        change = _change(near, top, zone) if _offset(near, zone) != offset else None
        again: datetime | None = None if change is None else change - _TICK
        for wall in _walls(cron, _local(top, zone), backwards=True):
            slot = (wall - offset).replace(tzinfo=UTC)
            if change is not None and slot < change:
                break
            if change is None and slot < near:
                again = _last_instant(wall, zone)
                break
            yield slot
        if again is None:
            return
        top = again


def _last_instant(wall: datetime, zone: tzinfo) -> datetime:
    """The last instant at which the local clock shows this time; if it never does, the last before it is skipped."""
    instant = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return instant if _local(instant, zone) == wall else _instant(wall, zone) - _TICK


def _missed_cron(recurrence: Recurrence, slot: datetime, now: datetime, cap: int) -> list[datetime]:
    due: list[datetime] = []
    for found in islice(_cron_until(recurrence, now), cap):
        if found <= slot:
            break
        due.append(found)
    if len(due) < cap:
        due.append(slot)
    return due[::-1]


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
    """Return what a cron expression means that was probably meant otherwise, or None.

    Elsewhere seconds stand first: ``0 15 10 * * *`` is meant to be 10:15, and is each second of one minute a month.
    """
    if recurrence.kind != "C" or recurrence.cron is None or len(recurrence.cron.split()) < 6:
        return None
    cron = _cron(recurrence)
    if len(cron.seconds) < 60 or len(cron.minutes) == 60:
        return None
    return (
        f"cron: {recurrence.cron!r} means {describe(recurrence)}: the sixth field is the second, after minute, hour, "
        "day of month, month and day of week; leave it out, or put 0 there"
    )


def describe(recurrence: Recurrence, slot: datetime | None = None) -> str:
    """Say in words when it fires, by the local clock of its zone.

    Args:
        slot: One of its slots (aware), which says in which months it fires; None: that is not said.

    Raises:
        ValueError: a recurrence that cannot be read.
    """
    kind = recurrence.kind
    if kind == "C":
        return _describe_cron(_cron(recurrence))
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
    if kind in _MONTHS:
        shorter = ", or the last day of shorter months" if kind != "Y" else ", or the last day if the month is shorter"
        months = "" if slot is None else _months_from(anchored(recurrence, slot), slot)
        on = f" on day {day} of {months or 'the month'}{shorter if day > 28 else ''}"
    else:
        on = f" on {_WEEKDAYS[day % 7]}"
    return f"every {_EVERY[kind]}{at}{on}"


def _months_from(recurrence: Recurrence, slot: datetime) -> str:
    """Name the months in which a schedule fires that has this slot; nothing for each month."""
    step = _MONTHS[recurrence.kind]
    if step == 1:
        return ""
    first = _meant(recurrence, _utc(slot, "slot"))[0].month
    return _listed([_MONTH_NAMES[month] for month in range((first - 1) % step + 1, 13, step)])


def _describe_cron(cron: _Cron) -> str:
    times, days = _times(cron), _days(cron)
    if not days and not cron.interval:
        days = " every day"
    months = f" in {_named(cron.months, _MONTH_NAMES)}" if len(cron.months) < 12 else ""
    years = f" in {_listed(_spans(cron.years))}" if cron.years is not None else ""
    comma = "," if days and (months or years) else ""
    return f"{times}{days}{comma}{months}{years}"


def _times(cron: _Cron) -> str:
    seconds, minutes, hours = cron.seconds, cron.minutes, cron.hours
    if len(seconds) * len(minutes) * len(hours) <= _LISTED_TIMES:
        return "at " + _listed([_clock(h, m, s) for h in hours for m in minutes for s in seconds])
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
    """Say values from 0 to 59 that go round evenly, 5, 25, 45 say; None if these do not."""
    step = _even(values)
    if not step or step * len(values) != 60:
        return None
    every = f"every {unit}" if step == 1 else f"every {step} {unit}s"
    return every if values[0] == 0 else f"{every}, from {unit} {values[0]} of the {whole}"


def _literal(cron: _Cron) -> str:
    """Field by field: never elegant, always true."""
    parts = [(cron.minutes, "minute", 60), (cron.hours, "hour", 24)]
    if cron.seconds != (0,):
        parts.insert(0, (cron.seconds, "second", 60))
    words = [
        f"every {unit}" if len(values) == full else f"{unit}{'s' * (len(values) > 1)} {_listed(_spans(values))}"
        for values, unit, full in parts
    ]
    return ("" if words[0].startswith("every") else "at ") + " of ".join(words)


def _days(cron: _Cron) -> str:
    """Say which days, with a space before; nothing for every day."""
    if cron.near is not None:
        shorter = " or to the last day of shorter months" if cron.near > 28 else ""
        return f" on the day from Monday to Friday nearest to day {cron.near} of the month{shorter}"
    if cron.nth:
        which = [f"the {_NTH[number]} {_WEEKDAYS[weekday]}" for weekday, number in cron.nth]
        return f" on {_listed(which)} of the month"
    words = []
    if cron.dates is not None:
        if len(cron.dates) == 31:
            return ""
        days = [f"day{'s' * (len(cron.dates) > 1)} {_listed(_spans(cron.dates))}"] if cron.dates else []
        words.append(f"on {_listed([*days, *(['the last day'] * cron.last_date)])} of the month")
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
    return _listed(_spans(values, names))


def _listed(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
