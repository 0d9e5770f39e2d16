"""Plans: with many rows in each table, every statement of the hot path goes by an index and touches few pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from pgq.conf import ALL, Queues
from pgq.store import connection as store_connection
from pgq.store import leases, queue
from pgq.store import statement as store_statement
from tests.support.hand import WORKER
from tests.support.plans import Explained, explain
from tests.support.schema import fresh_database, up

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("plans")]

ROWS = 1_000_000 if os.environ.get("PGQ_TEST_FULL") else 300_000
RUNNING, WAITING = 1000, 20_000
RECEIPT = UUID("00000000-0000-4000-8000-0000000000bb")

# Twenty queues with five priorities; some tasks run, some wait for a time, some are parked.
LOAD_QUEUE = f"""
    INSERT INTO pgq_queue (id, func, args, queue, priority)
    SELECT pgq_uuid7(now() - n * interval '1 ms'), 'app.tasks.f', jsonb_build_array(n), 'queue' || n % 20, n / 20 % 5
      FROM generate_series(1, {ROWS}) n
"""
LOAD_TASK = f"""
    INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue, result, exception)
    SELECT pgq_uuid7(now() - n * interval '100 ms'), n % 100 <> 0, now(), now(), now(), 'app.tasks.f', 'default', '1',
           CASE WHEN n % 100 = 0 THEN 'builtins.ValueError' END
      FROM generate_series(1, {ROWS}) n
"""
MAKE_RUNNING = f"""
    UPDATE pgq_queue
       SET lock = now() - interval '1 s' * (position %% 50), worker = %s, receipt = %s, attempts = 1
     WHERE id IN (SELECT id FROM pgq_queue ORDER BY position LIMIT {RUNNING})
"""
MAKE_WAITING = f"""
    UPDATE pgq_queue SET run_after = now() + interval '1 h'
     WHERE id IN (SELECT id FROM pgq_queue WHERE lock IS NULL ORDER BY id LIMIT {WAITING})
"""
MAKE_PARKED = """
    UPDATE pgq_queue SET parked = 'x'
     WHERE id IN (SELECT id FROM pgq_queue WHERE lock IS NULL AND run_after IS NULL ORDER BY id LIMIT 1000)
