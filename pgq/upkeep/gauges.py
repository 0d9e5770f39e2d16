"""Gauges: once a minute, how many tasks each queue has. Counted as far as that is quick, and estimated beyond."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from pgq.status.pools import ALIVE
from pgq.status.snapshot import queue_depths
from pgq.store import connection as store_connection
from pgq.store import metrics
from pgq.store.connection import Cursor
from pgq.store.metrics import Serving
from pgq.store.overview import QueueDepth

logger = logging.getLogger("pgq")

#: Milliseconds that each of its statements may take.
MILLISECONDS = 200
#: Queues that have a row of their own, those with the most tasks.
QUEUES = 500
#: Pages of the table that are read for an estimate.
_PAGES = 300


def note(connection: store_connection.Connection) -> None:
    """Note this minute's numbers, unless they are there. A minute in which PostgreSQL is too slow for it stays out."""
    at, is_missing = metrics.gauge_minute(connection.cursor())
    if not is_missing:
        return
    try:
        # A savepoint in the caller's transaction.
        with connection.transaction():
            cursor = connection.cursor()
            metrics.limit_time(cursor, milliseconds=MILLISECONDS)
            take(cursor, at)
    except psycopg.errors.QueryCanceled:
        logger.debug("upkeep: how many tasks wait takes longer than %d ms to count", MILLISECONDS)


def take(cursor: Cursor, at: datetime) -> None:
    """Count, and write the rows of that minute."""
    depths = queue_depths(cursor)
    ready = {depth.queue: depth.ready for depth in depths}
    if any(depth.more for depth in depths):
        sampled = metrics.sampled_ready(cursor, pages=_PAGES)
        ready |= {depth.queue: max(depth.ready, sampled.get(depth.queue, 0)) for depth in depths if depth.more}
    pools = metrics.serving(cursor, alive=ALIVE)
    rows = [_row(depth, ready[depth.queue], _workers(pools, depth.queue)) for depth in depths]
    rows.sort(key=lambda row: -row["ready"] - row["running"] - row["waiting"])
    metrics.add_gauges(cursor, at, [_of_all(depths, rows, sum(pool.workers for pool in pools)), *rows[:QUEUES]])


def _row(depth: QueueDepth, ready: int, workers: int) -> dict[str, Any]:
    return {
        "queue": depth.queue,
        "ready": ready,
        "running": depth.running,
        "waiting": depth.waiting,
        "parked": depth.parked,
        "oldest_ready": None if depth.oldest is None else max(depth.oldest, 0.0),
        "workers": workers,
        "busy": depth.running,
        "paused": depth.paused,
        "exact": not depth.more,
    }


def _of_all(depths: Sequence[QueueDepth], rows: Sequence[dict[str, Any]], workers: int) -> dict[str, Any]:
    sums = {name: sum(row[name] for row in rows) for name in ("ready", "running", "waiting", "parked", "busy")}
    oldest = max((row["oldest_ready"] for row in rows if row["oldest_ready"] is not None), default=None)
    exact = not any(depth.more for depth in depths)
    return {"queue": "", **sums, "oldest_ready": oldest, "workers": workers, "paused": False, "exact": exact}


def _workers(pools: Sequence[Serving], queue: str) -> int:
    """Return how many workers may run tasks of a queue."""
    return sum(pool.workers for pool in pools if pool.queues.serves(queue))
