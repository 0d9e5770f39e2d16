"""The admin of pgq: queued and finished tasks, schedules and pools.

To change one, unregister it and register a subclass; the mixins go with any ModelAdmin::

    admin.site.unregister(Failure)

    @admin.register(Failure)
    class FailureAdmin(FailureAdminMixin, admin.ModelAdmin):
        list_per_page = 20
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

from pgq.admin import labels
from pgq.admin.base import PgqAdminMixin
from pgq.admin.dashboard.site import DashboardAdminMixin
from pgq.admin.finished import FailureAdminMixin, SuccessAdminMixin, TaskAdminMixin
from pgq.admin.lists import BoundedPaginator
from pgq.admin.pools import WorkerPoolAdminMixin
from pgq.admin.queued import QueuedTaskAdminMixin
from pgq.admin.related import TasksOfObjectMixin, group_of
from pgq.admin.schedules import ScheduleAdminMixin
from pgq.models import Dashboard, Failure, QueuedTask, Schedule, Success, WorkerPool

__all__ = [
    "BoundedPaginator",
    "DashboardAdmin",
    "DashboardAdminMixin",
    "FailAdmin",
    "FailureAdminMixin",
    "PgqAdminMixin",
    "PoolAdmin",
    "QueueAdmin",
    "QueuedTaskAdminMixin",
    "ScheduleAdmin",
    "ScheduleAdminMixin",
    "SuccessAdminMixin",
    "TaskAdmin",
    "TaskAdminMixin",
    "TasksOfObjectMixin",
    "WorkerPoolAdminMixin",
    "group_of",
]

labels.name_columns()

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


@admin.register(QueuedTask)
class QueueAdmin(QueuedTaskAdminMixin, _ModelAdmin):
    """Queued tasks."""


@admin.register(Success)
class TaskAdmin(SuccessAdminMixin, _ModelAdmin):
    """Tasks that succeeded."""


@admin.register(Failure)
class FailAdmin(FailureAdminMixin, _ModelAdmin):
    """Tasks that failed."""


@admin.register(Schedule)
class ScheduleAdmin(ScheduleAdminMixin, _ModelAdmin):
    """Schedules."""


@admin.register(WorkerPool)
class PoolAdmin(WorkerPoolAdminMixin, _ModelAdmin):
    """Running pools."""


@admin.register(Dashboard)
class DashboardAdmin(DashboardAdminMixin, _ModelAdmin):
    """The dashboard."""
