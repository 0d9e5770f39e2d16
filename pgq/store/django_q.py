"""Statements of the import from Django-Q."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import all_rows
from pgq.store.texts import sql

#: Django-Q's tables, which hold its schedules, its queue (the ORM broker's) and its finished tasks.
_DJANGO_Q_TABLES = {"schedules": "django_q_schedule", "queued": "django_q_ormq", "results": "django_q_task"}


def django_q_rows(cursor: Cursor, kind: str, *, after: int | str, limit: int) -> list[dict[str, Any]]:
    """Return the next rows of one of Django-Q's tables, by column, as that database gives them.

    Args:
        cursor: On the database that has Django-Q's tables, which need not be PostgreSQL.
        kind: "schedules", "queued" or "results".
        after: The id of the last row read; 0 or "" at first.
    """
    cursor.execute(sql("django_q_rows", table=_DJANGO_Q_TABLES[kind], limit=limit), {"after": after})
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def django_q_take(cursor: Cursor, id: int, *, lock: Any, mark: Any) -> bool:
    """Take a task out of Django-Q's queue by setting its lock to `mark`; return whether it still had that lock."""
    cursor.execute(sql("django_q_take"), {"id": id, "lock": mark if lock is None else lock, "mark": mark})
    return cursor.rowcount == 1


def django_q_take_schedule(cursor: Cursor, id: int, *, next_run: Any, mark: Any) -> bool:
    """Have Django-Q fire a schedule no more, by setting its next run to `mark`; return whether it had not moved."""
    cursor.execute(sql("django_q_take_schedule"), {"id": id, "next_run": next_run, "mark": mark})
    return cursor.rowcount == 1


def import_results(cursor: Cursor, rows: Sequence[dict[str, Any]]) -> set[UUID]:
    """Write finished tasks; return the ids of those that were new."""
    return {row[0] for row in all_rows(cursor, "import_results", {key: [row[key] for row in rows] for key in rows[0]})}


def known_tasks(cursor: Cursor, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these tasks are here, live or finished."""
    return {row[0] for row in all_rows(cursor, "known_tasks", {"ids": list(ids)})}


def imported_schedules(cursor: Cursor) -> dict[str, int]:
    """Return the ids of the schedules that came from Django-Q, by their ids there."""
    return {str(row[0]): row[1] for row in all_rows(cursor, "imported_schedules", {})}
