"""Schedules for people: found by name or id, paused, and shown with all that follows from the row."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from pgq import recurrence
from pgq.conf import get_settings, places
from pgq.models import Schedule, Task
from pgq.recurrence import Recurrence
from pgq.recurrence.moments import aware
from pgq.schedules.fire import database_at

#: Firings shown of each schedule.
_NEXT = 5
#: Names with which a mistyped one is compared.
_MOST_NAMES = 5_000
#: Digits of a number that is surely small enough for an id.
_ID_DIGITS = 18

ACTIVE, PAUSED, ENDED = "active", "paused", "ended"


@dataclass(frozen=True, slots=True)
class ScheduleOverview:
    """A schedule, and what follows from its row."""

    schedule: Schedule
    #: `ACTIVE`, `PAUSED` or `ENDED`.
    state: str
    #: When it fires, in words, or why the rule cannot be read.
    words: str
    #: See `recurrence.doubt`.
    doubt: str | None
    #: See `zone_of`.
    zone: tzinfo
    #: Its next firings, aware; none if its rule cannot be read.
    upcoming: tuple[datetime, ...]
    #: Its last task; None: there was none yet, it has not finished, or its result is gone.
    last: Task | None


def find(name: str) -> Schedule:
    """Return the schedule of that name, or else of that id.

    Raises:
        Schedule.DoesNotExist: There is none; the message has names that are nearly so.
    """
    found = places.first(lambda: _find_here(name))
    if found is not None:
        return found
    known = [known for names in places.each(_names) for known in names]
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        hint = f"Did you mean {' or '.join(map(repr, close))}?"
    else:
        hint = "manage.py pgq_schedules lists those there are." if _any() else "There are no schedules at all."
    raise Schedule.DoesNotExist(f"There is no schedule {name!r}. {hint}")


def _any() -> bool:
    return any(places.each(lambda: Schedule.objects.using(get_settings().database).exists()))


def _names() -> list[str]:
    rows = Schedule.objects.using(get_settings().database).exclude(name=None)
    return list(map(str, rows.values_list("name", flat=True)[:_MOST_NAMES]))


def _find_here(name: str) -> Schedule | None:
    rows = Schedule.objects.using(get_settings().database)
    # No text in PostgreSQL holds a NUL.
    found = rows.filter(name=name).first() if "\0" not in name else None
    if found is None and name.isascii() and name.isdigit() and len(name) <= _ID_DIGITS:
        found = rows.filter(pk=int(name)).first()
    return found


def pause(schedule: Schedule) -> bool:
    """Pause a schedule; return False if it was paused already.

    Whatever paused it before: from now on no deploy resumes it.
    """
    # Only these columns: upkeep may move the schedule on at the same time.
    rows = Schedule.objects.using(database_at(schedule)).filter(pk=schedule.pk)
    changed = rows.filter(paused=False).update(paused=True, auto_paused=False) > 0
    if not changed:
        rows.filter(auto_paused=True).update(auto_paused=False)
    return changed


def zone_of(schedule: Schedule) -> tzinfo:
    """Return the time zone of a schedule; UTC if it is unknown here."""
    try:
        return Recurrence.of(schedule, get_settings().zone).zone
    except ValueError:
        return UTC


def overview(schedules: Iterable[Schedule]) -> list[ScheduleOverview]:
    """Return the overview of each schedule, also of those whose rule cannot be read."""
    chosen = list(schedules)
    last: dict[str, list[Any]] = {}
    for row in chosen:
        if row.task:
            last.setdefault(database_at(row), []).append(row.task)
    finished: dict[Any, Task] = {}
    for alias, ids in last.items():
        tasks = Task.objects.using(alias).filter(pk__in=ids)
        finished |= {task.pk: task for task in tasks.only("id", "success", "stopped", "exception", "message")}
    return [
        ScheduleOverview(
            schedule=row,
            state=_state(row),
            words=_words(row),
            doubt=_doubt(row),
            zone=zone_of(row),
            upcoming=_upcoming(row),
            last=finished.get(row.task),
        )
        for row in chosen
    ]


def _state(row: Schedule) -> str:
    if row.paused:
        return PAUSED
    return ENDED if row.repeats == 0 or row.next_run is None else ACTIVE


def _doubt(row: Schedule) -> str | None:
    try:
        return recurrence.doubt(Recurrence.of(row, get_settings().zone))
    except ValueError:
        return None


def _words(row: Schedule) -> str:
    try:
        return row.describe()
    except ValueError as error:
        return f"cannot be read: {error}"


def _upcoming(row: Schedule) -> tuple[datetime, ...]:
    try:
        return tuple(aware(slot) for slot in row.upcoming(_NEXT))
    except ValueError:
        return ()
