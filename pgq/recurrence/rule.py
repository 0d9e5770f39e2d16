"""How a schedule recurs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, time, tzinfo
from typing import Any

from pgq.recurrence.clock import parse_zone


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How a schedule recurs. Nothing is checked here: see `validate`."""

    kind: str
    #: For 'I'. None means 1, as in Django-Q.
    minutes: int | None = None
    #: For 'S'.
    seconds: float | None = None
    #: For 'C'.
    cron: str | None = None
    #: The local time that all this is about.
    zone: tzinfo = UTC
    #: Day to come back to. M, BM, Q, Y: of the month, 1 to 31; W, BW: of the week, Monday 1 to Sunday 7.
    day: int | None = None
    #: Local time to come back to after a clock change has moved a slot.
    wall: time | None = None
    #: The schedule's name: an ``H`` in a cron expression is drawn from it.
    name: str | None = None

    @classmethod
    def of(cls, schedule: Any, zone: tzinfo) -> Recurrence:
        """Return how a schedule recurs.

        Args:
            schedule: A `pgq.schedules.fire.Due` or a `pgq.models.Schedule`.
            zone: The zone if the schedule names none.

        Raises:
            ValueError: Its time zone is unknown.
        """
        return cls(
            kind=schedule.schedule_type,
            minutes=schedule.minutes,
            seconds=schedule.seconds,
            cron=schedule.cron,
            zone=parse_zone(schedule.time_zone, zone),
            day=schedule.day,
            wall=schedule.wall_time,
            name=schedule.name,
        )
