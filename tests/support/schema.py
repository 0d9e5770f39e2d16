"""Databases made from migrations_sql, without Django."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.store import schema
from tests.support.pools import test_dsn

FILES = sorted(schema.directory().glob("*.up.sql"))


@contextmanager
def fresh_database(name: str) -> Iterator[psycopg.Connection[Any]]:
    parameters = conninfo_to_dict(test_dsn())
    # Each xdist worker has its own.
    name = f"{parameters['dbname']}_{name}"
    with psycopg.connect(make_conninfo(**{**parameters, "dbname": "postgres"}), autocommit=True) as admin:
        identifier = sql.Identifier(name)
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier))
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(identifier))
        try:
            with psycopg.connect(make_conninfo(**{**parameters, "dbname": name}), autocommit=True) as database:
                yield database
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def dsn_of(database: psycopg.Connection[Any]) -> str:
    """How others reach it. (Not info.dsn: this libpq knows options that another psql may not.)"""
    info = database.info
    return make_conninfo(host=info.host, port=info.port, user=info.user, dbname=info.dbname)


def psql(database: psycopg.Connection[Any], file: Path) -> None:
    """Run a file as the documentation does; where there is no psql, send it as psql would with -1."""
    program = shutil.which("psql")
    if program is None:
        with database.transaction():
            database.execute(file.read_bytes())
        return
    done = subprocess.run(
        [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f", str(file), dsn_of(database)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def up(database: psycopg.Connection[Any]) -> None:
    for file in FILES:
        psql(database, file)
