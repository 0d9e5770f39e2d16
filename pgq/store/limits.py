"""Statements about limits: set, drop, and what code gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pgq.ground.limits import Limit
from pgq.store.connection import Cursor
from pgq.store.statement import all_rows, one_row, records


def set_limit(cursor: Cursor, limit: Limit, *, keep_strict: bool, pinned: bool) -> None:
    """Set a limit as an operator does.

    Args:
        keep_strict: Whether the limit is strict stays as it is.
        pinned: Code does not change it any more.
    """
    parameters = {
        "scope": limit.scope,
        "name": limit.name,
        "concurrency": limit.concurrency,
        "rate": limit.rate,
        "period": limit.period,
        "smooth": limit.smooth,
        "strict": None if keep_strict else limit.strict,
        "pinned": pinned,
    }
    all_rows(cursor, "set_limit", parameters)


def drop_limit(cursor: Cursor, name: str, *, scope: str) -> bool:
    """Take a limit away; return whether there was one."""
    return bool(one_row(cursor, "drop_limit", {"name": name, "scope": scope})[0])


def write_limits(cursor: Cursor, limits: Sequence[Limit]) -> list[tuple[str, str]]:
    """Write limits that code gives, but over none that an operator has set; return (scope, name) of those written."""
    parameters = {
        "scopes": [limit.scope for limit in limits],
        "names": [limit.name for limit in limits],
        "concurrencies": [limit.concurrency for limit in limits],
        "rates": [limit.rate for limit in limits],
        "periods": [limit.period for limit in limits],
        "smooths": [limit.smooth for limit in limits],
        "stricts": [limit.strict for limit in limits],
    }
    return [(row[0], row[1]) for row in all_rows(cursor, "write_limits", parameters)]


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit as the table has it, and what is under it now."""

    scope: str
    name: str
    concurrency: int | None
    rate: int | None
    #: Seconds.
    period: float | None
    smooth: bool
    strict: bool
    #: An operator set it, not code.
    pinned: bool
    updated_at: datetime
    #: Strands that run, and tasks that are ready: of the queue, or of all keys of that name.
    running: int
    ready: int


def limits(
    cursor: Cursor, *, most: int, bound: int, scope: str | None = None, name: str | None = None
) -> list[LimitState]:
    """Return limits by scope and name, `most` at most; counted up to `bound`. `scope`, `name`: only these."""
    return records(cursor, LimitState, "limits", {"scope": scope, "name": name}, most=most, bound=bound)
