"""The schema: the same by psql and by Django, however often and in whatever order; and the models fit it."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgq.store import schema
from tests.support.pools import ROOT, test_dsn
from tests.support.schema import FILES, dsn_of, fresh_database, psql, up

pytestmark = pytest.mark.django_db(transaction=True)

CATALOGS = {
    "relations": """
        SELECT c.relname, c.relkind, c.relpersistence, c.reloptions, pg_get_expr(c.relpartbound, c.oid),
               pg_get_partkeydef(c.oid), obj_description(c.oid, 'pg_class')
          FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind <> 't' ORDER BY 1
    """,
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               a.attgenerated, a.attstorage, a.attcompression, pg_get_expr(d.adbin, d.adrelid),
               col_description(c.oid, a.attnum)
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
           AND c.relkind IN ('r', 'p') ORDER BY 1, 2
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
    """,
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "functions": """
        SELECT pg_get_functiondef(oid), obj_description(oid, 'pg_proc')
          FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY oid::regprocedure::text
    """,
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "sequences": """
        SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle, cache_size
          FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1
    """,
    "types": "SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e' ORDER BY 1",
}


def catalogs(database: psycopg.Connection[Any], pattern: str = r"pgq") -> dict[str, list[Any]]:
    """What the catalogs know of our objects."""
    found = {name: database.execute(query).fetchall() for name, query in CATALOGS.items()}
    return {name: [row for row in rows if re.search(pattern, repr(row))] for name, rows in found.items()}


