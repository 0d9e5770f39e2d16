"""What the admin's pages have in common: lists that reach so far, actions, and the whole of a long value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.forms import Media
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq import codec
from pgq.admin import databases, display
from pgq.admin.bulk import ActionsMixin
from pgq.admin.lists import OLDER, REACH, BoundedChangeList, BoundedPaginator, by_term, newest
from pgq.status import values

if TYPE_CHECKING:
    from django.contrib.admin.filters import ListFilter


class PgqAdminMixin(ActionsMixin):
    """For all models of pgq."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    sortable_by: ClassVar[Any] = ()
    search_help_text: ClassVar[Any] = None
    change_list_template = "pgq/admin/change_list.html"
    change_form_template = "pgq/admin/change_form.html"
    empty_value_display = display.EMPTY
    #: Columns that no list needs.
    heavy_fields: tuple[str, ...] = ()
    #: Columns that the address of a list may name, besides its filters.
    lookups: frozenset[str] = frozenset()
    #: Fields whose whole value has a page of its own.
    value_fields: tuple[str, ...] = ()
    #: Names of arguments and keys whose values are masked.
    hidden_names: re.Pattern[str] = values.HIDDEN_NAMES

    @property
    def media(self) -> Media:
        return super().media + Media(css={"all": ["pgq/admin.css"]})

    # --------------------------------------------------------------------------------------------- lists

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        try:
            return super().changelist_view(request, {"pgq_reach": f"{REACH:,}", **(extra_context or {})})
        except ValidationError:  # a primary key that is none
            self.message_user(request, _("There is no such row."), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Allow what an index serves; ``?traceback__icontains=`` would read the whole table."""
        if "\0" in str(value):
            return False
        filters: Iterable[type[ListFilter] | Any] = self.get_list_filter(request)
        offered = {str(getattr(one, "parameter_name", one)) for one in filters if not isinstance(one, tuple)}
        offered |= {str(one[0]) for one in filters if isinstance(one, tuple)}
        if lookup in self.lookups or lookup in offered or lookup == OLDER:
            return True
        return lookup.partition("__")[0] in offered and super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (self.search(queryset, term) if term else queryset), False

    def search(self, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        return queryset

    def complete(self, rows: Iterable[Any]) -> None:
        """Read what a page of the list shows besides its rows."""

    # --------------------------------------------------------------------------------------------- a row's own page

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except IntegrityError as error:  # another table refers to it
            self.message_user(request, display.cut(str(error).partition("\n")[0], 500), messages.ERROR)
            return HttpResponseRedirect(display.url(self.admin_site, self.model, "change", object_id) or request.path)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        row = kwargs.get("obj")
        context["pgq_buttons"] = self.buttons(request, row) if row is not None else []
        context["pgq_target"] = display.url(self.admin_site, self.model, "changelist")
        context["pgq_checkbox"] = helpers.ACTION_CHECKBOX_NAME
        return super().render_change_form(request, context, *args, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_value"
        view = self.admin_site.admin_view(self.value_view)
        return [path("<str:object_id>/value/<str:field>/", view, name=name), *super().get_urls()]

    @property
    def urls(self) -> list[URLPattern]:
        found = self.get_urls()
        for one in found:
            one.callback = databases.at_one(one.callback)
        return found

    def value_view(self, request: HttpRequest, object_id: str, field: str) -> HttpResponse:
        """Show the whole of one long value, as plain text."""
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        if row is None or field not in self.value_fields:
            raise Http404
        return HttpResponse(
            self.value_text(row, field) or "",
            content_type="text/plain; charset=utf-8",
            headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"},
        )

    def value_text(self, row: Any, field: str) -> str | None:
        """Return one value as a text. Override it to show less."""
        value = row.__dict__.get(field)
        is_text = field in {item.name for item in self.opts.concrete_fields if type(item) is TextField}
        return value if is_text else display.stored_value(row, field, self.hidden_names)

    def value_block(self, row: Any, field: str) -> Any:
        """Show one value, the start of it if it is long."""
        more = display.url(self.admin_site, self.model, "value", row.pk, field) or ""
        return display.block(self.value_text(row, field), more)

    def history_of(self, row: Any) -> Any:
        """Show the earlier attempts. Asked for as text: JSON may hold numbers that Python refuses to read."""
        rows = self.model._base_manager.using(self.database).filter(pk=row.pk)
        text = rows.annotate(text=Cast("history", TextField())).values_list("text", flat=True).first()
        return display.history(codec.decode_for_display(text or "[]"))


class TaskListMixin(PgqAdminMixin):
    """For tasks, queued and finished."""

    search_fields: ClassVar[Any] = ["name"]
    search_help_text: ClassVar[Any] = gettext_lazy(
        "An id, a name or a group; or part of a function's path, among the newest tasks."
    )
    lookups = frozenset({"group", "schedule"})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # JSON may hold numbers that Python refuses to read.
        return super().get_queryset(request).defer("history")

    def search(self, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        return by_term(queryset, term, self.by_words(term))

    def by_words(self, term: str) -> Q:
        """Return what is looked for where neither id nor name nor group is that."""
        return Q(func__icontains=term)

    def in_queue(self, queryset: QuerySet[Any], queue: str) -> QuerySet[Any]:
        """Return the rows of that queue."""
        return newest(queryset).filter(queue=queue)
