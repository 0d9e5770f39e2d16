"""On the admin page of any object of the project: the tasks that were enqueued for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.conf import get_settings
from pgq.models import Dashboard, Failure, QueuedTask, Success, Task

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object

#: Tasks of an object that are shown, of each table.
_SHOWN = 20


def group_of(instance: Model) -> str:
    """Return the group of the tasks of an object: ``shop.order:7``. Enqueue with ``group=group_of(order)``.

    Args:
        instance: A saved object of any model.

    Raises:
        ValueError: The object was not saved yet, so it has no primary key.
    """
    if instance.pk is None:
        raise ValueError(f"instance: must be saved before tasks can be named after it, got {instance!r}")
    return f"{instance._meta.label_lower}:{instance.pk}"


class TasksOfObjectMixin(_ModelAdmin):
    """Shows below an object's form the tasks of its group, see `group_of`; to those who may view tasks.

    Example::

        class OrderAdmin(TasksOfObjectMixin, admin.ModelAdmin): ...
    """

    def pgq_group(self, obj: Any) -> str:
        """Return the group of the tasks of an object. Override it if yours are named otherwise."""
        return group_of(obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = [*super().get_readonly_fields(request, obj)]
        return [*fields, "pgq_tasks"] if self._shows(request, obj) else fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        found = [
            (name, {**options, "fields": [field for field in options["fields"] if field != "pgq_tasks"]})
            for name, options in super().get_fieldsets(request, obj)
        ]
        return [*found, (_("Tasks"), {"fields": ["pgq_tasks"]})] if self._shows(request, obj) else found

    def _shows(self, request: HttpRequest, obj: Any) -> bool:
        wanted = ("view_queuedtask", "view_success", "view_failure")
        return obj is not None and all(request.user.has_perm(f"pgq.{codename}") for codename in wanted)

    @admin.display(description=gettext_lazy("tasks"))
    def pgq_tasks(self, obj: Any) -> Any:
        """Show the newest tasks of the object, live ones first. The index on the group finds them."""
        group, alias = self.pgq_group(obj), get_settings().database
        live = QueuedTask.objects.using(alias).filter(group=group).order_by("-pk")
        done = Task.objects.using(alias).filter(group=group).order_by("-pk")
        rows = [
            (
                self._link(QueuedTask, row),
                display.func_path(row.func),
                display.state_badge(display.state_of(row)),
                display.moment(row.enqueued_at),
                "",
            )
            for row in live.only(*_LIVE)[:_SHOWN]
        ]
        rows += [
            (
                self._link(Success if row.success else Failure, row),
                display.func_path(row.func),
                display.state_badge(display.state_of(row), _("succeeded") if row.success else row.exception),
                display.moment(row.enqueued_at),
                display.moment(row.stopped),
            )
            for row in done.only(*_DONE)[:_SHOWN]
        ]
        if not rows:
            return _("There is none.")
        headings = (_("task"), _("func"), _("state"), _("enqueued"), _("stopped"))
        return display.table(headings, rows)

    def _link(self, model: Any, row: Any) -> Any:
        address = display.url(self.admin_site, Dashboard, "task", row.pk) or display.url(
            self.admin_site, model, "change", row.pk
        )
        return display.link(address, display.cut(row.display_name, 60))


_LIVE = (
    "id",
    "name",
    "func",
    "lock",
    "parked",
    "run_after",
    "remaining",
    "cancelled",
    "enqueued_at",
)
_DONE = ("id", "name", "func", "success", "exception", "enqueued_at", "stopped")
