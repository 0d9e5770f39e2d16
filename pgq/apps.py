"""The Django app and its system checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db import connections
from django.utils.module_loading import autodiscover_modules

from pgq import conf, schema


class PgqConfig(AppConfig):
    name = "pgq"
    label = "pgq"
    verbose_name = "pgq"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        checks.register(check_settings)
        checks.register(check_database, checks.Tags.database)
        # Functions registered with @task must be known in each process before the first row that names one.
        autodiscover_modules("tasks")


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Name each wrong key of PGQ (or Q_CLUSTER) and what to do."""
    return [
        checks.Error(problem.message, hint=problem.hint, id="pgq.E001")
        if problem.serious
        else checks.Warning(problem.message, hint=problem.hint, id="pgq.W001")
        for problem in conf.problems()
    ]


def check_database(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Make sure that the tables are in a PostgreSQL, and new enough for this code."""
    if any(problem.serious for problem in conf.problems()):
        return []
    alias = conf.get_settings().database
    if alias not in connections:
        return [
            checks.Error(
                f"PGQ['database'] is {alias!r}, which is not in DATABASES.",
                hint="Name an alias that is.",
                id="pgq.E002",
            )
        ]
    if not databases or alias not in databases:
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
        cursor.execute("SELECT to_regclass('pgq_schema') IS NOT NULL")
        there = cursor.fetchone()[0]
        if there:
            cursor.execute("SELECT max(version) FROM pgq_schema")
            there = (cursor.fetchone()[0] or 0) >= schema.VERSION
    if not there:
        return [
            checks.Warning("The tables of pgq are missing or old.", hint="Run manage.py migrate pgq.", id="pgq.W002")
        ]
    return []
