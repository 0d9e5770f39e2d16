"""Statements about failures that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, records


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures that are alike, among the newest ones."""

    #: 16 hex digits; see the SQL function pgq_fingerprint.
    fingerprint: str
    func: str
    #: Dotted path; "": the row has none.
    exception: str
    count: int
    first: datetime
    last: datetime
    #: How long they ran on average.
    seconds: float
    #: Of the last one, the first 200 characters.
    message: str | None
    queues: list[str]


def fingerprints(
    cursor: Cursor, *, limit: int, most: int, fingerprint: str | None = None, func: str | None = None
) -> list[FailureGroup]:
    """Group the newest `limit` failures; return `most` groups at most: all, a function's, or one by its fingerprint."""
    parameters = {"most": most, "fingerprint": fingerprint, "func": func}
    return records(cursor, FailureGroup, "fingerprints", parameters, limit=limit)


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One of a group."""

    id: UUID
    name: str | None
    queue: str
    stopped: datetime
    message: str | None


def alike(cursor: Cursor, *, fingerprint: str, limit: int, most: int) -> list[FailureRow]:
    """Return, newest first, those of the newest `limit` failures that have that fingerprint, at most `most`."""
    return records(cursor, FailureRow, "alike", {"fingerprint": fingerprint, "most": most}, limit=limit)


def retry_failures(cursor: Cursor, ids: Sequence[UUID]) -> dict[UUID, bool | None]:
    """Run failed tasks again; True: done; False: it is no failed task any more; None: another table keeps it."""
    return {row[0]: row[1] for row in all_rows(cursor, "retry_failures", {"ids": list(ids)})}
