"""Statements about all tasks that match: looked at by id, window by window, so that none of them takes long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgq.records import Signed
from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, records

#: Rows that one statement looks at.
WINDOW = 20_000
#: Below every id.
FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Match:
    """What the columns of a task must be like; texts are patterns of LIKE, None is any."""

    states: list[str]
    queue: str | None
    func: str | None
    group: str | None
    exception: str | None
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What one window held."""

    looked: int
    #: The last id of it; None: there was no row left.
    last: UUID | None
    #: How many match; and which, if that was wanted.
    matched: int
    ids: list[UUID]


def _columns(match: Match, after: UUID, wanted: bool) -> dict[str, object]:
    return {
        "after": after,
        "wanted": wanted,
        "queue": match.queue,
        "func": match.func,
        "group": match.group,
        "since": match.since,
        "until": match.until,
    }


def look_queued(cursor: Cursor, match: Match, *, after: UUID, wanted: bool) -> Looked:
    """Look at the next live tasks by id; `wanted`: return which ones match."""
    parameters = {**_columns(match, after, wanted), "states": match.states}
    return records(cursor, Looked, "look_queued", parameters, window=WINDOW)[0]


def look_failed(cursor: Cursor, match: Match, *, after: UUID, wanted: bool, cancelled: str) -> Looked:
    """Look at the next failures by id; without an `exception`, those of the exception `cancelled` do not match."""
    parameters = {**_columns(match, after, wanted), "exception": match.exception, "cancelled": cancelled}
    return records(cursor, Looked, "look_failed", parameters, window=WINDOW)[0]


def lock_queued(cursor: Cursor, ids: Sequence[UUID], *, states: Sequence[str]) -> list[UUID]:
    """Lock those that are still in one of these states; return them."""
    return [row[0] for row in all_rows(cursor, "lock_queued", {"ids": list(ids), "states": list(states)})]


def retry_queued(cursor: Cursor, ids: Sequence[UUID], *, states: Sequence[str]) -> list[bool | None]:
    """Make those ready that are still in one of these states; return whether each was."""
    return [row[0] for row in all_rows(cursor, "retry_queued", {"ids": list(ids), "states": list(states)})]


def retry_failed(cursor: Cursor, ids: Sequence[UUID]) -> list[bool | None]:
    """Run those again that are still failures; None: a foreign key of another table keeps it where it is."""
    return [row[0] for row in all_rows(cursor, "retry_failed", {"ids": list(ids)})]


def lock_to_move(cursor: Cursor, ids: Sequence[UUID], *, states: Sequence[str], queue: str) -> list[Signed]:
    """Lock those that are still in one of these states and not in that queue; return what their signatures cover."""
    parameters = {"ids": list(ids), "states": list(states), "queue": queue}
    return [
        Signed._make((*row[:-1], row[-1] and bytes(row[-1]))) for row in all_rows(cursor, "lock_to_move", parameters)
    ]


def move(cursor: Cursor, ids: Sequence[UUID], signatures: Sequence[bytes | None], *, queue: str) -> list[UUID]:
    """Put tasks that are locked behind all others of a queue, with these signatures; return which it did."""
    parameters = {"ids": list(ids), "signatures": list(signatures), "queue": queue}
    return [row[0] for row in all_rows(cursor, "move", parameters)]
