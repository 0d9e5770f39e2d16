"""What the real APScheduler fires moves over, and pgq fires it at the same times."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.projects import Project
from tests.support.strangers import running, wait_for

#: As projects have it: some with an id, some without, by each trigger.
JOBS = """
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from django.core.management import call_command

from shop.tasks import note

LATER = datetime(2040, 5, 1, 12, tzinfo=UTC)
ZONE = {"timezone": "Europe/Paris"}


def add(scheduler):
    def cron(id, **fields):
        scheduler.add_job(note, "cron", args=[id], id=id, **(ZONE | fields))

    cron("nightly", hour=2, minute=30)
    cron("weekdays", day_of_week="mon-fri", hour="9,17")
    cron("numbers", day_of_week="0,5", hour=0)
    cron("every other day", day_of_week="*/2", hour=4)
    cron("half minutes", second="*/30")
    cron("quarter", month="1-12/3", day=1, hour=0)
    cron("last day", day="last", hour=23)
    cron("second friday", day="2nd fri", hour=8)
    cron("last sunday", day="last sun", hour=8, timezone="Asia/Tokyo")
    cron("five to ten", hour="5-10/2", minute="3")
    scheduler.add_job(note, CronTrigger.from_crontab("0 9 * * 1-5", timezone="UTC"), ["crontab"], id="crontab")
    scheduler.add_job(note, "interval", minutes=7, args=["seven"], id="seven", start_date=datetime(2026, 1, 1, 0, 3))
    scheduler.add_job(note, "interval", seconds=1.5, args=["tick"], kwargs={"y": 1}, id="tick", max_instances=3)
    scheduler.add_job(note, CalendarIntervalTrigger(months=1, hour=6, **ZONE), ["monthly"], id="monthly")
    scheduler.add_job(note, "date", run_date=LATER, args=["once"], id="once")
    scheduler.add_job(call_command, "cron", args=["check"], kwargs={"verbosity": 0}, day=1, name="checks", jitter=60)
    cron("coalesced", hour=5, coalesce=True, misfire_grace_time=None)
    cron("catching up", hour=5, misfire_grace_time=None)
    cron("graceful", hour=5, misfire_grace_time=600, executor="slow")
    # What has no counterpart.
    cron("both days", day=13, day_of_week="fri")
    cron("week", week=20)
    cron("year", year="2040")
    cron("ends", hour=3, end_date=LATER)
    scheduler.add_job(note, OrTrigger([IntervalTrigger(hours=1), IntervalTrigger(hours=2)]), ["or"], id="or")
    scheduler.add_job(note, CalendarIntervalTrigger(months=1, days=3), ["step"], id="step")
    scheduler.add_job(lambda: None, "interval", hours=1, id="lambda")
    scheduler.add_job(note, "date", run_date=datetime(2020, 1, 1), args=["over"], id="over")


def make():
    threads = {"type": "threadpool"}
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": {**threads}, "slow": threads})
    add(scheduler)
    return scheduler


def stored():
    "A scheduler that was not started, whose store holds what another one has put there."
    other = BackgroundScheduler(timezone="UTC")
    other.start(paused=True)
    other.add_job(note, "interval", hours=5, args=["x"], id="stored", next_run_time=LATER)
    other.add_job(note, "interval", hours=5, args=["y"], id="resting").pause()
    store = other._jobstores["default"]
    other._jobstores.clear()
    return BackgroundScheduler(timezone="UTC", jobstores={"default": store})
"""
TASKS = """
from pathlib import Path

from pgq.tasks import task

RAN = Path(__file__).with_name("ran")


@task
def note(key, y=0):
    with RAN.open("a") as file:
        file.write(f"{key}\\n")
"""
#: The old program.
OLD = """
import time
import django

django.setup()
from shop.jobs import make

make().start()
time.sleep(60)
"""
#: Asks APScheduler's own triggers, from the first slot on that pgq has.
COMPARE = """
import json
from datetime import timedelta
from pgq.models import Schedule
from pgq.recurrence.moments import aware
from shop.jobs import make

def theirs(trigger, first):
    slots = [trigger.get_next_fire_time(None, first)]
    # That of a calendar begins with its first day, also if that is over.
    while slots[-1] and slots[-1] < first:
        slots = [trigger.get_next_fire_time(slots[-1], first)]
    while slots[-1] and len(slots) < 5:
        slots.append(trigger.get_next_fire_time(slots[-1], slots[-1] + timedelta(microseconds=1)))
    return slots

