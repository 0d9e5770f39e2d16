"""Limits in real pools: never more at a time than the limit, whoever dies; and the room there is, is used."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict

import pytest

from pgq.models import QueuedTask
from pgq.tasks import async_task, enqueue_many
from tests.functions import oracle as oracle_tasks
from tests.support.pools import is_alive, wait_for
from tests.support.settled import all_settled

pytestmark = pytest.mark.django_db(transaction=True)

NAP, ANAP = f"{oracle_tasks.__name__}.nap", "tests.functions.slots.anap"
LIMITS = {"one": 1, "two": 2, "three": 3}


def most_at_a_time(lines: list[list[str]], died: dict[str, float]) -> dict[str, int]:
    """How many tasks of each key ran at the same time, at most. A process that died ended what it ran."""
    events: dict[str, list[tuple[float, int]]] = defaultdict(list)
    open_: dict[tuple[str, str], float] = {}
    for event, name, pid, at in lines:
        if event == "start":
            open_[name, pid] = float(at)
        elif event == "end":
            key = name.partition("/")[0]
            events[key] += [(open_.pop((name, pid)), 1), (float(at), -1)]
    for (name, pid), began in open_.items():
        events[name.partition("/")[0]] += [(began, 1), (died[pid], -1)]
    most = {}
    for key, of_key in events.items():
        now = most[key] = 0
        for _, change in sorted(of_key):
            now += change
            most[key] = max(most[key], now)
    return most


def set_limits(session) -> None:
    for name, concurrency in LIMITS.items():
        session.execute("SELECT pgq_set_limit(%s, %s)", (name, concurrency))


def commits(session) -> int:
    """Transactions of the test's database so far, as far as the statistics know."""
    [(count,)] = session.execute(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    ).fetchall()
    return count


def test_never_more_than_the_limit_whoever_is_killed(pool, oracle, session):
    own, chance = session(), random.Random(7)
    set_limits(own)
    keys = [f"{name}:{number}" for name in LIMITS for number in range(2)] + ["free"]
    ids = []
    for number in range(400):
        key = chance.choice(keys)
        seconds = chance.choice((0, 0.001, 0.01, 0.04))
        ids.append(
            async_task(NAP, f"{key}/{number}", seconds, q_options={"key": key}, priority=chance.choice((0, 0, 1)))
        )
    running = pool(workers=4, max_crashes=50)
    died: dict[str, float] = {}
    while not all_settled():
        time.sleep(0.3)
        pids = [pid for pid in running.worker_pids() if is_alive(pid)]
        if pids and len(died) < 12:
            victim = chance.choice(pids)
            died[str(victim)] = time.monotonic()
            os.kill(victim, signal.SIGKILL)
    most = most_at_a_time(oracle.lines(), died)
    assert set(most) == set(keys)
    for key, number in most.items():
        assert number <= LIMITS.get(key.partition(":")[0], 4), (key, number)
    # And the room was used.
    assert most["free"] > 1
    assert most["three:0"] > 1
    assert QueuedTask.objects.count() == 0


def test_a_strand_runs_one_after_the_other_in_slots(pool, oracle, session):
    set_limits(session())
    for name in LIMITS:
        enqueue_many(ANAP, [(f"{name}/{number}", 0.02) for number in range(30)], key=name)
    enqueue_many(ANAP, [(f"free/{number}", 0.3) for number in range(20)])
    pool(workers=2, coroutines=10)
    wait_for(all_settled)
    most = most_at_a_time(oracle.lines(), {})
    for name, number in LIMITS.items():
        assert most[name] <= number
    assert most["three"] > 1
    assert most["free"] > 3


def test_a_place_that_becomes_free_is_taken_at_once(pool, oracle, session, tmp_path):
    """The worker that sleeps hears of it from the one that ran the task, and from `set_limit`."""
    own = session()
    own.execute("SELECT pgq_set_limit('k', 0)")
    pool(workers=2, poll=10)
    enqueue_many(NAP, [(f"k/{number}", 0.2) for number in range(3)], key="k")
    time.sleep(0.3)
    assert oracle.lines() == []
    own.execute("SELECT pgq_set_limit('k', 1)")
    wait_for(all_settled, timeout=8)
    times = [float(line[3]) for line in oracle.lines()]
    assert max(later - earlier for earlier, later in zip(times[1::2], times[2::2], strict=False)) < 1


def test_a_task_that_a_rate_holds_starts_when_its_window_opens(pool, oracle, session):
    """Not at the next poll, which is 10 s away; and until then no poll follows the other."""
    own = session()
    own.execute("SELECT pgq_set_limit('k', rate => 2, period => 1.5)")
    pool(workers=1, poll=10)
    enqueue_many(NAP, [(f"k/{number}", 0) for number in range(6)], key="k")
    before = commits(own)
    # Its own looks are few, too.
    wait_for(all_settled, timeout=8, pause=0.2)
    times = sorted(oracle.times(f"k/{number}")[0] for number in range(6))
    for place in (2, 4):
        # A sixtieth of the window, and what a busy machine takes.
        assert 1.49 <= times[place] - times[place - 2] < 2.3
    assert commits(own) - before < 200


def test_first_in_first_out_within_a_key_whose_limit_is_one(pool, oracle, session):
    set_limits(session())
    enqueue_many(NAP, [(f"one/{number}", 0) for number in range(300)], key="one")
    pool(workers=3)
    wait_for(all_settled)
    started = [int(line[1].partition("/")[2]) for line in oracle.lines() if line[0] == "start"]
    assert started == sorted(started)
