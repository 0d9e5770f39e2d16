"""The slots of a recurrence: the next one, those to come, those that were missed. See `pgq.recurrence`."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import count as numbers_from
from math import isfinite

from pgq.errors import invalid
from pgq.recurrence.clock import instant_of, local_of, utc_of
from pgq.recurrence.cron import cron_after, cron_of, missed_cron
from pgq.recurrence.rule import Recurrence

KINDS = ("O", "S", "I", "H", "D", "W", "BW", "M", "BM", "Q", "Y", "C")
#: Seconds.
SHORTEST, LONGEST = 0.1, 100 * 366 * 86400.0

_DAYS = {"D": 1, "W": 7, "BW": 14}
MONTHS = {"M": 1, "BM": 2, "Q": 3, "Y": 12}
_CALENDAR = _DAYS.keys() | MONTHS.keys()
#: A slot at most this far from where its anchors put it was moved by new rules for the zone; farther, by an edit.
_MOVED = timedelta(hours=3)


def anchored(recurrence: Recurrence, slot: datetime) -> Recurrence:
    """Return the recurrence with `day` and `wall` as they are to be stored next to this slot.

    Anchors that explain the slot are kept, others are taken from it: an edit that moves ``next_run`` by more than three
    hours, or to another day, moves the schedule. (A smaller difference may come from new rules for the zone, and must
    not last: to move a schedule by so little, clear the anchors as well.) Both are None for kinds without a calendar.

    Raises:
        ValueError: a naive slot, or one within a day or two of either end of the calendar.
    """
    if recurrence.kind not in _CALENDAR:
        return replace(recurrence, day=None, wall=None)
    try:
        _, wall, day = meant_by(recurrence, utc_of(slot, "next_run"))
    except OverflowError:
        raise invalid("next_run", f"{slot} is at the end of the calendar; take a nearer date") from None
    return replace(recurrence, day=day if recurrence.kind != "D" else None, wall=wall)


def next_slot(recurrence: Recurrence, after: datetime) -> datetime | None:
    """Return the slot that follows the one just fired, in UTC and strictly later.

    For cron `after` may be any instant. None: never again (once, no further date of a cron, or past the year 9999).

    Raises:
        ValueError: naive `after`, or a recurrence that `validate` refuses.
    """
    after = utc_of(after, "after")
    try:
        if recurrence.kind == "O":
            return None
        if recurrence.kind == "C":
            return next(cron_after(recurrence, after), None)
        if recurrence.kind in _CALENDAR:
            return next(slot for slot in _calendar_after(recurrence, after) if slot > after)
        return after + _step(recurrence)
    except OverflowError:
        return None


def upcoming(recurrence: Recurrence, first: datetime, count: int) -> list[datetime]:
    """Return up to `count` slots, the first of them `first`."""
    slots: list[datetime] = []
    slot: datetime | None = utc_of(first, "first")
    recurrence = anchored(recurrence, first)
    while slot is not None and len(slots) < count:
        slots.append(slot)
        slot = next_slot(recurrence, slot)
    return slots


def missed(recurrence: Recurrence, slot: datetime, now: datetime, cap: int) -> tuple[list[datetime], datetime | None]:
    """Return the slots due from `slot` to `now`, both included and oldest first, and the first slot after `now`.

    Of more than `cap` slots the *latest* are returned: what is done late is done for the freshest data, and the work
    is that of `cap` slots however long the outage was. With a cap of 1 it ends in one run, for the latest slot.
    `slot` itself counts even if a cron expression does not name it: an edit of next_run asked for that run.

    Raises:
        ValueError: as `next_slot`.
    """
    slot, now = utc_of(slot, "slot"), utc_of(now, "now")
    if slot > now:
        return [], slot
    if recurrence.kind == "O":
        return [slot][:cap], None
    if recurrence.kind == "C":
        return missed_cron(recurrence, slot, now, cap), next_slot(recurrence, now)
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
    """Refuse a recurrence that cannot fire by its rule. `now` (aware) is for tests.

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
    days = 31 if kind in MONTHS else 7
    if kind in _CALENDAR and recurrence.day is not None and not 1 <= recurrence.day <= days:
        raise invalid("day", f"must be from 1 to {days}, or nothing to take it from next_run; got {recurrence.day!r}")
    if kind in _CALENDAR and recurrence.wall is not None and recurrence.wall.tzinfo is not None:
        raise invalid("wall_time", f"must have no time zone, the schedule's is meant; got {recurrence.wall!r}")


