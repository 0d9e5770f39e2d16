"""All that `pgq_check` finds: what the tables tell, and where they differ from the code."""

from __future__ import annotations

from pgq.schedules import drift
from pgq.status import findings
from pgq.store.connection import Cursor
from pgq.store.overview import Finding
from pgq.tasks import left_limits


def all_findings(cursor: Cursor) -> list[Finding]:
    """Check everything once, in the database at hand.

    Args:
        cursor: Of that database; the code's schedules and limits are compared by Django's connection to it.

    Raises:
        ImproperlyConfigured: The settings are wrong.
        psycopg.Error, django.db.Error: PostgreSQL is gone, or the tables are missing.
    """
    return [*findings.findings(cursor), drift.finding(), left_limits.finding()]