"""


@pytest.fixture(scope="module")
def loaded(django_db_setup: None, django_db_blocker: Any) -> Iterator[psycopg.Connection[Any]]:
    """A database of its own with the rows; each test rolls back what it does."""
    with django_db_blocker.unblock(), fresh_database("plans") as database:
        up(database)
        database.execute("SET synchronous_commit = off")
        database.execute(LOAD_QUEUE)
        database.execute(LOAD_TASK)
        database.execute(MAKE_RUNNING, (WORKER, RECEIPT))
        database.execute(MAKE_WAITING)
        database.execute(MAKE_PARKED)
        database.execute("VACUUM ANALYZE pgq_queue")
        database.execute("VACUUM ANALYZE pgq_task")
        database.execute("ANALYZE pgq_lane")
        yield database


@pytest.fixture(params=["custom", "generic"])
def plan_mode(request: pytest.FixtureRequest) -> str:
    """As the planner sees the values, and as it plans once a statement is prepared for good."""
    return request.param


def assert_by_index(explained: Explained) -> None:
    large = {"pgq_queue", "pgq_task"}
    for kind in ("Seq Scan", "Parallel Seq Scan"):
        read = {name for name in explained.relations(kind) if name in large or name.startswith("pgq_task_")}
        # Partitions of weeks to come are empty: any plan will do for them.
        read -= {
            node["Relation Name"]
            for node in explained.nodes
            if node["Node Type"] == kind and node["Shared Hit Blocks"] + node["Shared Read Blocks"] == 0
        }
        assert not read, f"{kind} on {read}\n{explained.text}"
    # A sort of all ready rows is what a parameter as limit leads to.
    assert explained.rows_of("Sort") < 20_000, explained.text


@pytest.mark.parametrize(
    "served", [ALL, Queues(["queue3", "queue7"]), Queues(excluded=["queue3"])], ids=["all queues", "two", "all but one"]
)
@pytest.mark.parametrize("size", [1, 128, 512])
def test_claim(size, served, loaded, plan_mode):
    parameters = {**served.parameters(), "after": "", "worker": WORKER, "receipt": uuid4()}
    text = queue.claim_text(size, served)
    found = explain(loaded, plan_mode, text, parameters)
    assert found.rows == size
    assert_by_index(found)
    # It locks what it returns and no more.
    assert "LockRows" in found.text
    assert found.locked == size
    assert found.buffers < 200 + 60 * size


def test_locks_are_counted(loaded, plan_mode):
    assert explain(loaded, plan_mode, "SELECT id FROM pgq_queue LIMIT 5 FOR UPDATE", {}).locked == 5


def test_peek(loaded, plan_mode):
    found = explain(
        loaded, plan_mode, store_statement.sql("peek", **ALL.operators()), {"milliseconds": 0, **ALL.parameters()}
    )
    assert_by_index(found)
    assert found.buffers < 100, found.text


def test_outlook(loaded, plan_mode):
    found = explain(loaded, plan_mode, store_statement.sql("outlook"), {})
    assert_by_index(found)
    assert found.buffers < 50


def test_due_finds_the_few_that_are(loaded, plan_mode):
    found = explain(loaded, plan_mode, store_statement.sql("due"), {"limit": 2000})
    assert_by_index(found)
    assert found.buffers < 50


def since(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("name", ["rescue_expired", "release_worker", "release_uncharged"])
def test_rescue(name, wait, loaded, plan_mode):
    parameters = {
        "since": since(3600), "age": 300, "before": since(0), "worker": uuid4(), "workers": [uuid4()], "task": uuid4(),
        "crash": True, "error": "{}",
    }  # fmt: skip
    found = explain(loaded, plan_mode, leases.with_places(name, wait=wait), parameters)
    assert_by_index(found)
    assert found.rows == 0
    assert found.buffers < 1500


def test_oldest_lease(loaded, plan_mode):
    found = explain(loaded, plan_mode, store_statement.sql("oldest_lease"), {"since": since(3600)})
    assert_by_index(found)
    assert found.buffers < 50


def test_correct_leases(loaded, plan_mode):
    found = explain(loaded, plan_mode, store_statement.sql("correct_leases"), {})
    assert_by_index(found)
    assert found.buffers < 50


def test_renew(loaded, plan_mode):
    parameters = {"workers": [WORKER], "since": since(3600), "age": 20}
    found = explain(loaded, plan_mode, store_statement.sql("renew"), parameters)
    assert_by_index(found)
    assert found.rows > 100
    assert found.buffers < 100 * RUNNING


def held(database: psycopg.Connection[Any], count: int) -> list[UUID]:
    rows = database.execute("SELECT id FROM pgq_queue WHERE receipt = %s ORDER BY id LIMIT %s", (RECEIPT, count))
    return [row[0] for row in rows]


@pytest.mark.parametrize("moved", [0, 1, 100])
@pytest.mark.parametrize("size", [1, 200])
def test_settle(size, moved, loaded, plan_mode):
    ids = held(loaded, size)
    known = loaded.execute("SELECT id, ctid FROM pgq_queue WHERE id = ANY (%s)", (ids[moved:],))
    places = dict(known.fetchall())
    parameters = {
        "id": ids, "receipt": [RECEIPT] * size, "success": [True] * size, "keep": [True] * size, "cluster": "c",
        "started": [0.1] * size, "stopped": [0.0] * size, "result": ["1"] * size,
        "idle_limit": "10000", "exception": [None] * size, "message": [None] * size, "traceback": [None] * size,
        "ctid": [places.get(id) for id in ids],
    }  # fmt: skip
    found = explain(loaded, plan_mode, store_statement.sql("settle"), parameters)
    assert found.rows == size
    assert_by_index(found)
    assert found.buffers < 500 + 60 * size


@pytest.mark.parametrize("size", [1, 200])
def test_release(size, loaded, plan_mode):
    parameters = {"id": held(loaded, size), "receipt": [RECEIPT] * size}
    found = explain(loaded, plan_mode, leases.with_places("release", wait=True), parameters)
    assert found.rows == size
    assert_by_index(found)
    assert found.buffers < 500 + 80 * size


def test_retry(loaded, plan_mode):
    ids = held(loaded, 50)
    parameters = {"id": ids, "receipt": [RECEIPT] * 50, "delay": [1.0] * 50, "began": [1.0] * 50, "error": ["{}"] * 50}
    found = explain(loaded, plan_mode, store_statement.sql("retry"), parameters)
    assert found.rows == 50
    assert_by_index(found)
    assert found.buffers < 500 + 80 * 50


def test_watermarks(loaded, plan_mode):
    last = loaded.execute("SELECT last_value FROM pgq_position").fetchone()[0]
    lanes = loaded.execute("SELECT array_agg(queue), array_agg(priority) FROM pgq_lane").fetchone()
    parameters = {"safe": last, "queues": lanes[0], "priorities": lanes[1]}
    found = explain(loaded, plan_mode, store_statement.sql("advance"), parameters)
    assert_by_index(found)
    assert found.buffers < 5000
    # Each lane is searched once, though what is found is used twice.
    searches = [node for node in found.nodes if node.get("Relation Name") == "pgq_queue" and node["Actual Loops"]]
    assert len(searches) == 1, found.text
    found = explain(loaded, plan_mode, store_statement.sql("positions"), {})
    assert found.buffers < 20


def test_sweep(loaded, plan_mode):
    found = explain(loaded, plan_mode, store_statement.sql("sweep"), {})
    assert_by_index(found)
    assert found.buffers < 3000


def test_redraw(loaded, plan_mode):
    found = explain(loaded, plan_mode, store_statement.sql("redraw"), {"limit": 1000})
    assert_by_index(found)
    assert found.buffers < 1000


def test_enqueue(loaded, plan_mode):
    parameters: dict[str, Any] = dict.fromkeys(
        ("name", "group", "hook", "timeout", "run_after", "remaining", "schedule", "slot", "signature")
    )
    parameters |= {
        "id": uuid4(), "func": "f", "args": "[]", "kwargs": "{}", "options": "{}", "queue": "queue1", "priority": 1,
        "max_attempts": 1,
    }  # fmt: skip
    # What other tests rolled back: an INSERT that meets a full page of an index clears such entries away.
    loaded.execute("VACUUM pgq_queue")
    statement = "INSERT INTO pgq_queue (id, func, queue, priority) VALUES (%(id)s, %(func)s, %(queue)s, %(priority)s)"
    # VACUUM has the session forget what it knows of the table: the next INSERT reads the catalogs for the triggers.
    explain(loaded, plan_mode, statement, parameters)
    found = explain(loaded, plan_mode, statement, parameters)
    assert found.buffers < 100, found.text


def test_result_by_id_looks_into_one_partition(loaded, plan_mode):
    (id,) = loaded.execute("SELECT id FROM pgq_task OFFSET 1000 LIMIT 1").fetchone()
    found = explain(loaded, plan_mode, "SELECT result FROM pgq_task WHERE id = %(id)s", {"id": id})
    assert found.rows == 1
    assert_by_index(found)
    assert found.buffers < 20


def test_newest_results_come_from_the_index(loaded, plan_mode):
    """The first page of the admin."""
    for condition in ("true", "NOT success"):
        statement = f"SELECT id FROM pgq_task WHERE {condition} ORDER BY id DESC LIMIT %(limit)s"
        found = explain(loaded, plan_mode, statement, {"limit": 100})
        assert found.rows == 100
        assert_by_index(found)
        assert found.buffers < 1000


def test_statistics_of_an_empty_table_do_not_spoil_the_claim(loaded, plan_mode):
    """Autoanalyze found it empty; then a backlog came."""
    with loaded.transaction(force_rollback=True):
        loaded.execute("UPDATE pg_class SET relpages = 1, reltuples = 0 WHERE oid = 'pgq_queue'::regclass")
        loaded.execute("DELETE FROM pg_statistic WHERE starelid = 'pgq_queue'::regclass")
        parameters = {"queues": None, "after": "", "worker": WORKER, "receipt": uuid4()}
        found = explain(loaded, plan_mode, queue.claim_text(64), parameters)
        assert found.rows == 64
        assert found.locked == 64
        assert_by_index(found)


@pytest.mark.django_db(transaction=True)
def test_a_long_lane_among_hundreds_of_short_ones_is_not_sorted_for_each_claim(plan_mode: str) -> None:
    """From the statistics, all lanes are as long as the average one."""
    connection = store_connection.connect("default", "pgq tests")
    try:
        connection.execute(
            "INSERT INTO pgq_queue (func, queue)"
            " SELECT 'f', CASE WHEN n % 4 > 0 THEN 'long' ELSE 'short' || n / 4 % 150 END"
            "   FROM generate_series(1, 100000) n"
        )
        connection.execute("VACUUM ANALYZE pgq_queue")
        parameters = {"queues": ["long"], "after": "", "worker": WORKER, "receipt": uuid4()}
        seen = explain(connection, plan_mode, queue.claim_text(512), parameters)
        assert seen.rows == 512, seen.text
        assert max(node["Actual Rows"] * node["Actual Loops"] for node in seen.nodes) < 1000, seen.text
    finally:
        connection.close()
