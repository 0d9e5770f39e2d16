"""F1, F3: from a SIGKILL to the next start, and SIGKILL at every failpoint."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from pgq.enqueue.make import make_task
from pgq.ground.ids import new_id
from pgq.store import queue
from tests.support import failpoints
from tests.support import fault_table as table
from tests.support.pools import ROOT, Pool, is_alive, until, wait_for
from tests.support.site import TASKS, Site


@pytest.mark.fault("F1", short=15, full=300)
def test_from_a_kill_to_the_next_start(site, rounds, note):
    """Of the very task that ran: in a fresh process while no other worker is free, and in a sibling that is."""
    site.start(workers=2)
    while note.rounds < rounds:
        first, second = site.enqueue("long_first", 2)
        wait_for(lambda: {first, second} <= site.runs().keys(), "both run", pause=0.002)  # noqa: B023
        for task in (first, second):
            time.sleep(random.uniform(0, 0.01))  # At any moment of its run.
            site.kill(site.runs()[task][0].pid)
            again = wait_for(lambda: site.runs()[task][1:], "it starts again", pause=0.002)  # noqa: B023
            note.round(recovery=again[0].started - site.deaths[site.runs()[task][0].pid])
    times = sorted(note.recoveries)
    site.drain()
    note.violations += site.check(max_starts=2).violations + site.stop()
    print(f"kill to next start: median {times[len(times) // 2]:.3f} s, p99 {times[int(len(times) * 0.99)]:.3f} s")  # noqa: T201
    # The promise, on a machine that does nothing else; elsewhere, an order of magnitude.
    assert times[int(len(times) * 0.99)] <= (1.0 if table.FULL else 10.0)


@pytest.mark.fault("F1", short=2, full=50)
def test_from_a_kill_to_the_next_start_ahead_of_a_backlog(site, rounds, note):
    """The task has its place, and so have those that were claimed with it."""
    site.start(workers=2)
    while note.rounds < rounds:
        (task,) = site.enqueue("long_first")
        wait_for(lambda: task in site.runs(), "it runs", pause=0.002)  # noqa: B023
        backlog = site.enqueue("work", 150, 0.02)
        wait_for(lambda: site.runs().keys() & set(backlog), "the other worker is busy", pause=0.002)  # noqa: B023
        victim = site.runs()[task][0].pid
        site.kill(victim)
        again = wait_for(lambda: site.runs()[task][1:], "it starts again", pause=0.002)  # noqa: B023
        recovery = again[0].started - site.deaths[victim]
        runs = site.runs()
        ahead = sum(run.started < again[0].started for id in backlog for run in runs.get(id, ()))
        note.round([f"I7: behind {ahead} of the backlog"] if ahead > 75 else [], recovery=recovery)
        site.drain()
    note.violations += site.check(max_starts=2).violations + site.stop()


# ------------------------------------------------------------------------------------------------- F3

#: test_atomic.py sees to the others.
POINTS = [point for point in failpoints.NAMES if not point.startswith("atomic.")]
#: Who gets to a failpoint; all that are not named here, a worker does. And in how many rounds of a full run each.
UPKEEP = ("lead.acquired", "sched.read", "sched.inserted", "sched.advanced", "sched.committed")
SUPERVISOR = ("renew.pre", "renew.post", "rescue.locked")
PRODUCER = ("enqueue.written",)
FULL_ROUNDS = {"worker": 24, "upkeep": 12, "supervisor": 6, "producer": 8}
#: After these nothing runs again: what had run was settled in the transaction that has just been committed.
NO_EXTRA_RUN = ("claim.committed", "receipt.committed")
#: Seconds between two slots of the schedule that goes on meanwhile.
EVERY = 0.5


def who(point: str) -> str:
    names = {"upkeep": UPKEEP, "supervisor": SUPERVISOR, "producer": PRODUCER}
    return next((role for role, points in names.items() if point in points), "worker")


def plan() -> list[str]:
    points = [point for point in POINTS for _ in range(FULL_ROUNDS[who(point)] if table.FULL else 1)]
    random.shuffle(points)
    return points


class Victims:
    """A pool that is started anew when its supervisor is killed, and dies where a test puts a token."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.pool = self._start()

    def _start(self) -> Pool:
        points = [{"at": name, "do": "kill9", "token": str(self.token(name))} for name in POINTS]
        # Reports are written with the next claim only. The guard writes some while a task runs, which, killed then,
        # rightly runs again.
        return self.site.start(
            workers=2, failpoints=points, retry=2.0, tick=0.2, claim_ms=2.0, settle_ms=60_000.0,
            allowed=[f"{TASKS}.slot"],
        )  # fmt: skip

    def token(self, point: str) -> Path:
        return self.site.folder / f"token {point}"

    def kill_at(self, point: str) -> tuple[list[str], float]:
        """Have a process killed there; return the tasks that were under way, and when it was (CLOCK_MONOTONIC)."""
        before = len(self._victims(point))
        ids: list[str] = []
        while len(self._victims(point)) == before:
            # Anew each time: who took it may have died of something else before it could say so.
            self.token(point).touch()
            ids += self._give_reason(point)
            with contextlib.suppress(TimeoutError):
                until(lambda: not self.token(point).exists(), 3.0)
                until(lambda: len(self._victims(point)) > before, 3.0)
        self.token(point).unlink(missing_ok=True)
        victim, killed = self._victims(point)[-1]
        wait_for(lambda: not is_alive(victim), f"{victim} is dead")
        return ids, killed

    def _victims(self, point: str) -> list[tuple[int, float]]:
        """Who said that it is there, and dies now; and when."""
        return [(int(line[2]), float(line[3])) for line in self.site.oracle.lines() if line[:2] == ["failpoint", point]]

    def _give_reason(self, point: str) -> list[str]:
        """Do what has some process get there."""
        if point == "rescue.locked":
            # Each worker has one. Else the other one might run what the supervisor has given back, between that and its
            # death: a third run, since two processes were killed.
            ids: list[str] = []
            for _ in range(2):
                [id] = self.site.enqueue("long_first")
                wait_for(lambda id=id: id in self.site.runs(), "it runs", pause=0.002)
                ids.append(id)
            self.site.kill(self.site.runs()[ids[0]][0].pid)
            return ids
        if point == "release.pre":
            # A claim grows while tasks are tiny; what stands behind a slow one is given back.
            return [*self.site.enqueue("work", 60), *self.site.enqueue("work", 1, 0.1), *self.site.enqueue("work", 30)]
        return self.site.enqueue("work", 6, 0.005)

    def heal(self) -> None:
        """What a service manager does."""
        if not is_alive(self.pool.pid):
            self.pool.process.wait()
            self.pool = self._start()


