"""What a task costs, in numbers that do not depend on the machine: round trips, statements, rows, pages.

A change that raises one of them has to say why, and to change the number here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from pgq.enqueue.make import make_task
from pgq.enqueue.write import enqueue_all
from pgq.execution.settle import _settlement
from pgq.records import Claim
from pgq.store import connection as store_connection
from pgq.store import lanes, queue, statement
from pgq.tasks import async_task, enqueue_many
from tests.support.hand import MARK, WORKER, Hand, begin_at, claim, fill, fill_mixed, run
from tests.support.plans import Explained, explain
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

BATCH = 512
TABLES = "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables"


@pytest.fixture
def hand(oracle: Any) -> Iterator[Hand]:
    hand = Hand()
    yield hand
    hand.close()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each time that one of our own connections waits for PostgreSQL."""
    waits: list[str] = []
    inner = store_connection._Patient.wait

    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        waits.append("wait")
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(store_connection._Patient, "wait", wait)
    return waits


def written(session: psycopg.Connection[Any]) -> dict[str, tuple[int, int, int]]:
    """Rows inserted, updated and deleted in this transaction, by table; partitions count as their parent."""
    total: Counter[tuple[str, int]] = Counter()
    for name, *counts in session.execute(TABLES).fetchall():
        for kind, count in enumerate(counts):
            total["pgq_task" if name.startswith("pgq_task") else name, kind] += count
    names = {name for (name, _), count in total.items() if count}
    return {name: (total[name, 0], total[name, 1], total[name, 2]) for name in names}


# ------------------------------------------------------------------------------------------------- round trips


def test_one_task_is_enqueued_by_one_statement():
    async_task(MARK, 1)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        async_task(MARK, 2)
    assert len(queries) == 1


def test_2000_tasks_are_enqueued_by_one_statement():
    with CaptureQueriesContext(connection) as queries:
        enqueue_all(make_task(MARK, (number,)) for number in range(2000))
    assert len(queries) == 1


def test_5000_calls_are_enqueued_by_one_copy_in_one_transaction():
    enqueue_many(MARK, range(10))
    with CaptureQueriesContext(connection) as queries:
        enqueue_many(MARK, range(5000), chunk=5000)
    assert [query["sql"].split()[0] for query in queries] == ["BEGIN", "COPY", "COMMIT"]


def test_settling_a_batch_and_claiming_the_next_takes_four_round_trips(hand, trips):
    fill(3 * BATCH)
    hand.sizer.size, hand.sizer.average = BATCH, 1e-7
    assert hand._exchange()
    hand._run_waiting()
    hand.sizer.size, hand.sizer.average = BATCH, 1e-7
    trips.clear()
    assert hand._exchange()
    # BEGIN, settle, claim, COMMIT.
    assert len(trips) == 4
    assert len(hand.exchange.waiting) == BATCH


def test_running_a_task_asks_postgresql_nothing(hand, trips):
    fill(64)
    hand.sizer.size, hand.sizer.average = 64, 1e-7
    hand._exchange()
    trips.clear()
    with CaptureQueriesContext(connection) as queries:
        hand._run_waiting()
    assert not trips
    assert not queries.captured_queries


# ------------------------------------------------------------------------------------------------- rows


def test_rows_written_by_a_claim_and_its_settlement(session, oracle):
    fill(BATCH)
    claimer = session(autocommit=False)
    claims = claim(claimer, BATCH)
    assert written(claimer) == {"pgq_queue": (0, BATCH, 0)}
    claimer.commit()
    reports = [run(claimed) for claimed in claims]
    # Another session, since the first counts its last transaction for a while.
    settler = session(autocommit=False)
    queue.settle(settler.cursor(), [_settlement(report, report.stopped) for report in reports], cluster="costs")
    assert written(settler) == {"pgq_queue": (0, 0, BATCH), "pgq_task": (BATCH, 0, 0)}


def test_rows_written_by_an_enqueue(session, oracle):
    fill(1)
    writer = session(autocommit=False)
    queue.enqueue_many(writer.cursor(), [make_task(MARK, (number,)) for number in range(BATCH)])
    assert written(writer) == {"pgq_queue": (BATCH, 0, 0)}


# ------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("backlog", [2_000, 40_000])
def test_pages_touched_by_a_claim_do_not_depend_on_the_backlog(backlog, session, oracle):
    fill(backlog)
    reader = session()
    reader.execute("VACUUM ANALYZE pgq_queue")
    parameters = {"queues": None, "after": "", "worker": WORKER, "receipt": uuid4()}
    found = explain(reader, "generic", queue.claim_text(BATCH), parameters)
    assert found.rows == BATCH
    # Each task: its entry in the ready index and its row, then the row anew with its entries in the indexes.
    assert found.buffers / BATCH < 12


LANES = 300


def pages_of_a_small_claim(worker: psycopg.Connection[Any], after: str) -> Explained:
    parameters = {"queues": None, "after": after, "worker": WORKER, "receipt": uuid4()}
    return explain(worker, "generic", queue.claim_text(8), parameters)


@pytest.fixture
def worker() -> Iterator[psycopg.Connection[Any]]:
    with store_connection.connect("default", "pgq tests", pins=store_connection.BY_INDEX) as worker:
        yield worker


