"""F40: what operators do, with psql and with the machine, while the pools work."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.support.pools import wait_for
from tests.support.site import QUICK, Site

#: In the order in which pg_dump writes them. (An INSERT into pgq_queue makes lanes.)
TABLES = ("pgq_lane", "pgq_progress", "pgq_queue", "pgq_schedule", "pgq_task", "pgq_worker")


def running(site: Site, at_least: int = 1) -> list[str]:
    """Wait until tasks run; return their ids."""

    def look() -> list[str]:
        found = [task for task, runs in site.runs().items() if runs[-1].ended is None]
        return found if len(found) >= at_least else []

    return wait_for(look, "tasks run")


def finished(site: Site) -> set[str]:
    """The ids of the tasks that have a result."""
    with site.session() as session:
        return {row[0].hex for row in session.execute("SELECT id FROM pgq_task").fetchall()}


@pytest.mark.fault("F40", short=1, full=6)
def test_live_rows_are_taken_away(site, rounds, note):
    site.start(workers=2)
    statements = ["DELETE FROM pgq_queue", "TRUNCATE pgq_queue", "TRUNCATE pgq_queue, pgq_lane"]
    for statement in (statements * rounds)[:rounds]:
        taken = site.enqueue("work", 30, 0.3)
        running(site)
        with site.session() as session:
            session.execute(statement)
        # What was settled before that stays; the others were the operator's to take.
        gone = set(taken) - finished(site)
        site.acknowledged = [task for task in site.acknowledged if task not in gone]
        site.unknown += gone
        note.round(recovery=site.recovery())
        site.drain()
        # The receipts for what is gone were refused, and nothing of it came back.
        note.violations += [f"I4: {task} was deleted and has a result" for task in gone & finished(site)]
    wait_for(lambda: "its lease was lost" in site.pools[0].log(), "the workers have noticed")
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F40", short=2, full=8)
def test_a_running_task_is_cancelled_and_its_worker_goes_on(site, rounds, note):
    pool = site.start(workers=1)
    (pid,) = pool.worker_pids()
    for _ in range(rounds):
        (task,) = site.enqueue("work", 1, 60)
        wait_for(lambda task=task: site.runs().get(task), "it runs")
        began = time.monotonic()
        assert site.value("SELECT pgq_cancel(%s)", task) == "running"
        site.drain()
        note.round(recovery=time.monotonic() - began)
        assert site.value("SELECT exception FROM pgq_task WHERE id = %s", task) == "pgq.errors.TaskCancelled"
    assert pool.worker_pids() == [pid]
    note.violations += site.check(max_starts=1, may_fail=True).violations + site.stop()


@pytest.mark.fault("F40", short=0, full=8)
def test_nothing_starts_while_a_queue_is_paused(site, rounds, note):
    site.start(workers=2)
    for _ in range(rounds):
        site.enqueue("work", 100, 0.02)
        running(site)
        with site.session() as session:
            session.execute("SELECT pgq_pause('default')")
            wait_for(
                lambda: not site.value("SELECT count(*) FROM pgq_queue WHERE lock IS NOT NULL"), "all have stopped"
            )
            before = site.starts()
            time.sleep(2 * QUICK["tick"])
            note.round([f"{site.starts() - before} started in a paused queue"] if site.starts() != before else ())
            assert site.left()
            session.execute("SELECT pgq_resume('default')")
        site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F40", short=0, full=4)
def test_two_pools_of_one_name_do_not_take_each_other_for_themselves(site, rounds, note):
    pools = [site.start(workers=1, name="twin") for _ in range(2)]
    for _ in range(rounds):
        site.enqueue("work", 40, 0.05)
        busy = site.busy_pid()
        site.kill(busy)
        # The other one's leases are not touched by that, and it is not started anew.
        note.round(recovery=site.recovery())
    site.drain()
    assert site.value("SELECT count(*) FROM pgq_worker WHERE name = 'twin'") == 2
    assert len({pool.pid for pool in pools}) == 2
    note.violations += site.check(max_starts=1 + rounds).violations + site.stop()


@pytest.mark.fault("F40", short=0)
def test_a_pid_that_is_used_again_adopts_nothing(site, note):
    """As in containers, where each pool is process 1 of a host of the same name: the dead one's row looks like ours."""
    pool = site.start(workers=1)
    site.enqueue("work", 5)
    site.drain()
    (task,) = site.enqueue("work", 1, run_after=3600)
    with site.session() as session:
        # A pool on this host, with this pid and this worker's pid, died, and its worker held this lease.
        dead = uuid4()
        session.execute(
            "INSERT INTO pgq_worker (id, name, host, pid, status, workers)"
            " SELECT gen_random_uuid(), name, host, pid, 'working',"
            "        jsonb_set(workers, '{0,id}', to_jsonb(%s::text)) FROM pgq_worker WHERE pid = %s",
            (dead.hex, pool.pid),
        )
        session.execute(
            "UPDATE pgq_queue SET run_after = NULL, lock = clock_timestamp(), worker = %s, receipt = gen_random_uuid(),"
            " attempts = 1 WHERE id = %s",
            (dead, task),
        )
    began = time.monotonic()
    site.drain()
    # Nobody renewed it, so it was rescued when the lease had run out; and not earlier.
    note.round(recovery=time.monotonic() - began)
    assert time.monotonic() - began > QUICK["retry"] * 0.8
    assert site.value("SELECT attempt_count FROM pgq_task WHERE id = %s", task) == 2
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F40", short=0, full=3)
def test_the_dump_of_yesterday_is_restored(site, rounds, note, tmp_path):
    for _ in range(rounds):
        pool = site.start(workers=2)
        ended = set(site.enqueue("work", 20))
        site.drain()
        long = site.enqueue("work", 2, 1.5)
        waiting = site.enqueue("work", 30, 0.01)
        running(site, 2)
        dump(site, tmp_path / "dump")
        site.drain()
        for pid in pool.processes():
            site.kill(pid)
        pool.process.wait()
        wait_for(lambda pool=pool: not pool.processes(), "the pool is dead")
        restore(site, tmp_path / "dump")
        assert site.value("SELECT count(*) FROM pgq_queue WHERE lock IS NOT NULL") >= 2
        began = time.monotonic()
        site.start(workers=2)
        site.drain()
        note.round(recovery=time.monotonic() - began)
        lost = ended.union(long, waiting) - finished(site)
        note.violations += [f"I1: {task} was in the dump and has no result" for task in lost]
        note.violations += site.stop()
    note.violations += site.check(max_starts=3).violations


