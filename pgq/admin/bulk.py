"""Actions: each treats one row; the rows are those selected in a list, or the one whose page has its button."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import model_format_dict, model_ngettext
from django.core.exceptions import PermissionDenied
from django.db import DataError, IntegrityError, connections, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.databases import DatabaseMixin

#: What work with a row that was made by hand may raise.
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, DataError, IntegrityError)
#: So many of those that could not be treated are shown.
_MOST_FAULTS = 10
#: Treats one row; returns what became of it, in a word or two, or None if there was nothing to do.
Treatment = Callable[[Any, HttpRequest, Any], "str | None"]


def bulk_action(
    *, permission: str, description: Any, label: Any, confirm: Any = None, flag: int = CHANGE
) -> Callable[[Treatment], Any]:
    """Make an admin action of what treats one row.

    Args:
        permission: The ModelAdmin's method ``has_<permission>_permission`` is asked, before each POST again.
        description: In the list of actions.
        label: On the button of a row's own page.
        confirm: The question of the page that asks for a confirmation; None: there is none.
        flag: Of the LogEntry.
    """

    def decorate(treatment: Treatment) -> Any:
        @admin.action(permissions=[permission], description=description)
        @functools.wraps(treatment)
        def action(self: ActionsMixin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase | None:
            if request.method != "POST" or not getattr(self, f"has_{permission}_permission")(request):
                raise PermissionDenied
            return self.treat(request, queryset, treatment, label=label, confirm=confirm, flag=flag)

        action.label = label  # type: ignore[attr-defined]
        return action

    return decorate


@dataclass
class _Treated:
    """What became of some rows."""

    #: Those of which each outcome was told.
    by_outcome: dict[str, list[Model]] = field(default_factory=dict)
    #: Which could not be treated, and why.
    faults: list[str] = field(default_factory=list)
    #: How many there was nothing to do with.
    left: int = 0


class ActionsMixin(DatabaseMixin):
    """The actions of a ModelAdmin, each with a permission of its own."""

    #: Rows that one go of an action treats, whatever was selected. (Django takes 1000 fields in a form.)
    action_limit = 500

    def permits(self, request: HttpRequest, codename: str) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method == "POST":
            # Django ignores an action that is not offered; a forged POST shall get a clear refusal.
            own = {name if isinstance(name, str) else name.__name__ for name in self.actions or ()}
            there = own | {name for name, _action in self.admin_site.actions}
            if there.intersection(request.POST.getlist("action")) - set(self.get_actions(request)):
                raise PermissionDenied
        return super().changelist_view(request, extra_context)

    def treat(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        treatment: Treatment,
        *,
        label: Any,
        confirm: Any,
        flag: int,
    ) -> HttpResponseBase | None:
        """Treat the selected rows, log each, and show what became of them."""
        rows = list(queryset[: self.action_limit + 1])
        more, rows = len(rows) > self.action_limit, rows[: self.action_limit]
        if confirm is not None and "confirmed" not in request.POST:
            return self._ask(request, rows, label=label, question=confirm, more=more)
        with transaction.atomic(using=self.database):
            treated = self._treat_each(request, rows, treatment)
            for outcome, those in treated.by_outcome.items():
                LogEntry.objects.log_actions(cast("int", request.user.pk), those, flag, f"{outcome}.".capitalize())
        self._tell(request, treated)
        if more:
            text = _("Only the first %(count)d of them: repeat it for the others.")
            self.message_user(request, text % {"count": self.action_limit}, messages.WARNING)
        return None

    def _treat_each(self, request: HttpRequest, rows: list[Any], treatment: Treatment) -> _Treated:
        """Treat each row within a savepoint: one that cannot be treated leaves the others as they became."""
        treated = _Treated()
        for row in rows:
            pk = row.pk
            try:
                with transaction.atomic(using=self.database):
                    outcome = treatment(self, request, row)
                    # One that another table refers to must not fail the commit for all.
                    connections[self.database].check_constraints()
            except (*_FAULTS, self.model.DoesNotExist) as error:
                treated.faults.append(f"{row}: {str(error).partition(chr(10))[0]}")
                continue
            # A deleted row has lost its own.
            row.pk = pk
            if outcome is None:
                treated.left += 1
            else:
                treated.by_outcome.setdefault(outcome, []).append(row)
        return treated

    def _tell(self, request: HttpRequest, treated: _Treated) -> None:
        largest_first = sorted(treated.by_outcome.items(), key=lambda item: -len(item[1]))
        results = [f"{len(rows):,} {outcome}" for outcome, rows in largest_first]
        if treated.left:
            results.append(_("%(count)d left as they were") % {"count": treated.left})
        if results:
            level = messages.SUCCESS if treated.by_outcome else messages.WARNING
            self.message_user(request, ", ".join(results).capitalize() + ".", level)
        for fault in treated.faults[:_MOST_FAULTS]:
            self.message_user(request, display.cut(fault, 500), messages.ERROR)

    def _ask(self, request: HttpRequest, rows: list[Any], *, label: Any, question: Any, more: bool) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": _("Are you sure?"),
            "opts": self.opts,
            "media": self.media,
            "question": question,
            "label": label,
            "items": model_ngettext(self.opts, len(rows)),
            "rows": [(str(row), getattr(row, "func", "")) for row in rows[:50]],
            "pks": [str(row.pk) for row in rows],
            "count": len(rows),
            "unseen": max(0, len(rows) - 50),
            "more": more,
            "action": request.POST.get("action"),
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "back": display.url(self.admin_site, self.model, "changelist"),
        }
        return TemplateResponse(request, "pgq/admin/confirm.html", context)

    @bulk_action(
        permission="delete",
        description=gettext_lazy("Delete selected %(verbose_name_plural)s"),
        label=gettext_lazy("Delete"),
        confirm=gettext_lazy("They are deleted for good."),
        flag=DELETION,
    )
    def delete_selected(self, request: HttpRequest, row: Any) -> str | None:
        # Not row.delete(): it may have left the table meanwhile, and that is not to be logged.
        rows = self.model._base_manager.using(self.database).filter(pk=row.pk)
        return _("deleted") if rows.delete()[0] else None

    def is_offered(self, action: str, row: Any) -> bool:
        """Whether the page of a row has a button for that action."""
        return True

    def buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """Return the buttons that the user may press on the page of a row."""
        allowed = self.get_actions(request)
        found = []
        for name in self.actions or ():
            label = getattr(getattr(type(self), name, None), "label", None) if isinstance(name, str) else None
            # Django's own page has a link to delete it.
            if label is not None and name in allowed and name != "delete_selected" and self.is_offered(name, row):
                found.append({"name": name, "label": label % model_format_dict(self.opts)})
        return found
