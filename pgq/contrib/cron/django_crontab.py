"""The jobs of django-crontab: ``settings.CRONJOBS``, read as its version 0.7.1 reads them."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings

from pgq.config import ScheduleConfig
from pgq.contrib.cron.found import Found, named

_CALL_COMMAND = "django.core.management.call_command"


def find() -> list[Found]:
    """Return the jobs of ``settings.CRONJOBS``."""
    return named(_found(job) for job in getattr(django_settings, "CRONJOBS", ()))


def _found(job: Any) -> Found:
    source = f"CRONJOBS: {job!r}"
    if not isinstance(job, list | tuple) or len(job) < 2 or not all(isinstance(part, str) for part in job[:2]):
        return Found(source, refused="is no (time, function, ...)")
    when, func = job[0].strip(), job[1]
    has_arguments = len(job) > 2 and not isinstance(job[2], str)
    args = list(job[2]) if has_arguments else []
    kwargs = dict(job[3]) if len(job) > 3 else {}
    suffix = job[2] if len(job) > 2 and isinstance(job[2], str) else job[4] if len(job) > 4 else ""
    notes = [f"{suffix!r} is not carried over: output is the result of its task"] if suffix else []
    for name in ("CRONTAB_COMMAND_PREFIX", "CRONTAB_COMMAND_SUFFIX", "CRONTAB_DJANGO_SETTINGS_MODULE"):
        if getattr(django_settings, name, None):
            notes.append(f"{name} is not carried over: the pool's environment is that of its tasks")
    what: dict[str, Any] = {"func": func, "args": args}
    name = func
    if func == _CALL_COMMAND and args and isinstance(args[0], str):
        what = {"command": args[0], "args": args[1:]}
        name = args[0]
    overlap = "skip" if getattr(django_settings, "CRONTAB_LOCK_JOBS", False) else "allow"
    config = ScheduleConfig(name, **what, kwargs=kwargs, cron=when, overlap=overlap)
    return Found(source, config, notes=tuple(notes))