@pytest.mark.fault("F40", short=0, full=4)
def test_a_queue_is_renamed(site, rounds, note):
    # The name of the queue is signed, so whoever changes it makes the rows their own (see docs/reference/sql.md).
    site.start(workers=2, allowed=["tests.faults.tasks.registered"])
    with site.session() as session:
        for number in range(rounds):
            site.enqueue("registered", 50, 0.02, queue="old")
            running(site)
            renamed = session.execute(
                "UPDATE pgq_queue SET queue = %s, signature = NULL WHERE queue = 'old' AND lock IS NULL",
                (f"new{number}",),
            ).rowcount
            session.execute("SELECT pgq_wake()")
            assert renamed
            # The new queue has no lane until upkeep has found its rows.
            note.round(recovery=site.drain())
            found = session.execute("SELECT count(*) FROM pgq_task WHERE queue = %s", (f"new{number}",)).fetchone()[0]
            assert found == renamed
    note.violations += site.check(max_starts=1).violations + site.stop()


def dump(site: Site, path: Path) -> None:
    """As pg_dump --data-only: all tables as of one snapshot, and the sequence."""
    path.mkdir(exist_ok=True)
    with site.session(autocommit=False) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        (path / "pgq_position").write_text(str(session.execute("SELECT last_value FROM pgq_position").fetchone()[0]))
        for name in TABLES:
            with (
                session.cursor().copy(f"COPY (SELECT * FROM {name}) TO STDOUT") as copy,
                (path / name).open("wb") as file,
            ):
                for data in copy:
                    file.write(data)


def restore(site: Site, path: Path) -> None:
    with site.session(autocommit=False) as session:
        session.execute(f"TRUNCATE {', '.join(TABLES)}")
        for name in TABLES:
            with session.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                copy.write((path / name).read_bytes())
        session.execute("SELECT setval('pgq_position', %s)", (int((path / "pgq_position").read_text()),))
