"""What an import has found, and what becomes of it: rows, or a module for PGQ["schedules"]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta

from django.db import transaction

from pgq.config import Cron, Every, ScheduleConfig
from pgq.models import Schedule
from pgq.recurrence import moments
from pgq.recurrence.moments import as_project
from pgq.schedules import code, define


@dataclass(slots=True)
class Found:
    """A schedule of another program."""

    #: As it stands there: a line, or a name.
    source: str
    #: None: it is refused.
    config: ScheduleConfig | None = None
    #: Why it is refused.
    refused: str = ""
    #: What is not carried over.
    notes: tuple[str, ...] = ()


def named(found: Iterable[Found]) -> list[Found]:
    """Return the same with names that tell them apart: the second "report" becomes "report 2"."""
    taken: dict[str, int] = {}
    made = []
    for each in found:
        if each.config is not None:
            name = str(each.config.name)
            taken[name] = taken.get(name, 0) + 1
            if taken[name] > 1:
                each.config = replace(each.config, name=f"{name} {taken[name]}")
        made.append(each)
    return made


def check(found: Iterable[Found]) -> list[tuple[Found, code.CodeSchedule | None]]:
    """Look at each schedule; one that could not run here is refused with the reason."""
    checked = []
    for each in found:
        one = None
        if each.config is not None:
            one, wrong = code.check(each.config, each.source)
            if wrong:
                each.config, each.refused = None, "; ".join(wrong)
        checked.append((each, one))
    return checked


def write(checked: Iterable[tuple[Found, code.CodeSchedule | None]], *, dry_run: bool = False) -> None:
    """Insert those that are not refused; a name that is taken is refused, so that an import may be repeated."""
    now = moments.now()
    places: dict[str, list[tuple[Found, code.CodeSchedule]]] = {}
    for each, one in checked:
        if one is not None:
            places.setdefault(define.database_of_queue(one.row), []).append((each, one))
    for alias, found in places.items():
        _write_to(alias, found, now, dry_run=dry_run)


def _write_to(alias: str, found: list[tuple[Found, code.CodeSchedule]], now: datetime, *, dry_run: bool) -> None:
    rows = Schedule.objects.using(alias)
    with transaction.atomic(using=alias):
        for each, one in found:
            if each.config is None:
                continue
            if rows.filter(name=one.name).exists():
                each.config, each.refused = None, f"there is a schedule {one.name!r} already"
                continue
            first = one.first_run(now)
            if first is None:
                each.config, each.refused = None, "its time is over"
                continue
            row = Schedule(name=one.name, next_run=as_project(first), paused=not each.config.enabled)
            define.write(row, one.row, alias)
        if dry_run:
            transaction.set_rollback(True, using=alias)


def as_module(found: Iterable[Found]) -> str:
    """Return the source of a module with a list SCHEDULES, for ``PGQ = {"schedules": "that.module.SCHEDULES"}``."""
    lines = ["from pgq.config import Every, ScheduleConfig, cron", "", "SCHEDULES = ["]
    for each in found:
        if each.config is None:
            lines.append(f"    # Not taken: {each.source!r}: {each.refused!r}")
            continue
        lines.append(f"    # {each.source!r}")
        lines += [f"    # {note!r}" for note in each.notes]
        lines.append(f"    {_call(each.config)},")
    text = "\n".join([*lines, "]", ""])
    return f"import datetime\n\n{text}" if "datetime." in text else text


def _call(config: ScheduleConfig) -> str:
    default = ScheduleConfig()
    given = [repr(config.name)]
    for each in fields(config):
        value = getattr(config, each.name)
        value = value.astimezone(UTC) if isinstance(value, datetime) else value
        if each.name not in ("name", "when", "notes") and value != getattr(default, each.name):
            given.append(f"{each.name}={value!r}")
    when = config.when
    if isinstance(when, Cron):
        zone = f", time_zone={when.time_zone!r}" if when.time_zone else ""
        given.append(f"when=cron({when.expression!r}{zone})")
    elif isinstance(when, Every):
        units = [f"{unit.name}={value!r}" for unit in fields(when) if (value := getattr(when, unit.name)) is not None]
        given.append(f"when=Every({', '.join(units)})")
    return f"ScheduleConfig({', '.join(given)})"


def interval(length: timedelta) -> Every | str:
    """Return an interval as `Every`, or why there is none."""
    seconds = length.total_seconds()
    if seconds < 0.1:
        return f"an interval of {seconds:g} seconds is too short"
    return Every(minutes=int(seconds // 60)) if seconds % 60 == 0 else Every(seconds=seconds)


def both_days(day_of_month: str, day_of_week: str) -> bool:
    """Return whether both days are given, which some programs take together (AND) and cron alternatively (OR)."""
    return day_of_month.strip() not in ("*", "?") and day_of_week.strip() not in ("*", "?")
