"""What PostgreSQL itself counts of pgq's tables, and of the server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgq.store.connection import Cursor
from pgq.store.statement import records


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """A table; of pgq_task all partitions together. Living and dead rows are PostgreSQL's estimates."""

    table: str
    #: Partitions; 1 for a table without any.
    parts: int
    #: With indexes and TOAST.
    bytes: int
    living_rows: int
    #: Rows that vacuum has not removed yet.
    dead_rows: int
    #: Since the statistics were reset.
    inserted: int
    vacuumed: datetime | None


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


@dataclass(frozen=True, slots=True)
class Server:
    """The server, as far as this role sees it."""

    version: str
    database: str
    #: Bytes.
    size: int
    max_connections: int
    connections: int
    idle_in_transaction: int
    #: Whether it is a standby, which can only be read.
    standby: bool
    synchronous_commit: str
    fsync: str
    autovacuum: str


def server(cursor: Cursor) -> Server:
    """Return what of the server is worth knowing beside a queue."""
    return records(cursor, Server, "server", {})[0]
