"""What the pages of tasks and schedules show of a stored row."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import TextField
from django.db.models.functions import Cast
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.base import PgqAdminMixin, TaskListMixin
from pgq.codec import signing
from pgq.models import Progress, Schedule
from pgq.status import values

#: Where an instance keeps what its task says.
SAID = "_pgq_said"


class StoredCells(PgqAdminMixin):
    """Of a row that stores a call: a task or a schedule."""

    @admin.display(description=gettext_lazy("func"), ordering="func")
    def func_cell(self, row: Any) -> Any:
        return display.func_path(row.func)

    @admin.display(description=gettext_lazy("args"))
    def arguments(self, row: Any) -> Any:
        return self.value_block(row, "args")

    @admin.display(description=gettext_lazy("kwargs"))
    def keywords(self, row: Any) -> Any:
        return self.value_block(row, "kwargs")

    @admin.display(description=gettext_lazy("options"))
    def options_block(self, row: Any) -> Any:
        return self.value_block(row, "options")


class TaskCells(StoredCells, TaskListMixin):
    """Of a task, queued or finished."""

    @admin.display(description=gettext_lazy("name"))
    def task_name(self, row: Any) -> str:
        return display.cut(row.display_name)

    @admin.display(description=gettext_lazy("enqueued"))
    def enqueued(self, row: Any) -> Any:
        return display.moment(row.enqueued_at)

    @admin.display(description=gettext_lazy("earlier attempts"))
    def earlier(self, row: Any) -> Any:
        return self.history_of(row)

    # --------------------------------------------------------------------------------------------- what it says

    def said_by(self, row: Any) -> Progress | None:
        """Return what a task says of itself, its log lines as a text; read once for a page."""
        if SAID not in vars(row):
            # Asked for as text: JSON may hold numbers that Python refuses to read.
            rows = Progress.objects.using(self.database).filter(pk=row.pk).defer("log")
            vars(row)[SAID] = rows.annotate(lines=Cast("log", TextField())).first()
        found: Progress | None = vars(row)[SAID]
        return found

    def progress_fieldsets(self, row: Any) -> list[Any]:
        """Return the part of a page that shows it; nothing if the task has said nothing."""
        if self.said_by(row) is None:
            return []
        return [(_("Progress"), {"fields": ["progress_cell", "progress_text", "said_at", "log_block"]})]

    @admin.display(description=gettext_lazy("progress"))
    def progress_cell(self, row: Any) -> Any:
        said = self.said_by(row)
        return display.EMPTY if said is None else display.bar(said)

    @admin.display(description=gettext_lazy("doing"))
    def progress_text(self, row: Any) -> str:
        said = self.said_by(row)
        if said is None or said.text is None:
            return display.EMPTY
        return values.hidden_text(said.text) if values.is_sensitive(row) else display.cut(said.text, 1000)

    @admin.display(description=gettext_lazy("said last"))
    def said_at(self, row: Any) -> Any:
        said = self.said_by(row)
        return display.EMPTY if said is None else display.moment(said.updated_at)

    @admin.display(description=gettext_lazy("log (UTC, the last line first)"))
    def log_block(self, row: Any) -> Any:
        return self.value_block(row, "log")

    def value_text(self, row: Any, field: str) -> str | None:
        if field != "log":
            return super().value_text(row, field)
        said = self.said_by(row)
        stored = "[]" if said is None else vars(said)["lines"]
        if stored == "[]":
            return None
        return values.hidden_text(stored) if values.is_sensitive(row) else display.log_text(stored)

    @admin.display(description=gettext_lazy("schedule"))
    def schedule_link(self, row: Any) -> Any:
        if row.schedule is None:
            return display.EMPTY
        found = Schedule.objects.using(self.database).filter(pk=row.schedule).values_list("name", "func").first()
        if found is None:
            return _("%(number)d, which is gone") % {"number": row.schedule}
        address = display.url(self.admin_site, Schedule, "change", row.schedule)
        return display.link(address, display.cut(found[0] or found[1]))

    @admin.display(description=gettext_lazy("limits"))
    def limits(self, row: Any) -> str:
        """Show how often and how long the task may run."""
        attempts = _("any number of attempts") if row.max_attempts == 0 else _("attempts: %d") % row.max_attempts
        return f"{attempts}, " + (_("no timeout") if row.timeout is None else _("timeout: %g s") % row.timeout)

    @admin.display(description=gettext_lazy("signed"))
    def signed(self, row: Any) -> str:
        """Show whether Python code that knows the key wrote the row."""
        if row.signature is None:
            return _("no: written by psql, the ORM or the admin, so it may only name registered functions")
        if signing.verify_row(row):
            return _("yes")
        return _("with a key not known here, or it was changed since: it would not run")
