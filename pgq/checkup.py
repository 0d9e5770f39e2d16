"""Whether what should hold does hold: the findings of the SQL function pgq_check, for the command and for /health."""

from __future__ import annotations

from collections.abc import Iterable

from pgq import schema, store
from pgq.db import Cursor
from pgq.store import Finding

OK, WARNING, PROBLEM = "ok", "warning", "problem"


def findings(cursor: Cursor) -> list[Finding]:
    """Check everything once; it takes some milliseconds, on a table of millions as well.

    Raises:
        psycopg.Error, django.db.Error: PostgreSQL is gone, or the tables are missing.
    """
    return store.check(cursor, needed=schema.VERSION)


def overall(found: Iterable[Finding]) -> str:
    """Return the worst status."""
    return max((finding.status for finding in found), key=(OK, WARNING, PROBLEM).index, default=PROBLEM)
