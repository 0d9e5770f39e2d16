"""Watermarks: nothing that is ready may stay below one. Real sessions that commit late, roll back and give back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgq.conf import Settings
from pgq.models import QueuedTask
from pgq.records import Blame
from pgq.store import lanes as store_lanes
from pgq.store import leases
from pgq.tasks import async_task
from pgq.upkeep.chore import ROWS_PER_STATEMENT
from pgq.upkeep.chores import Upkeep
from pgq.upkeep.leadership import Leadership
from pgq.upkeep.watermarks import Watermarks
from tests.support.hand import MARK, WORKER, claim, expire, fill, in_background, take, value, wait_until_it_waits
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

INSERT = "INSERT INTO pgq_queue (func, queue) VALUES ('by.hand', %s) RETURNING position"


def low(session: psycopg.Connection[Any], queue: str = "default") -> int:
    return value(session, "SELECT low FROM pgq_lane WHERE queue = %s AND priority = 0", queue)


def sweep(session: psycopg.Connection[Any]) -> list[tuple[str, int]]:
    with session.transaction():
        return store_lanes.sweep(session.cursor())


def move_until(
    watermarks: Watermarks, session: psycopg.Connection[Any], reached: Callable[[], bool], what: str
) -> None:
    def look() -> bool:
        watermarks.move(session)
        return reached()

    wait_for(look, what)


def advance_to_the_end(session: psycopg.Connection[Any]) -> None:
    with session.transaction():
        store_lanes.advance(session.cursor(), safe=store_lanes.positions(session.cursor())[0])


# ------------------------------------------------------------------------------------------------- late commits


def test_lanes_are_not_locked_while_the_disk_is_slow(session):
    """Tasks rescued meanwhile would go to the end of the queue. What a crash takes back is a lower watermark: safe."""
    fill(3)
    mover = session(autocommit=False)
    safe, _ = store_lanes.positions(mover.cursor())
    claim(session())
    assert store_lanes.advance(mover.cursor(), safe=safe) == 1
    assert value(mover, "SHOW synchronous_commit") == "off"
    mover.commit()
    assert value(mover, "SHOW synchronous_commit") == "on"


@pytest.mark.parametrize("ends_with", ["commit", "rollback"])
def test_watermark_waits_for_a_transaction_that_drew_a_position(ends_with, session):
    late, others, upkeep = session(), session(), session()
    value(others, INSERT, "default")  # The lane is there.
    watermarks = Watermarks(Leadership())
    with late.transaction(force_rollback=ends_with == "rollback"):
        position = value(late, INSERT, "default")
        for _ in range(30):
            assert value(others, INSERT, "default") > position
            assert claim(others)
            watermarks.move(upkeep)
            assert low(upkeep) < position
        end = value(upkeep, "SELECT last_value FROM pgq_position")
    if ends_with == "commit":
        # All others of its time were claimed long ago; without the sweep it is found.
        (claimed,) = claim(others)
        assert claimed.position == position
    else:
        assert claim(others) == []
    move_until(watermarks, upkeep, lambda: low(upkeep) >= end, "the watermark passes what is done")
    assert claim(others) == []


def test_watermark_waits_for_a_position_drawn_by_an_update(session):
    """Due tasks, retried and rescued ones draw a new position, too."""
    late, others, upkeep = session(), session(), session()
    id = async_task(MARK, run_after=3600)
    watermarks = Watermarks(Leadership())
    with late.transaction():
        late.execute("UPDATE pgq_queue SET run_after = NULL, position = nextval('pgq_position') WHERE id = %s", (id,))
        position = value(late, "SELECT position FROM pgq_queue WHERE id = %s", id)
        for _ in range(10):
            value(others, INSERT, "default")
            assert claim(others)
            watermarks.move(upkeep)
            assert low(upkeep) < position
    assert [task.id.hex for task in claim(others)] == [id]


def test_watermark_waits_for_the_very_first_position(session):
    """Before the first nextval, last_value says 1 though nobody has drawn it."""
    late, upkeep = session(), session()
    late.execute("SELECT setval('pgq_position', 1, false)")
    late.execute("INSERT INTO pgq_lane (queue) VALUES ('default')")
    Watermarks(Leadership()).move(upkeep)
    assert low(upkeep) == 0
    assert value(late, INSERT, "default") == 1
    assert len(claim(upkeep)) == 1


def test_watermark_moves_while_a_backlog_is_worked_off(session):
    """Nothing new is drawn then. It is what keeps claims fast under a pinned horizon."""
    own, upkeep = session(), session()
    fill(20)
    watermarks = Watermarks(Leadership())
    for _ in range(4):
        claimed = claim(own, 4)
        assert watermarks.move(upkeep) == 1
        assert low(upkeep) == claimed[-1].position
    assert watermarks.move(upkeep) == 0


def test_sequence_that_was_set_back_is_noticed(session):
    own, upkeep = session(), session()
    fill(5)
    claim(own)
    watermarks = Watermarks(Leadership())
    watermarks.move(upkeep)
    own.execute("SELECT setval('pgq_position', 1)")
    fill(2)
    assert claim(own) == []
    sweep(own)
    watermarks.move(upkeep)
    assert len(claim(own)) == 2


def test_watermark_does_not_wait_for_who_only_reads(session):
    reader, others, upkeep = session(), session(), session()
    value(others, INSERT, "default")
    claim(others)
    end = value(upkeep, "SELECT last_value FROM pgq_position")
    with reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM pgq_queue")
        move_until(
            Watermarks(Leadership()), upkeep, lambda: low(upkeep) >= end, "the watermark moves under a pinned horizon"
        )


def test_watermark_stops_below_the_first_ready_row(session):
    own = session()
    ids = fill(5)
    claimed = claim(own, 2)
    advance_to_the_end(own)
    first = value(own, "SELECT position FROM pgq_queue WHERE id = %s", ids[2])
    assert low(own) == first - 1
    assert [task.id for task in claim(own, 4)] == ids[2:]
    assert len(claimed) == 2


def test_only_one_moves_at_a_time(session):
    one, two = session(), session()
    fill(1)
    claim(one)
    before = low(one)
    with Leadership().leading(one) as leader:
        assert leader is not None
        for _ in range(5):
            assert Watermarks(Leadership()).move(two) == 0
    assert low(two) == before
    assert Watermarks(Leadership()).move(two) == 1


# ------------------------------------------------------------------------------------------------- giving back


def test_given_back_row_below_the_watermark_is_claimed_again(session):
    own = session()
    ids = fill(4)
    claimed = claim(own)
    advance_to_the_end(own)
    assert low(own) >= claimed[-1].position
    assert leases.release(own.cursor(), claimed[1:]) == set(ids[1:])
    # In its old place, and not charged.
    assert [(task.id, task.position, task.attempts) for task in claim(own)] == [
        (task.id, task.position, 1) for task in claimed[1:]
    ]


@pytest.mark.parametrize("lanes", [1, 3])
def test_give_back_while_watermarks_move(lanes, session):
    """The lanes are locked by the mover: who gives back waits, and then lowers what has been raised."""
    giver, mover, own = session(), session(), session()
    for number in range(lanes):
        fill(3, queue=f"q{number}")
    claimed = claim(giver)
    with mover.transaction():
        store_lanes.advance(mover.cursor(), safe=store_lanes.positions(mover.cursor())[0])
        assert low(mover, "q0") >= claimed[0].position
        thread = in_background(lambda: leases.release(giver.cursor(), claimed))
        wait_until_it_waits(own, giver.info.backend_pid)
    thread.join()
    assert {task.id for task in claim(own)} == {task.id for task in claimed}


@pytest.mark.parametrize("lanes", [1, 3])
def test_watermarks_move_while_rows_are_given_back(lanes, session):
    """The giver has the lanes: who moves waits, and then sees the rows."""
    giver, mover, own = session(), session(), session()
    for number in range(lanes):
        fill(3, queue=f"q{number}")
    claimed = claim(giver)
    with giver.transaction():
        assert len(leases.release(giver.cursor(), claimed)) == 3 * lanes
        thread = in_background(lambda: advance_to_the_end(mover))
        wait_until_it_waits(own, mover.info.backend_pid)
    thread.join()
    assert {task.id for task in claim(own)} == {task.id for task in claimed}


def rescue(session: psycopg.Connection[Any], how: str) -> None:
    """Make ready what WORKER holds."""
    cursor, since = session.cursor(), leases.BEFORE_ALL_LEASES
    if how == "release_uncharged":
        leases.release_uncharged(cursor, [WORKER], since=since)
    elif how == "release_worker":
        leases.release_worker(cursor, WORKER, Blame(None, crash=True, error="{}"), since=since)
    else:
        expire(session)


RESCUES = ["release_uncharged", "release_worker", "rescue_expired"]


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("how", RESCUES)
def test_a_rescue_waits_for_watermarks_that_move(how, key, session):
    """Else the task of a dead worker would, now and then, be overtaken by the whole backlog."""
    supervisor, mover, own = session(), session(), session()
    ids = fill(3, key=key)
    take(own, 1)
    with mover.transaction():
        mover.execute(f"SELECT FROM {'pgq_keyed' if key else 'pgq_lane'} FOR UPDATE")
        thread = in_background(lambda: rescue(supervisor, how))
        wait_until_it_waits(own, supervisor.info.backend_pid)
    thread.join()
    assert [claimed.id for _ in ids for claimed in take(own, 1)] == ids


@pytest.mark.parametrize("how", RESCUES)
def test_a_rescue_does_not_wait_for_who_has_a_lane_and_is_frozen(how, session):
    supervisor, frozen, own = session(), session(), session()
    ids = fill(3)
    claim(own, 1)
    with frozen.transaction():
        frozen.execute("SELECT FROM pgq_lane FOR UPDATE")
        rescue(supervisor, how)
        assert [task.id for task in claim(own)] == [*ids[1:], ids[0]]


def test_after_a_rescue_its_transaction_waits_for_locks_as_before(session):
    supervisor = session()
    fill(1)
    claim(supervisor)
    with supervisor.transaction():
        supervisor.execute("SET LOCAL lock_timeout = '7s'")
        rescue(supervisor, "rescue_expired")
        assert value(supervisor, "SHOW lock_timeout") == "7s"
    assert len(claim(supervisor)) == 1


def test_wrong_receipt_gives_nothing_back(session):
    own = session()
    fill(2)
    (first, _) = claim(own)
    leases.release(own.cursor(), [first])
    (again,) = claim(own)
    assert leases.release(own.cursor(), [first]) == set()
    assert QueuedTask.objects.get(pk=again.id.hex).receipt == again.receipt.hex


# ------------------------------------------------------------------------------------------------- lanes and the sweep


def test_new_lane_does_not_block_while_another_transaction_makes_it(session):
    one, two = session(), session()
    two.execute("SET lock_timeout = '5s'")
    with one.transaction():
        one.execute(INSERT, ("new",))
        two.execute(INSERT, ("new",))  # Would wait here.
    assert len(claim(two)) == 2


def test_sweep_makes_the_lane_whose_maker_rolled_back(session):
    one, two = session(), session()
    with one.transaction(force_rollback=True):
        one.execute(INSERT, ("new",))
        two.execute(INSERT, ("new",))
        two.execute("SET lock_timeout = '5s'")
        # It is still the other's to make, and the sweep does not wait for it.
        assert sweep(two) == []
    assert claim(two) == []
    assert sweep(two) == [("new", 0)]
    assert len(claim(two)) == 1
    assert sweep(two) == []


def test_sweep_lowers_a_watermark_that_is_too_high(session):
    own = session()
    for queue in ("high", "right", "empty"):
        fill(2, queue=queue)
    claim(own, 4, queues=["empty"])
    own.execute("UPDATE pgq_lane SET low = 1000000000 WHERE queue IN ('high', 'empty')")
    assert len(claim(own, 8, queues=["high"])) == 0
    assert sweep(own) == [("high", 0)]
    assert len(claim(own, 8, queues=["high"])) == 2


def test_sweep_finds_rows_that_sql_moved_or_released(session):
    own = session()
    ids = fill(6)
    own.execute("UPDATE pgq_queue SET parked = 'x' WHERE id = ANY (%s)", (ids[:2],))
    claim(own, 4)
    advance_to_the_end(own)
    own.execute("UPDATE pgq_queue SET parked = NULL WHERE id = %s", (ids[0],))
    own.execute("UPDATE pgq_queue SET parked = NULL, priority = 9 WHERE id = %s", (ids[1],))
    assert sweep(own) == [("default", 0), ("default", 9)]
    assert [task.id for task in claim(own)] == [ids[1], ids[0]]


def redraw(session: psycopg.Connection[Any], limit: int = 100) -> int:
    with session.transaction():
        return store_lanes.redraw(session.cursor(), limit=limit)


def test_positions_that_nobody_drew_are_drawn_anew(session):
    """By hand: `UPDATE pgq_queue SET position = ...`, to have a task come last."""
    own = session()
    ids = fill(3)
    own.execute("UPDATE pgq_queue SET position = 1e12 + position")
    advance_to_the_end(own)
    assert claim(own) == []
    assert redraw(own, limit=2) == 2
    assert redraw(own, limit=2) == 1
    assert [task.id for task in claim(own)] == ids
    assert redraw(own) == 0


def test_a_sequence_that_began_anew_loses_nothing(session):
    """As on a logical replica: rows and watermarks are copied, the sequence is not."""
    own = session()
    ids = fill(4)
    claim(own, 1)
    advance_to_the_end(own)
    own.execute("ALTER SEQUENCE pgq_position RESTART")
    assert redraw(own) == 3
    ids += fill(2)
    sweep(own)
    assert [task.id for task in claim(own)] == ids[1:]


def test_upkeep_draws_positions_anew(session):
    own = session()
    fill(ROWS_PER_STATEMENT + 1)
    own.execute("UPDATE pgq_queue SET position = 1e12 + position")
    chores = Upkeep(Settings(tick=0.01), "default")
    chores.tick(own)
    assert value(own, "SELECT max(position) < 1e12 FROM pgq_queue")
    assert len(claim(own)) == 512


# ------------------------------------------------------------------------------------------------- all at once


def test_nothing_is_missed_in_a_crowd(session):
    """Writers that commit late or roll back, claimers that give back, watermarks that move all the time; no sweep."""
    until = time.monotonic() + 4
    committed: set[int] = set()
    got: list[int] = []
    errors: list[BaseException] = []
    moved = [0]
    value(session(), INSERT, "a")

    def guarded(work: Callable[[psycopg.Connection[Any], random.Random], None], seed: int) -> threading.Thread:
        own = session()

        def run() -> None:
            rng = random.Random(seed)
            try:
                while time.monotonic() < until and not errors:
                    work(own, rng)
            except BaseException as error:
                errors.append(error)

        return in_background(run)

    def write(own: psycopg.Connection[Any], rng: random.Random) -> None:
        positions = []
        with own.transaction() as transaction:
            for _ in range(rng.randint(1, 4)):
                positions.append(value(own, INSERT, rng.choice("ab")))
                if rng.random() < 0.3:
                    time.sleep(rng.random() * 0.02)
            if rng.random() < 0.3:
                positions = []
                raise psycopg.Rollback(transaction)
        committed.update(positions)

    def take(own: psycopg.Connection[Any], rng: random.Random) -> None:
        claimed = claim(own, rng.choice([1, 4, 16]), after=rng.choice("abc"))
        back = [task for task in claimed if rng.random() < 0.3]
        time.sleep(rng.random() * 0.01)
        if back:
            leases.release(own.cursor(), back)
        got.extend(task.position for task in claimed if task not in back)

    def move(own: psycopg.Connection[Any], rng: random.Random) -> None:
        moved[0] += watermarks.move(own)

    watermarks = Watermarks(Leadership())
    threads = [guarded(write, seed) for seed in range(4)]
    threads += [guarded(take, seed) for seed in range(4, 6)]
    threads += [guarded(move, 6)]
    for thread in threads:
        thread.join()
    assert not errors
    own = session()
    while rest := claim(own):
        got += [task.position for task in rest]
    committed.add(min(got))
    assert len(got) == len(set(got))
    assert set(got) == committed
    assert len(committed) > 100
    assert moved[0] > 10
