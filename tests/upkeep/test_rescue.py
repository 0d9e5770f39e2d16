"""The place of a task that lost its worker: it keeps it, unless it is the one that takes workers down."""

from __future__ import annotations

import pytest

from pgq.models import Lane
from pgq.pool.former_ids import FormerId, FormerIds
from pgq.records import Blame
from pgq.store import leases
from pgq.upkeep.leadership import Leadership
from pgq.upkeep.watermarks import Watermarks
from tests.support.hand import WORKER, claim, expire, fill, value
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def release_worker(session, since, task, *, crash=True):
    return leases.release_worker(session.cursor(), WORKER, Blame(task, crash, "{}"), since=since)


def order(session) -> list:
    rows = session.execute("SELECT id FROM pgq_queue ORDER BY position").fetchall()
    return [row[0] for row in rows]


def test_the_first_time_all_keep_their_places(session):
    own = session()
    ids = fill(6)
    claimed = claim(own, 2)
    assert set(expire(own, since=claimed[0].enqueued_at)) == set(ids[:2])
    assert [task.id for task in claim(own)] == ids


def test_below_the_watermark_they_are_found(session):
    own, upkeep = session(), session()
    ids = fill(6)
    claimed = claim(own, 4)
    watermarks = Watermarks(Leadership())
    wait_for(lambda: watermarks.move(upkeep) or Lane.objects.get().low >= claimed[-1].position)
    assert (ids[1], True) in [one[:2] for one in release_worker(own, claimed[0].enqueued_at, ids[1])]
    assert Lane.objects.get().low < claimed[0].position
    assert [task.id for task in claim(own)] == ids


@pytest.mark.parametrize("how", ["a second crash", "a timeout"])
def test_who_does_it_again_goes_to_the_end(how, session):
    own = session()
    ids = fill(4)
    (claimed,) = claim(own, 1)
    if how == "a second crash":
        expire(own, since=claimed.enqueued_at)
        assert [task.id for task in claim(own, 1)] == [ids[0]]
    release_worker(own, claimed.enqueued_at, ids[0], crash=how == "a second crash")
    assert order(own) == [*ids[1:], ids[0]]
    assert [task.id for task in claim(own)] == [*ids[1:], ids[0]]


def test_it_does_not_wait_for_who_moves_the_watermarks(session):
    """The supervisor rescues, and must not be held up by a leader that has frozen."""
    own, leader = session(), session()
    ids = fill(3)
    (claimed,) = claim(own, 1)
    own.execute("SET lock_timeout = '2s'")
    with leader.transaction():
        leader.execute("SELECT FROM pgq_lane FOR UPDATE")
        assert leases.release_uncharged(own.cursor(), [WORKER], since=claimed.enqueued_at) == [claimed.id]
    assert order(own) == [*ids[1:], ids[0]]
    assert [task.id for task in claim(own)] == [*ids[1:], ids[0]]


def test_lanes_apart(session):
    own = session()
    mixed = [fill(1, queue=queue, priority=priority)[0] for queue in "ab" for priority in (0, 1) for _ in range(2)]
    claimed = claim(own, 8)
    assert len(claimed) == 8
    own.execute("UPDATE pgq_lane SET low = (SELECT last_value FROM pgq_position)")
    lost = release_worker(own, min(task.enqueued_at for task in claimed), mixed[0])
    assert {one.id for one in lost if one.charged} == {mixed[0]}
    assert {task.id for task in claim(own)} == set(mixed)
    assert value(own, "SELECT bool_and(low < (SELECT min(position) FROM pgq_queue q WHERE q.queue = l.queue"
                      " AND q.priority = l.priority)) FROM pgq_lane l")  # fmt: skip


@pytest.mark.parametrize("row", ["is free", "is locked at first"])
def test_a_task_is_charged_once_for_a_dead_worker(row, session):
    """At the first look that finds it. A claim that commits later was not running when its worker died."""
    own, other = session(), session()
    (id,) = fill(1)
    (claimed,) = claim(own)
    former_ids = FormerIds()
    with other.transaction():
        if row == "is locked at first":
            other.execute("SELECT FROM pgq_queue FOR UPDATE")
        former = FormerId(WORKER, Blame(id, True, "{}"))
        found = former_ids.release(own.cursor(), former, claimed.enqueued_at)
    assert found + former_ids.search_again(own.cursor()) == 1
    assert [late.id for late in claim(own)] == [id], "what its worker had sent before it died"
    assert former_ids.search_again(own.cursor()) == 1
    assert own.execute("SELECT attempts, crashes, lock FROM pgq_queue").fetchone() == (1, 1, None)
