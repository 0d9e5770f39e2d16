"""What PostgreSQL itself counts of pgq's tables, and of the server."""

from __future__ import annotations

from dataclasses import dataclass

from pgq.store.connection import Cursor
from pgq.store.statement import records


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """A table with its indexes; of pgq_task all partitions together."""

    table: str
    bytes: int
    #: Rows that vacuum has not removed yet, by PostgreSQL's estimate.
    dead_rows: int
    #: Since the statistics were reset.
    inserted: int


def table_statistics(cursor: Cursor) -> list[TableStatistics]:
    """Return the statistics of each table of pgq."""
    return records(cursor, TableStatistics, "table_statistics", {})


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """The server."""

    #: Seconds since the oldest transaction began that keeps vacuum from removing rows; None: there is none.
    horizon_age: float | None
    #: How full the queue of notifications is, from 0 to 1.
    notifications: float


def server_statistics(cursor: Cursor) -> ServerStatistics:
    """Return the statistics of the server. Without the role pg_monitor, only the caller's own sessions are seen."""
    return records(cursor, ServerStatistics, "server_statistics", {})[0]
