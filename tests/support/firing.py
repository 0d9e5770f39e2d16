"""Schedules that fire each second, and what must hold of their slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from tests.support import fault_table as table
from tests.support.pools import wait_for
from tests.support.site import Site

SLOT = "tests.faults.tasks.slot"
SECOND = timedelta(seconds=1)
POINTS = ("sched.read", "sched.inserted", "sched.advanced", "sched.committed")
SETTINGS = {"allowed": [SLOT], "workers": 1, "catch_up_limit": 10_000}


def every_second(site: Site, count: int) -> dict[int, datetime]:
    """Make schedules; return the first slot of each."""
    with site.session() as session:
        rows = session.execute(
            "INSERT INTO pgq_schedule (name, func, schedule_type, seconds, intended_date_kwarg)"
            " SELECT 's' || n, %s, 'S', 1, 'intended' FROM generate_series(1, %s) n RETURNING id, next_run",
            (SLOT, count),
        ).fetchall()
    return dict(rows)


def wrong_slots(site: Site, firsts: Mapping[int, datetime]) -> list[str]:
    """I6: compare what was enqueued with the slots there were."""
    with site.session() as session:
        fired = Counter(
            session.execute(
                "SELECT schedule, (kwargs ->> 'intended')::timestamptz FROM pgq_task WHERE schedule IS NOT NULL"
                " UNION ALL SELECT schedule, slot FROM pgq_queue WHERE schedule IS NOT NULL"
            ).fetchall()
        )
        stands_at = dict(session.execute("SELECT id, next_run FROM pgq_schedule").fetchall())
    expected = {
        (id, first + SECOND * number)
        for id, first in firsts.items()
        for number in range((stands_at[id] - first) // SECOND)
    }
    missing = [f"I6: missing: schedule {id}, slot {slot}" for id, slot in sorted(expected - fired.keys())]
    extra = [f"I6: never was one: schedule {id}, slot {slot}" for id, slot in sorted(fired.keys() - expected)]
    return missing + extra + [f"I6: {times} times: schedule {key}" for key, times in fired.items() if times > 1]


def lateness(site: Site, firsts: Mapping[int, datetime]) -> float:
    """By how many seconds the latest of these schedules is behind; negative: none is."""
    return float(
        site.value(
            "SELECT extract(epoch FROM clock_timestamp() - min(next_run)) FROM pgq_schedule WHERE id = ANY (%s)",
            list(firsts),
        )
    )


def judge(site: Site, firsts: Mapping[int, datetime], note: table.Note) -> None:
    """Wait until nothing is late, stop the schedules, and hold what happened against what should have."""
    wait_for(lambda: lateness(site, firsts) < 0, "no schedule is late")
    with site.session() as session:
        session.execute("UPDATE pgq_schedule SET paused = true")
        site.drain()
        # No other session enqueues here.
        ids = session.execute("SELECT id FROM pgq_task WHERE schedule IS NOT NULL").fetchall()
    site.acknowledged += [row[0].hex for row in ids]
    note.violations += wrong_slots(site, firsts) + site.check(max_starts=1).violations + site.stop()
    assert site.value("SELECT max(next_run) FROM pgq_schedule") - max(firsts.values()) >= 3 * SECOND, "too few slots"


def armed(folder: Path, action: str) -> list[dict[str, str]]:
    """Failpoints at each step of firing, each of which acts once it is given its token."""
    return [{"at": point, "do": action, "token": str(folder / point)} for point in POINTS]


def strike(site: Site, folder: Path, point: str) -> int:
    """Let the leader meet a failpoint; return its pid."""
    before = len(failpoints_hit(site))
    (folder / point).touch()
    return wait_for(lambda: failpoints_hit(site)[before:], f"the leader meets {point}")[0]


def failpoints_hit(site: Site) -> list[int]:
    """The pids of those that met one, in order."""
    return [int(line[2]) for line in site.oracle.lines() if line[0] == "failpoint"]


def schedule_each_second(site: Site) -> None:
    with site.session() as session:
        session.execute(
            "INSERT INTO pgq_schedule (name, func, schedule_type, seconds, next_run, intended_date_kwarg, catch_up)"
            " VALUES ('beat', %s, 'S', 1, date_trunc('second', clock_timestamp()), 'intended', true)",
            (SLOT,),
        )


def end_schedule(site: Site) -> list[str]:
    """Stop it, take its tasks for acknowledged, and return what is wrong with its slots (I6)."""
    with site.session() as session:
        session.execute("UPDATE pgq_schedule SET paused = true")
        site.drain()
        site.acknowledged += [
            row[0].hex for row in session.execute("SELECT id FROM pgq_task WHERE schedule IS NOT NULL")
        ]
    slots = Counter(several[0].words[0] for several in site.runs().values() if several[0].words)
    return [f"I6: slot {slot} fired {count} times" for slot, count in slots.items() if count > 1] + (
        [] if slots else ["I6: no slot fired"]
    )
