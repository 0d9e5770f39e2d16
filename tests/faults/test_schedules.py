"""F24-F27: schedules, while their leader is killed or frozen, beside schedules that nobody can fire, after an outage.

The oracle (I6): of each schedule, every slot from its first up to the one it stands at now was enqueued, and once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from pgq import testing
from pgq.models import Schedule
from pgq.tasks import schedule
from tests.app.tasks import noop
from tests.support import fault_table as table
from tests.support.firing import POINTS, SETTINGS, SLOT, armed, every_second, judge, lateness, strike
from tests.support.pools import is_alive, wait_for
from tests.support.site import QUICK, Site

#: The tick is half a second; the rest is for a busy machine.
MAX_LATE = 1.0 if table.FULL else 5.0


@pytest.mark.fault("F24", short=1, full=30)
def test_the_leader_is_killed_at_every_step_of_a_schedule(site, rounds, note, tmp_path):
    for _ in range(2):
        site.start(failpoints=armed(tmp_path, "kill9"), **SETTINGS)
    firsts = every_second(site, 10)
    for point in POINTS * rounds:
        pid = strike(site, tmp_path, point)
        began = time.monotonic()
        wait_for(lambda pid=pid: not is_alive(pid), "it is dead")
        wait_for(lambda: lateness(site, firsts) < 0, "somebody has fired what was due")
        note.round(recovery=time.monotonic() - began)
    judge(site, firsts, note)


@pytest.mark.fault("F25", short=0, full=4)
def test_a_frozen_leader_is_replaced_and_writes_nothing_once_thawed(site, rounds, note, tmp_path):
    for _ in range(2):
        site.start(failpoints=armed(tmp_path, "stop"), **SETTINGS)
    firsts = every_second(site, 5)
    # The one that has written everything but its commit first.
    for point in ("sched.advanced", "sched.inserted", "sched.read", "sched.committed") * (rounds // 4):
        pid = strike(site, tmp_path, point)
        began = time.monotonic()
        # The server ends the transaction of a leader that says nothing for 5 s.
        wait_for(lambda: lateness(site, firsts) < 0, "another leader has fired what was due")
        taken_over = time.monotonic() - began
        # In all it is frozen for three leases.
        time.sleep(max(began + 3 * QUICK["retry"] - time.monotonic(), 0))
        os.kill(pid, signal.SIGCONT)
        (tmp_path / point).unlink(missing_ok=True)
        wait_for(lambda: lateness(site, firsts) < 0, "both are at work")
        note.round(recovery=taken_over)
        assert taken_over < 15
    judge(site, firsts, note)


# What psql, or a release to come, may write into a schedule. Some of it the table refuses.
POISON = {
    "no such function": "func = 'tests.faults.tasks.gone'",
    "no module": "func = 'no.such.module'",
    "not a path": "func = '; drop table'",
    "unknown tag": """args = '[{"$future": 1}]'""",
    "argument of nobody": """kwargs = '{"": {"$model": ["a.b", 1]}}'""",
    "kwarg twice": """kwargs = '{"intended": 1}', intended_date_kwarg = 'intended'""",
    "huge number": "args = ('[' || repeat('9', 5000) || ']')::jsonb",
    "deep": "args = (repeat('[', 5000) || repeat(']', 5000))::jsonb",
    "options of the wrong kind": """options = '{"timeout": "soon", "max_attempts": {}, "group": [1], "extra": 3}'""",
    "too many attempts": """options = '{"max_attempts": 1e30}'""",
    "negative timeout": """options = '{"timeout": -1}'""",
    "name with NUL": r"""options = '{"task_name": "\\u0001"}', intended_date_kwarg = E'\\x01'""",
    "bad cron": "schedule_type = 'C', cron = '61 * * * *'",
    "no cron": "schedule_type = 'C', cron = NULL",
    "endless cron": "schedule_type = 'C', cron = repeat('0,', 100000)",
    "cron without a date": "schedule_type = 'C', cron = '0 0 30 2 *'",
    "unknown zone": "time_zone = 'Mars/Olympus'",
    "zone that is a path": "time_zone = '../../etc/passwd'",
    "no interval": "seconds = NULL",
    "not a number": "seconds = 'NaN'",
    "infinite": "seconds = 'Infinity'",
    "tiny": "seconds = 1e-300, next_run = now() - interval '50 years'",
    "often for years": "seconds = 0.1, next_run = now() - interval '50 years'",
    "a long time": "schedule_type = 'I', minutes = 2147483647",
    "at the end of the calendar": "schedule_type = 'D', next_run = '0001-01-03 00:00Z'",
    "year 9999": "schedule_type = 'Y', next_run = '9999-12-29 00:00Z'",
    "hour 24": "schedule_type = 'D', wall_time = '24:00'",
    "endless jitter": "jitter = 'Infinity'",
    "jitter for ages": "jitter = 1e300",
    "jitter is not a number": "jitter = 'NaN'",
    "empty queue": "queue = ''",
    "endless text": "hook = repeat('x', 1000000)",
    "signed by nobody": r"signature = '\x00'",
    "never tried again": "func = 'no.such.module', retry_at = 'infinity'",
}


@pytest.mark.fault("F26", short=1, full=3)
def test_a_poisoned_schedule_stops_no_other(site, rounds, note):
    site.start(**{**SETTINGS, "workers": 2, "catch_up_limit": 100})
    firsts = every_second(site, 5)
    with site.session() as session:
        for _ in range(rounds):
            poisoned = [poison(session, setting) for setting in POISON.values()]
            seen = [lateness(site, firsts)]
            until_then = time.monotonic() + 4
            while time.monotonic() < until_then:
                seen.append(lateness(site, firsts))
                time.sleep(0.05)
            note.round([f"I6: {max(seen):.1f} s late"] if max(seen) > MAX_LATE else (), recovery=max(seen))
            faulty = session.execute("SELECT count(*) FROM pgq_schedule WHERE error IS NOT NULL").fetchone()[0]
            assert faulty >= 10, "the poison had no effect"
            session.execute("DELETE FROM pgq_schedule WHERE id = ANY (%s)", (poisoned,))
    wait_for(lambda: not_ours(site, firsts) == 0, "no worker keeps what the poison has enqueued")
    judge(site, firsts, note)


def poison(session: psycopg.Connection[Any], setting: str) -> int:
    """Make a schedule that is due, and spoil it, unless the table refuses that; return its id."""
    (id,) = session.execute(
        "INSERT INTO pgq_schedule (func, schedule_type, seconds, paused) VALUES (%s, 'S', 1, true) RETURNING id",
        (SLOT,),
    ).fetchone()
    with contextlib.suppress(psycopg.errors.CheckViolation):
        session.execute(f"UPDATE pgq_schedule SET paused = false, {setting} WHERE id = {id}")
    return int(id)


def not_ours(site: Site, firsts: Mapping[int, datetime]) -> int:
    """Delete what other schedules have enqueued, and what came of it (F34 is about that); return how much is left."""
    with site.session() as session:
        for table_and_more in ("pgq_queue WHERE lock IS NULL AND", "pgq_task WHERE"):
            gone = session.execute(
                f"DELETE FROM {table_and_more} (schedule IS NULL OR schedule <> ALL (%s)) RETURNING id", (list(firsts),)
            )
            site.unknown += [row[0].hex for row in gone.fetchall()]
    return int(
        site.value("SELECT count(*) FROM pgq_queue WHERE schedule IS NULL OR schedule <> ALL (%s)", list(firsts))
    )


@pytest.mark.fault("F27")
@pytest.mark.parametrize(("catch_up", "expected"), [(False, 1), (True, 100)])
def test_an_outage_of_a_day_is_made_up_for_by_so_many_runs(site, note, catch_up, expected):
    with site.session() as session:
        session.execute(
            "INSERT INTO pgq_schedule (func, schedule_type, minutes, intended_date_kwarg, next_run)"
            # The last slot was 20 seconds ago, the next one is 40 seconds away.
            " SELECT %s, 'I', 1, 'intended', now() - interval '24 hours 20 seconds'",
            (SLOT,),
        )
    site.start(**{**SETTINGS, "catch_up": catch_up, "catch_up_limit": 100})
    wait_for(lambda: site.value("SELECT next_run > clock_timestamp() FROM pgq_schedule"), "the schedule has caught up")
    site.drain()
    with site.session() as session:
        slots = [row[0] for row in session.execute(
            "SELECT (kwargs ->> 'intended')::timestamptz FROM pgq_task ORDER BY 1").fetchall()]  # fmt: skip
        next_run = session.execute("SELECT next_run FROM pgq_schedule").fetchone()[0]
    minute = timedelta(minutes=1)
    assert slots == [next_run - minute * number for number in range(expected, 0, -1)]
    note.round(site.stop())


@pytest.mark.fault("F27")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("zone", "before", "wall"),
    [
        ("Europe/Berlin", "2031-03-29T12:00", "02:30"),  # there is no such time the next day
        ("Europe/Berlin", "2031-10-25T12:00", "02:30"),  # it comes twice
        ("Australia/Lord_Howe", "2031-10-04T12:00", "02:15"),  # a gap of half an hour
    ],
)
def test_the_day_of_a_clock_change_has_one_slot_like_any_other(zone, before, wall):
    there = ZoneInfo(zone)
    noon = datetime.fromisoformat(before).replace(tzinfo=there)
    first = datetime.fromisoformat(f"{before[:10]}T{wall}").replace(tzinfo=there)
    with testing.freeze(noon) as clock:
        row = schedule(noop, schedule_type=Schedule.DAILY, time_zone=zone, next_run=first, catch_up=False)
        assert testing.fire_schedules() == 1
        for day in (1, 2, 3):
            clock.tick(datetime.combine(noon + timedelta(days=day), noon.time(), there) - clock.now)
            assert testing.fire_schedules() == 1, day
            assert testing.fire_schedules() == 0, day
        row.refresh_from_db()
        assert f"{row.next_run.astimezone(there):%H:%M}" == wall