def produce_and_die(dsn: str, id: str) -> None:
    """Enqueue in a transaction and be killed before its commit."""
    failpoints.install([{"at": "enqueue.written", "do": "kill9"}])
    with psycopg.connect(dsn) as session:
        queue.enqueue(session.cursor(), make_task(f"{TASKS}.work", ())._replace(id=UUID(id)))


def kill_producer(site: Site) -> list[str]:
    """Kill a process of our own at enqueue.written; return what was wrong."""
    id = new_id()
    script = f"import sys, django; django.setup(); from {__name__} import *; produce_and_die(*sys.argv[1:])"
    environment = {**os.environ, "PGQ_TEST_ORACLE": str(site.oracle.path)}
    done = subprocess.run([sys.executable, "-c", script, site.dsn, id.hex], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    found = site.value("SELECT (SELECT count(*) FROM pgq_queue WHERE id = %s)"
                       " + (SELECT count(*) FROM pgq_task WHERE id = %s)", id, id)  # fmt: skip
    return [f"I2: {id.hex} was never committed and is there"] if found else []


def slots_wrong(site: Site) -> list[str]:
    """I6: each slot has one task, and none between the first and the last is missing."""
    slots: dict[datetime, set[str]] = defaultdict(set)
    for task, runs in site.runs().items():
        for run in runs:
            if run.words:
                slots[datetime.fromisoformat(run.words[0])].add(task)
    wrong = [f"I6: slot {slot} has {len(tasks)} tasks" for slot, tasks in slots.items() if len(tasks) > 1]
    gaps = [a for a, b in pairwise(sorted(slots)) if (b - a).total_seconds() > EVERY * 1.5]
    assert len(slots) > 1
    return wrong + [f"I6: the slot after {slot} is missing" for slot in gaps]


@pytest.mark.fault("F3", short=18, full=300)
def test_processes_are_killed_at_every_failpoint(site, note):
    """While a schedule goes on. At most one extra run of a task; none of a task whose receipt was committed."""
    victims = Victims(site)
    with site.session() as session:
        session.execute(
            "INSERT INTO pgq_schedule (func, schedule_type, seconds, intended_date_kwarg, catch_up)"
            " VALUES (%s, 'S', %s, 'intended', true)", (f"{TASKS}.slot", EVERY),
        )  # fmt: skip
    for point in plan():
        if who(point) == "producer":
            note.round(kill_producer(site))
            continue
        ids, killed = victims.kill_at(point)
        victims.heal()
        wait_for(lambda: ended(site, ids), f"all have ended after a kill at {point}", 60)  # noqa: B023
        runs = site.runs()
        allowed = 1 if point in NO_EXTRA_RUN else 2
        note.round(
            [f"{point}: {id} ran {len(runs[id])} times: {runs[id]}" for id in ids if len(runs[id]) > allowed],
            # None, if it got there by itself before there was a reason.
            recovery=max([0.0, *(run.started - killed for id in ids for run in runs[id])]),
        )
    with site.session() as session:
        session.execute("DELETE FROM pgq_schedule")
    site.drain()
    with site.session() as session:
        rows = session.execute("SELECT id FROM pgq_task WHERE schedule IS NOT NULL").fetchall()
    site.unknown = [row[0].hex for row in rows]
    note.violations += slots_wrong(site) + site.check().violations + site.stop()


def ended(site: Site, ids: list[str]) -> bool:
    return bool(site.value("SELECT count(*) = %s FROM pgq_task WHERE id = ANY (%s::uuid[])", len(ids), ids))
