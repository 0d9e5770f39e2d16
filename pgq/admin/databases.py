"""The admin with several databases: each page is about one of them, which its address names.

A list has a filter for it, and Django hands the filters of a list on to the pages that it leads to, and back. Ids of
schedules are numbers that two databases may both have. So no page guesses: without a name it is about PGQ["database"],
and a name that is none of them is no page.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.conf import aliases, at, chosen, database_of, get_settings

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object

_PARAMETER, _PRESERVED = "database", "_changelist_filters"

View = Callable[..., HttpResponseBase]


def _alias(request: HttpRequest) -> str:
    """Return the alias that an address names.

    Raises:
        Http404: It is none of those that hold tasks.
    """
    kept = parse_qs(request.GET.get(_PRESERVED, "")).get(_PARAMETER, [])
    names = [*request.GET.getlist(_PARAMETER), *kept]
    alias = names[0] if names else aliases()[0]
    if alias not in aliases():
        raise Http404(f"no database {alias!r}")
    return alias


def at_one(view: View) -> View:
    """Have a view, and what it renders, be about the database that the address names."""

    @functools.wraps(view)
    def inside(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if len(aliases()) == 1:
            return view(request, *args, **kwargs)
        alias = _alias(request)
        with at(alias):
            response = view(request, *args, **kwargs)
        if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
            _render_at(alias, response)
        return response

    return inside


def _render_at(alias: str, response: SimpleTemplateResponse) -> None:
    """Have a page rendered with its database at hand, later, and show which it is."""
    context = response.context_data
    if context is not None:
        shown = _("Database: %(alias)s") % {"alias": alias}
        context["subtitle"] = f"{context['subtitle']} ({shown})" if context.get("subtitle") else shown
    render = response.render

    def inside() -> SimpleTemplateResponse:
        # A response that is kept, as by a cache, must not hold this function.
        del response.render
        with at(alias):
            return render()

    response.render = inside  # type: ignore[method-assign]


def query(view: str) -> dict[str, str]:
    """Return what the address of another page has besides, so that it is about the same database."""
    alias = chosen()
    if alias is None or len(aliases()) == 1:
        return {}
    # On the page of a row, Django looks for the filters of its list.
    return {_PRESERVED: urlencode({_PARAMETER: alias})} if view in ("change", "add") else {_PARAMETER: alias}


def check_queue(queue: str | None) -> None:
    """Raise ValidationError unless the rows of a queue lie in the database at hand.

    Args:
        queue: None: the default queue.
    """
    named = queue or get_settings().default_queue
    there = database_of(named)
    if len(aliases()) > 1 and there != get_settings().database:
        text = _("The queue %(queue)s lies in the database %(alias)s: add it there.")
        raise ValidationError({"queue": text % {"queue": repr(named), "alias": repr(there)}})


class DatabaseFilter(admin.SimpleListFilter):
    """The choice of the database; offered if there are several."""

    title = gettext_lazy("database")
    parameter_name = _PARAMETER

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        known = aliases()
        return [(alias, alias) for alias in known] if len(known) > 1 else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        # The rows are those of the database at hand already.
        return queryset

    def choices(self, changelist: Any) -> Iterator[Any]:
        for alias, shown in self.lookup_choices:
            # The other filters are those of another database.
            yield {
                "selected": alias == get_settings().database,
                "query_string": f"?{urlencode({_PARAMETER: alias})}",
                "display": shown,
            }


class DatabaseMixin(_ModelAdmin):
    """Has the pages of a model read and write the rows of the database at hand."""

    @property
    def database(self) -> str:
        """The alias of the database at hand."""
        return get_settings().database

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(self.database)

    def get_list_filter(self, request: HttpRequest) -> Any:
        found = super().get_list_filter(request)
        return [DatabaseFilter, *found] if len(aliases()) > 1 else found

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.save(using=self.database)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        obj.delete(using=self.database)
        connections[self.database].check_constraints()
