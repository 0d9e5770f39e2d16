"""Whether what should hold does hold: the findings of the SQL function pgq_check, for the command and for /health."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from pgq.store import overview, schema
from pgq.store.connection import Cursor
from pgq.store.overview import Finding
from pgq.store.series import KeptFinding

OK, WARNING, PROBLEM = "ok", "warning", "problem"


def findings(cursor: Cursor) -> list[Finding]:
    """Check everything once; it takes some milliseconds, on a table of millions as well.

    Raises:
        psycopg.Error, django.db.Error: PostgreSQL is gone, or the tables are missing.
    """
    return overview.check(cursor, needed=schema.VERSION)


class Outdated(psycopg.ProgrammingError):
    """The tables are missing, or older than this code needs them."""


def require_tables(cursor: Cursor, alias: str) -> None:
    """Make sure that the tables are as this code needs them.

    Args:
        alias: Of their database, for the message.

    Raises:
        Outdated: They are not; the message says what to do.
        psycopg.Error: PostgreSQL is gone.
    """
    try:
        version = overview.schema_version(cursor)
    except psycopg.errors.InsufficientPrivilege:
        # A role that may not see it may still have what it needs.
        return
    if version < schema.VERSION:
        found = f"those of version {version} are there" if version else "there are none"
        needed = f"this release needs its tables in version {schema.VERSION}"
        raise Outdated(f"{needed}, and {found}: run {schema.migrate_command(alias)}")


def overall(found: Iterable[Finding | KeptFinding]) -> str:
    """Return the worst status."""
    return max((finding.status for finding in found), key=(OK, WARNING, PROBLEM).index, default=PROBLEM)
