"""The schedules of Celery beat: those in its settings, and the rows of django-celery-beat.

Of Celery nothing is imported here: what stands in the settings is told by its attributes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from pgq.config import Cron, Every, ScheduleConfig
from pgq.contrib.cron.found import Found, both_days, interval, named
from pgq.recurrence import moments

_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_NAME = re.compile(r"([A-Za-z]{3})[A-Za-z]+")
_BOTH_DAYS = (
    "day of month and day of week are both given: Celery fires if both fit, cron if one does; put '*' in one, and let "
    "the function look at the other"
)
_ROWS = ("django_celery_beat", "PeriodicTask")
#: What Celery does there is done here without a schedule.
_OWN = {"celery.backend_cleanup": "PGQ['keep_days'] and PGQ['save_limit'] do that"}


def find(app: str | None = None) -> list[Found]:
    """Return the schedules of beat.

    Args:
        app: The dotted path of the Celery app, whose configuration holds them; None: the project's settings do.

    Raises:
        ImportError: The app cannot be imported.
    """
    if app is not None:
        try:
            conf = import_string(app).conf
            entries, zone = conf.beat_schedule, conf.timezone
        except Exception as error:
            raise ImportError(f"{app}: {type(error).__name__}: {error}") from error
    else:
        entries = getattr(django_settings, "CELERY_BEAT_SCHEDULE", getattr(django_settings, "CELERYBEAT_SCHEDULE", {}))
        zone = getattr(django_settings, "CELERY_TIMEZONE", None)
    rows: list[Any] = []
    if apps.is_installed("django_celery_beat"):
        model: Any = apps.get_model(*_ROWS)
        rows = list(model.objects.order_by("pk"))
    # As in Celery: UTC, unless another is named.
    return together(
        {str(name): _entry(str(name), entry, str(zone or "UTC")) for name, entry in (entries or {}).items()}, rows
    )


def together(entries: Mapping[str, Found], rows: Iterable[Any]) -> list[Found]:
    """Return what stands in the settings and what stands in rows of django-celery-beat, each schedule once.

    Beat copies the settings into rows, by the name, and then goes by the rows.
    """
    made = {str(row.name): _row(row) for row in rows}
    for name in made.keys() & entries.keys():
        entries[name].config, entries[name].refused = None, "django-celery-beat has a row of that name, which is taken"
    return named([*entries.values(), *made.values()])


def _entry(name: str, entry: Any, zone: str) -> Found:
    source = f"beat_schedule[{name!r}]"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("task"), str):
        return Found(source, refused="names no task")
    when = _when(entry.get("schedule"), zone)
    options = dict(entry.get("options") or {})
    notes = list(_notes(options))
    if entry.get("relative"):
        notes.append("relative is not carried over: minutes keep to the clock")
    args, kwargs = entry.get("args") or (), entry.get("kwargs") or {}
    return _made(source, name, entry["task"], when, notes, args, kwargs, options.get("queue"))


def _when(given: Any, zone: str) -> Cron | Every | str:
    """Return a schedule of Celery as it is here, or why there is none."""
    if isinstance(given, bool):
        return f"{given!r} is no schedule"
    if isinstance(given, int | float):
        return interval(timedelta(seconds=given))
    if isinstance(given, timedelta):
        return interval(given)
    if all(hasattr(given, f"_orig_{name}") for name in _FIELDS):
        return _cron([_text(getattr(given, f"_orig_{name}")) for name in _FIELDS], zone)
    if isinstance(length := getattr(given, "run_every", None), timedelta):
        return interval(length)
    return f"{type(given).__name__} has no counterpart here"


def _text(field: Any) -> str:
    """Return a field of a crontab as text; Celery takes a number or a set of numbers, too."""
    if isinstance(field, Iterable) and not isinstance(field, str):
        return ",".join(map(str, sorted(field, key=str)))
    return str(field)


def _cron(fields: list[str], zone: str) -> Cron | str:
    if both_days(fields[2], fields[4]):
        return _BOTH_DAYS
    # Celery allows blanks after commas, and takes the first three letters of a name.
    short = [_NAME.sub(r"\1", "".join(field.split())) for field in fields]
    return Cron(" ".join(short), time_zone=zone)


def _notes(options: Mapping[str, Any]) -> Iterator[str]:
    said = {
        "priority": "each broker of Celery counts it otherwise; here larger is sooner",
        "expires": "a task waits until it runs",
        "expire_seconds": "a task waits until it runs",
        "exchange": "there is no exchange",
        "routing_key": "there is no exchange; give it a queue",
    }
    for name, value in options.items():
        if value not in (None, "") and name != "queue":
            yield f"{name}={value!r} is not carried over" + (f": {said[name]}" if name in said else "")


def _made(
    source: str,
    name: str,
    task: str,
    when: Cron | Every | str,
    notes: Iterable[str],
    args: Any,
    kwargs: Any,
    queue: Any,
    **more: Any,
) -> Found:
    if task in _OWN:
        return Found(source, refused=_OWN[task])
    if isinstance(when, str):
        return Found(source, refused=when)
    config = ScheduleConfig(
        name,
        func=task,
        args=list(args),
        kwargs=dict(kwargs),
        when=when,
        # The name of Celery's default queue; here it is another.
        queue=None if queue in ("", "celery") else queue,
        **more,
    )
    return Found(source, config, notes=tuple(notes))


# ------------------------------------------------------------------------------------------------- rows


def _row(row: Any) -> Found:
    """Return a row of django-celery-beat."""
    source = f"PeriodicTask {row.name!r}"
    try:
        args, kwargs = json.loads(row.args or "[]"), json.loads(row.kwargs or "{}")
    except ValueError as error:
        return Found(source, refused=f"its arguments are no JSON: {error}")
    names = ("exchange", "routing_key", "priority", "expires", "expire_seconds")
    notes = list(_notes({name: getattr(row, name, None) for name in names}))
    more: dict[str, Any] = {"enabled": bool(row.enabled), "repeats": 1 if row.one_off else -1}
    now = moments.now()
    if row.start_time is not None and row.start_time > now:
        more["next_run"] = row.start_time
    when: Cron | Every | str
    if row.crontab is not None:
        # Of a set or a list in the settings, beat copies what Python prints of it.
        fields = [re.sub(r"[\[\](){}'\"]", "", str(getattr(row.crontab, name))) for name in _FIELDS]
        when = _cron(fields, str(row.crontab.timezone))
        if "next_run" in more:
            notes.append(f"start_time={row.start_time:%Y-%m-%d %H:%M} is the first slot, whatever the crontab names")
    elif row.interval is not None:
        length = timedelta(**{str(row.interval.period): row.interval.every})
        when = interval(length)
        if row.last_run_at is not None:
            # It goes on where beat was.
            more.setdefault("next_run", row.last_run_at + length)
    elif row.clocked is not None:
        if not row.enabled or row.clocked.clocked_time <= now:
            return Found(source, refused=f"it was for {row.clocked.clocked_time:%Y-%m-%d %H:%M}, and has run")
        clocked = {"func": row.task, "args": args, "kwargs": kwargs, "next_run": row.clocked.clocked_time}
        queue = None if row.queue in (None, "", "celery") else row.queue
        return Found(source, ScheduleConfig(row.name, **clocked, queue=queue), notes=tuple(notes))
    else:
        when = "solar events have no counterpart here"
    return _made(source, row.name, row.task, when, notes, args, kwargs, row.queue, **more)
