"""Between a schedule's row and the calendar: its recurrence, with the project's zone.

Inside, each moment is aware. Where USE_TZ is off the project's own moments are naive, in TIME_ZONE: those it gives,
its models hold and ``timezone.now()`` returns.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings
from django.utils import timezone

from pgq.conf import Settings
from pgq.recurrence import Recurrence, parse_zone


def default_zone(settings: Settings) -> tzinfo:
    """Return the zone in which schedules count days unless they name one.

    Raises:
        ValueError: PGQ["time_zone"] is unknown.
    """
    if settings.time_zone:
        return parse_zone(settings.time_zone, UTC)
    return ZoneInfo(django_settings.TIME_ZONE) if django_settings.TIME_ZONE else UTC


def aware(moment: datetime) -> datetime:
    """Return a moment with a time zone; a naive one is in the current one, as for Django."""
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def now() -> datetime:
    """Return the present, in UTC, by Django's clock: the one that tests stop."""
    return aware(timezone.now()).astimezone(UTC)


def as_project(moment: datetime) -> datetime:
    """Return an aware moment as the project's models hold it: naive if USE_TZ is off."""
    return moment if django_settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def recurrence_of(schedule: Any, settings: Settings) -> Recurrence:
    """Return how a schedule recurs; takes a `pgq.schedule.Due` or a `pgq.models.Schedule`.

    Raises:
        ValueError: Its time zone is unknown.
    """
    return Recurrence(
        kind=schedule.schedule_type,
        minutes=schedule.minutes,
        seconds=schedule.seconds,
        cron=schedule.cron,
        zone=parse_zone(schedule.time_zone, default_zone(settings)),
        day=schedule.day,
        wall=schedule.wall_time,
        name=schedule.name,
    )
