"""Schedules."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from pgq.admin import display
from pgq.admin.bulk import bulk_action
from pgq.admin.firings import FiringsPreview
from pgq.admin.forms.fields import allowed_functions
from pgq.admin.forms.schedule import ScheduleForm
from pgq.codec import signing
from pgq.conf import get_settings
from pgq.models import Failure, QueuedTask, Success, Task
from pgq.schedules.fire import resume, run_now
from pgq.schedules.overview import pause

_RESUMING = ("resume", "resume_skipping")


class ScheduleAdminMixin(FiringsPreview):
    """For `Schedule`."""

    actions: Any = ["run_now", "pause", *_RESUMING, "delete_selected"]
    list_display: Any = [
        "title",
        "func_cell",
        "words",
        "next_cell",
        "last_run",
        "last_success",
        "repeats_cell",
        "queue",
        "paused_cell",
        "error_cell",
    ]
    list_filter: ClassVar[Any] = ["paused", "schedule_type"]
    search_fields: ClassVar[Any] = ["name", "func"]
    search_help_text: ClassVar[Any] = gettext_lazy("Part of a name or of a function's path.")
    sortable_by: ClassVar[Any] = ("title", "func_cell", "next_cell", "paused_cell")
    ordering: ClassVar[Any] = ("next_run", "pk")
    heavy_fields = ("args", "kwargs", "options")
    value_fields = ("args", "kwargs", "options", "error")
    form = ScheduleForm

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        last = Task.objects.filter(pk=OuterRef("task")).order_by()
        rows = super().get_queryset(request)
        annotated = rows.annotate(
            last_success_value=Subquery(last.values("success")[:1]),
            last_stopped=Subquery(last.values("stopped")[:1]),
            last_is_live=Exists(QueuedTask.objects.filter(pk=OuterRef("task")).order_by()),
        )
        return cast("QuerySet[Any]", annotated)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        # There are few schedules, so they can be sorted.
        return ChangeList

    def search(self, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        return queryset.filter(name__icontains=term) | queryset.filter(func__icontains=term)

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self.permits(request, "run_schedule")

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return self.permits(request, "pause_schedule")

    @bulk_action(
        permission="run", description=gettext_lazy("Run selected schedules now"), label=gettext_lazy("Run now")
    )
    def run_now(self, request: HttpRequest, row: Any) -> str | None:
        run_now(row)
        return _("run now: a task each is in the queue")

    @bulk_action(permission="pause", description=gettext_lazy("Pause selected schedules"), label=gettext_lazy("Pause"))
    def pause(self, request: HttpRequest, row: Any) -> str | None:
        return _("paused") if pause(row) else None

    @bulk_action(
        permission="pause", description=gettext_lazy("Resume selected schedules"), label=gettext_lazy("Resume")
    )
    def resume(self, request: HttpRequest, row: Any) -> str | None:
        return self._resume(row, skip_missed=False)

    @bulk_action(
        permission="pause",
        description=gettext_lazy("Resume selected schedules without the firings they missed"),
        label=gettext_lazy("Resume, skip missed"),
    )
    def resume_skipping(self, request: HttpRequest, row: Any) -> str | None:
        return self._resume(row, skip_missed=True)

    def _resume(self, row: Any, *, skip_missed: bool) -> str | None:
        resumed = resume(row, skip_missed=skip_missed)
        if not resumed.was_paused:
            return None
        if not resumed.missed:
            return _("resumed")
        # Schedules that missed the same number are counted together.
        text = ngettext("resumed: %d missed firing follows", "resumed: %d missed firings follow", resumed.missed)
        return text % resumed.missed

    def is_offered(self, action: str, row: Any) -> bool:
        return not (action == "pause" and row.paused) and not (action in _RESUMING and not row.paused)

    # --------------------------------------------------------------------------------------------- the form

    def get_function_choices(self, request: HttpRequest) -> list[str]:
        """Return the functions that this user may schedule. Override it to allow fewer."""
        return allowed_functions()

    def get_command_choices(self, request: HttpRequest) -> list[str]:
        """Return the management commands that this user may schedule. Override it to allow fewer."""
        return sorted(get_settings().allowed_commands)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.functions = self.get_function_choices(request)
        form.commands = self.get_command_choices(request)
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # What no form field is named after, is shown; to pause is a permission of its own.
        return [
            "firings",
            "last_run",
            "last_success",
            "last_slot_cell",
            "error_block",
            "signed",
            "in_code",
            "options_block",
        ] + ([] if self.has_pause_permission(request) else ["paused"])

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        when = ["schedule_type", "minutes", "seconds", "cron", "time_zone", "next_run", "repeats", "firings", "paused"]
        tasks = [
            "queue",
            "priority",
            "group",
            "task_name",
            "timeout",
            "max_attempts",
            "hook",
            "overlap",
            "catch_up",
            "jitter",
            "intended_date_kwarg",
        ]
        state = ["last_run", "last_success", "last_slot_cell", "error_block", "options_block"]
        if obj is not None and not self.has_change_permission(request, obj):
            tasks = ["queue", "priority", "hook", "overlap", "catch_up", "jitter", "intended_date_kwarg"]
        what = ["name", "func", "command", "arguments", "keywords"]
        may_edit = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        if not may_edit or not self.get_command_choices(request):
            what.remove("command")
        found: list[Any] = [
            (None, {"fields": what + ([] if obj is None else ["signed", "in_code"])}),
            (_("When"), {"fields": when}),
            (_("Its tasks"), {"fields": tasks}),
        ]
        return found if obj is None else [*found, (_("So far"), {"fields": state})]

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        row = kwargs.get("obj")
        context["pgq_preview"] = self.has_change_permission(request, row) if row else self.has_add_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.save(using=self.database)
            return
        columns = form.columns()
        if "paused" in columns:
            # From now on no deploy resumes it.
            obj.auto_paused = False
            columns = [*columns, "auto_paused"]
        if columns:
            obj.save(using=self.database, update_fields=columns)
        if "signature" in columns:
            text = _("What the schedule enqueues was changed, so it is no longer signed.")
            self.message_user(request, text, messages.WARNING)

    # --------------------------------------------------------------------------------------------- what is shown

    @admin.display(description=gettext_lazy("name"), ordering="name")
    def title(self, row: Any) -> str:
        return display.cut(row.name or f"#{row.pk}")

    @admin.display(description=gettext_lazy("fires"))
    def words(self, row: Any) -> str:
        try:
            return display.cut(row.describe(), 200)
        except (ValueError, OverflowError) as error:
            return display.cut(str(error), 200)

    @admin.display(description=gettext_lazy("next run"), ordering="next_run")
    def next_cell(self, row: Any) -> Any:
        return display.EMPTY if row.repeats == 0 else display.moment(row.next_run)

    @admin.display(description=gettext_lazy("repeats"))
    def repeats_cell(self, row: Any) -> str:
        return _("for ever") if row.repeats < 0 else str(row.repeats)

    @admin.display(description=gettext_lazy("paused"), ordering="paused")
    def paused_cell(self, row: Any) -> Any:
        if not row.paused:
            return display.EMPTY
        is_gone = row.stale_since is not None and row.auto_paused
        return display.badge("paused", _("not in code any more") if is_gone else _("paused"))

    @admin.display(description=gettext_lazy("last run"))
    def last_run(self, row: Any) -> Any:
        if row.task is None:
            return display.EMPTY
        if row.last_is_live:
            return display.link(display.url(self.admin_site, QueuedTask, "change", row.task), _("in the queue"))
        if row.last_success_value is None:
            return _("not kept")
        model = Success if row.last_success_value else Failure
        return display.link(display.url(self.admin_site, model, "change", row.task), display.moment(row.last_stopped))

    @admin.display(description=gettext_lazy("success"), boolean=True)
    def last_success(self, row: Any) -> bool | None:
        return row.last_success_value  # type: ignore[no-any-return]  # an annotation

    # Django-Q's names of the two, which lists of subclasses hold.
    get_last_run, get_success = last_run, last_success

    @admin.display(description=gettext_lazy("last slot"))
    def last_slot_cell(self, row: Any) -> Any:
        return display.moment(row.last_slot)

    @admin.display(description=gettext_lazy("error"))
    def error_cell(self, row: Any) -> str:
        return display.cut(row.error)

    @admin.display(description=gettext_lazy("error"))
    def error_block(self, row: Any) -> Any:
        return self.value_block(row, "error")

    @admin.display(description=gettext_lazy("in code"))
    def in_code(self, row: Any) -> str:
        """Say whether deploys keep the row in step with code."""
        if row.source is None:
            return _("No.")
        if row.stale_since is not None:
            return _("Not any more, since %s: so it was paused.") % display.moment(row.stale_since)
        return _(
            "Yes: a deploy that changes it there changes it here. A pause stays in any case. An edit stays, too, and "
            "later changes of the code are left out then, until pgq_schedules sync --force."
        )

    @admin.display(description=gettext_lazy("signed"))
    def signed(self, row: Any) -> str:
        if row.signature is None:
            return _("No: it was made here or by SQL, so it may only name functions registered with @task.")
        if not signing.verify_schedule_row(row):
            return _(
                "With a key not known here, or it was changed since: its tasks run only if the function is registered."
            )
        return _(
            "Yes, in code: it may name any function. Changing the function, its arguments, the hook, the queue or the "
            "options below takes the signature away; then only functions registered with @task may be named."
        )
