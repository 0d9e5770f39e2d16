"""Upkeep of the lanes of keys: none that has a ready row stays out of use, and no strand that runs is passed."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgq.store import lanes
from pgq.store.turns import Turns
from pgq.upkeep import keyed
from pgq.upkeep.keyed import KeyedLanes
from pgq.upkeep.leadership import Leadership
from tests.support.hand import value
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

PUT = "INSERT INTO pgq_queue (func, queue, key) SELECT 'by.hand', 'q', %s FROM generate_series(1, %s)"


@pytest.fixture
def at_once(monkeypatch) -> None:
    """A lane without ready rows is marked as idle at once."""
    monkeypatch.setattr(keyed, "_QUIET_SECONDS", 0.0)


def keep(upkeep: KeyedLanes, session: psycopg.Connection[Any]) -> None:
    upkeep.keep(session, lanes.marks(session.cursor()))


def take(session: psycopg.Connection[Any], limit: int = 8) -> list[Any]:
    return Turns().claim(session.cursor(), limit=limit, worker=uuid4(), receipt=uuid4())


def idle(session: psycopg.Connection[Any]) -> bool:
    return bool(value(session, "SELECT bool_and(idle_since IS NOT NULL) FROM pgq_keyed"))


def test_an_empty_lane_goes_out_of_use_and_comes_back(session, at_once):
    own, upkeep = session(), KeyedLanes(Leadership())
    own.execute(PUT, ("k", 2))
    keep(upkeep, own)
    assert not idle(own)
    first = take(own)
    wait_for(lambda: keep(upkeep, own) or idle(own), "the lane is marked")
    assert take(own) == []
    own.execute(PUT, ("k", 1))
    assert not idle(own)
    assert len(take(own)) == 1
    # Also by an update: a waiting task that is due.
    wait_for(lambda: keep(upkeep, own) or idle(own), "the lane is marked again")
    text = "INSERT INTO pgq_queue (func, queue, key, run_after) VALUES ('by.hand', 'q', 'k', now() - interval '1 s')"
    own.execute(text)
    assert idle(own), "it is not ready yet"
    lanes.due(own.cursor(), limit=10)
    assert len(take(own)) == 1
    assert len(first) == 2


def test_a_row_that_came_into_an_idle_lane_is_found(session, at_once):
    own, late, upkeep = session(), session(), KeyedLanes(Leadership())
    own.execute(PUT, ("k", 1))
    take(own)
    with late.transaction():
        # Its insert sees the lane in use.
        late.execute(PUT, ("k", 1))
        wait_for(lambda: keep(upkeep, own) or idle(own), "the lane is marked")
        keep(upkeep, own)
    wait_for(lambda: keep(upkeep, own) or not idle(own), "the sweep has found it", 5)
    assert len(take(own)) == 1


def test_lanes_that_were_left_to_upkeep_are_made(session):
    own, first, second, upkeep = session(), session(), session(), KeyedLanes(Leadership())
    keep(upkeep, own)
    with first.transaction(force_rollback=True):
        first.execute(PUT, ("k", 1))
        # It does not wait for the other, which makes the same lane and rolls back.
        second.execute("SET lock_timeout = '5s'")
        second.execute(PUT, ("k", 1))
        second.execute(
            "INSERT INTO pgq_queue (func, queue, key) SELECT 'by.hand', 'q', 'm' || n FROM generate_series(1, 99) n"
        )
    assert value(own, "SELECT count(*) FROM pgq_keyed") == 0
    wait_for(lambda: keep(upkeep, own) or value(own, "SELECT count(*) FROM pgq_keyed") == 100, "made by the sweep", 5)
    assert len(take(own, 128)) + len(take(own, 128)) == 100


def test_a_watermark_of_a_key_moves_up_and_never_past_a_ready_row(session):
    own, upkeep = session(), KeyedLanes(Leadership())
    own.execute(PUT, ("k", 20))
    claims = take(own)
    reached = "SELECT low >= %s AND low < (SELECT min(position) FROM pgq_queue WHERE lock IS NULL) FROM pgq_keyed"
    wait_for(lambda: keep(upkeep, own) or value(own, reached, claims[-1].position), "it is below the first ready row")
    assert len(take(own, 16)) == 12


def test_the_watermark_of_strands_stays_below_each_that_runs(session):
    own, late, upkeep = session(), session(), KeyedLanes(Leadership())
    own.execute("SELECT pgq_set_limit('k', 3)")
    own.execute(PUT, ("k", 9))
    low = "SELECT last_value FROM pgq_strand_low"
    with late.transaction():
        [hidden] = take(late, 1)
        # Its commit comes later: upkeep does not see it.
        for _ in range(5):
            keep(upkeep, own)
        assert value(own, low) < hidden.strand
    [second] = take(own, 1)
    wait_for(lambda: keep(upkeep, own) or value(own, low) == hidden.strand - 1, "it is just below the lowest")
    own.execute("DELETE FROM pgq_queue WHERE id = %s", (hidden.id,))
    wait_for(lambda: keep(upkeep, own) or value(own, low) == second.strand - 1, "it is just below the other")
    assert [len(take(own, 1)), len(take(own, 1)), len(take(own, 1))] == [1, 1, 0], "one of three was free to count"


def test_what_is_idle_for_long_and_what_rates_no_longer_need_is_deleted(session, monkeypatch):
    own, upkeep = session(), KeyedLanes(Leadership())
    own.execute(
        "INSERT INTO pgq_keyed (queue, key, idle_since) VALUES ('q', 'a', now() - interval '1 hour'), ('q', 'b', now())"
    )
    own.execute("SELECT pgq_set_limit('k', NULL, 5, 60)")
    own.execute(
        """INSERT INTO pgq_rate (scope, name, updated_at) VALUES ('key', 'k:1', now() - interval '1 hour'),
           ('key', 'k:2', now()), ('key', 'gone', now() - interval '2 days')"""
    )
    upkeep.forget(own.cursor())
    assert value(own, "SELECT string_agg(key, ' ') FROM pgq_keyed") == "b"
    assert value(own, "SELECT string_agg(name, ' ') FROM pgq_rate") == "k:2"
