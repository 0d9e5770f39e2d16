"""What the admin's pages have in common: bounded lists, actions with permissions of their own, the right database."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast
from uuid import UUID

from django.conf import settings as django_settings
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import model_format_dict, model_ngettext, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import DataError, IntegrityError, connections, transaction
from django.db.models import Model, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.forms import Media
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq import codec
from pgq.admin import databases, display
from pgq.conf import aliases, get_settings
from pgq.ground import ids
from pgq.models import Lane
from pgq.status import values

if TYPE_CHECKING:
    from django.contrib.admin.filters import ListFilter

    _ModelAdmin = admin.ModelAdmin[Any]
    _Paginator = Paginator[Any]
else:
    _ModelAdmin, _Paginator = object, Paginator

#: Rows that the pages of a list reach, and that are counted. Older ones have a list of their own.
REACH = 10_000
#: Lookup of the list of those that are older than some row.
_OLDER = "pk__lt"
#: Newest rows that a search or a filter reads that no index serves.
WINDOW = 50_000
#: Ranges of ids in one query of a search by derived name.
_RANGES, _MOST_RANGES = 200, 10_000

#: What work with a row that was made by hand may raise.
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, DataError, IntegrityError)

#: Treats one row; returns what became of it, in a word or two, or None if there was nothing to do.
Treatment = Callable[[Any, HttpRequest, Any], "str | None"]


class AtLeast(int):
    """A count that went no further: "10,000+" wherever Django shows it."""

    def __str__(self) -> str:
        # Django groups the characters of this from behind, if it groups at all.
        return f"≥{int(self)}" if django_settings.USE_THOUSAND_SEPARATOR else f"{int(self):,}+"


class BoundedPaginator(_Paginator):
    """Counts REACH rows and no further, so that neither a count nor an OFFSET ever walks a large table."""

    object_list: QuerySet[Any]

    @cached_property
    def counted(self) -> int:
        return self.object_list.order_by().values("pk")[: REACH + 1].count()

    @cached_property
    def count(self) -> int:
        return AtLeast(REACH) if self.more else self.counted

    @property
    def more(self) -> bool:
        """Whether there are more rows than the pages reach."""
        return self.counted > REACH


class BoundedChangeList(ChangeList):
    """Always the newest first, by the primary key, whatever the address asks for."""

    @property
    def older(self) -> str:
        """The address of the list that begins behind the last row that this one's pages reach; "" if there is none."""
        if not cast("BoundedPaginator", self.paginator).more:
            return ""
        last = self.queryset.values_list("pk", flat=True)[REACH - 1]
        return self.get_query_string({_OLDER: str(last)}, remove=["p"])

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        cast("PgqAdminMixin", self.model_admin).complete(self.result_list)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return ["-pk"]

    def get_ordering_field_columns(self) -> dict[int, Any]:
        return {}

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        rows = super().get_queryset(request, *args, **kwargs)
        return rows.defer(*cast("PgqAdminMixin", self.model_admin).heavy_fields)


def newest(queryset: QuerySet[Any], count: int = WINDOW) -> QuerySet[Any]:
    """Return the newest rows of a query, found by the primary key."""
    floor = queryset.order_by("-pk").values_list("pk", flat=True)[count : count + 1].first()
    return queryset if floor is None else queryset.filter(pk__gt=floor)


