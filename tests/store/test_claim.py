"""Claims: order, queues, fairness, exclusion; real sessions, each with a transaction of its own."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgq.conf import Queues
from pgq.models import QueuedTask
from pgq.store import connection as store_connection
from pgq.store import lanes as store_lanes
from pgq.store import pools
from pgq.store import queue as store_queue
from pgq.tasks import async_task
from tests.support.hand import MARK, WORKER, Hand, begin_at, claim, fill, fill_mixed, value

pytestmark = pytest.mark.django_db(transaction=True)

# As upkeep leaves it, for a share of the lanes.
BELOW_THE_FIRST = """
    UPDATE pgq_lane l
       SET low = (SELECT min(q.position) - 1 FROM pgq_queue q WHERE (q.queue, q.priority) = (l.queue, l.priority))
     WHERE random() < %(share)s
"""


def skip(session: psycopg.Connection[Any], positions: int) -> None:
    """Draw positions as tasks do that are gone by now."""
    session.execute("SELECT setval('pgq_position', nextval('pgq_position') + %s)", (positions,))


def test_the_example_in_the_head_of_the_statement(session):
    own = session()
    rows = [("a", 1), ("b", 2), ("c", 3), ("c", 4), ("a", 9000)]
    with own.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO pgq_queue (func, name, queue, position) VALUES ('f', %s, %s, %s)",
            [(f"{queue}{position}", queue, position) for queue, position in rows],
        )
    own.execute("UPDATE pgq_lane SET low = 0")
    own.execute("SELECT setval('pgq_position', 9000)")
    for limit, names in ((4, ["a1", "b2", "c3", "c4"]), (1, ["a9000"])):
        claims = store_queue.claim(own.cursor(), limit=limit, worker=WORKER, receipt=uuid4(), after="b")
        assert sorted(str(task.name) for task in claims) == names
    assert store_queue.behind([(0, "c"), (0, "c"), (0, "a"), (0, "b")], after="b") == "a"


def test_priority_first_then_first_in_first_out(session):
    wanted = []
    for priority in (0, 10, -10):
        wanted.append((priority, [async_task(MARK, n, priority=priority) for n in range(3)]))
    # Interleaved, so that neither id nor position alone gives the order.
    for priority, ids in wanted:
        ids.append(async_task(MARK, 3, priority=priority))
    wanted.sort(key=lambda pair: -pair[0])
    own = session()
    order = [id for _, ids in wanted for id in ids]
    assert [claimed.id.hex for claimed in claim(own, 8)] == order[:8]
    assert [claimed.id.hex for claimed in claim(own, 8)] == order[8:]
    assert claim(own, 8) == []


def test_priority_goes_before_queue(session):
    low = async_task(MARK, queue="a")
    high = async_task(MARK, queue="b", priority=1)
    own = session()
    for after in ("", "a", "b", "c", "d"):
        with own.transaction(force_rollback=True):
            assert [claimed.id.hex for claimed in claim(own, 1, after=after)] == [high]
    assert [claimed.id.hex for claimed in claim(own, 2)] == [high, low]


def test_claim_is_a_lease(session):
    id = async_task(MARK, 1, queue="q", priority=3, group="g", task_name="n", timeout=5, max_attempts=4)
    own = session()
    (claimed,) = claim(own)
    row = QueuedTask.objects.get(pk=id)
    assert row.state == "running"
    assert (row.receipt, row.worker, row.attempts) == (claimed.receipt.hex, WORKER.hex, 1)
    assert value(own, "SELECT lock BETWEEN now() - interval '1 minute' AND clock_timestamp() FROM pgq_queue")
    assert (claimed.queue, claimed.priority, claimed.group, claimed.name) == ("q", 3, "g", "n")
    assert (claimed.timeout, claimed.max_attempts, claimed.attempts) == (5.0, 4, 1)
    assert claim(own) == []


def test_queues_are_restricted(session):
    ids = {queue: async_task(MARK, queue=queue) for queue in ("a", "b", "c")}
    own = session()
    assert claim(own, queues=["none"]) == []
    assert {claimed.id.hex for claimed in claim(own, queues=["a", "c"])} == {ids["a"], ids["c"]}
    assert [claimed.id.hex for claimed in claim(own)] == [ids["b"]]


def test_excluded_queues_are_left_alone_and_new_ones_are_served_at_once(session):
    own, served = session(), Queues(excluded=("b", "d"))
    for queue in "abd":
        async_task(MARK, queue=queue)
    assert [claimed.queue for claimed in claim(own, excluded=["b", "d"])] == ["a"]
    assert pools.peek(own.cursor(), milliseconds=0, queues=served)[1] is False
    assert pools.waiting(own.cursor(), queues=served) == (False, False)
    async_task(MARK, queue="new")
    assert pools.peek(own.cursor(), milliseconds=0, queues=served)[1] is True
    assert pools.waiting(own.cursor(), queues=served) == (True, False)
    assert [claimed.queue for claimed in claim(own, excluded=["b", "d"])] == ["new"]
    assert pools.peek(own.cursor(), milliseconds=0)[1] is True


def test_patterns_of_queues_and_new_ones_that_match(session):
    own, served = session(), Queues(("mail.*", "a_b", "50%*"), ("*.slow", "mail.x"))
    for queue in ("mail.a", "mail.x", "mail.slow", "mailxa", "mail", "aXb", "a_b", "50%", "500", "mail.a\nb"):
        async_task(MARK, queue=queue)
    rows = own.execute("SELECT queue FROM pgq_queue WHERE pgq_is_named(queue, %s)", (list(served.only),)).fetchall()
    expected = {"mail.a", "mail.a\nb", "a_b", "50%"}
    assert {queue for (queue,) in rows} - {"mail.x", "mail.slow"} == expected
    assert {row.queue for row in QueuedTask.objects.all() if served.serves(row.queue)} == expected
    claimed = store_queue.claim(own.cursor(), limit=512, worker=uuid4(), receipt=uuid4(), queues=served)
    assert {claim.queue for claim in claimed} == expected
    assert pools.peek(own.cursor(), milliseconds=0, queues=served)[1] is False
    assert pools.waiting(own.cursor(), queues=served) == (False, False)
    async_task(MARK, queue="mail.new")
    assert pools.peek(own.cursor(), milliseconds=0, queues=served)[1] is True
    assert pools.waiting(own.cursor(), queues=served) == (True, False)
    claimed = store_queue.claim(own.cursor(), limit=8, worker=uuid4(), receipt=uuid4(), queues=served)
    assert [claim.queue for claim in claimed] == ["mail.new"]


def test_a_claim_that_excludes_nothing_and_names_no_pattern_is_the_same_statement():
    assert "excluded" not in store_queue.claim_text(8)
    assert "excluded" in store_queue.claim_text(8, Queues(excluded=("b",)))
    assert "LIKE" not in store_queue.claim_text(8, Queues(("a",), ("b",)))


def test_paused_queue_rests_and_the_others_do_not(session):
    for priority in (0, 5):
        async_task(MARK, queue="paused", priority=priority)
    other = async_task(MARK, queue="other")
    own = session()
    # On any lane of it.
    own.execute("UPDATE pgq_lane SET paused = true WHERE queue = 'paused' AND priority = 5")
    assert [claimed.id.hex for claimed in claim(own)] == [other]
    assert pools.peek(own.cursor(), milliseconds=0)[1] is False
    own.execute("UPDATE pgq_lane SET paused = false")
    assert pools.peek(own.cursor(), milliseconds=0)[1] is True
    assert len(claim(own)) == 2


def test_what_waits_or_is_parked_is_not_claimed(session):
    own = session()
    async_task(MARK, run_after=3600)
    for column in ("parked = 'x'", "remaining = 1", "run_after = now() + interval '1 hour'"):
        own.execute(f"UPDATE pgq_queue SET {column} WHERE id = %s", (async_task(MARK),))
    assert claim(own) == []
    assert pools.peek(own.cursor(), milliseconds=0)[1] is False


def test_no_queue_starves(session):
    """Queues that are never empty take turns, of each priority their own."""
    for queue in ("a", "b", "c", "d"):
        fill(9, queue=queue)
        fill(9, queue=queue, priority=1)
    own = session()
    after, served = "", []
    for _ in range(72):
        (claimed,) = claim(own, 1, after=after)
        after = claimed.queue
        served.append((claimed.priority, claimed.queue))
    for priority, run in ((1, served[:36]), (0, served[36:])):
        assert {of for of, _ in run} == {priority}
        # Whichever queue is first, each has its turn once in four.
        assert all({queue for _, queue in run[start : start + 4]} == {"a", "b", "c", "d"} for start in range(33))


def test_queues_take_turns_whatever_their_number(session):
    """A worker that claims several at once, some of them empty, serves all of them about equally often."""
    for number in range(20):
        fill(40 if number % 4 else 3, queue=f"queue{number}")
    after, served = "", Counter[str]()
    with store_connection.connect("default", "pgq tests", pins=store_connection.BY_INDEX) as own:
        for _ in range(60):
            claims = store_queue.claim(own.cursor(), limit=8, worker=WORKER, receipt=uuid4(), after=after)
            assert len(claims) == 8
            after = store_queue.behind([(task.priority, task.queue) for task in claims], after=after)
            served.update({task.queue for task in claims})
    assert len(served) == 20
    # 60 claims of 8 tasks are four rounds. Who comes behind a queue that runs dry has the rest of that claim and all of
    # the next one.
    assert {count for queue, count in served.items() if int(queue[5:]) % 4} <= {3, 4, 5, 6}


@pytest.mark.parametrize("place", [0, 5000])
def test_claims_stay_among_neighbours_where_tasks_of_many_queues_are_mixed(place, session):
    """The next task of a queue lies a hundred rows further on; yet the rows of a page are claimed within a while."""
    own = session()
    # (A backlog that begins with the last few positions of a window fills its first claim with tasks of one queue.)
    begin_at(own, place)
    fill_mixed(own, queues=100, each=400)
    after, seen = "", set[int]()
    while len(seen) < 40_000:
        claims = store_queue.claim(own.cursor(), limit=512, worker=WORKER, receipt=uuid4(), after=after)
        assert claims
        positions = {task.position for task in claims}
        # Some lanes are a turn ahead of others.
        assert max(positions) - min(positions) <= 2 * 8192
        after = store_queue.behind([(task.priority, task.queue) for task in claims], after=after)
        seen |= positions


def test_a_turn_that_the_limit_cut_short_goes_on():
    assert store_queue.behind([(0, "a")], after="") == "a"
    assert store_queue.behind([(0, "b"), (0, "a"), (0, "b")], after="") == "a"
    assert store_queue.behind([(0, "b"), (0, "a"), (0, "c")], after="a") == "c"
    # Once: a queue that had all of a claim waits for its next turn.
    assert store_queue.behind([(0, "b"), (0, "b")], after="a") == "b"


def test_the_ring_is_in_the_order_in_which_python_sorts(session):
    """Whatever the database's own collation; or some queues might be passed over again and again."""
    collations = session().execute(
        """SELECT DISTINCT attcollation::regcollation::text FROM pg_attribute
            WHERE attrelid IN ('pgq_queue'::regclass, 'pgq_lane'::regclass) AND attname = 'queue'"""
    )
    assert collations.fetchall() == [('"C"',)]
    names = ["b", "B", "a", "Z", "_", "1", "ä", "é", "😀"]
    for name in names:
        fill(2, queue=name)
    after, served = "", list[str]()
    for _ in names:
        claims = store_queue.claim(session().cursor(), limit=1, worker=WORKER, receipt=uuid4(), after=after)
        after = store_queue.behind([(task.priority, task.queue) for task in claims], after=after)
        served += [task.queue for task in claims]
    assert served == sorted(names)


