"""The system checks: what ``manage.py check`` finds in the settings, the database and the project's tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings as django_settings
from django.core import checks
from django.db import DEFAULT_DB_ALIAS, connections

from pgq import conf
from pgq.enqueue import discovery, registry
from pgq.errors import UnknownFunction
from pgq.execution import reporters
from pgq.store import overview, schema
from pgq.store.connection import is_same_database


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
    """Make sure that the databases are there. Not among the checks of databases, which Django runs only on demand."""
    if any(problem.serious for problem in conf.problems()):
        return []
    settings = conf.get_settings()
    found: list[checks.CheckMessage] = []
    if settings.database not in connections:
        message = f"PGQ['database'] is {settings.database!r}, which is not in DATABASES."
        found.append(checks.Error(message, hint="Name an alias that is.", id="pgq.E002"))
    for alias in settings.databases:
        if alias not in connections:
            message = f"PGQ['databases'] names {alias!r}, which is not in DATABASES."
            found.append(checks.Error(message, hint="Name an alias that is.", id="pgq.E002"))
        elif connections[alias].vendor != "postgresql":
            message = f"PGQ['databases'] names {alias!r}, which is no PostgreSQL."
            found.append(checks.Error(message, hint="Name one that is, or take it away.", id="pgq.E003"))
    return found or list(_doubts(conf.aliases()))


def _doubts(aliases: Sequence[str]) -> Iterator[checks.CheckMessage]:
    """Name what makes several databases less independent than they are meant to be."""
    if len(aliases) == 1:
        return
    for place, alias in enumerate(aliases):
        for other in aliases[:place]:
            if is_same_database(alias, other) and not connections[alias].settings_dict["TEST"].get("MIRROR"):
                message = f"PGQ['databases']: {alias!r} and {other!r} lead to the same database."
                hint = "Each alias must lead to tables of its own: else each task would be found twice."
                yield checks.Error(message, hint=hint, id="pgq.E007")
        if not connections[alias].settings_dict.get("OPTIONS", {}).get("connect_timeout"):
            message = f"DATABASES[{alias!r}]['OPTIONS'] has no connect_timeout."
            hint = (
                "While the host of this server does not answer, each search for a task there takes two minutes. Give "
                "it a few seconds: {'connect_timeout': 3}."
            )
            yield checks.Warning(message, hint=hint, id="pgq.W007")


def check_database(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Make sure that the tables are in a PostgreSQL, and new enough for this code."""
    if any(problem.serious for problem in conf.problems()):
        return []
    asked = [alias for alias in conf.aliases() if alias in (databases or ()) and alias in connections]
    return [message for alias in asked for message in _check_tables(alias)]


def _check_tables(alias: str) -> list[checks.CheckMessage]:
    """Make sure that the tables of one database are in a PostgreSQL, and new enough for this code."""
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
            checks.Warning(
                f"The tables of pgq are missing or old{'' if alias == DEFAULT_DB_ALIAS else f' in {alias!r}'}.",
                hint=f"Run {schema.migrate_command(alias)}.",
                id="pgq.W002",
            )
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
            hint = "See docs/guide/schedules.md. Until all are right, none of them is written to the table."
            found.append(checks.Error(finding.message, hint=hint, id="pgq.E110"))
        else:
            found.append(checks.Warning(finding.message, id="pgq.W110"))
    if settings.sync_schedules == "start" and settings.release is None:
        said = "PGQ['sync_schedules'] is 'start', and PGQ['release'] is not given."
        hint = "Without it, a pool of the old release that starts again would undo the schedules of the new one."
        found.append(checks.Error(said, hint=hint, id="pgq.E111"))
    return found