def _validate_cron(recurrence: Recurrence, now: datetime) -> None:
    cron_of(recurrence)
    if next_slot(recurrence, now) is None:
        raise invalid("cron", f"{recurrence.cron!r} names no date that is still to come; check day, month and year")


# Elapsed time and calendar


def _step(recurrence: Recurrence) -> timedelta:
    validate(recurrence)
    if recurrence.kind == "S":
        return timedelta(seconds=recurrence.seconds or 0)
    return timedelta(minutes=60 if recurrence.kind == "H" else recurrence.minutes or 1)


def meant_by(recurrence: Recurrence, slot: datetime) -> tuple[date, time, int]:
    """Return the local date and time that the slot stands for, and the day to come back to.

    They may differ from the slot's own: a clock change may have put it an hour off, or on the next date.
    """
    kind, zone = recurrence.kind, recurrence.zone
    shown = local_of(slot, zone)
    wall = shown.time() if recurrence.wall is None else recurrence.wall
    best: tuple[timedelta, date] | None = None
    for days in (0, -1, 1):
        day = shown.date() + timedelta(days)
        if not _on_day(kind, day, recurrence.day):
            continue
        distance = abs(instant_of(datetime.combine(day, wall), zone) - slot)
        if distance <= _MOVED and (best is None or distance < best[0]):
            best = distance, day
        if not distance:
            break
    if best is None:
        return shown.date(), shown.time(), _day(kind, shown.date())
    return best[1], wall, recurrence.day or _day(kind, best[1])


def _day(kind: str, day: date) -> int:
    return day.day if kind in MONTHS else day.isoweekday()


def _on_day(kind: str, day: date, anchor: int | None) -> bool:
    if anchor is None or kind == "D":
        return True
    if kind in MONTHS:
        return day.day == min(anchor, monthrange(day.year, day.month)[1])
    return day.isoweekday() == anchor


def _date(kind: str, first: date, day: int, number: int) -> date:
    """Return the date that comes `number` steps after the first."""
    if kind in _DAYS:
        return first + timedelta(days=_DAYS[kind] * number)
    year, month = divmod(first.year * 12 + first.month - 1 + MONTHS[kind] * number, 12)
    if year > 9999:
        raise OverflowError(f"year {year}")
    return date(year, month + 1, min(day, monthrange(year, month + 1)[1]))


def _calendar_after(recurrence: Recurrence, slot: datetime) -> Iterator[datetime]:
    """Yield the slots of a calendar kind that follow the one that `slot` stands for.

    The first may be the same instant: two dates share one where one of them does not exist.
    """
    meant, wall, day = meant_by(recurrence, slot)
    for number in numbers_from(1):
        yield instant_of(datetime.combine(_date(recurrence.kind, meant, day, number), wall), recurrence.zone)


def _missed_calendar(
    recurrence: Recurrence, slot: datetime, now: datetime, cap: int
) -> tuple[list[datetime], datetime | None]:
    kind, zone = recurrence.kind, recurrence.zone
    meant, wall, day = meant_by(recurrence, slot)

    def at(number: int) -> datetime:
        return instant_of(datetime.combine(_date(kind, meant, day, number), wall), zone) if number else slot

    today = local_of(now, zone).date()
    if kind in _DAYS:
        steps = (today - meant).days // _DAYS[kind]
    else:
        steps = ((today.year - meant.year) * 12 + today.month - meant.month) // MONTHS[kind]
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
        # Two dates may share an instant, which counts once.
        if not due or at(number) < due[-1]:
            due.append(at(number))
    return due[::-1], following