@pytest.mark.parametrize("pins", [{}, store_connection.BY_INDEX], ids=["any plan", "by index"])
def test_no_queue_starves_where_each_claim_begins_with_something_urgent(pins):
    """Behind the urgent queue there is always the same one."""
    for queue in ("a", "b", "c", "d"):
        fill(40, queue=queue)
    after, served = "", Counter[str]()
    with store_connection.connect("default", "pgq tests", pins=pins) as own:
        for _ in range(9):
            fill(1, queue="urgent", priority=1)
            claims = store_queue.claim(own.cursor(), limit=8, worker=WORKER, receipt=uuid4(), after=after)
            after = store_queue.behind([(task.priority, task.queue) for task in claims], after=after)
            served.update({task.queue for task in claims})
    assert served.pop("urgent") == 9
    assert set(served) == {"a", "b", "c", "d"}
    assert min(served.values()) >= 2


def test_the_first_claim_of_a_worker_begins_anywhere(session):
    """Or workers that are replaced after a few tasks would all serve the same queue."""
    cursor = session().cursor()
    assert store_queue.some_queue(cursor) == ""
    for queue in "abcdef":
        fill(1, queue=queue)
    assert {store_queue.some_queue(cursor) for _ in range(100)} == set("abcdef")


def test_workers_that_do_little_favour_no_queue():
    for queue in "abcdef":
        fill(50, queue=queue)
    served = Counter[str]()
    for _ in range(120):
        hand = Hand()
        try:
            hand._exchange()
            served[hand.exchange.waiting[0].queue] += 1
        finally:
            hand.close()
    assert set(served) == set("abcdef")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pins", [{}, store_connection.BY_INDEX], ids=["any plan", "by index"])
