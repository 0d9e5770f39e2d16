"""Finished tasks: those that succeeded, and those that failed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, cast

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.bulk import bulk_action
from pgq.admin.cells import TaskCells
from pgq.admin.lists import QueueFilter, newest
from pgq.ground import ids
from pgq.models import Failure, QueuedTask, Success, WorkerPool
from pgq.tasks import control

#: As in Django-Q.
SHORT_RESULT = 100
#: Newest tasks whose functions and exceptions the filters offer.
OFFERED = 1_000


class EnqueuedFilter(admin.SimpleListFilter):
    """By the time in the id."""

    title = gettext_lazy("enqueued")
    parameter_name = "since"
    hours = {"hour": 1, "day": 24, "week": 24 * 7}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("hour", _("In the past hour")), ("day", _("In the past 24 hours")), ("week", _("In the past 7 days"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        hours = self.hours.get(self.value() or "")
        if hours is None:
            return None
        since = timezone.now() - timedelta(hours=hours)
        return queryset.filter(pk__gte=ids.smallest_at(since))


class ClusterFilter(admin.SimpleListFilter):
    """By the pool that ran the task; the pools are those that are known now."""

    title = gettext_lazy("cluster")
    parameter_name = "cluster"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        pools = WorkerPool.objects.using(model_admin.database).order_by("name")
        return [(name, display.cut(name, 40)) for name in pools.values_list("name", flat=True).distinct()[:100]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.value() not in dict(self.lookup_choices):
            return None
        return newest(queryset).filter(cluster=self.value())


class FunctionFilter(admin.SimpleListFilter):
    """By function; those of the newest tasks of the list are offered."""

    title = gettext_lazy("function")
    parameter_name = "function"
    column = "func"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = model_admin.model._default_manager.using(model_admin.database).order_by("-pk")
        found = sorted({value for value in rows.values_list(self.column, flat=True)[:OFFERED] if value})[:50]
        # What is asked for is offered in any case: the newest tasks may be of others by now.
        asked = request.GET.get(self.parameter_name, "")
        found += [asked] if asked and "\0" not in asked and asked not in found else []
        return [(value, display.cut(self.label(value), 60)) for value in found]

    def label(self, value: str) -> str:
        return value

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.value() not in dict(self.lookup_choices):
            return None
        return newest(queryset).filter(**{self.column: self.value()})


class ExceptionFilter(FunctionFilter):
    """By exception, likewise."""

    title = gettext_lazy("exception")
    parameter_name = "exception_is"
    column = "exception"

    def label(self, value: str) -> str:
        return value.rpartition(".")[2]


class EndFilter(admin.SimpleListFilter):
    """Those that failed by themselves, and those that were cancelled."""

    title = gettext_lazy("end")
    parameter_name = "end"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("failed", _("Failed")), ("cancelled", _("Cancelled"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.value() == "cancelled":
            return newest(queryset).filter(exception=display.CANCELLED)
        return queryset.exclude(exception=display.CANCELLED) if self.value() == "failed" else None


class TaskAdminMixin(TaskCells):
    """For finished tasks of either kind. Everything is read-only."""

    actions: Any = ["resubmit_task", "delete_selected"]
    list_display: Any = [
        "task_name",
        "group_link",
        "func_cell",
        "cluster",
        "started_at",
        "stopped_at",
        "duration",
    ]
    list_filter: ClassVar[Any] = [EnqueuedFilter, FunctionFilter, QueueFilter, ClusterFilter]
    heavy_fields = ("args", "kwargs", "options", "value", "message", "traceback", "signature")
    value_fields = ("args", "kwargs", "options", "value", "message", "traceback", "log")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.permits(request, "retry_task")

    @bulk_action(
        permission="retry",
        description=gettext_lazy("Resubmit selected tasks to queue"),
        label=gettext_lazy("Run again"),
    )
    def resubmit_task(self, request: HttpRequest, row: Any) -> str | None:
        # The very row goes back, with its id, history and signature. Nothing is signed here.
        return _("put back into the queue") if control.retry(row.pk) else None

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [
            (None, {"fields": ["task_name", "id", "func_cell", "group_links", "cluster", "success_icon"]}),
            (_("Outcome"), {"fields": [*self.outcome_fields, "started_at", "stopped_at", "duration", "attempt_count"]}),
            *self.progress_fieldsets(obj),
            (_("Arguments"), {"fields": ["arguments", "keywords", "options_block"]}),
            (_("Earlier attempts"), {"fields": ["earlier"]}),
            (
                _("Where it came from"),
                {"fields": ["queue", "priority", "schedule_link", "hook", "enqueued", "limits", "signed", "worker"]},
            ),
        ]

    outcome_fields: tuple[str, ...] = ("result_block",)

    # --------------------------------------------------------------------------------------------- what is shown

    @admin.display(description=gettext_lazy("group"))
    def group_link(self, row: Any) -> Any:
        address = display.url(self.admin_site, self.model, "changelist", group=row.group)
        return display.link(address, display.cut(row.group, 40)) if row.group else display.EMPTY

    @admin.display(description=gettext_lazy("group"))
    def group_links(self, row: Any) -> Any:
        if not row.group:
            return display.EMPTY
        kinds = ((Success, _("successful")), (Failure, _("failed")), (QueuedTask, _("queued")))
        links = [
            (display.link(display.url(self.admin_site, model, "changelist", group=row.group), text),)
            for model, text in kinds
        ]
        return format_html("{} ({})", display.cut(row.group, 200), format_html_join(", ", "{}", links))

    @admin.display(description=gettext_lazy("started"))
    def started_at(self, row: Any) -> Any:
        return display.moment(row.started)

    @admin.display(description=gettext_lazy("stopped"))
    def stopped_at(self, row: Any) -> Any:
        return display.moment(row.stopped)

    @admin.display(description=gettext_lazy("time taken"))
    def duration(self, row: Any) -> str:
        return f"{row.time_taken():,.3f} s"

    @admin.display(description=gettext_lazy("success"), boolean=True)
    def success_icon(self, row: Any) -> bool:
        return bool(row.success)

    @admin.display(description=gettext_lazy("result"))
    def result_block(self, row: Any) -> Any:
        return self.value_block(row, "value")


class SuccessAdminMixin(TaskAdminMixin):
    """For `Success`."""

    @bulk_action(
        permission="retry",
        description=gettext_lazy("Resubmit selected tasks to queue"),
        label=gettext_lazy("Run again"),
        confirm=gettext_lazy("They have succeeded. They run once more, and their results go when they are put back."),
    )
    def resubmit_task(self, request: HttpRequest, row: Any) -> str | None:
        return _("put back into the queue") if control.retry(row.pk) else None


class FailureAdminMixin(TaskAdminMixin):
    """For `Failure`."""

    # What failed and why comes first: the rest is cut off on a narrow screen.
    list_display: Any = [
        "task_name",
        "short_result",
        "func_cell",
        "group_link",
        "cluster",
        "started_at",
        "stopped_at",
    ]
    list_filter: ClassVar[Any] = [
        EnqueuedFilter,
        EndFilter,
        FunctionFilter,
        ExceptionFilter,
        QueueFilter,
        ClusterFilter,
    ]
    search_help_text: ClassVar[Any] = gettext_lazy(
        "An id, a name or a group; or part of a function's path or of a message, among the newest tasks."
    )
    outcome_fields = ("exception", "message_block", "traceback_block")

    def by_words(self, term: str) -> Q:
        return Q(func__icontains=term) | Q(message__icontains=term)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request).annotate(short_message=Left("message", SHORT_RESULT + 1))
        return cast("QuerySet[Any]", rows)

    @admin.display(description=gettext_lazy("short result"))
    def short_result(self, row: Any) -> Any:
        if row.exception == display.CANCELLED:
            return display.badge("cancelled", _("cancelled"))
        name = (row.exception or "").rpartition(".")[2]
        return display.cut(f"{name}: {row.short_message}" if row.short_message else name, SHORT_RESULT)

    @admin.display(description=gettext_lazy("message"))
    def message_block(self, row: Any) -> Any:
        return self.value_block(row, "message")

    @admin.display(description=gettext_lazy("traceback"))
    def traceback_block(self, row: Any) -> Any:
        return self.value_block(row, "traceback")
