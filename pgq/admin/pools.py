"""Running pools, and what their workers do now. Read-only."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar, cast

from django.contrib import admin
from django.db.models import DurationField, ExpressionWrapper, F, QuerySet, TextField
from django.db.models.functions import Cast, Now
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq import codec
from pgq.admin import display
from pgq.admin.base import PgqAdminMixin
from pgq.ground import ids
from pgq.models import QueuedTask

#: A pool's heartbeat comes every few seconds.
STALE = timedelta(seconds=30)


class WorkerPoolAdminMixin(PgqAdminMixin):
    """For `WorkerPool`."""

    actions: Any = None
    list_display: Any = [
        "name",
        "host",
        "pid",
        "state",
        "queues_cell",
        "workers_cell",
        "done",
        "since",
        "seen",
        "version",
    ]
    fields: ClassVar[Any] = [
        "name",
        "id",
        "host",
        "pid",
        "state",
        "queues_cell",
        "since",
        "seen",
        "version",
        "workers_table",
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # The workers as text, since JSON may hold numbers that Python refuses to read; the age by the database's clock.
        age = ExpressionWrapper(Now() - F("heartbeat"), output_field=DurationField())
        rows = super().get_queryset(request).defer("workers").annotate(report=Cast("workers", TextField()), age=age)
        return cast("QuerySet[Any]", rows)

    @staticmethod
    def _workers(row: Any) -> list[dict[str, Any]]:
        workers = codec.decode_for_display(row.report)
        return [worker for worker in workers if isinstance(worker, dict)] if isinstance(workers, list) else []

    @admin.display(description=gettext_lazy("status"))
    def state(self, row: Any) -> Any:
        if row.status != "stopped" and row.age > STALE:
            return display.badge("stale", _("silent (was %s)") % display.state_word(row.status))
        return display.badge(row.status)

    @admin.display(description=gettext_lazy("queues"))
    def queues_cell(self, row: Any) -> str:
        return display.served(row.queues, row.exclude_queues or ())

    @admin.display(description=gettext_lazy("workers"))
    def workers_cell(self, row: Any) -> str:
        states = Counter(display.cut(display.plain(worker.get("state")), 20) for worker in self._workers(row))
        return (
            ", ".join(f"{count} {display.state_word(state)}" for state, count in sorted(states.items()))
            or display.EMPTY
        )

    @admin.display(description=gettext_lazy("done"))
    def done(self, row: Any) -> str:
        workers = self._workers(row)
        counts = {name: f"{sum(_number(worker.get(name)) for worker in workers):,}" for name in ("succeeded", "failed")}
        return str(_("%(succeeded)s succeeded, %(failed)s failed") % counts)

    @admin.display(description=gettext_lazy("started"))
    def since(self, row: Any) -> Any:
        return display.moment(row.started_at)

    @admin.display(description=gettext_lazy("last seen"))
    def seen(self, row: Any) -> str:
        return _("%d s ago") % max(0, int(row.age.total_seconds()))

    @admin.display(description=gettext_lazy("workers"))
    def workers_table(self, row: Any) -> Any:
        workers = self._workers(row)
        running = [id for worker in workers if (id := ids.parse_id(worker.get("task")))]
        tasks = QueuedTask.objects.using(self.database).filter(pk__in=running).values_list("pk", "name", "func")
        known = {str(pk): (name, func) for pk, name, func in tasks}
        headings = (_("worker"), _("pid"), _("state"), _("task"), _("for"), _("succeeded"), _("failed"))
        return display.table(headings, [self._line(worker, known) for worker in workers])

    def _line(self, worker: dict[str, Any], known: dict[str, tuple[str | None, str]]) -> list[Any]:
        id = ids.parse_id(worker.get("task"))
        task: Any = display.EMPTY
        if id is not None and id.hex in known:
            name, func = known[id.hex]
            address = display.url(self.admin_site, QueuedTask, "change", id.hex)
            task = display.link(address, display.cut(f"{display.named(name, id.hex)}: {func}"))
        elif id is not None:
            task = _("%s, settled by now") % display.named(None, id.hex)
        seconds = worker.get("seconds")
        return [
            *(display.cut(display.plain(worker.get(key)), 20) for key in ("number", "pid", "state")),
            task,
            display.EMPTY if seconds is None else f"{display.cut(display.plain(seconds), 20)} s",
            f"{_number(worker.get('succeeded')):,}",
            f"{_number(worker.get('failed')):,}",
        ]


def _number(value: Any) -> int:
    return value if type(value) is int and abs(value) < 2**63 else 0
