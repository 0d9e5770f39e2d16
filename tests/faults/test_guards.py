"""What mutants are caught by where no other test is quick enough. Run by test_mutants.py."""

from __future__ import annotations

import os
import signal
import time

import pytest
from django.db import connection, transaction

from tests.faults.tasks import say
from tests.support.pools import wait_for

pytestmark = pytest.mark.skipif(not os.environ.get("PGQ_MUTANT"), reason="run by test_mutants.py")


def roll_back(seconds: float) -> None:
    """Hold a transaction open for so long, and roll it back."""
    say("start")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        time.sleep(seconds)
        say("end", "failed")
        raise ValueError("on purpose")


@pytest.mark.parametrize("point", ["receipt.pre", "receipt.written", "receipt.committed"])
def test_killed_at_a_step_of_its_receipt(site, point, tmp_path):
    site.start(workers=1, failpoints=[{"at": point, "do": "kill9", "nth": 3, "flag": str(tmp_path / "flag")}])
    site.enqueue("work", 40, 0.002)
    site.drain(15)
    assert (tmp_path / "flag").exists()
    site.check(max_starts=1 if point == "receipt.committed" else 2).assert_clean()
    assert site.stop() == []


def test_the_lease_of_a_dead_pool_runs_out(site):
    dead = site.start(workers=1, retry=1.5)
    (task,) = site.enqueue("long_first")
    wait_for(lambda: task in site.runs())
    site.start(workers=1, retry=1.5)
    dead.signal(signal.SIGKILL)
    dead.process.wait()
    wait_for(lambda: len(site.runs()[task]) == 2, "it runs again")
    site.drain(15)
    assert site.stop() == []


def test_reports_do_not_roll_back_with_a_task(site):
    """What finished before it, claimed with it, is settled while it runs."""
    site.start(workers=1, claim_ms=2000.0)
    for _ in range(3):
        site.enqueue("work", 100)
        site.enqueue(f"{__name__}.roll_back", 1, 0.3)
        site.enqueue("work", 50)
    site.drain(15)
    site.check(max_starts=1, may_fail=True).assert_clean()
    assert site.stop() == []


def test_an_idle_pool_hears_of_a_task(site):
    pool = site.start(workers=1)
    pool.wait_for(lambda: [row["state"] for row in pool.report()] == ["idle"], "it sleeps")
    (task,) = site.enqueue("work")
    wait_for(lambda: task in site.runs(), "it runs")
    site.drain(15)
    assert site.stop() == []


def test_a_stopped_pool_gives_back(site):
    site.start(workers=2)
    # Some twenty of them in each claim: hardly ever is none left when the word to stop comes.
    site.enqueue("work", 5000, 0.002)
    wait_for(lambda: site.left() < 4500, "it works")
    assert site.left() > 0
    assert site.stop() == []
