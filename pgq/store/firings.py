"""The statement about what schedules have fired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import records


@dataclass(frozen=True, slots=True)
class Firing:
    """A finished task of a schedule."""

    schedule: int
    id: UUID
    success: bool
    started: datetime
    seconds: float


def firings(cursor: Cursor, ids: Sequence[int], *, limit: int) -> list[Firing]:
    """Return the last `limit` finished tasks of each of these schedules, of each the oldest first."""
    return records(cursor, Firing, "firings", {"ids": list(ids)}, limit=limit)
