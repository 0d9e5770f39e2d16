"""Statements that end tasks which no worker holds: cancelled ones, and those whose time is over."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pgq.records import Claim
from pgq.store.connection import Cursor
from pgq.store.statement import all_rows


def cancel(cursor: Cursor, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Cancel tasks; return for each whether it was queued, running, finished or unknown."""
    return dict(all_rows(cursor, "cancel", {"ids": list(ids)}))


def take(cursor: Cursor, ids: Sequence[UUID], *, worker: UUID, receipt: UUID) -> list[Claim]:
    """Claim those of the tasks that no worker holds, as cancelled, whatever they wait for."""
    parameters = {"ids": list(ids), "worker": worker, "receipt": receipt}
    return [Claim._make((*row, receipt, worker)) for row in all_rows(cursor, "take", parameters)]


def take_ended(cursor: Cursor, *, limit: int, worker: UUID, receipt: UUID) -> list[Claim]:
    """Claim up to `limit` tasks that are to end without being run and that no worker holds."""
    parameters = {"limit": limit, "worker": worker, "receipt": receipt}
    return [Claim._make((*row, receipt, worker)) for row in all_rows(cursor, "take_ended", parameters)]