@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
def test_claims_are_full_while_there_are_tasks_wherever_they_lie(near, seed, pins, session):
    """Lanes near each other and far apart, with watermarks that are exact, behind, or not there; and nothing twice."""
    rng = random.Random(seed)
    own = session()
    lanes = [(f"queue{number}", rng.choice((0, 0, 0, 1))) for number in range((3, 40, 150)[seed % 3])]
    for queue, priority in (rng.choice(lanes) for _ in range(len(lanes) * rng.choice((1, 10)))):
        if rng.random() < 0.1:
            skip(own, rng.choice((100, 3000, 9000) if near else (20_000, 200_000)))
        own.execute("INSERT INTO pgq_queue (func, queue, priority) VALUES (%s, %s, %s)", (MARK, queue, priority))
    ready = value(own, "SELECT count(*) FROM pgq_queue")
    own.execute(BELOW_THE_FIRST, {"share": rng.choice((0, 0.5, 1))})
    after = ""
    last: dict[tuple[int, str], int] = {}
    with store_connection.connect("default", "pgq tests", pins=pins) as worker:
        while ready:
            limit = rng.choice((1, 8, 64, 512))
            claims = store_queue.claim(worker.cursor(), limit=limit, worker=WORKER, receipt=uuid4(), after=after)
            assert len(claims) == min(limit, ready)
            ready -= len(claims)
            after = store_queue.behind([(task.priority, task.queue) for task in claims], after=after)
            # As a worker runs them: as they were enqueued, within a lane, and no later claim has an earlier one.
            for task in store_queue.in_order(claims):
                lane = task.priority, task.queue
                assert task.position > last.get(lane, 0)
                last[lane] = task.position
            if rng.random() < 0.3:
                store_lanes.advance(own.cursor(), safe=store_lanes.positions(own.cursor())[0])


