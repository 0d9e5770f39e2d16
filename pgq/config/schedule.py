"""A schedule in code: what it runs and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, time
from typing import Any

from pgq.errors import invalid


@dataclass(frozen=True)
class Cron:
    """A cron expression; see `cron`."""

    #: Minute, hour, day of month, month, day of week; seconds may stand as a sixth.
    expression: str
    _: KW_ONLY
    #: Whose days and hours are meant; None: PGQ["time_zone"] or TIME_ZONE.
    time_zone: str | None = None
    #: The schedule's, for ``@task(schedule=...)``; None: the path of the function.
    name: str | None = None

    def rule(self) -> dict[str, Any]:
        """Return the fields of a `ScheduleConfig` that this stands for."""
        return {"schedule_type": "C", "cron": self.expression, "time_zone": self.time_zone}


def cron(expression: str, *, time_zone: str | None = None, name: str | None = None) -> Cron:
    """Return "when this cron expression says": ``cron("0 2 * * *", time_zone="Europe/Paris")``.

    Args:
        expression: Minute, hour, day of month, month, day of week; seconds may stand as a sixth.
        time_zone: Whose days and hours are meant; None: PGQ["time_zone"] or TIME_ZONE.
        name: The schedule's, for ``@task(schedule=...)``; None: the path of the function.
    """
    return Cron(expression, time_zone=time_zone, name=name)


#: The type for so many of a unit that the calendar counts.
_CALENDAR = {
    ("days", 1): "D",
    ("weeks", 1): "W",
    ("weeks", 2): "BW",
    ("months", 1): "M",
    ("months", 2): "BM",
    ("months", 3): "Q",
    ("years", 1): "Y",
}


@dataclass(frozen=True, kw_only=True)
class Every:
    """An interval, in one unit: ``Every(minutes=5)``, ``Every(days=1, at="02:30")``.

    Minutes that divide a day, and hours, keep to the clock: ``Every(minutes=15)`` is :00, :15, :30 and :45. Days are
    counted at midnight, weeks on Sunday, months and years on the first, or at the time that `at` says.
    """

    #: Seconds, fractions too, from the first slot on.
    seconds: float | None = None
    #: Minutes.
    minutes: int | None = None
    #: Hours.
    hours: int | None = None
    #: 1: each day.
    days: int | None = None
    #: 1 or 2.
    weeks: int | None = None
    #: 1, 2 or 3.
    months: int | None = None
    #: 1.
    years: int | None = None
    #: The time of the day, such as "02:30", for days and longer.
    at: str | time | None = None
    #: Whose days and hours are meant; None: PGQ["time_zone"] or TIME_ZONE.
    time_zone: str | None = None
    #: The schedule's, for ``@task(schedule=...)``; None: the path of the function.
    name: str | None = None

    def rule(self) -> dict[str, Any]:
        """Return the fields of a `ScheduleConfig` that this stands for.

        Raises:
            ValueError: There is no schedule of that interval; the message says what to do.
        """
        units = ("seconds", "minutes", "hours", "days", "weeks", "months", "years")
        given = {unit: value for unit in units if (value := getattr(self, unit)) is not None}
        if len(given) != 1:
            raise invalid("when", f"Every needs one of {', '.join(units)}, got {', '.join(given) or 'none'}")
        [(unit, number)] = given.items()
        rule: dict[str, Any] = {"time_zone": self.time_zone, "at": self.at}
        if unit == "seconds":
            return {**rule, "schedule_type": "S", "seconds": number}
        if unit in ("minutes", "hours"):
            if isinstance(number, bool) or not isinstance(number, int):
                raise invalid("when", f"Every({unit}={number!r}): must be a whole number")
            return {**rule, "schedule_type": "I", "minutes": number * (60 if unit == "hours" else 1)}
        letter = _CALENDAR.get((unit, number))
        if letter is None:
            raise invalid("when", f"Every({unit}={number!r}): there is no such calendar step; use cron() for others")
        return {**rule, "schedule_type": letter}


@dataclass(frozen=True)
class ScheduleConfig:
    """A schedule in code. It is kept in the database under its name; see docs/guide/schedules.md.

    A dict with the same keys may stand in its place. When it fires is said by `when`, or by `schedule_type` and what
    belongs to it.
    """

    #: What the row is found by at the next deploy. Another name is another schedule.
    name: str | None = None
    _: KW_ONLY
    #: A function at the top of a module, or its dotted path. None beside a `command`, and in ``@task(schedule=...)``.
    func: str | Callable[..., Any] | None = None
    #: A management command instead of a function. What it prints is kept as the result.
    command: str | None = None
    #: Positional arguments, of the function or the command.
    args: Sequence[Any] = ()
    #: Keyword arguments, of the function or the command.
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: `cron(...)` or `Every(...)`.
    when: Cron | Every | None = None
    #: A word, such as "daily", or a letter of `pgq.models.Schedule`.
    schedule_type: str | None = None
    #: Of the type MINUTES: the interval.
    minutes: int | None = None
    #: Of the type SECONDS: the interval.
    seconds: float | None = None
    #: Of the type CRON: the expression.
    cron: str | None = None
    #: The time of the day, such as "02:30", for days and longer.
    at: str | time | None = None
    #: The first slot, from which the others are counted; None: see `pgq.recurrence.first_slot`.
    next_run: datetime | None = None
    #: How often; negative: for ever. Once is once, whatever this says.
    repeats: int = -1
    #: Whose days and hours are meant; None: PGQ["time_zone"] or TIME_ZONE.
    time_zone: str | None = None
    #: Fire missed slots one by one; False: one task for all of them; None: as PGQ["catch_up"] says.
    catch_up: bool | None = None
    #: "allow"; "skip" a slot while a task of it waits or runs; "queue_one": let one wait.
    overlap: str = "allow"
    #: Seconds by which each task is delayed at most, at random.
    jitter: float = 0
    #: Keyword argument that is given the slot, as ISO text; None: none.
    intended_date_kwarg: str | None = None
    #: Where its tasks wait.
    queue: str | None = None
    #: None: like each other option that is not given, as `@task` of the function says, or else PGQ.
    priority: int | None = None
    #: A function, or its dotted path, called with each finished task.
    hook: str | Callable[..., Any] | None = None
    #: Seconds an attempt may run.
    timeout: float | None = None
    #: Attempts of each task; 0: no limit.
    max_attempts: int | None = None
    #: The other options of `async_task`, such as group and retry_backoff.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: False: it is not made, and one that is there is paused.
    enabled: bool = True
    #: Only where PGQ["environment"] is one of these; none: everywhere.
    environments: Sequence[str] = ()
    #: What a translation from other words has to say about it.
    notes: Sequence[str] = ()
