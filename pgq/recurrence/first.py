"""The first slot of a schedule that is to keep to the clock: full hours, midnight, the first of the month."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from itertools import count as numbers_from
from typing import Any

from pgq.recurrence.clock import instant_of, local_of, utc_of
from pgq.recurrence.rule import Recurrence
from pgq.recurrence.slots import MONTHS, next_slot

#: The types of a schedule, each as its letter and as the word for it.
KIND_WORDS = {
    "once": "O",
    "seconds": "S",
    "minutes": "I",
    "hourly": "H",
    "daily": "D",
    "weekly": "W",
    "biweekly": "BW",
    "monthly": "M",
    "bimonthly": "BM",
    "quarterly": "Q",
    "yearly": "Y",
    "cron": "C",
}
_DAY = 24 * 60


def kind_of(given: Any) -> Any:
    """Return the letter of a type that is given as a word, such as "daily"; all else as it is."""
    return KIND_WORDS.get(given.strip().casefold(), given) if isinstance(given, str) else given


def first_slot(recurrence: Recurrence, now: datetime, at: time | None = None) -> datetime | None:
    """Return the first slot after the present one on the clock of the recurrence's zone.

    Hourly: the next full hour. Minutes that divide a day: counted from midnight, so that 15 are :00, :15, :30, :45.
    Daily and longer: midnight or the given time; weekly on a Sunday, monthly and longer on the first of a month, yearly
    on 1 January. Other intervals count from now. Once: now. Cron: what it names next; None: nothing.

    Args:
        at: The time of the day, for days and longer.
    """
    now = utc_of(now, "now")
    kind = recurrence.kind
    if kind == "O":
        return now
    if kind in ("C", "S"):
        return next_slot(recurrence, now)
    if kind in ("I", "H"):
        minutes = 60 if kind == "H" else recurrence.minutes or 1
        if _DAY % minutes:
            return next_slot(recurrence, now)
        midnight = _at(recurrence, local_of(now, recurrence.zone), time())
        return midnight + timedelta(minutes=minutes) * ((now - midnight) // timedelta(minutes=minutes) + 1)
    return next(slot for slot in _days(recurrence, now, at or time()) if slot > now)


def _at(recurrence: Recurrence, day: datetime, at: time) -> datetime:
    return instant_of(datetime.combine(day.date(), at), recurrence.zone)


def _days(recurrence: Recurrence, now: datetime, at: time) -> Iterator[datetime]:
    """Yield the slots on the days that the recurrence may begin with."""
    kind, today = recurrence.kind, local_of(now, recurrence.zone)
    for number in numbers_from(0):
        day = today + timedelta(days=number)
        if kind in ("W", "BW"):
            right = day.isoweekday() == 7
        else:
            right = kind not in MONTHS or (day.day == 1 and (day.month - 1) % MONTHS[kind] == 0)
        if right:
            yield _at(recurrence, day, at)
