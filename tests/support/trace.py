"""The oracle: from the trace and the tables, which of the invariants were broken. It asks pgq's Python nothing.

I1  no loss            each acknowledged enqueue has ended, and nothing of it is left in the queue
I2  no phantom         nothing ran that was never committed
I3  exclusive lease    no two runs of a task overlap while the earlier one's lease held
I4  one result         a task has one result: that of the receipt granted last among those that ended
I5  bounded attempts   no task started more often than its attempts and crashes allow
I9  hygiene            nothing is left of a pool that has stopped: no process, session or lock
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg

#: What a pool calls its sessions begins so.
SESSIONS = "pgq %"


@dataclass
class Run:
    """One start of a task. Times are seconds of CLOCK_MONOTONIC."""

    task: str
    receipt: str
    pid: int
    started: float
    attempt: int
    #: None: it did not get to its end.
    ended: float | None = None
    words: tuple[str, ...] = ()


@dataclass
class Verdict:
    """What the oracle found."""

    violations: list[str] = field(default_factory=list)
    runs: int = 0
    #: Tasks that ran more than once, which a fault explains.
    repeated: int = 0
    #: Overlaps after the earlier run's lease had run out (its process was frozen or cut off).
    overlap_expired: int = 0

    def assert_clean(self) -> Verdict:
        assert not self.violations, "\n".join(self.violations[:20])
        return self


def read(path: Path) -> dict[str, list[Run]]:
    """Return the runs of each task, in the order of their starts."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for line in path.read_text().splitlines():
        event, *words = line.split()
        if event == "start" and len(words) >= 5:
            task, receipt, pid, at, attempt, *more = words
            runs[task].append(Run(task, receipt, int(pid), int(at) / 1e9, int(attempt), words=tuple(more)))
        elif event == "end" and len(words) >= 5:
            task, receipt, pid, at, *_ = words
            for run in runs[task]:
                if run.receipt == receipt and run.pid == int(pid) and run.ended is None:
                    run.ended = int(at) / 1e9
    return runs


def check(
    session: psycopg.Connection[Any],
    path: Path,
    acknowledged: Collection[str],
    *,
    unknown: Collection[str] = (),
    frozen: Mapping[int, float] | None = None,
    deaths: Mapping[int, float] | None = None,
    max_starts: int | None = None,
    may_fail: bool | Collection[str] = False,
) -> Verdict:
    """Judge a queue that has been drained.

    Args:
        acknowledged: Ids (32 hex) of the tasks whose commit was confirmed.
        unknown: Ids of those where it was not: they may have run or not.
        frozen: Pids that were frozen or cut off for longer than a lease, and since when: their leases ran out.
        deaths: When a pid died. A run without an end, in a process not named here, ended when it started.
        max_starts: How often a task may start; None: unbounded.
        may_fail: Whether tasks are expected to end as failures; or the ids of those that are.
    """
    verdict = Verdict()
    say = verdict.violations.append
    runs = read(path)
    verdict.runs = sum(map(len, runs.values()))
    known = set(acknowledged) | set(unknown)
    finished = {
        row[0].hex: row[1:]
        for row in session.execute("SELECT id, success, result #>> '{}', attempt_count, exception FROM pgq_task")
    }
    live = [row[0].hex for row in session.execute("SELECT id FROM pgq_queue")]

    for task in set(acknowledged) - finished.keys():
        say(f"I1: {task} was acknowledged and has no result ({len(runs.get(task, ()))} starts)")
    for task in live:
        say(f"I1: {task} is still in the queue")
    for task in runs.keys() - known:
        say(f"I2: {task} ran and was never enqueued")
    for task, (success, result, _, exception) in finished.items():
        if task not in known:
            continue
        ended = [run for run in runs.get(task, ()) if run.ended is not None]
        if success and result not in {run.receipt for run in ended}:
            say(f"I4: the result of {task} is that of no run: {result}")
        if success and ended and result != ended[-1].receipt and ended[-1].pid not in (frozen or {}):
            later = [run for run in runs[task] if run.started > ended[0].started]
            if later and later[-1].ended is not None and later[-1].receipt != result:
                say(f"I4: the result of {task} is that of an earlier run than its last")
        if not success and may_fail is not True and (may_fail is False or task not in may_fail):
            say(f"I1: {task} failed: {exception}")
    for task, several in runs.items():
        if max_starts is not None and len(several) > max_starts:
            say(f"I5: {task} started {len(several)} times, {max_starts} are allowed")
        if len({run.receipt for run in several}) < len(several):
            say(f"I3: {task} started twice under one receipt")
        verdict.repeated += len(several) > 1
        _overlaps(verdict, several, frozen or {}, deaths or {})
    return verdict


def _overlaps(verdict: Verdict, runs: list[Run], frozen: Mapping[int, float], deaths: Mapping[int, float]) -> None:
    for earlier, later in pairwise(runs):
        end = earlier.ended if earlier.ended is not None else deaths.get(earlier.pid, earlier.started)
        if later.started >= end:
            continue
        if earlier.pid in frozen and later.started > frozen[earlier.pid]:
            verdict.overlap_expired += 1
        else:
            how = "ended" if earlier.ended is not None else "died with its process"
            early = end - later.started
            verdict.violations.append(
                f"I3: {earlier.task} started in {later.pid} {early:.3f} s before it {how} in {earlier.pid}"
            )


def left_in_postgresql(session: psycopg.Connection[Any]) -> list[str]:
    """I9: what stopped pools have left there."""
    sessions = session.execute(
        "SELECT pid, application_name, state, query FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE %s",
        (SESSIONS,),
    ).fetchall()
    locks = session.execute(
        "SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchall()
    leases = session.execute("SELECT count(*) FROM pgq_queue WHERE lock IS NOT NULL").fetchone()
    left = [f"I9: session {row}" for row in sessions] + [f"I9: advisory lock {row}" for row in locks]
    return left + ([f"I9: {leases[0]} leases"] if leases and leases[0] else [])