def test_lanes_whose_tasks_lie_far_apart_take_turns(session):
    """Neighbours in the ring, and the backlog of every other one is much older."""
    own = session()
    # So that no window ends within a lane's first eight tasks.
    begin_at(own, 0)
    for number in range(10):
        fill(100, queue=f"{number} old")
    skip(own, 500_000)
    for number in range(10):
        fill(100, queue=f"{number} young")
    store_lanes.advance(own.cursor(), safe=store_lanes.positions(own.cursor())[0])
    after, served = "", Counter[str]()
    with store_connection.connect("default", "pgq tests", pins=store_connection.BY_INDEX) as worker:
        for _ in range(20):
            claims = store_queue.claim(worker.cursor(), limit=8, worker=WORKER, receipt=uuid4(), after=after)
            after = store_queue.behind([(task.priority, task.queue) for task in claims], after=after)
            served.update({task.queue for task in claims})
    assert len(served) == 20
    assert set(served.values()) == {1}


@pytest.mark.parametrize("size", [1, 2, 32])
@pytest.mark.parametrize(
    "plan",
    [
        [],
        ["enable_hashjoin = off", "enable_mergejoin = off"],
        ["enable_nestloop = off"],
        ["enable_indexscan = off", "enable_bitmapscan = off"],
        ["enable_seqscan = off", "plan_cache_mode = force_generic_plan"],
    ],
    ids=lambda plan: ",".join(plan) or "default",
)
def test_never_more_than_the_limit(plan, size, session):
    """Whatever the planner does: a locking subquery that is run twice would lock, and update, twice as much."""
    own = session()
    own.execute("VACUUM ANALYZE pgq_queue")  # Empty: the statistics will be wrong by all that comes now.
    for queue in ("a", "b"):
        for priority in (0, 1):
            fill(100, queue=queue, priority=priority)
    for setting in plan:
        own.execute(f"SET {setting}")
    seen: set[str] = set()
    for after in ("", "a", "b", "c"):
        with own.transaction():
            claimed = claim(own, size, after=after)
            locked = value(own, "SELECT count(*) FROM pgq_queue WHERE receipt = %s", claimed[0].receipt)
        assert len(claimed) == locked == size
        seen |= {task.id.hex for task in claimed}
    assert len(seen) == 4 * size


