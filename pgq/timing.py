"""Between a schedule's row and the calendar: its recurrence, with the project's zone."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings

from pgq.conf import Settings
from pgq.recurrence import Recurrence, parse_zone


def default_zone(settings: Settings) -> tzinfo:
    """Return the zone in which schedules count days unless they name one.

    Raises:
        ValueError: PGQ["time_zone"] is unknown.
    """
    if settings.time_zone:
        return parse_zone(settings.time_zone, UTC)
    return ZoneInfo(django_settings.TIME_ZONE) if django_settings.USE_TZ else UTC


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
