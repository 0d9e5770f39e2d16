"""I12: an atomic task's rows commit if and only if its receipt does, whatever is killed or frozen in between."""

from __future__ import annotations

import pytest

from tests.support.pools import is_alive, wait_for
from tests.support.settled import wrong_entries
from tests.support.site import Site

LEDGER = "CREATE TABLE ledger (task uuid, receipt uuid)"


@pytest.fixture
def ledger(site: Site) -> Site:
    with site.session() as session:
        session.execute(LEDGER)
    return site


@pytest.mark.fault("F1", "F3", short=4, full=150)
def test_the_ledger_is_exact_after_many_kills(ledger, rounds, note):
    # A task that is hit three times by chance is no poison.
    pool = ledger.start(workers=2, max_crashes=1000)
    for _ in range(rounds):
        ledger.enqueue("ledger", 10, 0.01, 0.02)
        ledger.kill(ledger.busy_pid())
        pool.worker_pids()
        note.round()
    ledger.drain()
    note.violations += ledger.check().violations + wrong_entries(ledger) + ledger.stop()


@pytest.mark.fault("F3", short=1, full=10)
@pytest.mark.parametrize("at", ["atomic.begun", "atomic.written", "atomic.committed"])
def test_killed_at_each_step_of_its_transaction(at, ledger, rounds, note, tmp_path):
    for number in range(rounds):
        flag = tmp_path / f"hit{number}"
        pool = ledger.start(workers=1, failpoints=[{"at": at, "do": "kill9", "nth": 3, "flag": str(flag)}])
        ledger.enqueue("ledger", 6)
        ledger.drain()
        assert flag.exists()
        note.round(wrong_entries(ledger))
        pool.stop()
    verdict = ledger.check()
    # Only what was committed is never run again.
    assert verdict.repeated == (0 if at == "atomic.committed" else rounds if at == "atomic.written" else 0)
    note.violations += verdict.violations


@pytest.mark.fault("F6", short=1, full=5)
def test_frozen_and_thawed_it_commits_nothing(ledger, rounds, note):
    """The lease runs out while its worker is frozen, another runs the task, and then the first one goes on."""
    pool = ledger.start(workers=2)
    for _ in range(rounds):
        (task,) = ledger.enqueue("ledger", 1, 0.5, 0.5)
        pid = wait_for(lambda task=task: [run.pid for run in ledger.runs().get(task, ())], "it runs")[0]
        # The supervisor too, since it would renew the lease of a worker that lives.
        ledger.freeze(pid, pool.pid)
        rescuer = ledger.start("--name", "rescuer", workers=1)
        ledger.drain()
        ledger.thaw(pool.pid, pid)
        wait_for(lambda task=task: sum(run.ended is not None for run in ledger.runs()[task]) == 2, "both have ended")
        wait_for(lambda: "its lease was lost" in pool.log(), "the first was told")
        rescuer.stop()
        note.round(wrong_entries(ledger))
    note.violations += ledger.check().violations + ledger.stop()


@pytest.mark.fault("F6", short=0, full=1)
def test_frozen_between_its_receipt_and_its_commit(ledger, note, tmp_path):
    """It holds the row locked: PostgreSQL ends its transaction after some seconds, and the task is run again."""
    flag = tmp_path / "hit"
    pool = ledger.start(workers=2, failpoints=[{"at": "atomic.written", "do": "stop", "flag": str(flag)}])
    (task,) = ledger.enqueue("ledger")
    wait_for(flag.exists, "it is frozen")
    pid = ledger.runs()[task][0].pid
    ledger.frozen[pid] = 0.0
    ledger.freeze(pool.pid)
    ledger.start("--name", "rescuer", workers=1)
    ledger.drain()
    ledger.thaw(pool.pid, pid)
    note.round(wrong_entries(ledger))
    assert is_alive(pool.pid)
    note.violations += ledger.stop() + ledger.check().violations
