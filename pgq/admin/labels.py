"""The columns of the tables as the admin calls them, which Django would name by their English names.

Not in the models: there each label would be part of a migration. A label set here is none of `Field.deconstruct`.
"""

from __future__ import annotations

from django.utils.translation import gettext_lazy

from pgq.models import QueuedTask, Schedule, Task, WorkerPool

LABELS = {
    "id": gettext_lazy("id"),
    "name": gettext_lazy("name"),
    "host": gettext_lazy("host"),
    "pid": gettext_lazy("pid"),
    "version": gettext_lazy("version"),
    "queue": gettext_lazy("queue"),
    "group": gettext_lazy("group"),
    "hook": gettext_lazy("hook"),
    "priority": gettext_lazy("priority"),
    "attempts": gettext_lazy("attempts"),
    "attempt_count": gettext_lazy("attempts"),
    "crashes": gettext_lazy("crashes"),
    "max_attempts": gettext_lazy("attempts allowed"),
    "timeout": gettext_lazy("timeout"),
    "cluster": gettext_lazy("cluster"),
    "worker": gettext_lazy("worker"),
    "exception": gettext_lazy("exception"),
    "schedule_type": gettext_lazy("type"),
    "minutes": gettext_lazy("minutes"),
    "seconds": gettext_lazy("seconds"),
    "repeats": gettext_lazy("repeats"),
    "catch_up": gettext_lazy("catch up"),
    "overlap": gettext_lazy("overlap"),
    "jitter": gettext_lazy("jitter"),
    "paused": gettext_lazy("paused"),
}


def name_columns() -> None:
    """Give the fields of the models their labels."""
    for model in (QueuedTask, Task, Schedule, WorkerPool):
        for field in model._meta.concrete_fields:
            field.verbose_name = LABELS.get(field.name, field.verbose_name)
