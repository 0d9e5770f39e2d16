"""Moments between pgq and the project, and the clock that tests can stop."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings as django_settings
from django.utils import timezone


def aware(moment: datetime) -> datetime:
    """Return a moment with a time zone; a naive one is in the current one, as for Django."""
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def now() -> datetime:
    """Return the present, in UTC, by Django's clock: the one that tests stop."""
    return aware(timezone.now()).astimezone(UTC)


def as_project(moment: datetime) -> datetime:
    """Return an aware moment as the project's models hold it: naive if USE_TZ is off."""
    return moment if django_settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())
