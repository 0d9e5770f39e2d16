"""Statements about the tables themselves, and the server they are on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgq.store.connection import Cursor
from pgq.store.statement import records


@dataclass(frozen=True, slots=True)
class TableState:
    """A table of pgq. Sizes are bytes; rows are PostgreSQL's estimates."""

    name: str
    #: Partitions; 1 for a table without any.
    parts: int
    #: With indexes and TOAST.
    size: int
    heap: int
    living: int
    dead: int
    vacuumed: datetime | None
    analyzed: datetime | None


def tables(cursor: Cursor) -> list[TableState]:
    """Return the tables of pgq, the largest first."""
    return records(cursor, TableState, "tables", {})


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
