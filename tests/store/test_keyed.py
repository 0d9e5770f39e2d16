"""Keys and limits in the claim: turns, priorities, places; real sessions, each with transactions of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
import pytest

from pgq.conf import Queues
from pgq.records import Claim
from pgq.store import keyed, lanes, leases, queue
from pgq.store.leases import Blame
from pgq.store.turns import Turns
from tests.support.hand import WORKER, expire, take, value

pytestmark = pytest.mark.django_db(transaction=True)


def put(
    session: psycopg.Connection[Any], key: str | None, count: int = 1, *, queue: str = "q", priority: int = 0
) -> None:
    """Insert as psql does."""
    session.execute(
        "INSERT INTO pgq_queue (func, queue, key, priority) SELECT 'by.hand', %s, %s, %s FROM generate_series(1, %s)",
        (queue, key, priority, count),
    )


def limit(session: psycopg.Connection[Any], name: str, concurrency: int | None, **more: Any) -> None:
    given = {"name": name, "concurrency": concurrency, **more}
    names = ", ".join(f"{name} => %({name})s" for name in given)
    session.execute(f"SELECT pgq_set_limit({names})", given)


def keys_of(claims: list[Claim]) -> list[str | None]:
    return [claim.key for claim in claims]


def end(session: psycopg.Connection[Any], claims: list[Claim]) -> None:
    session.execute("DELETE FROM pgq_queue WHERE id = ANY (%s)", ([claim.id for claim in claims],))


def test_keys_take_turns_and_a_late_one_waits_for_one_turn(session):
    own, turns = session(), Turns()
    put(own, "big", 1000)
    assert set(keys_of(take(own, 64, turns))) == {"big"}
    put(own, "small")
    # Of a claim of one, and of a large one.
    two = keys_of(take(own, 1, turns)) + keys_of(take(own, 1, turns))
    assert sorted(two) == ["big", "small"]  # type: ignore[type-var]
    for name in "abc":
        put(own, name, 3)
    counts = Counter(keys_of(take(own, 64, turns)))
    assert counts == {"big": 16, "a": 3, "b": 3, "c": 3}


def test_each_key_gets_its_turn_also_if_a_claim_takes_one(session):
    own, turns = session(), Turns()
    for name in "abcde":
        put(own, name, 20)
    taken = [keys_of(take(own, 1, turns))[0] for _ in range(20)]
    assert Counter(taken) == dict.fromkeys("abcde", 4)
    assert Counter(keys_of(take(own, 8, turns))) == dict.fromkeys("abcde", 1)


def test_queues_take_turns_whatever_number_of_keys_they_have(session):
    own, turns = session(), Turns()
    for number in range(50):
        put(own, f"k{number:02}", 10, queue="many")
    put(own, "only", 500, queue="one")
    taken = [claim.queue for _ in range(40) for claim in take(own, 1, turns)]
    assert Counter(taken) == {"many": 20, "one": 20}


def test_within_a_key_first_in_first_out(session):
    own, turns = session(), Turns()
    put(own, "k", 100)
    got = [claim.position for _ in range(10) for claim in take(own, 8, turns)]
    assert got == sorted(got)
    assert len(got) == 80


def test_priorities_are_strict_with_and_without_keys(session):
    own, turns = session(), Turns()
    for priority in (0, 5, -5, 10):
        put(own, None, 2, priority=priority)
        put(own, "k", 2, priority=priority + 1)
        put(own, "l", 2, priority=priority)
    order = [claim.priority for _ in range(40) for claim in take(own, 4, turns)]
    assert order == sorted(order, reverse=True)
    assert len(order) == 24


def test_plain_and_keyed_tasks_of_a_priority_take_turns(session):
    own, turns = session(), Turns()
    put(own, None, 100)
    put(own, "k", 100)
    taken = [claim.key for _ in range(20) for claim in take(own, 1, turns)]
    assert Counter(taken) == {None: 10, "k": 10}
    # What one kind leaves of a claim, the other takes.
    end(own, take(own, 512, turns))
    end(own, take(own, 512, turns))
    assert value(own, "SELECT count(*) FROM pgq_queue WHERE lock IS NULL") == 0


def test_only_served_queues_and_none_that_is_paused(session):
    own = session()
    for name in ("a", "b", "c"):
        put(own, "k", 2, queue=name)
    own.execute("SELECT pgq_pause('b')")
    assert {claim.queue for claim in take(own, 8, Turns(Queues(["a", "b"])))} == {"a"}
    assert {claim.queue for claim in take(own, 8, Turns(Queues(None, ["a"])))} == {"c"}


def test_two_open_claims_never_take_the_same_task(session):
    one, two = session(), session()
    put(one, "k", 10)
    with one.transaction(), two.transaction():
        first, second = take(one, 8), take(two, 8)
    assert len(first) == 8
    assert len(second) == 2
    assert not {claim.id for claim in first} & {claim.id for claim in second}


def test_a_full_key_takes_no_worker_and_lets_others_pass(session):
    own = session()
    limit(own, "full", 1)
    put(own, "full:1", 100)
    held = take(own, 1)
    put(own, "full:2")
    put(own, "free")
    assert sorted(keys_of(take(own, 8))) == ["free", "full:2"]  # type: ignore[type-var]
    assert take(own, 8) == []
    end(own, held)
    assert keys_of(take(own, 1)) == ["full:1"]


@pytest.mark.parametrize("how", ["full", "empty"])
def test_what_lies_behind_many_lanes_without_a_task_to_start_is_found(session, how):
    """The ring goes on behind those that were looked at, until all were."""
    own, turns = session(), Turns()
    limit(own, "k", 1)
    count = 3 * keyed.LOOKED
    own.execute(
        "INSERT INTO pgq_queue (func, queue, key) SELECT 'by.hand', 'q', 'k:' || i FROM generate_series(1000, %s) i",
        (1000 + count - 1,),
    )
    others, claims = Turns(), []
    while found := take(own, 256, others):
        claims += found
    assert len(claims) == count
    if how == "empty":
        end(own, claims)
    put(own, "k:9")
    assert keys_of(take(own, 1, turns)) == ["k:9"]


def test_a_strand_is_one_place_however_many_tasks_it_has(session):
    own = session()
    limit(own, "k", 2)
    put(own, "k", 100)
    first, second = take(own, 8), take(own, 8)
    assert len(first) == len(second) == 8
    assert len({claim.strand for claim in first}) == len({claim.strand for claim in second}) == 1
    assert take(own, 8) == []
    end(own, first[1:])
    assert take(own, 8) == [], "one task of the strand still runs"
    end(own, first[:1])
    assert len(take(own, 8)) == 8


def test_a_worker_with_several_places_takes_as_many_strands_as_have_room(session):
    own = session()
    limit(own, "k", 3)
    put(own, "k", 100)
    claims = take(own, 8, places=8)
    assert Counter(Counter(claim.strand for claim in claims).values()) == {3: 2, 2: 1}
    assert take(own, 8, places=8) == []
    put(own, "free", 8)
    assert {claim.strand for claim in take(own, 8, places=8)} == {None}


def test_zero_holds_all_and_no_limit_frees_all(session):
    own = session()
    put(own, "k:1", 4)
    limit(own, "k", 0)
    assert take(own, 8) == []
    limit(own, "k", None)
    assert len(take(own, 8)) == 4
    put(own, "k:1", 4)
    limit(own, "k", 1)
    assert len(take(own, 8)) == 4, "tasks that ran before there was a limit do not count"
    own.execute("SELECT pgq_drop_limit('k')")
    put(own, "k:1")
    assert len(take(own, 8)) == 1


def test_a_queue_has_a_limit_over_all_its_rows(session):
    own = session()
    limit(own, "q", 2, scope="queue")
    put(own, None, 10)
    put(own, "a", 10)
    put(own, "b", 10)
    first = take(own, 2)
    second = take(own, 2)
    assert len(first) == len(second) == 2
    assert take(own, 2) == []
    end(own, first)
    assert len(take(own, 4, places=4)) == 3, "one place is free: a lane each, on one strand"
    assert value(own, "SELECT count(DISTINCT strand) FROM pgq_queue WHERE lock IS NOT NULL") == 2
    put(own, None, 1, queue="other")
    assert [claim.queue for claim in take(own, 8)] == ["other"]


def test_key_and_queue_both_limit(session):
    own = session()
    limit(own, "q", 3, scope="queue")
    limit(own, "k", 2)
    put(own, "k", 50)
    put(own, "l", 50)
    claims = take(own, 64, places=8)
    assert len({claim.strand for claim in claims if claim.key == "k"}) <= 2
    assert len({claim.strand for claim in claims}) <= 3
    assert take(own, 64, places=8) == []


@pytest.mark.parametrize("plain", [False, True])
def test_keys_take_turns_also_where_the_rate_of_their_queue_lets_few_start(session, plain):
    """A claim of one at most: it is not always of the same key, and every other one is of a task without a key."""
    own, turns = session(), Turns()
    limit(own, "q", None, rate=20, period=60, scope="queue")
    for name in ["a", "b", "c", *([None] if plain else [])]:
        put(own, name, 20)
    claims = [keys_of(take(own, 64, turns)) for _ in range(12)]
    assert all(len(found) == 1 for found in claims)
    found = [key for [key] in claims]
    counts = Counter(found)
    assert counts == ({None: 6, "a": 2, "b": 2, "c": 2} if plain else {"a": 4, "b": 4, "c": 4})
    assert len(set(found[:6])) == len(counts)


def test_a_strict_key_keeps_its_order_also_if_a_task_is_given_back_while_its_lane_is_locked(session):
    own, other = session(), session()
    limit(own, "k", None, strict=True)
    put(own, "k", 3)
    [held] = take(own, 1)
    with other.transaction():
        other.execute("UPDATE pgq_keyed SET low = %s", (held.position,))
        leases.release_uncharged(own.cursor(), [WORKER], since=leases.BEFORE_ALL_LEASES)
    assert value(own, "SELECT low FROM pgq_keyed") == held.position, "the sweep has not come yet"
    assert [claim.id for claim in take(own, 1)] == [held.id]


@pytest.mark.parametrize("how", ["release", "release_uncharged", "rescue_expired"])
def test_a_task_that_is_given_back_frees_its_place_and_keeps_its_turn(session, how):
    own = session()
    limit(own, "k", 1)
    put(own, "k", 3)
    [held] = take(own, 1)
    own.execute("UPDATE pgq_keyed SET low = 1000000000, idle_since = now()")
    if how == "release":
        leases.release(own.cursor(), [held])
    elif how == "release_uncharged":
        leases.release_uncharged(own.cursor(), [WORKER], since=leases.BEFORE_ALL_LEASES)
    else:
        expire(own)
    assert value(own, "SELECT count(*) FROM pgq_queue WHERE strand IS NOT NULL") == 0
    assert value(own, "SELECT low < %s AND idle_since IS NULL FROM pgq_keyed", held.position)
    assert [claim.id for claim in take(own, 1)] == [held.id]


def test_a_rate_that_is_set_while_a_claim_uses_up_the_former_one_holds_at_once(session):
    """Not when the window of the former one opens, an hour later."""
    own, operator, turns = session(), session(), Turns()
    limit(own, "k", None, rate=1, period=3600)
    put(own, "k", 10)
    with operator.transaction():
        limit(operator, "k", None, rate=5, period=3600)
        assert [len(take(own, 8, turns)) for _ in range(2)] == [1, 0]
        assert turns.opens_in(own.cursor()) > 3000
    assert turns.opens_in(own.cursor()) is None
    assert sum(len(take(own, 8, turns)) for _ in range(8)) == 4
    assert turns.opens_in(own.cursor()) > 3000


def test_only_a_rate_makes_a_pool_wait_for_the_passing_of_time(session):
    """A worker that finds nothing tells its supervisor whether to look when a window opens."""
    own, turns = session(), Turns()
    limit(own, "k", 1)
    put(own, "k", 2)
    assert len(take(own, 1, turns)) == 1
    assert take(own, 1, turns) == []
    assert (turns.has_rates, turns.opens_in(own.cursor())) == (False, None)
    limit(own, "l", None, rate=1, period=60)
    put(own, "l", 2)
    assert len(take(own, 1, turns)) == 1
    assert take(own, 1, turns) == []
    assert turns.has_rates
    assert 50 < turns.opens_in(own.cursor()) <= 62


def test_a_claim_that_another_session_is_making_is_not_waited_for(session):
    one, two = session(), session()
    limit(one, "k", 2)
    put(one, "k", 8)
    with one.transaction():
        assert len(take(one, 1)) == 1
        turns = Turns()
        assert take(two, 1, turns) == []
        assert turns.busy
    assert len(take(two, 1)) == 1


def test_a_claim_locks_no_more_limits_than_it_uses(session):
    one, two = session(), session()
    for name in "abc":
        limit(one, name, 1)
        put(one, name)
    with one.transaction():
        assert len(take(one, 1)) == 1
        assert len(take(two, 8)) == 2


# ------------------------------------------------------------------------------------------------- rates


def starts(session: psycopg.Connection[Any], name: str) -> int:
    return value(
        session, "SELECT sum((e ->> 1)::int) FROM pgq_rate, jsonb_array_elements(starts) e WHERE name = %s", name
    )


def later(session: psycopg.Connection[Any], seconds: float) -> None:
    """Let time pass for the rates: what they have counted was so much earlier."""
    session.execute(
        """UPDATE pgq_rate SET not_before = not_before - %(s)s * interval '1 second',
               starts = (SELECT coalesce(jsonb_agg(jsonb_build_array((e ->> 0)::float8 - %(s)s, e -> 1)), '[]')
                           FROM jsonb_array_elements(starts) e)""",
        {"s": seconds},
    )


def take_all(session: psycopg.Connection[Any]) -> int:
    """Claim and end until nothing is claimed; return how many."""
    turns, count = Turns(), 0
    while claims := take(session, 8, turns):
        count += len(claims)
        end(session, claims)
    return count


def test_a_rate_lets_so_many_start_in_any_window(session):
    own = session()
    limit(own, "k", None, rate=10, period=60)
    put(own, "k:1", 100)
    put(own, "k:2", 100)
    assert take_all(own) == 20, "each key has the rate for itself"
    later(own, 30)
    assert take_all(own) == 0
    later(own, 29)
    assert take_all(own) == 0
    later(own, 2.1)
    assert take_all(own) == 20
    assert starts(own, "k:1") == 10


def test_a_window_that_begins_within_the_burst_is_not_over_either(session):
    """Five at once, five half a period later: in the middle of both there is room for five, not for ten."""
    own = session()
    limit(own, "k", None, rate=10, period=60)
    put(own, "k", 5)
    assert take_all(own) == 5
    later(own, 30)
    put(own, "k", 100)
    assert take_all(own) == 5
    later(own, 31.1)
    assert take_all(own) == 5
    later(own, 30)
    assert take_all(own) == 5


def test_a_claim_that_rolls_back_has_counted_nothing(session):
    own = session()
    limit(own, "k", None, rate=3, period=60)
    put(own, "k", 5)
    with own.transaction(force_rollback=True):
        assert len(take(own, 1)) == 1
    assert take_all(own) == 3


def test_a_start_counts_at_no_time_before_it_was(session):
    """Else a window could hold those of the sixtieth in which it begins besides."""
    own = session()
    limit(own, "k", None, rate=10, period=3600)
    put(own, "k")
    take(own, 1)
    text = """SELECT (r.starts #>> '{0,0}')::float8 - extract(epoch FROM q.lock)::float8
                FROM pgq_rate r JOIN pgq_queue q ON q.key = r.name"""
    assert 0 <= value(own, text) <= 60.01


def test_the_rate_of_a_queue_is_shared_by_its_keys(session):
    own = session()
    limit(own, "q", None, rate=7, period=3600, scope="queue")
    for key in (None, "a", "b"):
        put(own, key, 10)
    assert take_all(own) == 7
    limit(own, "q", None, rate=9, period=3600, scope="queue")
    assert take_all(own) == 2, "a higher rate holds at once"
    limit(own, "q", None, rate=0, period=3600, scope="queue")
    later(own, 7200)
    assert take_all(own) == 0


def test_smooth_spreads_the_starts(session):
    own = session()
    limit(own, "k", None, rate=60, period=60, smooth=True)
    put(own, "k", 10)
    assert [take_all(own), take_all(own)] == [1, 0]
    later(own, 1.02)
    assert take_all(own) == 1


@pytest.mark.parametrize(("rate", "period"), [(25, 1), (3, 0.1)])
def test_smooth_never_lets_more_start_than_the_rate(session, rate, period):
    """Also where what starts at once is no divisor of it: here two of 25."""
    own, turns, passed = session(), Turns(), 0.0
    limit(own, "k", None, rate=rate, period=period, smooth=True)
    put(own, "k", 200)
    times: list[float] = []
    for _ in range(80):
        claims = take(own, 8, turns)
        times += [
            passed + value(own, "SELECT coalesce(extract(epoch FROM max(lock)), 0)::float8 FROM pgq_queue")
        ] * len(claims)
        end(own, claims)
        later(own, period / 50)
        passed += period / 50
    most = max(sum(at - period < other <= at for other in times) for at in times)
    assert most <= rate
    # So many at least start in the time that passed, and more where the machine takes longer.
    assert len(times) >= 0.7 * rate * 80 / 50


def test_a_worker_that_is_held_by_a_rate_sleeps(session):
    own = session()
    limit(own, "k", None, rate=1, period=60)
    put(own, "k", 2)
    assert Turns().is_any_ready(own.cursor())
    take_all(own)
    assert not Turns().is_any_ready(own.cursor())
    later(own, 61.1)
    assert Turns().is_any_ready(own.cursor())


@pytest.mark.parametrize("many", [{"concurrency": 2}, {"concurrency": None, "rate": 2, "period": 60.0}])
def test_a_key_in_several_queues_has_its_room_once(session, many):
    own, turns = session(), Turns()
    limit(own, "k", **many)
    for name in ("a", "b", "c"):
        put(own, "k", 5, queue=name)
    # As a worker of eight places does: each lane alone would have room for two.
    claims = [claim for _ in range(4) for claim in take(own, 64, turns, places=8)]
    [(strands,)] = own.execute("SELECT count(DISTINCT strand) FROM pgq_queue").fetchall()
    assert (strands if "rate" not in many else len(claims)) == 2


# ------------------------------------------------------------------------------------------------- strict order


def test_of_a_strict_key_a_task_that_is_tried_again_holds_back_the_others(session):
    own = session()
    limit(own, "k", None, strict=True)
    put(own, "k:1", 3)
    put(own, "k:2", 1)
    turns = Turns()
    first = take(own, 1, turns)
    assert keys_of(take(own, 8, turns)) == ["k:2"], "one at a time"
    queue.retry(own.cursor(), [(first[0].id, first[0].receipt, 3600.0, 0.0, "{}")])
    assert take(own, 8, turns) == []
    assert not Turns().is_any_ready(own.cursor())
    # Upkeep moves the watermark past it while it waits.
    own.execute("UPDATE pgq_keyed SET low = (SELECT max(position) FROM pgq_queue) - 1 WHERE key = 'k:1'")
    own.execute("UPDATE pgq_queue SET run_after = now() - interval '1 second' WHERE run_after IS NOT NULL")
    lanes.due(own.cursor(), limit=10)
    again = take(own, 8, turns)
    assert [claim.id for claim in again] == [claim.id for claim in first]
    end(own, again)
    assert len(take(own, 8, turns)) == 1


@pytest.mark.parametrize("how", ["release_worker", "rescue_expired"])
def test_of_a_strict_key_a_task_that_takes_workers_down_keeps_its_place(session, how):
    """Others go to the end at their second crash; here those behind it would go before it."""
    own, since = session(), leases.BEFORE_ALL_LEASES
    limit(own, "k", None, strict=True)
    put(own, "k", 3)
    for _ in range(3):
        [held] = take(own, 1)
        if how == "release_worker":
            leases.release_worker(own.cursor(), WORKER, Blame(held.id, crash=True, error="{}"), since=since)
        else:
            expire(own)
    [again] = take(own, 1)
    assert (again.id, again.position, again.crashes) == (held.id, held.position, 3)
