"""Schedules for people: found by name or id, paused, and shown with all that follows from the row."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from pgq import recurrence
from pgq.conf import get_settings
from pgq.models import Schedule, Task
from pgq.recurrence import Recurrence
from pgq.recurrence.moments import aware

#: Firings shown of each schedule.
_NEXT = 5
#: Names with which a mistyped one is compared.
_NAMES = 5_000
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
    rows = Schedule.objects.using(get_settings().database)
    # No text in PostgreSQL holds a NUL.
    found = rows.filter(name=name).first() if "\0" not in name else None
    if found is None and name.isascii() and name.isdigit() and len(name) <= _ID_DIGITS:
        found = rows.filter(pk=int(name)).first()
    if found is not None:
        return found
    known = [str(known) for known in rows.exclude(name=None).values_list("name", flat=True)[:_NAMES]]
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        hint = f"Did you mean {' or '.join(map(repr, close))}?"
    else:
        hint = "manage.py pgq_schedules lists those there are." if rows.exists() else "There are no schedules at all."
    raise Schedule.DoesNotExist(f"There is no schedule {name!r}. {hint}")


def pause(schedule: Schedule) -> bool:
    """Pause a schedule; return False if it was paused already.

    Whatever paused it before: from now on no deploy resumes it.
    """
    # Only these columns: upkeep may move the schedule on at the same time.
    rows = Schedule.objects.using(get_settings().database).filter(pk=schedule.pk)
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
    ids = [row.task for row in chosen if row.task]
    tasks = Task.objects.using(get_settings().database).filter(pk__in=ids)
    finished = {task.pk: task for task in tasks.only("id", "success", "stopped", "exception", "message")}
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