def ids_by_words(queryset: QuerySet[Any], words: str) -> list[str]:
    """Return the ids from which these four words were made."""
    oldest = queryset.order_by("pk").values_list("pk", flat=True).first()
    if oldest is None:
        return []
    now_ms = int(timezone.now().timestamp() * 1000) + 60_000
    ranges: Iterator[Any] = ids.name_ranges(words, UUID(str(oldest)).int >> 80, now_ms)
    found: list[str] = []
    for _turn in range(_MOST_RANGES // _RANGES):
        some = [Q(pk__gte=low, pk__lte=high) for _number, (low, high) in zip(range(_RANGES), ranges, strict=False)]
        if not some:
            break
        rows = queryset.filter(functools.reduce(lambda left, right: left | right, some))
        found += [id for id in rows.values_list("pk", flat=True) if ids.task_name(UUID(str(id))) == words]
    return found


def by_term(queryset: QuerySet[Any], term: str, otherwise: Q) -> QuerySet[Any]:
    """Find tasks by id, name or group, which indexes serve; only if there are none, newest ones by a condition."""
    rows = queryset.model._default_manager.using(queryset.db)
    id = ids.parse_id(term)
    wanted = [Q(name=term), Q(group=term)] + ([Q(pk=id)] if id else [])
    found = [condition for condition in wanted if rows.filter(condition).exists()]
    named = ids_by_words(rows, term)
    if named:
        found.append(Q(pk__in=named))
    if found:
        return queryset.filter(functools.reduce(lambda left, right: left | right, found))
    return newest(queryset).filter(otherwise)


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
        def action(self: PgqAdminMixin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase | None:
            if request.method != "POST" or not getattr(self, f"has_{permission}_permission")(request):
                raise PermissionDenied
            return self.treat(request, queryset, treatment, label=label, confirm=confirm, flag=flag)

        action.label = label  # type: ignore[attr-defined]
        return action

    return decorate


class QueueFilter(admin.SimpleListFilter):
    """By queue; the queues are those that have lanes."""

    title = gettext_lazy("queue")
    parameter_name = "queue"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        self.model_admin = model_admin
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, display.cut(name, 40)) for name in known_queues()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        # Only a queue that is offered: anything may stand in the address.
        if self.value() not in dict(self.lookup_choices):
            return None
        return cast("QuerySet[Any]", self.model_admin.in_queue(queryset, self.value()))


def known_queues(limit: int = 100) -> list[str]:
    """Return the queues in use, for choices."""
    lanes = Lane.objects.using(get_settings().database)
    return list(lanes.order_by("queue").values_list("queue", flat=True).distinct()[:limit])


class PgqAdminMixin(_ModelAdmin):
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
    #: Rows that one go of an action treats, whatever was selected. (Django takes 1000 fields in a form.)
    action_limit = 500
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

    # --------------------------------------------------------------------------------------------- the right database

    @property
    def database(self) -> str:
        return get_settings().database

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(self.database)

    def get_list_filter(self, request: HttpRequest) -> Any:
        found = super().get_list_filter(request)
        return [databases.DatabaseFilter, *found] if len(aliases()) > 1 else found

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.save(using=self.database)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        obj.delete(using=self.database)
        connections[self.database].check_constraints()

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except IntegrityError as error:  # another table refers to it
            self.message_user(request, display.cut(str(error).partition("\n")[0], 500), messages.ERROR)
            return HttpResponseRedirect(display.url(self.admin_site, self.model, "change", object_id) or request.path)

    # --------------------------------------------------------------------------------------------- lists

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Allow what an index serves; ``?traceback__icontains=`` would read the whole table."""
        if "\0" in str(value):
            return False
        filters: Iterable[type[ListFilter] | Any] = self.get_list_filter(request)
        offered = {str(getattr(one, "parameter_name", one)) for one in filters if not isinstance(one, tuple)}
        offered |= {str(one[0]) for one in filters if isinstance(one, tuple)}
        if lookup in self.lookups or lookup in offered or lookup == _OLDER:
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

    # --------------------------------------------------------------------------------------------- actions

    def permits(self, request: HttpRequest, codename: str) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method == "POST":
            # Django ignores an action that is not offered; a forged POST shall get a clear refusal.
            own = {name if isinstance(name, str) else name.__name__ for name in self.actions or ()}
            there = own | {name for name, _action in self.admin_site.actions}
            if there.intersection(request.POST.getlist("action")) - set(self.get_actions(request)):
                raise PermissionDenied
        try:
            return super().changelist_view(request, {"pgq_reach": f"{REACH:,}", **(extra_context or {})})
        except ValidationError:  # a primary key that is none
            self.message_user(request, _("There is no such row."), messages.ERROR)
            return HttpResponseRedirect(request.path)

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
        outcomes: dict[str, list[Model]] = {}
        faults: Counter[str] = Counter()
        left = 0
        with transaction.atomic(using=self.database):
            for row in rows:
                pk = row.pk
                try:
                    with transaction.atomic(using=self.database):
                        outcome = treatment(self, request, row)
                        # One that another table refers to must not fail the commit for all.
                        connections[self.database].check_constraints()
                except (*_FAULTS, self.model.DoesNotExist) as error:
                    faults[f"{row}: {str(error).partition(chr(10))[0]}"] += 1
                    continue
                row.pk = pk
                if outcome is None:
                    left += 1
                else:
                    outcomes.setdefault(outcome, []).append(row)
            for outcome, treated in outcomes.items():
                LogEntry.objects.log_actions(cast("int", request.user.pk), treated, flag, f"{outcome}.".capitalize())
        results = [
            f"{len(treated):,} {outcome}"
            for outcome, treated in sorted(outcomes.items(), key=lambda item: -len(item[1]))
        ]
        if left:
            results.append(_("%(count)d left as they were") % {"count": left})
        if results:
            self.message_user(
                request, ", ".join(results).capitalize() + ".", messages.SUCCESS if outcomes else messages.WARNING
            )
        for fault in list(faults)[:10]:
            self.message_user(request, display.cut(fault, 500), messages.ERROR)
        if more:
            text = _("Only the first %(count)d of them: repeat it for the others.")
            self.message_user(request, text % {"count": self.action_limit}, messages.WARNING)
        return None

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

    # --------------------------------------------------------------------------------------------- a row's own page

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
