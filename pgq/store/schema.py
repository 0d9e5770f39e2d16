"""The schema: finds the files of migrations_sql and runs them as Django migrations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.special import RunSQL
from django.db.migrations.state import ProjectState

#: The newest file in migrations_sql; the code needs it.
VERSION = 7


@cache
def directory() -> Path:
    """Return where the SQL files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "migrations_sql"
    return inside if inside.is_dir() else package.parent / "migrations_sql"


def read(name: str, direction: str) -> str:
    """Return the text of one file.

    Args:
        name: For instance "0001_initial".
        direction: "up" or "down".
    """
    return (directory() / f"{name}.{direction}.sql").read_text(encoding="utf-8")


def migrate_command(alias: str) -> str:
    """Return the command that makes or brings up to date the tables in the database of that alias."""
    return "manage.py migrate pgq" if alias == DEFAULT_DB_ALIAS else f"manage.py migrate pgq --database {alias}"


def make_without_migrations(sender: Any, using: str, **kwargs: Any) -> None:
    """Make the tables by SQL where the project has migrations turned off (MIGRATION_MODULES, pytest --nomigrations).

    Django would make them from the models, which lack functions, triggers and partitions; it leaves existing tables
    alone. A receiver of ``pre_migrate``.
    """
    connection = connections[using]
    # None for an app without migrations.
    if MigrationLoader.migrations_module(sender.label)[0] is not None or connection.vendor != "postgresql":
        return
    if router.allow_migrate(using, sender.label):
        with connection.schema_editor() as editor:
            for file in sorted(directory().glob("*.up.sql")):
                editor.execute(file.read_text(encoding="utf-8"), params=None)


class RunSQLFile(RunSQL):
    """Runs ``NAME.up.sql``, and ``NAME.down.sql`` on the way back.

    The files repeat harmlessly, so it does not matter if psql ran one before. The models are managed in Django's state
    (so that flush and TransactionTestCase see their tables) but made by SQL.
    """

    def __init__(self, name: str, state_operations: Sequence[Operation] = ()) -> None:
        self.name = name
        super().__init__("", "", state_operations=list(state_operations))

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return type(self).__qualname__, [self.name], {"state_operations": self.state_operations}

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        self._run_file("up", app_label, schema_editor)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        self._run_file("down", app_label, schema_editor)

    def _run_file(self, direction: str, app_label: str, schema_editor: BaseDatabaseSchemaEditor) -> None:
        connection = schema_editor.connection
        if connection.vendor == "postgresql" and router.allow_migrate(connection.alias, app_label, **self.hints):
            schema_editor.execute(read(self.name, direction), params=None)

    def describe(self) -> str:
        return f"Runs migrations_sql/{self.name}.up.sql"