triggers = {each.id: each.trigger for each in make().get_jobs()}
found = {}
# The one counts from the start of its program, the other has a jitter.
for row in Schedule.objects.exclude(name__in=["tick", "checks"]):
    ours = [aware(slot) for slot in row.upcoming(5)]
    them = [slot for slot in theirs(triggers[row.name], ours[0]) if slot]
    found[row.name] = [ours[:len(them)] == them, *map(str, ours), *map(str, them)]
print(json.dumps(found))
"""


def imported(shop: Project, path: str, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        shop.manage("pgq_schedules", "import-apscheduler", path, "--json", *options).stdout
    )
    return found


@pytest.fixture
def shop(project: Callable[..., Project]) -> Project:
    return project(apps={"shop": {"tasks.py": TASKS, "jobs.py": JOBS}}, warm=True)


def test_all_move_and_fire_at_the_same_times(shop: Project) -> None:
    ran = shop.folder / "shop/ran"
    with running(shop, "-c", OLD):
        wait_for(lambda: ran.exists() and "tick" in ran.read_text(), "APScheduler has run something")
    ran.unlink()
    assert (
        shop.manage("pgq_schedules", "import-apscheduler", "shop.jobs.make", "--dry-run").stdout.count("taken ") >= 19
    )
    said = imported(shop, "shop.jobs.make")
    refused = {each["source"].partition(":")[0]: each["refused"].partition(":")[0] for each in said if each["refused"]}
    assert refused == {
        "both days": "day and day_of_week are both given",
        "week": "week='20' has no counterpart here",
        "year": "year='2040' has no counterpart here",
        "ends": "it ends on 2040-05-01",
        "or": "OrTrigger has no counterpart here",
        "step": "a step of 1 months, 3 days has no counterpart here",
        "lambda": "its function has no name by which it could be imported",
        "over": "its time is over",
    }
    assert len(said) == 19 + len(refused)
    compared = json.loads(shop.python(COMPARE).stdout)
    assert {name: slots for name, (same, *slots) in compared.items() if not same} == {}
    rows = {
        name: row
        for name, *row in shop.sql(
            "SELECT name, schedule_type, cron, overlap, catch_up, jitter, args FROM pgq_schedule"
        )
    }
    # Monday is 0 there, and Sunday is here; of a crontab's own numbers it makes its own days.
    assert rows["numbers"][1] == "0 0 * * mon,sat"
    assert rows["crontab"][1] == "0 9 * * tue,wed,thu,fri,sat"
    assert rows["half minutes"][1] == "* * * * * */30"
    assert rows["tick"][2] == "allow"
    assert rows["seven"][2] == "skip"
    assert [rows[name][3] for name in ("nightly", "coalesced", "catching up")] == [False, False, True]
    assert (rows["checks"][4], rows["checks"][5]) == (60, ["check"])
    assert rows["once"][0] == "O"
    notes = {each["name"]: each["notes"] for each in said if each["notes"]}
    assert [note.partition(" ")[0] for note in notes["graceful"]] == ["executor='slow'", "misfire_grace_time=600"]
    # Again, and nothing is doubled.
    assert {each["refused"].partition(" '")[0] for each in imported(shop, "shop.jobs.make")} >= {"there is a schedule"}
    assert shop.sql("SELECT count(*) FROM pgq_schedule") == [(19,)]
    with running(shop, "manage.py", "pgq_worker", "--workers", "1"):
        wait_for(lambda: ran.exists() and "tick" in ran.read_text(), "pgq has run it")


def test_what_a_store_holds_goes_on_where_it_was(shop: Project) -> None:
    assert [each["name"] for each in imported(shop, "shop.jobs.stored")] == ["stored", "resting"]
    found = "SELECT name, next_run = '2040-05-01 12:00Z', paused FROM pgq_schedule ORDER BY id"
    assert shop.sql(found) == [("stored", True, False), ("resting", False, True)]


def test_what_is_no_scheduler_is_told(shop: Project) -> None:
    for path, why in [
        ("shop.nothing", "shop.nothing: ImportError"),
        ("shop.tasks.RAN", "shop.tasks.RAN: TypeError"),
        ("shop.jobs.LATER", "shop.jobs.LATER: TypeError"),
    ]:
        done = shop.manage("pgq_schedules", "import-apscheduler", path, code=1)
        assert done.stderr.startswith(f"CommandError: {why}"), done.stderr
    assert "the path of a scheduler" in shop.manage("pgq_schedules", "import-apscheduler", code=2).stderr