def test_a_claim_passes_over_empty_lanes(worker):
    fill_mixed(worker, queues=LANES, each=1)
    assert len(claim(worker)) == LANES
    lanes.advance(worker.cursor(), safe=lanes.positions(worker.cursor())[0])
    found = pages_of_a_small_claim(worker, "")
    assert found.rows == 0
    # The lanes themselves, twice, and none of their tasks.
    assert not [
        node
        for node in found.nodes
        if node.get("Relation Name") == "pgq_queue" and node["Node Type"] != "ModifyTable" and node["Actual Loops"]
    ]


# Where the tasks that are left have few empty lanes before them, and where they have nearly all of them.
@pytest.mark.parametrize(("place", "pages"), [(0, LANES), (577, 3 * LANES)])
def test_a_claim_does_not_look_at_each_lane_in_vain_while_watermarks_lag(place, pages, session, worker):
    """As in a long transaction that enqueues: most of what lies behind the watermarks has been claimed."""
    begin_at(worker, place)
    fill_mixed(worker, queues=LANES, each=32)
    claimer = session().cursor()
    after = ""
    for _ in range(18):
        claims = queue.claim(claimer, limit=512, worker=WORKER, receipt=uuid4(), after=after)
        after = claims[-1].queue

    def reads_fewer_than(bound: int) -> bool:
        found = pages_of_a_small_claim(worker, after)
        assert found.rows == 8
        return found.buffers < bound

    # Whoever comes by what is dead marks it so in the index, once no snapshot (of an ANALYZE) can see it any more.
    wait_for(lambda: reads_fewer_than(pages), f"a small claim reads less than {pages} pages")
    lanes.advance(worker.cursor(), safe=lanes.positions(worker.cursor())[0])
    wait_for(lambda: reads_fewer_than(LANES), f"a small claim reads less than {LANES} pages")


def test_a_lane_with_an_old_backlog_does_not_make_its_neighbour_read_what_is_gone(session, worker):
    """Lanes are read together from the lowest of their watermarks on; no vacuum can remove what was claimed."""
    pinned = session(autocommit=False)
    pinned.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    pinned.execute("SELECT 1 FROM pgq_lane")
    fill(10, queue="old")
    fill(20_000, queue="young")
    gone = 0
    while gone < 19_000:
        gone += len(claim(session(), queues=["young"]))
    lanes.advance(worker.cursor(), safe=lanes.positions(worker.cursor())[0])
    parameters = {"queues": None, "after": "", "worker": WORKER, "receipt": uuid4()}
    found = explain(worker, "generic", queue.claim_text(64), parameters)
    assert found.rows == 64
    # As few as of a queue in which nothing is gone.
    assert found.buffers / 64 < 14


@pytest.mark.parametrize("plan", ["generic", "custom"])
@pytest.mark.parametrize("backlog", [600, 6_000, 20_000])
def test_a_batch_never_reads_a_whole_queue(plan, backlog, session, worker, oracle):
    """Of a small one that would be cheap by the planner's numbers; and the plan would stay while it grows."""
    fill(backlog)
    session().execute("VACUUM ANALYZE pgq_queue")
    parameters = {"queues": None, "after": "", "worker": WORKER, "receipt": uuid4()}
    found = explain(worker, plan, queue.claim_text(BATCH), parameters)
    assert found.rows == BATCH
    claims = claim(worker, BATCH)
    seen = [*found.nodes, *explain(worker, plan, statement.sql("settle"), settlement_of(claims)).nodes]
    assert not [node for node in seen if (node["Node Type"], node.get("Relation Name")) == ("Seq Scan", "pgq_queue")]


def settlement_of(claims: list[Claim]) -> dict[str, Any]:
    return {
        "id": [item.id for item in claims], "receipt": [item.receipt for item in claims],
        "success": [True] * BATCH, "keep": [True] * BATCH, "started": [0.0] * BATCH, "stopped": [0.0] * BATCH,
        "result": ["1"] * BATCH, "exception": [None] * BATCH, "message": [None] * BATCH, "traceback": [None] * BATCH,
        "ctid": [item.ctid for item in claims], "cluster": "costs", "idle_limit": None,
    }  # fmt: skip


@pytest.mark.parametrize("history", [0, 40_000])
def test_pages_touched_by_a_settlement_do_not_depend_on_the_history(history, session, oracle):
    writer = session()
    writer.execute(
        "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue)"
        " SELECT pgq_uuid7(now() - n * interval '1 ms'), true, now(), now(), now(), 'f', 'default'"
        "   FROM generate_series(1, %s) n",
        (history,),
    )
    # So many that PostgreSQL fetches each row by its ctid: the whole of a small table it might read instead.
    fill(20 * BATCH)
    claims = claim(writer, BATCH)
    found = explain(writer, "generic", statement.sql("settle"), settlement_of(claims))
    assert found.rows == BATCH
    # The whole statement's do not include an INSERT of whose rows nothing is read.
    deleting, searching, inserting = (
        (node["Shared Hit Blocks"] + node["Shared Read Blocks"]) / BATCH
        for node in found.nodes
        if node["Node Type"] == "ModifyTable"
    )
    assert deleting < 3.1, found.nodes
    assert searching == 0, found.nodes
    assert inserting < 6.3, found.nodes


def test_pages_touched_by_an_enqueue(session, oracle):
    fill(2_000)
    insert = "INSERT INTO pgq_queue (func) SELECT 'f' FROM generate_series(1, 512)"
    found = explain(session(), "generic", insert, {})
    assert found.buffers / BATCH < 8
