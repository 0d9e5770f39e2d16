"""The system checks: what ``manage.py check`` finds in the settings, the database and the project's tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings as django_settings
from django.core import checks
from django.db import connections

from pgq import conf
from pgq.enqueue import discovery, registry
from pgq.errors import UnknownFunction
from pgq.execution import reporters
from pgq.store import overview, schema


def register() -> None:
    """Have Django run the checks below."""
    for check in (
        check_settings,
        check_cache,
        check_alias,
        check_tasks,
        check_names,
        check_references,
        check_schedules,
    ):
        checks.register(check)
    checks.register(check_database, checks.Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Name each wrong key of PGQ (or Q_CLUSTER) and what to do."""
    return [
        checks.Error(problem.message, hint=problem.hint, id="pgq.E001")
        if problem.serious
        else checks.Warning(problem.message, hint=problem.hint, id="pgq.W001")
        for problem in conf.problems()
    ]


def check_cache(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Make sure that results kept in the cache can be seen by those who ask for them."""
    if any(problem.serious for problem in conf.problems()):
        return []
    settings = conf.get_settings()
    if not settings.cached:
        return []
    backend = django_settings.CACHES.get(settings.cache, {}).get("BACKEND")
    if backend is None:
        return [
            checks.Error(
                f"PGQ['cache'] is {settings.cache!r}, which is not in CACHES.", hint="Name one that is.", id="pgq.E004"
            )
        ]
    if str(backend).endswith((".LocMemCache", ".DummyCache")):
        return [
            checks.Warning(
                f"PGQ['cached'] keeps results in the cache {settings.cache!r}, which each process has for itself.",
                hint="Use a cache that workers share with the others, such as DatabaseCache.",
                id="pgq.W003",
            )
        ]
    return []


def check_alias(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Make sure that PGQ["database"] is there. Not among the checks of databases, which Django runs only on demand."""
    if any(problem.serious for problem in conf.problems()):
        return []
    alias = conf.get_settings().database
    if alias in connections:
        return []
    return [
        checks.Error(
            f"PGQ['database'] is {alias!r}, which is not in DATABASES.", hint="Name an alias that is.", id="pgq.E002"
        )
    ]


def check_database(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Make sure that the tables are in a PostgreSQL, and new enough for this code."""
    if any(problem.serious for problem in conf.problems()):
        return []
    alias = conf.get_settings().database
    if not databases or alias not in databases or alias not in connections:
        return []
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return [
            checks.Error(
                f"The database {alias!r} is {connection.display_name}; pgq needs PostgreSQL.",
                hint="Set PGQ['database'].",
                id="pgq.E003",
            )
        ]
    with connection.cursor() as cursor:
        current = overview.schema_version(cursor) >= schema.VERSION
    if not current and not _asked_by_migrate():
        return [
            checks.Warning("The tables of pgq are missing or old.", hint="Run manage.py migrate pgq.", id="pgq.W002")
        ]
    return []


def _asked_by_migrate() -> bool:
    """Whether a check runs for ``manage.py migrate``, which is about to make the tables. Django passes no flag."""
    migrate = sys.modules.get("django.core.management.commands.migrate")
    frame = sys._getframe() if migrate is not None else None
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), migrate.Command):  # type: ignore[union-attr]  # it is not None here
            return True
        frame = frame.f_back
    return False


def check_tasks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Name the modules of tasks that were left out."""
    return [
        checks.Warning(
            sentence,
            hint="Install what it needs. If you enqueue none of its tasks, add this id to SILENCED_SYSTEM_CHECKS.",
            id="pgq.W004",
        )
        for sentence in discovery.sentences()
    ]


def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Make sure that the functions and classes that settings name are there."""
    if any(problem.serious for problem in conf.problems()):
        return []
    return [
        checks.Warning(f"{where} names {name!r}, which leads nowhere: {why}.", hint=hint, id="pgq.W005")
        for where, name, find, hint in _names(conf.get_settings())
        if (why := _trouble(find, name)) is not None
    ]


def _names(settings: conf.Settings) -> Iterator[tuple[str, str, Callable[[str], object], str]]:
    """Yield where a setting names something, the name, what finds it, and what to do if it is not found."""
    for path in settings.allowed:
        yield "PGQ['allowed']", path, registry.found, "Give the dotted path of a function, or remove it."
    for name in settings.error_reporter:
        yield "PGQ['error_reporter']", name, reporters.find, "Install the package that offers it, or name a class."
    backoff = settings.retry_backoff
    if isinstance(backoff, dict) and "callable" in backoff:
        yield "PGQ['retry_backoff']", backoff["callable"], registry.found, "Give the dotted path of a function."


def _trouble(find: Callable[[str], object], name: str) -> str | None:
    try:
        find(name)
    except UnknownFunction as error:
        return error.reason.removeprefix(repr(name)).lstrip(": ")
    except Exception as error:
        return str(error) if isinstance(error, LookupError) else f"{type(error).__name__}: {error}"
    return None


def check_references(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of models that would keep the rows of ended tasks in the queue."""
    queue = apps.get_model("pgq", "QueuedTask")
    return [
        checks.Warning(
            f"{relation.field} is a foreign key to QueuedTask, whose row leaves the queue when its task ends.",
            hint="A task that is referred to then can only be parked. Keep its id in a UUIDField, or use "
            "db_constraint=False.",
            obj=relation.related_model,
            id="pgq.W006",
        )
        for relation in queue._meta.related_objects
        if getattr(relation.field, "db_constraint", False)
    ]


def check_schedules(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Name all that is wrong with the schedules in code, each with its place."""
    if any(problem.serious for problem in conf.problems()):
        return []
    # It needs the models, which are not there yet when this module is imported.
    from pgq.schedules import code

    settings = conf.get_settings()
    found: list[checks.CheckMessage] = []
    for finding in code.read().findings:
        if finding.is_error:
            hint = "See docs/schedules.md. Until all are right, none of them is written to the table."
            found.append(checks.Error(finding.message, hint=hint, id="pgq.E110"))
        else:
            found.append(checks.Warning(finding.message, id="pgq.W110"))
    if settings.sync_schedules == "start" and settings.release is None:
        said = "PGQ['sync_schedules'] is 'start', and PGQ['release'] is not given."
        hint = "Without it, a pool of the old release that starts again would undo the schedules of the new one."
        found.append(checks.Error(said, hint=hint, id="pgq.E111"))
    return found
