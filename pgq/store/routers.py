"""The router of pgq's models: their rows are in PGQ["database"], or where PGQ["databases"] says, whatever the project's
DATABASE_ROUTERS are.

A router that reads from replicas would show a result late, or not at all. So pgq's router stands first; it decides for
pgq's models only.
"""

from __future__ import annotations

from typing import Any

from django.core.signals import setting_changed
from django.db import models, router

from pgq.conf import get_settings, places


class PgqRouter:
    """Sends each query on a model of pgq to the database at hand, and a new row to that of its queue.

    A row that was read from elsewhere stays there.
    """

    def db_for_read(self, model: type[models.Model], instance: Any = None, **hints: Any) -> str | None:
        if model._meta.app_label != "pgq":
            return None
        found: str | None = instance._state.db if isinstance(instance, model) else None
        return found or get_settings().database

    def db_for_write(self, model: type[models.Model], instance: Any = None, **hints: Any) -> str | None:
        found = self.db_for_read(model, instance, **hints)
        if found is None or model._meta.model_name not in _PLACED or not isinstance(instance, model):
            return found
        # A new row goes where the rows of its queue lie; one that was read from a database stays there.
        return instance._state.db or places.of_row(model._meta.model_name, getattr(instance, "queue", None))


#: Models whose rows belong to a queue.
_PLACED = ("queuedtask", "schedule")


def install() -> None:
    """Put pgq's router before those of the project."""
    if not any(isinstance(known, PgqRouter) for known in router.routers):
        router.routers.insert(0, PgqRouter())


def _install_again(*, setting: str, **kwargs: Any) -> None:
    if setting == "DATABASE_ROUTERS":
        install()


setting_changed.connect(_install_again)
