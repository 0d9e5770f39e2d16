"""F21: a snapshot that stays open, and statistics that are wrong.

Watermarks under load for minutes are measured by `make bench-pinned`, plans with statistics of all kinds by
tests/store/test_plans.py. Here: a pool and its claims, from outside.
"""

from __future__ import annotations

import statistics
import time
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgq.store import queue
from tests.support.site import TASKS, Site

#: Tasks claimed at once, and how many claims are timed.
SIZE, CLAIMS = 8, 60


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def claims(session: psycopg.Connection[Any], count: int = CLAIMS) -> list[float]:
    """Claim in transactions that are rolled back; return the seconds that each took."""
    times = []
    for _ in range(count):
        with session.transaction(force_rollback=True):
            began = time.monotonic()
            found = queue.claim(session.cursor(), limit=SIZE, worker=uuid4(), receipt=uuid4())
            times.append(time.monotonic() - began)
        assert len(found) == SIZE
    return times


@pytest.mark.fault("F21", short=0, full=6)
def test_claims_stay_fast_under_old_snapshots(site, rounds, note):
    """Four readers keep their snapshots while tasks go through: each round leaves thousands of dead rows behind."""
    pool = site.start(workers=2)
    readers = [site.session(autocommit=False) for _ in range(4)]
    site.value("SELECT pgq_pause('kept')")
    site.enqueue("work", 1000, queue="kept")
    with site.session() as session:
        pool.stop()
        session.execute("SELECT pgq_resume('kept')")
        fresh = p99(claims(session))
        session.execute("SELECT pgq_pause('kept')")
        for reader in readers:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT count(*) FROM pgq_queue")
        pool = site.start(workers=2)
        for _ in range(rounds):
            tasks = site.enqueue("work", 3000, chunk=1000)
            began = time.monotonic()
            while site.value("SELECT count(*) FROM pgq_queue WHERE queue <> 'kept'"):
                time.sleep(0.1)
            note.round(recovery=(time.monotonic() - began) * 1000 / len(tasks))
        pool.stop()
        session.execute("SELECT pgq_resume('kept')")
        aged = p99(claims(session))
        dead = site.value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'pgq_queue'")
    for reader in readers:
        reader.close()
    print(f"claims of {SIZE}: p99 {fresh * 1000:.1f} ms, then {aged * 1000:.1f} ms over {dead} dead rows")  # noqa: T201
    note.violations += [f"F21: claims take {aged / fresh:.1f} times as long"] * (aged > 3 * fresh + 0.02)
    site.start(workers=2)
    site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()


def load(site: Site, count: int) -> None:
    """Many rows, with the statistics of an empty table."""
    with site.session() as session:
        session.execute("ALTER TABLE pgq_queue SET (autovacuum_enabled = false)")
        session.execute("ANALYZE pgq_queue")
        session.execute(
            "INSERT INTO pgq_queue (func, queue, priority)"
            " SELECT %s, 'q' || n %% 10, n %% 3 FROM generate_series(1, %s) n",
            (f"{TASKS}.registered", count),
        )


@pytest.mark.fault("F21", short=0, full=1)
@pytest.mark.parametrize("forced", ["enable_hashjoin enable_mergejoin", "enable_nestloop", "enable_indexscan", ""])
def test_a_claim_takes_no_more_than_its_limit(site, forced, note):
    """Whatever plan is forced, on a big table that the planner takes for an empty one, in several sessions at once."""
    load(site, 30_000)
    sessions = [site.session(autocommit=False) for _ in range(4)]
    for session in sessions:
        for setting in forced.split():
            session.execute(f"SET {setting} = off")
        session.execute("SET plan_cache_mode = force_generic_plan")
        session.commit()
    seen: set[Any] = set()
    for _ in range(6):
        for session in sessions:
            for limit in (1, 8, 64):
                found = queue.claim(session.cursor(), limit=limit, worker=uuid4(), receipt=uuid4())
                ids = {claim.id for claim in found}
                note.round(
                    [f"a claim of {limit} took {len(found)}"] * (len(found) > limit or not found)
                    + [f"{len(ids & seen)} tasks were claimed twice"] * bool(ids & seen)
                )
                seen |= ids
    for session in sessions:
        session.rollback()
        session.close()


@pytest.mark.fault("F21", short=0, full=1)
def test_claims_with_stale_statistics(site, note):
    load(site, 200_000)
    with site.session() as session:
        times = claims(session)
        note.round([f"F21: p99 of a claim is {p99(times) * 1000:.0f} ms"] * (p99(times) > 0.25))
