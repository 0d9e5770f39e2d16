"""Statements about groups and chains."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import records


@dataclass(frozen=True, slots=True)
class RecentGroup:
    """A group, as far as its tasks are among the newest."""

    group: str
    tasks: int
    live: int
    succeeded: int
    failed: int
    last: datetime


def recent_groups(cursor: Cursor, *, limit: int, most: int) -> list[RecentGroup]:
    """Return the groups of the newest `limit` tasks of either table, at most `most`."""
    return records(cursor, RecentGroup, "recent_groups", {"most": most}, limit=limit)


@dataclass(frozen=True, slots=True)
class FlowTask:
    """A task of a group, or a collector of it."""

    id: UUID
    name: str | None
    func: str
    #: Whether it waits for tasks of the group, or has waited.
    collects: bool
    #: ready, waiting, running, parked, cancelled, succeeded or failed.
    state: str
    #: JSON: the functions of the links that follow it; None: it is no link of a chain, or the last one.
    chain: str | None


def flow(cursor: Cursor, group: str, *, limit: int) -> list[FlowTask]:
    """Return the tasks of a group, at most `limit` of each table, and their collectors; the oldest first."""
    return records(cursor, FlowTask, "flow", {"group": group}, limit=limit)
