"""What is read where there is much: each ready task once at most, and of the roll-ups the rows that are wanted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from pgq.status import metrics
from pgq.store.connection import Cursor
from pgq.store.series import Wanted, counts
from tests.support.admin import sql

LANES, EACH, KEYED = 200, 40, 500


def buffers(cursor: Any, statement: str, parameters: Any = None) -> int:
    """Return how many pages a statement touches."""
    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters)
    [[plan]] = cursor.fetchall()[0]
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


@pytest.mark.django_db
def test_the_view_of_depths_counts_tasks_with_a_key_and_reads_no_lane_twice() -> None:
    sql("ALTER TABLE pgq_queue DISABLE TRIGGER USER")
    sql(
        f"INSERT INTO pgq_queue (func, queue, priority) SELECT 'f', 'q' || n %% {LANES}, 0"
        f" FROM generate_series(0, {LANES * EACH - 1}) n".replace("%%", "%")
    )
    sql("INSERT INTO pgq_lane (queue) SELECT DISTINCT queue FROM pgq_queue")
    # These have lanes of their own only.
    sql(f"INSERT INTO pgq_queue (func, queue, key) SELECT 'f', 'keyed', 'k' || n FROM generate_series(1, {KEYED}) n")
    sql("SELECT pgq_make_keyed(array_agg(queue), array_agg(key), array_agg(priority)) FROM pgq_queue WHERE key <> ''")
    sql("UPDATE pgq_queue SET lock = now(), worker = id, receipt = id WHERE key IN ('k1', 'k2')")
    sql("ALTER TABLE pgq_queue ENABLE TRIGGER USER")
    sql("ANALYZE pgq_queue")
    found = {row[0]: row[1:] for row in sql("SELECT queue, ready, running, oldest_ready, more FROM pgq_queue_depth")}
    assert len(found) == LANES + 1
    assert found["q7"][0::3] == (EACH, False)
    assert found["keyed"][:2] == (KEYED - 2, 2)
    assert timedelta(0) <= found["keyed"][2] < timedelta(minutes=1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_relation_size('pgq_queue') / 8192")
        [pages] = cursor.fetchone()
        # Of each lane its entries and their rows; what has no index, from the first rows; and no scan for each lane.
        assert buffers(cursor, "SELECT * FROM pgq_queue_depth") < 3 * (LANES * EACH + KEYED) + 10 * pages


@pytest.mark.django_db
def test_a_few_hours_of_a_long_history_are_read_by_the_index() -> None:
    """Most rows are of hours, and most rows are young: of both at once there are few, which a planner cannot know."""
    functions = 40
    for span, hours in ((1, 48), (60, 24 * 100)):
        sql(
            "INSERT INTO pgq_metric (span, at, queue, func, succeeded, run_from, run_hist)"
            f" SELECT {span}, at, 'q', 'f' || f, 1, 4, '{{1,2,3}}' FROM generate_series("
            f"date_trunc('hour', now()) - interval '{hours} hours', now(), interval '{span} minutes') at,"
            f" generate_series(1, {functions}) f"
        )
    sql("ANALYZE pgq_metric")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_relation_size(inhrelid)) / 8192 FROM pg_inherits WHERE inhparent = 'pgq_metric'::regclass"
        )
        [whole] = cursor.fetchone()
        statement = "SELECT sum(succeeded) FROM pgq_metric WHERE span = 60 AND at >= now() - interval '3 days'"
        assert buffers(cursor, statement) < whole / 10
        _agree(cursor, functions)


def _agree(cursor: Cursor, functions: int) -> None:
    end = metrics.now(cursor)
    table = metrics.functions(cursor, start=end - timedelta(days=3), end=end)
    assert len(table) == functions
    assert {one.run.number for one in table} == {6 * one.counts.succeeded for one in table}
    rows = counts(cursor, Wanted(60, end - timedelta(hours=1), end), key=None, step=0, limit=10)
    assert rows[0].succeeded == functions
