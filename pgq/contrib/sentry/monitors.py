"""Sentry's monitors of schedules ("crons"): a check-in when the task of a slot begins, and one when it has ended."""

from __future__ import annotations

import math
import re
import threading
import time
import unicodedata
from dataclasses import dataclass
from typing import Any

from sentry_sdk.crons import MonitorStatus, capture_checkin

from pgq.records import Claim, Failed, Report, Succeeded

#: Seconds for which the rule of a schedule is taken to be unchanged.
_KNOWN_FOR = 600.0
#: Seconds that a task waits for the rule of its schedule to be read, at most.
_READ_WITHIN = 2.0
#: What Sentry reads as pgq does: numbers, lists, ranges and steps, in five fields.
_CRON = re.compile(r"[\d*/,-]+( [\d*/,-]+){4}")
_INTERVALS: dict[str, tuple[int, str]] = {
    "H": (1, "hour"),
    "D": (1, "day"),
    "W": (1, "week"),
    "BW": (2, "week"),
    "M": (1, "month"),
    "BM": (2, "month"),
    "Q": (3, "month"),
    "Y": (1, "year"),
}


@dataclass(frozen=True, slots=True)
class Monitor:
    """The monitor of one schedule."""

    slug: str
    #: What Sentry makes it from, and keeps it up to date by.
    config: dict[str, Any]


class Monitors:
    """The monitors of the schedules whose tasks this process runs.

    Args:
        exclude: Names of schedules without one.
    """

    def __init__(self, exclude: frozenset[str]) -> None:
        self._exclude = exclude
        #: By the schedule's id: until when it is taken to be known, and its monitor; None: it has none.
        self._known: dict[int, tuple[float, Monitor | None]] = {}

    def began(self, claim: Claim) -> None:
        """Check the task of a slot in, in its first attempt."""
        monitor = self._monitor(claim)
        if monitor is not None and claim.attempts == 1:
            capture_checkin(monitor.slug, claim.id.hex, MonitorStatus.IN_PROGRESS, monitor_config=_config(monitor))

    def ended(self, report: Report) -> None:
        """Say what came of it, once no attempt follows. All attempts share a check-in, whichever process runs them."""
        if not isinstance(report.outcome, Succeeded | Failed):
            return
        claim = report.claim
        _, monitor = self._known.get(claim.schedule or 0, (0.0, None))
        # Not looked up here: a task that was not run, in a process that knows nothing of its schedule, is one that
        # Sentry finds to be missing.
        if monitor is not None:
            status = MonitorStatus.OK if isinstance(report.outcome, Succeeded) else MonitorStatus.ERROR
            took = max(report.stopped - report.started, 0.0)
            capture_checkin(monitor.slug, claim.id.hex, status, took, _config(monitor))

    def _monitor(self, claim: Claim) -> Monitor | None:
        schedule = claim.schedule
        assert schedule is not None
        until, monitor = self._known.get(schedule, (0.0, None))
        if until < time.monotonic():
            found: list[Monitor | None] = []
            # In a thread of its own: on a loop Django refuses to read, and the task's own connection is the task's.
            reader = threading.Thread(target=self._read, args=(schedule, claim, found), name="pgq monitor", daemon=True)
            reader.start()
            reader.join(_READ_WITHIN)
            monitor = found[0] if found else monitor
            self._known[schedule] = time.monotonic() + _KNOWN_FOR, monitor
        return monitor

    def _read(self, schedule: int, claim: Claim, found: list[Monitor | None]) -> None:
        # Imported here: the settings module, which makes the integration, is read before there can be models.
        from django.db import connections

        from pgq.conf import get_settings
        from pgq.models import Schedule
        from pgq.schedules.overview import zone_of

        try:
            row = Schedule.objects.using(get_settings().database).filter(pk=schedule).first()
            if row is not None and row.name not in self._exclude:
                found.append(monitor_of(row, str(zone_of(row)), claim.timeout))
            else:
                found.append(None)
        finally:
            connections.close_all()


def _config(monitor: Monitor) -> Any:
    return monitor.config


def monitor_of(row: Any, zone: str, timeout: float | None) -> Monitor | None:
    """Return the monitor of a schedule; None: Sentry has no such rule."""
    if row.schedule_type == "C":
        expression = " ".join(str(row.cron or "").split())
        if not _CRON.fullmatch(expression):
            return None
        rule: dict[str, Any] = {"type": "crontab", "value": expression}
    elif row.schedule_type == "I":
        rule = {"type": "interval", "value": row.minutes or 1, "unit": "minute"}
    elif row.schedule_type in _INTERVALS:
        number, unit = _INTERVALS[row.schedule_type]
        rule = {"type": "interval", "value": number, "unit": unit}
    else:
        # Once, or within seconds: minutes are the shortest that Sentry knows.
        return None
    config: dict[str, Any] = {"schedule": rule, "timezone": zone}
    if timeout is not None:
        config["max_runtime"] = max(math.ceil(timeout / 60), 1)
    return Monitor(slug_of(row.name or f"schedule-{row.pk}"), config)


def slug_of(name: str) -> str:
    """Return a name as Sentry takes it: small letters, digits, - and _, 50 of them at most."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-")[:50].strip("-") or "schedule"
