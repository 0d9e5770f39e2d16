"""New rows that belong to a queue, made by `create` and `bulk_create`: they go into the database of their queue.

`save` needs nothing of this: Django shows the row to the router (`pgq.store.routers`), and there the queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import models

from pgq.conf import get_settings, places, serving
from pgq.ground.private import set_alias

if TYPE_CHECKING:
    _QuerySet = models.QuerySet[Any]
    _Manager = models.Manager[Any]
else:
    _QuerySet, _Manager = models.QuerySet, models.Manager


class PlacedQuerySet(_QuerySet):
    """Has new rows go where the rows of their queue lie, unless `using` says where."""

    def _is_undecided(self) -> bool:
        return set_alias(self) is None and bool(get_settings().databases or serving())

    def _place(self, row: Any) -> str:
        return places.of_row(self.model._meta.model_name, row.queue)

    def create(self, **kwargs: Any) -> Any:
        """Make a row and return it; see `QuerySet.create`."""
        if not self._is_undecided():
            return super().create(**kwargs)
        return self.using(self._place(self.model(**kwargs))).create(**kwargs)

    create.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Write rows and return them; see `QuerySet.bulk_create`."""
        rows = list(objs)
        if not self._is_undecided():
            return super().bulk_create(rows, *args, **kwargs)
        parts: dict[str, list[Any]] = {}
        for row in rows:
            parts.setdefault(self._place(row), []).append(row)
        for alias, part in parts.items():
            self.using(alias).bulk_create(part, *args, **kwargs)
        return rows

    bulk_create.alters_data = True  # type: ignore[attr-defined]


class PlacedManager(_Manager.from_queryset(PlacedQuerySet)):  # type: ignore[misc]  # made at run time
    """The manager of queued tasks."""