def migrate(database: psycopg.Connection[Any], target: str | None = None) -> None:
    """Run Django's migrations, in another process, so that this one's connections stay what they are."""
    environment = {**os.environ, "DATABASE_URL": dsn_of(database), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = ["migrate", "--verbosity=0", "pgq", *([target] if target else [])]
    run_django(*command, env=environment)


def run_django(*arguments: str, env: dict[str, str]) -> str:
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "django", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def down(database: psycopg.Connection[Any]) -> None:
    for file in reversed(FILES):
        psql(database, file.with_name(file.name.replace(".up.", ".down.")))


@pytest.fixture(scope="module")
def built_by_psql(django_db_setup: None) -> dict[str, list[Any]]:
    with fresh_database("psql") as database:
        up(database)
        return catalogs(database)


@pytest.fixture(autouse=True)
def _no_password_in_dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    # For psql and Django, which are not told on their command lines.
    if password := conninfo_to_dict(test_dsn()).get("password"):
        monkeypatch.setenv("PGPASSWORD", str(password))


def test_the_catalogs_are_looked_at(built_by_psql):
    counts = {name: len(rows) for name, rows in built_by_psql.items()}
    assert counts["relations"] > 20
    assert counts["columns"] > 80
    assert counts["constraints"] > 25
    assert counts["indexes"] > 15
    assert (counts["functions"], counts["triggers"], counts["sequences"]) >= (5, 1, 3)
    assert counts["types"] == 0


def test_psql_and_django_build_the_same(built_by_psql):
    with fresh_database("django") as database:
        migrate(database)
        assert catalogs(database) == built_by_psql


def test_test_database_is_the_same(built_by_psql, session):
    """That is what all other tests run on."""
    assert {name: rows for name, rows in catalogs(session()).items() if name != "relations"} == {
        name: rows for name, rows in built_by_psql.items() if name != "relations"
    }


def test_up_twice_is_harmless(built_by_psql):
    with fresh_database("twice") as database:
        up(database)
        database.execute("INSERT INTO pgq_queue (func) VALUES ('by.hand')")
        up(database)
        assert catalogs(database) == built_by_psql
        assert database.execute("SELECT count(*), max(position) FROM pgq_queue").fetchone() == (1, 1)
        assert database.execute("SELECT version FROM pgq_schema ORDER BY 1").fetchall() == [
            (number,) for number in range(1, len(FILES) + 1)
        ]


def test_the_tables_file_run_again_waits_for_no_statement(session):
    """Its lock of the queue must not grow to the strongest: beside a pool that works, that may end in a deadlock."""
    reader, again = session(autocommit=False), session(autocommit=False)
    reader.execute("SELECT FROM pgq_queue")
    # It has a lock_timeout.
    again.execute(FILES[0].read_text())


def test_psql_first_then_migrate(built_by_psql):
    with fresh_database("mixed") as database:
        up(database)
        database.execute("INSERT INTO pgq_queue (func) VALUES ('by.hand')")
        migrate(database)
        assert catalogs(database) == built_by_psql
        assert database.execute("SELECT count(*) FROM pgq_queue").fetchone() == (1,)


def test_migrate_first_then_psql(built_by_psql):
    with fresh_database("mixed") as database:
        migrate(database)
        up(database)
        assert catalogs(database) == built_by_psql


@pytest.mark.parametrize("how", ["psql", "django"])
def test_down_leaves_nothing(how):
    with fresh_database("down") as database:
        migrate(database)
        if how == "psql":
            down(database)
        else:
            migrate(database, "zero")
        rest = {name: rows for name, rows in catalogs(database, r"pgq_").items() if rows}
        assert rest == {}


def test_up_after_down(built_by_psql):
    with fresh_database("again") as database:
        up(database)
        down(database)
        up(database)
        assert catalogs(database) == built_by_psql


def test_schema_works_in_another_search_path():
    """Tables go where the user's search_path says, and the functions find them from anywhere."""
    with fresh_database("path") as database:
        database.execute("CREATE SCHEMA elsewhere")
        database.execute("SET search_path TO elsewhere")
        with database.transaction():
            for file in FILES:
                database.execute(file.read_bytes())
        database.execute("SET search_path TO public")
        database.execute("INSERT INTO elsewhere.pgq_queue (func) VALUES ('by.hand')")
        assert database.execute("SELECT queue FROM elsewhere.pgq_lane").fetchall() == [("default",)]


def test_what_may_be_large_is_compressed_quickly(session):
    """Also in partitions that were made later, and only where the server can."""
    own = session()
    rows = own.execute("""
        SELECT DISTINCT attname, attcompression::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
         WHERE (relname = 'pgq_queue' OR relname LIKE 'pgq_task%') AND relkind IN ('r', 'p')
           AND attname IN ('args', 'kwargs', 'options', 'history', 'result', 'message', 'traceback')
    """).fetchall()
    has_lz4 = "lz4" in own.execute(
        "SELECT enumvals::text FROM pg_settings WHERE name = 'default_toast_compression'"
    ).fetchone()[0]  # fmt: skip
    assert len(rows) == 7
    assert {compression for _, compression in rows} == ({"l"} if has_lz4 else {""})


def test_version_is_that_of_the_newest_file():
    assert len(FILES) == schema.VERSION == int(FILES[-1].name[:4])
    assert [file.name[:4] for file in FILES] == [f"{number:04}" for number in range(1, len(FILES) + 1)]


# ------------------------------------------------------------------------------------------------- models

TYPES = {
    "uuid": "uuid", "bigint": "bigint", "smallint": "smallint", "integer": "integer", "boolean": "boolean",
    "text": "text", "jsonb": "jsonb", "double precision": "double precision", "bytea": "bytea",
    "timestamp with time zone": "timestamp with time zone", "time": "time without time zone",
}  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [model for model in apps.get_app_config("pgq").get_models() if model._meta.managed and not model._meta.proxy],
    ids=lambda model: model.__name__,
)
def test_model_fits_its_table(model, session):
    rows = session().execute(
        """SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull,
                  atthasdef OR attidentity <> '' FROM pg_attribute
            WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped""",
        (model._meta.db_table,),
    )
    table = {name: (kind, nullable, default) for name, kind, nullable, default in rows}
    fields = [field for field in model._meta.concrete_fields if field.column is not None]
    assert {field.column for field in fields} == set(table)
    for field in fields:
        kind, nullable, default = table[field.column]
        wanted = field.db_type(connection)
        assert TYPES.get(wanted, wanted) == kind or (wanted == "jsonb" and kind in ("text[]", "bigint[]")), field
        assert field.null is nullable, field
        if field.has_db_default():
            assert default, field


def test_defaults_of_the_models_are_those_of_the_tables(session):
    """A row that Django makes with nothing but `func` equals one that psql makes."""
    own = session()
    for model in (apps.get_model("pgq", "QueuedTask"), apps.get_model("pgq", "Schedule")):
        by_orm = model.objects.create(func="by.hand")
        table = model._meta.db_table
        own.execute(sql.SQL("INSERT INTO {} (func) VALUES ('by.hand')").format(sql.Identifier(table)))
        rows = own.execute(sql.SQL("SELECT to_jsonb(t) FROM {} t ORDER BY id").format(sql.Identifier(table))).fetchall()
        one, two = (
            {key: item for key, item in row[0].items() if key not in ("id", "position", "enqueued_at", "next_run")}
            for row in rows
        )
        assert one == two, by_orm


def test_no_migration_is_missing():
    call_command("makemigrations", "pgq", check=True, dry_run=True, verbosity=1)
