"""Live tasks: ready, waiting, running or parked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.bulk import bulk_action
from pgq.admin.cells import SAID, TaskCells
from pgq.admin.forms.fields import allowed_functions
from pgq.admin.forms.task import QueuedTaskForm
from pgq.admin.lists import QueueFilter
from pgq.enqueue.write import enqueue
from pgq.models import Lane, Progress, WorkerPool
from pgq.tasks import control

#: Rows of each state that the list of a queue shows at most.
PART = 2_000
READY = Q(lock=None, run_after=None, parked=None, remaining=None)
#: The states that an index serves, and the column by which it lists them, first things first.
STATES = {
    "ready": (READY, None),
    "running": (Q(lock__isnull=False), "lock"),
    "waiting": (Q(run_after__isnull=False), "run_after"),
    "parked": (Q(parked__isnull=False), "-pk"),
}


class StateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("ready", _("Ready")),
            ("running", _("Running")),
            ("waiting", _("Waiting for a time")),
            ("parked", _("Parked")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        chosen = STATES.get(self.value() or "")
        return queryset.filter(chosen[0]) if chosen else None


class QueuedTaskAdminMixin(TaskCells):
    """For `QueuedTask`. A task can be added, cancelled, run now and deleted, not changed."""

    actions: Any = ["cancel_task", "run_now", "release_parked", "delete_selected"]
    list_display: Any = [
        "task_name",
        "queue_cell",
        "func_cell",
        "state_badge",
        "progress_cell",
        "key_cell",
        "priority",
        "runs_after",
        "attempts",
        "locked",
        "parked_reason",
    ]
    list_filter: ClassVar[Any] = [StateFilter, QueueFilter]
    heavy_fields = ("args", "kwargs", "options", "signature")
    value_fields = ("args", "kwargs", "options", "parked", "log")
    form = QueuedTaskForm

    def in_queue(self, queryset: QuerySet[Any], queue: str) -> QuerySet[Any]:
        """Put together from what the partial indexes serve, as there is none on the queue alone."""
        rows = self.model._default_manager.using(self.database).order_by()
        lanes = list(Lane.objects.using(self.database).filter(queue=queue).values_list("priority", flat=True)[:50])
        # Of many lanes fewer of each, so that all together are bounded.
        part = min(PART, 5 * PART // max(len(lanes), 1))
        parts = [
            rows.filter(READY, queue=queue, priority=priority, task_key=None).order_by("-position").values("pk")[:part]
            for priority in lanes
        ]
        with_key = rows.filter(READY, queue=queue, task_key__isnull=False).order_by("task_key", "priority", "position")
        parts.append(with_key.values("pk")[:PART])
        parts += [rows.filter(state).order_by(first).values("pk")[:PART] for state, first in STATES.values() if first]
        return queryset.filter(queue=queue, pk__in=parts[0].union(*parts[1:], all=True))

    @admin.display(description=gettext_lazy("key"), ordering="task_key")
    def key_cell(self, row: Any) -> str:
        return row.task_key or "-"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.permits(request, "cancel_queuedtask")

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self.permits(request, "run_queuedtask")

    def has_release_permission(self, request: HttpRequest) -> bool:
        return self.permits(request, "release_queuedtask")

    @bulk_action(
        permission="cancel",
        description=gettext_lazy("Cancel selected tasks"),
        label=gettext_lazy("Cancel"),
        confirm=gettext_lazy(
            "Those that have not begun will not run; those that run are interrupted. They end as failed tasks, which "
            "can be run again, and whatever waits for them hears of it."
        ),
    )
    def cancel_task(self, request: HttpRequest, row: Any) -> str | None:
        return {"queued": _("cancelled"), "running": _("told to stop")}.get(control.cancel(row.pk))

    @bulk_action(
        permission="run",
        description=gettext_lazy("Run selected tasks now, and release parked ones"),
        label=gettext_lazy("Run now"),
    )
    def run_now(self, request: HttpRequest, row: Any) -> str | None:
        return _("made ready") if control.retry(row.pk) else None

    @bulk_action(
        permission="release",
        description=gettext_lazy("Release selected parked tasks"),
        label=gettext_lazy("Release"),
        confirm=gettext_lazy(
            "They were refused: for their signature, or for what they name. Workers look at them again, and run them "
            "if the key, or the function, is known by now; else they are parked again."
        ),
    )
    def release_parked(self, request: HttpRequest, row: Any) -> str | None:
        return _("released") if row.parked is not None and control.retry(row.pk) else None

    @bulk_action(
        permission="delete",
        description=gettext_lazy("Delete selected tasks"),
        label=gettext_lazy("Delete"),
        confirm=gettext_lazy(
            "They leave no trace, and the chains, groups and hooks that wait for them wait for ever. "
            "To end a task properly, cancel it."
        ),
        flag=3,
    )
    def delete_selected(self, request: HttpRequest, row: Any) -> str | None:
        rows = self.model._base_manager.using(self.database).filter(pk=row.pk)
        return _("deleted") if rows.delete()[0] else None

    def is_offered(self, action: str, row: Any) -> bool:
        if action == "release_parked":
            return row.parked is not None
        if action == "run_now":
            return row.lock is None and (row.parked is not None or row.run_after is not None)
        return not (action == "cancel_task" and row.cancelled)

    def complete(self, rows: Iterable[Any]) -> None:
        """Read what the running tasks of a page say by one statement; no log lines, which a list does not show."""
        by_id = {row.pk: row for row in rows}
        for row in by_id.values():
            vars(row)[SAID] = None
        running = [id for id, row in by_id.items() if row.lock is not None]
        if running:
            for said in Progress.objects.using(self.database).filter(pk__in=running).defer("log", "text"):
                vars(by_id[said.pk])[SAID] = said

    # --------------------------------------------------------------------------------------------- adding one

    def get_function_choices(self, request: HttpRequest) -> list[str]:
        """Return the functions that this user may enqueue. Override it to allow fewer."""
        return allowed_functions()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.functions = self.get_function_choices(request)
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.pk = enqueue(form.task, using=self.database).hex

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [
                (None, {"fields": ["func", "arguments", "keywords"]}),
                (_("When and where"), {"fields": ["queue", "priority", "run_after"]}),
            ]
        return [
            (None, {"fields": ["task_name", "id", "func_cell", "state_badge", "parked_block"]}),
            *self.progress_fieldsets(obj),
            (_("Arguments"), {"fields": ["arguments", "keywords", "options_block"]}),
            (
                _("When and where"),
                {
                    "fields": [
                        "queue",
                        "priority",
                        "runs_after",
                        "expires",
                        "waits_for",
                        "unique",
                        "limits",
                        "group",
                        "hook",
                    ]
                },
            ),
            (_("Attempts"), {"fields": ["attempts", "crashes", "locked", "runs_on", "earlier"]}),
            (_("Where it came from"), {"fields": ["enqueued", "schedule_link", "signed"]}),
        ]

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> Any:
        response = super().response_add(request, obj, post_url_continue)
        if not WorkerPool.objects.using(self.database).exists():
            self.message_user(request, _("No pool is running: start one with manage.py pgq_worker."), messages.WARNING)
        return response

    # --------------------------------------------------------------------------------------------- what is shown

    @admin.display(description=gettext_lazy("queue"))
    def queue_cell(self, row: Any) -> str:
        return display.cut(row.queue, 40)

    @admin.display(description=gettext_lazy("state"))
    def state_badge(self, row: Any) -> Any:
        if row.cancelled:
            return display.badge("cancelled", _("cancelled"))
        return display.badge(row.state)

    @admin.display(description=gettext_lazy("run after"))
    def runs_after(self, row: Any) -> Any:
        return display.moment(row.run_after)

    @admin.display(description=gettext_lazy("lock"))
    def locked(self, row: Any) -> Any:
        return display.moment(row.lock)

    @admin.display(description=gettext_lazy("parked"))
    def parked_reason(self, row: Any) -> str:
        return display.cut(row.parked)

    @admin.display(description=gettext_lazy("parked because"))
    def parked_block(self, row: Any) -> Any:
        return self.value_block(row, "parked")

    @admin.display(description=gettext_lazy("waits for"))
    def waits_for(self, row: Any) -> str:
        return display.EMPTY if row.remaining is None else _("%d other tasks") % row.remaining

    @admin.display(description=gettext_lazy("expires"))
    def expires(self, row: Any) -> Any:
        return display.moment(row.expires_at)

    @admin.display(description=gettext_lazy("unique key"))
    def unique(self, row: Any) -> str:
        if row.unique_key is None:
            # A task whose key went with its first claim still says that it had one.
            return display.EMPTY if row.unique_until is None else _("no longer, since it has started")
        until = _("until it has ended") if row.unique_until == "end" else _("until it starts")
        return f"{display.cut(row.unique_key, 200)} ({until})"

    @admin.display(description=gettext_lazy("runs on"))
    def runs_on(self, row: Any) -> Any:
        if row.worker is None:
            return display.EMPTY
        pools = WorkerPool.objects.using(self.database).filter(workers__contains=[{"id": row.worker}])
        pool = pools.defer("workers").first()
        if pool is None:
            return _("worker %s, of no pool that is known") % row.worker
        return display.link(display.url(self.admin_site, WorkerPool, "change", pool.pk), pool)
