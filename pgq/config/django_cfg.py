"""The configuration of django-cfg's modules for Django-Q2 and django-crontab, with its fields and words.

``PGQ = DjangoQ2Config(...)`` works as it stands. A field that meant something else there, or means nothing here, is
not carried over in silence: `cautions` and the notes of a schedule become warnings of ``manage.py check``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pgq.config.keys import Config
from pgq.config.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What both modules of django-cfg say of a job: its name, and the command or function that it runs."""

    #: What the schedule is found by at the next deploy.
    name: str
    #: False: it is not made, and one that is there is paused.
    enabled: bool = True
    #: A management command; None: a function.
    command: str | None = None
    #: The command's positional arguments.
    command_args: Sequence[Any] = ()
    #: The command's options.
    command_kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: Dotted path of a function; None: a command.
    func: str | None = None
    #: The function's positional arguments.
    args: Sequence[Any] = ()
    #: The function's keyword arguments.
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def _scheduled(self, **fields: Any) -> ScheduleConfig:
        """Return a schedule of it with these fields more."""
        is_command = self.command is not None
        return ScheduleConfig(
            self.name,
            func=self.func,
            command=self.command,
            args=self.command_args if is_command else self.args,
            kwargs=self.command_kwargs if is_command else self.kwargs,
            enabled=self.enabled,
            **fields,
        )


@dataclass(frozen=True, kw_only=True)
class DjangoQ2ScheduleConfig(_Job):
    """A schedule, as django-cfg had it: its types are words."""

    #: cron, minutes, hourly, daily, weekly, monthly, yearly, once.
    schedule_type: str = "cron"
    #: The interval, of the type minutes.
    minutes: int | None = None
    #: The expression, of the type cron.
    cron: str | None = None
    #: Seconds an attempt may run.
    timeout: float | None = None
    #: How often; negative: for ever.
    repeats: int = -1
    #: Dotted path of a function, called with each finished task.
    hook: str | None = None
    #: Django-Q's name for the queue.
    cluster: str | None = None
    #: Where its tasks wait.
    queue: str | None = None

    def to_schedule(self) -> ScheduleConfig:
        """Return the same as a `ScheduleConfig`; what has no use there is named in its notes."""
        word = self.schedule_type.strip().casefold() if isinstance(self.schedule_type, str) else ""
        fits = {"minutes": "minutes", "cron": "cron"}
        notes = [
            f"{name}: schedule_type {self.schedule_type!r} has no use for it, here as in Django-Q; it is left out"
            for name, needed in fits.items()
            if getattr(self, name) is not None and word != needed
        ]
        return self._scheduled(
            schedule_type=self.schedule_type,
            minutes=self.minutes if word == "minutes" else None,
            cron=self.cron if word == "cron" else None,
            repeats=self.repeats,
            timeout=self.timeout,
            hook=self.hook,
            queue=self.queue or self.cluster,
            notes=tuple(notes),
        )


@dataclass(frozen=True, kw_only=True)
class DjangoQ2Config:
    """The settings, as django-cfg had them. None: not given."""

    #: False: its schedules are paused. Which processes run is not a matter of settings here.
    enabled: bool = True
    #: Worker processes.
    workers: int = 4
    #: Seconds an attempt may run.
    timeout: float | None = 300
    #: Not carried over: here it is the length of a lease.
    retry: float | None = None
    #: Without a meaning here.
    broker_class: str | None = None
    #: Without a meaning here.
    broker_url: str | None = None
    #: Without a meaning here.
    queue_limit: int | None = None
    #: How many results of successes are kept.
    save_limit: int = 250
    #: Not carried over: here it is seconds in the cache.
    cached: int | bool | None = None
    #: Without a meaning here.
    monitor_interval: float | None = None
    #: Of the logger pgq.
    log_level: str = "INFO"
    #: Compress long arguments.
    compress: bool = False
    #: Fire missed slots one by one.
    catch_up: bool = True
    #: Run tasks at once in the caller.
    sync: bool = False
    #: The schedules.
    schedules: Sequence[DjangoQ2ScheduleConfig | ScheduleConfig] = ()

    def to_config(self) -> Config:
        """Return the same as a `Config`, without what `cautions` names."""
        schedules = [each.to_schedule() if hasattr(each, "to_schedule") else each for each in self.schedules]
        return Config(
            workers=self.workers,
            timeout=self.timeout,
            save_limit=self.save_limit,
            log_level=self.log_level,
            compress=self.compress,
            catch_up=self.catch_up,
            sync=self.sync,
            schedules=tuple(schedules if self.enabled else [replace(each, enabled=False) for each in schedules]),
        )

    def to_settings(self) -> dict[str, Any]:
        """Return the keys that are given, as PGQ has them."""
        return self.to_config().to_settings()

    apps = staticmethod(Config.apps)

    def cautions(self) -> list[tuple[str, str, str]]:
        """Return each field that is not carried over, what it means here, and what to do."""
        found = []
        if self.retry is not None:
            said = (
                f"retry={self.retry!r} is not carried over: in pgq, retry is the length of a lease, so the tasks of a "
                "host that dies would wait as long"
            )
            hint = "Leave it out; for a pause before the next attempt, PGQ has retry_backoff and max_attempts."
            found.append(("retry", said, hint))
        if self.cached:
            said = f"cached={self.cached!r} was a number of results; in pgq, it is seconds in the cache. It is left out"
            found.append(("cached", said, "Leave it out: results are rows, and save_limit says how many are kept."))
        no_use = {
            "broker_class": "the only broker is PostgreSQL",
            "broker_url": "the only broker is PostgreSQL",
            "queue_limit": "claims are sized by time, so no task waits in a worker's memory",
            "monitor_interval": "pgq_monitor renews what it shows by itself",
        }
        for name, why in no_use.items():
            if getattr(self, name) is not None:
                found.append((name, f"{name} has no meaning in pgq: {why}", "Leave it out."))
        return found


@dataclass(frozen=True, kw_only=True)
class CrontabJobConfig(_Job):
    """A line of a crontab, as django-cfg had it."""

    #: As in a crontab.
    minute: str = "*"
    #: As in a crontab.
    hour: str = "*"
    #: As in a crontab.
    day_of_month: str = "*"
    #: As in a crontab.
    month_of_year: str = "*"
    #: As in a crontab.
    day_of_week: str = "*"

    def to_schedule(self) -> ScheduleConfig:
        """Return the same as a `ScheduleConfig`."""
        fields = (self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week)
        return self._scheduled(cron=" ".join(map(str, fields)))


@dataclass(frozen=True, kw_only=True)
class CrontabConfig:
    """A crontab, as django-cfg had it: ``PGQ = Config(schedules=CrontabConfig(jobs=[...]))``."""

    #: False: all of them are paused.
    enabled: bool = True
    #: The jobs.
    jobs: Sequence[CrontabJobConfig] = ()

    def to_schedules(self) -> list[ScheduleConfig]:
        """Return its jobs as schedules."""
        made = [job.to_schedule() for job in self.jobs]
        return made if self.enabled else [replace(each, enabled=False) for each in made]
