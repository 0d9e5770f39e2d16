"""A chore: work on the tables that is done every so many seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgq.store import connection as store_connection

#: Rows made ready or deleted in one statement: enough to keep up, few enough to hold no lock for long.
ROWS_PER_STATEMENT = 2000


@dataclass(slots=True)
class Chore:
    """Work that is done every so many seconds."""

    name: str
    every: float
    #: May return in how many seconds after its end the chore should be done again, if that is before its time.
    do: Callable[[store_connection.Connection], float | None]
    next: float = 0.0
    #: How often it has failed in a row.
    failures: int = 0