def test_two_sessions_never_claim_the_same_row(session):
    total, threads = 2000, 4
    for priority in (0, 1):
        fill(total // 2, priority=priority)
    claimed: list[list[str]] = [[] for _ in range(threads)]
    sessions = [session() for _ in range(threads)]
    start = threading.Barrier(threads)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait()
            while batch := claim(sessions[number], 16, after=f"{number}"):
                claimed[number] += [task.id.hex for task in batch]
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not errors
    ids = [id for batch in claimed for id in batch]
    assert len(ids) == len(set(ids))
    # SKIP LOCKED may leave a row that another one had locked just then; one more look finds it.
    ids += [task.id.hex for task in claim(sessions[0], 512)]
    assert len(ids) == len(set(ids)) == total
    assert sum(1 for batch in claimed if batch) > 1


def test_open_claim_of_another_session_is_skipped(session):
    ids = [id.hex for id in fill(4)]
    one, two = session(), session()
    with one.transaction():
        assert [task.id.hex for task in claim(one, 2)] == ids[:2]
        # Not committed: neither waited for nor seen.
        two.execute("SET lock_timeout = '5s'")
        assert [task.id.hex for task in claim(two, 4)] == ids[2:]
    assert claim(two, 4) == []


def test_claim_that_rolls_back_leaves_its_rows(session):
    ids = [id.hex for id in fill(3)]
    one, two = session(), session()
    with one.transaction(force_rollback=True):
        assert len(claim(one, 4)) == 3
        assert claim(two, 4) == []
    assert [(task.id.hex, task.attempts) for task in claim(two, 4)] == [(id, 1) for id in ids]


def test_row_locked_by_somebody_is_skipped(session):
    ids = [id.hex for id in fill(3)]
    one, two = session(), session()
    with one.transaction():
        one.execute("SELECT FROM pgq_queue WHERE id = %s FOR UPDATE", (ids[1],))
        two.execute("SET lock_timeout = '5s'")
        assert [task.id.hex for task in claim(two, 4)] == [ids[0], ids[2]]
    assert [task.id.hex for task in claim(two, 4)] == [ids[1]]


def test_row_deleted_meanwhile_is_not_claimed(session):
    ids = [id.hex for id in fill(2)]
    one, two = session(), session()
    with one.transaction():
        one.execute("DELETE FROM pgq_queue WHERE id = %s", (ids[0],))
        assert [task.id.hex for task in claim(two, 4)] == [ids[1]]
    assert claim(two, 4) == []


def test_supervisor_learns_of_what_commits_while_nobody_sleeps(session):
    """The flag: nobody is notified while it is down, everybody while it is up; it comes down by itself."""
    own, listener = session(), session()
    listener.execute("LISTEN pgq_wake")
    pools.peek(own.cursor(), milliseconds=-1)
    async_task(MARK)
    assert list(listener.notifies(timeout=0.2)) == []
    flag, _ = pools.peek(own.cursor(), milliseconds=60_000)
    async_task(MARK)
    assert [note.channel for note in listener.notifies(timeout=10, stop_after=1)] == ["pgq_wake"]
    # A task that is not ready wakes nobody.
    async_task(MARK, run_after=3600)
    assert list(listener.notifies(timeout=0.2)) == []
    pools.all_awake(own.cursor(), flag=flag - 1)
    assert value(own, "SELECT last_value FROM pgq_sleep_until") == flag
    pools.all_awake(own.cursor(), flag=flag)
    assert value(own, "SELECT last_value FROM pgq_sleep_until") == 0
