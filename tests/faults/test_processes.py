"""F1, F2, F4-F7: processes of a pool are killed, signalled and frozen. F3 is in test_kills.py, F8 in test_boot.py."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest

from tests.support import fault_table as table
from tests.support.pools import is_alive, wait_for
from tests.support.site import QUICK

#: What others do to this machine besides: bounds in seconds hold for a quiet one, in the full form.
PATIENCE = 1.0 if table.FULL else 10.0


@pytest.mark.fault("F1", short=3, full=10)
def test_a_busy_worker_is_killed(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        site.enqueue("work", 20, 0.05)
        victim = site.busy_pid()
        hit = next(run for runs in site.runs().values() for run in runs if run.pid == victim and run.ended is None)
        site.kill(victim)
        pool.worker_pids()
        note.round(recovery=site.recovery())
        site.drain()
        # The one that ran is charged an attempt, if it was not just about to end; its batch mates are not.
        attempts = site.value("SELECT attempt_count FROM pgq_task WHERE id = %s::uuid", hit.task)
        note.violations += [] if attempts == len(site.runs()[hit.task]) else [f"I5: {attempts} attempts of {hit.task}"]
    note.violations += site.check(max_starts=2).violations + site.stop()


@pytest.mark.fault("F2", short=3, full=10)
def test_an_idle_worker_is_killed(site, rounds, note):
    """Whichever of them it is, the others work on, and at once."""
    pool = site.start(workers=3)
    for number in range(rounds):
        pool.wait_for(lambda: [row["state"] for row in pool.report()] == ["idle"] * 3, "all sleep")
        site.kill(pool.report()[number % 3]["pid"])
        began = time.monotonic()
        ids = site.enqueue("work", 100)
        site.drain()
        last = max(site.runs()[id][0].started for id in ids) - began
        note.round([f"I7: the last started after {last:.1f} s"] if last > 2 * PATIENCE else [], recovery=last)
        pool.worker_pids()
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F4", short=1, full=6)
def test_the_supervisor_is_killed(site, rounds, note):
    """Its children die with it, before the lease of their tasks ends; whoever starts the pool anew need not wait."""
    pool = site.start(workers=2)
    for _ in range(rounds):
        ids = site.enqueue("long_first", 2)
        wait_for(lambda: set(ids) <= site.runs().keys(), "both run")  # noqa: B023
        children = set(pool.processes()) - {pool.pid}
        began = time.monotonic()
        site.kill(pool.pid)
        new = site.start(workers=2, ready=False)
        wait_for(lambda: not any(map(is_alive, children)), "its children have died", 20)  # noqa: B023
        gone = time.monotonic()
        # At the latest then, for the oracle: a run that overlaps with its dead predecessor's last moments is an error.
        site.deaths |= dict.fromkeys(children, gone)
        pool.process.wait()
        left = [f"I9: the children lived on for {gone - began:.1f} s"] if gone - began > 2 * PATIENCE else []
        wait_for(lambda: all(len(site.runs()[id]) > 1 for id in ids), "both run again")  # noqa: B023
        note.round(left, recovery=max(site.runs()[id][1].started for id in ids) - began)
        pool = new.wait_until_ready()
    site.drain()
    assert note.recoveries[-1] >= QUICK["retry"] - 1, "the lease of a task was not waited for"
    note.violations += site.check(max_starts=2).violations + site.stop()


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
#: What is sent, and whether to the whole process group.
STORMS = {
    "TERM": ([signal.SIGTERM], False),
    "INT, TERM": ([signal.SIGINT, signal.SIGTERM], False),
    "QUIT": ([signal.SIGQUIT], False),
    "HUP, TERM": ([signal.SIGHUP, signal.SIGTERM], False),
    "50 TERM": ([signal.SIGTERM] * 50, False),
    "TERM to all": ([signal.SIGTERM], True),
    "50 of all kinds": ([*(signal.Signals(number) for number in SIGNALS * 12), signal.SIGTERM], False),
    "50 of all kinds to all": ([*(signal.Signals(number) for number in SIGNALS * 12), signal.SIGTERM], True),
}


@pytest.mark.fault("F5", short=3, full=15)
def test_storms_of_signals(site, rounds, note):
    """The pool ends by itself with 0. It leaves no lease, and charges nobody an attempt."""
    first = random.randrange(len(STORMS))
    for number in range(rounds):
        name = list(STORMS)[(first + number) % len(STORMS)]
        storm, to_all = STORMS[name]
        pool = site.start(workers=2)
        site.enqueue("work", 20, 0.05)
        site.busy_pid()
        began = time.monotonic()
        for sent, one in enumerate(random.sample(storm[:-1], len(storm) - 1) + storm[-1:]):
            if len(storm) == 2 and sent:
                # Two that come at once may be heard in either order.
                wait_for(lambda: "stopping (" in pool.log(), "the first was heard")  # noqa: B023
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if to_all else os.kill)(pool.pid, one)
        code, took = pool.wait(), time.monotonic() - began
        violations = [f"I9: after {name}: {left}" for left in site.stop()]
        if code:
            violations.append(f"exit code {code} after {name}")
        if name == "QUIT" and took > PATIENCE:
            violations.append(f"QUIT took {took:.1f} s")
        note.round(violations)
    site.start(workers=2)
    site.drain()
    note.violations += site.check().violations + site.stop()
    assert site.value("SELECT max(attempt_count) FROM pgq_task") == 1


@pytest.mark.fault("F6", short=1, full=5)
def test_a_worker_and_a_whole_pool_freeze_for_three_leases(site, rounds, note):
    """A worker's lease is renewed by its supervisor, so its task waits. A pool's runs out, and what it says is late."""
    quick = {"retry": 1.5, "tick": 0.25}
    frozen = site.start(workers=1, **quick)
    other = site.start(workers=2, **quick)
    mine = set(frozen.worker_pids())
    for _ in range(rounds):
        ids = site.enqueue("work", 3, 1.0)
        wait_for(lambda: set(ids) <= site.runs().keys(), "all run", pause=0.002)  # noqa: B023
        runs = {id: site.runs()[id][0] for id in ids}
        lost = next(id for id in ids if runs[id].pid in mine)
        kept = next(id for id in ids if runs[id].pid not in mine)
        tree = [*frozen.processes(), runs[kept].pid]
        site.freeze(*tree)
        frozen_at = time.monotonic()
        refused = frozen.log().count("its lease was lost")
        site.enqueue("work", 5)
        again = wait_for(lambda: site.runs()[lost][1:], "it runs elsewhere")  # noqa: B023
        wait_for(lambda: time.monotonic() > frozen_at + 3 * quick["retry"], "three leases have passed")  # noqa: B023
        violations = [] if len(site.runs()[kept]) == 1 else ["I3: a frozen worker's lease was not renewed"]
        site.thaw(*tree)
        wait_for(lambda: frozen.log().count("its lease was lost") > refused, "the late receipt is refused")  # noqa: B023
        site.drain()
        note.round(violations, recovery=again[0].started - frozen_at)
    verdict = site.check(max_starts=2)
    note.violations += verdict.violations
    assert verdict.overlap_expired == verdict.repeated == rounds
    assert other.process.poll() is None
    note.violations += site.stop()


@pytest.mark.fault("F7", short=1, full=4)
def test_the_host_dies(own_site, rounds, note):
    """The server and all processes of the pool at once. What was acknowledged is there when they are."""
    site, server = own_site
    for _ in range(rounds):
        pool = site.start(workers=2)
        site.enqueue("work", 300, 0.01)
        ids = site.enqueue("long_first", 2)
        wait_for(lambda: set(ids) & site.runs().keys(), "a long one runs")  # noqa: B023
        processes = list(pool.processes())
        for pid in processes:
            site.kill(pid)
        server.kill()
        pool.process.wait()
        wait_for(lambda: not any(map(is_alive, processes)), "all are dead")  # noqa: B023
        server.start()
        began = time.monotonic()
        pool = site.start(workers=2)
        first = [id for id in ids if id in site.runs()]
        site.drain()
        recovery = max(site.runs()[id][-1].started for id in first) - began
        note.round([f"I7: {recovery:.1f} s" for _ in range(recovery > 10 * PATIENCE)], recovery=recovery)
        note.violations += site.stop()
    note.violations += site.check(max_starts=2).violations
