"""Lists of large tables: pages that reach so far, searches that an index serves, the queues to choose from."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.conf import settings as django_settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.conf import get_settings
from pgq.ground import ids
from pgq.models import Lane

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

#: Rows that the pages of a list reach, and that are counted. Older ones have a list of their own.
REACH = 10_000
#: Lookup of the list of those that are older than some row.
OLDER = "pk__lt"
#: Newest rows that a search or a filter reads that no index serves.
WINDOW = 50_000
#: Ranges of ids in one query of a search by derived name.
_RANGES, _MOST_RANGES = 200, 10_000


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

    #: A PgqAdminMixin.
    model_admin: Any

    @property
    def older(self) -> str:
        """The address of the list that begins behind the last row that this one's pages reach; "" if there is none."""
        if not cast("BoundedPaginator", self.paginator).more:
            return ""
        last = self.queryset.values_list("pk", flat=True)[REACH - 1]
        return self.get_query_string({OLDER: str(last)}, remove=["p"])

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.model_admin.complete(self.result_list)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return ["-pk"]

    def get_ordering_field_columns(self) -> dict[int, Any]:
        return {}

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        rows = super().get_queryset(request, *args, **kwargs)
        return rows.defer(*self.model_admin.heavy_fields)


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
