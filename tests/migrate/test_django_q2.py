"""A project moves from the real Django-Q2, from a cluster that has run or still runs; nothing is lost or doubled.

A ledger has a row for each effect. What one name stands in twice was doubled, what is missing was lost.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.blocks import texts
from tests.support.projects import Project
from tests.support.strangers import running, wait_for

#: Seconds that a step may take, only waited for when something is wrong.
LONG = 900.0
#: Queued tasks.
MANY = 10_000 if os.environ.get("PGQ_TEST_FULL") else 1_000

SETTINGS = """
TIME_ZONE = "Europe/Paris"
Q_CLUSTER = {
    "name": "shop", "orm": "default", "workers": 2, "poll": 0.05, "bulk": 10, "queue_limit": 20, "timeout": 60,
    "retry": 120, "max_attempts": 1, "ack_failures": True, "save_limit": 0, "log_level": "WARNING",
}
"""
TASKS = """
import sys

from django.db import connection


def write(key):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ledger VALUES (%s, %s)", [key, "qcluster" in sys.argv])


def note(key, *more, **named):
    write(key)
    return key


def broken(key):
    write(key)
    raise ValueError(key)


def hook(task):
    write(f"hook of {task.args[0]}")


def slot(key, at=None):
    write(f"{key} {at}")
"""
#: The old code: it makes all that Django-Q has.
OLD = """
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_chain, async_task, schedule

TYPES = ["O", "I", "H", "D", "W", "BW", "M", "BM", "Q", "Y"]
LATER = datetime(2040, 1, 31, 2, 30, tzinfo=UTC)


@transaction.atomic
def make(many):
    user = User.objects.create(username="u")
    for number, letter in enumerate(TYPES):
        schedule(
            "shop.tasks.slot", f"type {letter}", name=letter, schedule_type=letter,
            minutes=7 if letter == "I" else None,
            repeats=[-1, 5, 0][number % 3] if letter != "O" else -1, next_run=LATER + timedelta(hours=number),
            hook="shop.tasks.hook", intended_date_kwarg="at",
        )
    schedule("shop.tasks.slot", "type C", name="C", schedule_type="C", cron="*/5 3 * * 1-5", cluster="slow")
    schedule(
        "shop.tasks.slot", "due", name="due", schedule_type="I", minutes=1, repeats=9, intended_date_kwarg="at",
        next_run=timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=4, seconds=5),
    )
    for number in range(many):
        key = f"task {number}"
        match number % 10:
            case 0:
                async_task("shop.tasks.note", key, hook="shop.tasks.hook", task_name=key)
            case 1 | 2:
                async_task("shop.tasks.note", key, Decimal("1.5"), at=LATER, group="sums", timeout=30)
            case 3:
                async_task("shop.tasks.broken", key, hook="shop.tasks.hook", group="sums")
            case 4:
                async_task("shop.tasks.note", key, user, {1, 2}, q_options={"save": False})
            case 5:
                async_chain([("shop.tasks.note", (key,)), ("shop.tasks.note", (f"link of {key}",))])
            case 6:
                async_task("shop.tasks.note", key, cluster="slow")
            case _:
                async_task("shop.tasks.note", key)
"""
#: Kills itself in the middle, as a deploy may.
INTERRUPTED = """
import os, sys
from django.core.management import call_command
from pgq.contrib.django_q import importer

importer.BATCH = 50
before = importer.QueuedTasks.write

def write(self, rows):
    before(self, rows)
    if self.tally.imported >= 150:
        os.kill(os.getpid(), 9)

importer.QueuedTasks.write = write
call_command("pgq_import_django_q", "--trust-schedules")
"""
#: What a cluster does each 30 s, done thrice a second: its own scheduler. It fires one missed slot each time.
SCHEDULER = """
import time
import django

django.setup()
from django_q.scheduler import scheduler

while True:
    scheduler()
    with open("ticks", "a") as file:
        file.write(".")
    time.sleep(0.3)
"""


@pytest.fixture
def old(project: Callable[..., Project]) -> Project:
    """A project with Django-Q2 alone, and its ledger."""
    shop = project(
        SETTINGS, apps={"shop": {"tasks.py": TASKS, "old.py": OLD}}, installed=("django_q", "shop"), warm=True
    )
    shop.sql("CREATE TABLE ledger (key text, there boolean)")
    return shop


def add_pgq(shop: Project) -> None:
    """Steps one and three of the page: pgq beside Django-Q, and its command that renames."""
    shop.installed = ("pgq", *shop.installed)
    shop.configure(SETTINGS)
    [rename] = texts("docs/migrate/django-q.md", "bash")
    shop.run("bash", "-c", f"cd shop && git init --quiet && git add . && {rename}")
    assert "from pgq.tasks import async_chain" in (shop.folder / "shop/old.py").read_text()
    shop.manage("migrate", "--verbosity=0")


def imported(shop: Project, *options: str) -> tuple[int, dict[str, Any]]:
    done = shop.manage("pgq_import_django_q", "--trust-schedules", "--json", *options, code=None, timeout=LONG)
    return done.returncode, json.loads(done.stdout)


def ledger(shop: Project) -> Counter[str]:
    return Counter(key for (key,) in shop.sql("SELECT key FROM ledger"))


def everything(many: int) -> set[str]:
    """What the tasks of `make` write, without the schedules."""
    keys = {f"task {number}" for number in range(many)}
    keys |= {f"hook of task {number}" for number in range(many) if number % 10 in (0, 3)}
    return keys | {f"link of task {number}" for number in range(many) if number % 10 == 5}


def drained(shop: Project) -> bool:
    return shop.sql("SELECT count(*) FROM pgq_queue WHERE run_after IS NULL") == [(0,)]


def check(shop: Project, many: int) -> None:
    """Each effect is there, once."""
    found = ledger(shop)
    assert {key: times for key, times in found.items() if times > 1} == {}
    missing = everything(many) - set(found)
    assert missing == set()
    # What is besides is of the schedule that is due.
    assert {key.split()[0] for key in set(found) - everything(many)} <= {"due"}


FIELDS = "name, func, hook, schedule_type, minutes, cron, repeats, next_run, intended_date_kwarg"


def test_a_project_moves_and_nothing_is_lost_or_doubled(old: Project) -> None:
    shop = old
    shop.python(f"from shop.old import make; make({MANY})", timeout=LONG)
    with running(shop, "manage.py", "qcluster"):
        wait_for(lambda: len(ledger(shop)) > MANY // 10, "the cluster has run some", timeout=LONG)
    before = shop.sql(f"SELECT {FIELDS} FROM django_q_schedule WHERE name <> 'due' ORDER BY name")
    left = shop.sql("SELECT count(*) FROM django_q_ormq")[0][0]
    results = shop.sql("SELECT count(*) FROM django_q_task")[0][0]
    assert 0 < left < MANY

    add_pgq(shop)
    code, seen = imported(shop, "--dry-run")
    assert (code, seen["queued"]["imported"], shop.sql("SELECT count(*) FROM pgq_queue")) == (0, left, [(0,)])
    # Killed in the middle, done again, and once more.
    assert shop.python(INTERRUPTED, code=None).returncode == -9
    assert shop.sql("SELECT count(*) FROM pgq_queue") == [(100,)], "whole batches, each with its marks"
    code, seen = imported(shop)
    assert (code, [seen[kind]["imported"] for kind in ("queued", "results", "schedules")]) == (0, [left - 100, 0, 12])
    code, seen = imported(shop)
    assert (code, [seen[kind]["imported"] for kind in ("queued", "results", "schedules")]) == (0, [0, 0, 0])
    assert [seen[kind]["present"] for kind in ("queued", "results", "schedules")] == [left, results, 12]

    # As they were; what runs once is kept after it has.
    after = shop.sql(f"SELECT {FIELDS} FROM pgq_schedule WHERE name <> 'due' ORDER BY name")
    assert after == [(*row[:6], 1, *row[7:]) if row[3] == "O" else row for row in before]
    assert shop.sql("SELECT name FROM pgq_schedule WHERE queue = 'slow'") == [("C",)]

    # A cluster that is started by mistake finds nothing to do.
    with running(shop, "manage.py", "qcluster"), running(shop, "manage.py", "pgq_worker"):
        wait_for(lambda: drained(shop), "the pool has run what was queued", timeout=LONG)
    check(shop, MANY)
    assert 0 < sum(there for _, there in shop.sql("SELECT key, there FROM ledger")) < MANY
    # Slots that were missed while the project moved: one each, and as many repeats less.
    [(repeats, next_run)] = shop.sql("SELECT repeats, next_run FROM pgq_schedule WHERE name = 'due'")
    fired = [key for key in ledger(shop) if key.startswith("due")]
    assert len(fired) == 9 - repeats >= 4
    assert next_run.second == 55
    # Groups and results go on in one table.
    sums = sum(number % 10 in (1, 2, 3) for number in range(MANY))
    failures = sum(number % 10 == 3 for number in range(MANY))
    counted = "SELECT count(*), count(*) FILTER (WHERE NOT success) FROM pgq_task WHERE \"group\" = 'sums'"
    assert shop.sql(counted) == [(sums, failures)]


def test_a_cluster_that_still_runs_while_its_tasks_and_schedules_are_taken(old: Project) -> None:
    shop = old
    shop.python(
        "from shop.old import *; make(150); from django_q.models import Schedule;"
        "Schedule.objects.filter(name='due').update(repeats=-1, next_run=timezone.now() - timedelta(minutes=90))"
    )
    add_pgq(shop)
    with running(shop, "manage.py", "qcluster"), running(shop, "-c", SCHEDULER):
        wait_for(lambda: any(key.startswith("due") for key in ledger(shop)), "the cluster has fired a schedule")
        imported(shop)
        taken = "SELECT count(*) FROM django_q_schedule WHERE next_run >= '9000-01-01'"
        wait_for(lambda: shop.sql(taken) == [(12,)] or not imported(shop), "all schedules are taken")
        # It goes on for a while, with slots that it would have fired next.
        ticks = shop.folder / "ticks"
        enough = len(ticks.read_text()) + 4
        wait_for(lambda: len(ticks.read_text()) >= enough, "its scheduler has looked again")
    # It has stopped. What it had in hand it has finished; what its scheduler put there last is taken now.
    assert imported(shop)[0] == 0
    with running(shop, "manage.py", "pgq_worker"):
        wait_for(lambda: drained(shop), "the pool has run what was queued")
    check(shop, 150)
    # Each minute since then, whoever fired it.
    slots = sorted(dt.datetime.fromisoformat(key.split()[1]) for key in ledger(shop) if key.startswith("due"))
    assert {later - earlier for earlier, later in itertools.pairwise(slots)} == {dt.timedelta(minutes=1)}
    assert len(slots) >= 90
    by = Counter(there for (there,) in shop.sql("SELECT there FROM ledger WHERE key LIKE 'due%'"))
    assert by[True] > 0, "some were fired there"
    assert by[False] > 5, "and those of the past were not all"


def test_back_again_what_has_not_run_is_given_back_and_runs_there(old: Project) -> None:
    shop = old
    shop.python("from shop.old import make; make(60)")
    there = "SELECT name, next_run, repeats FROM django_q_schedule WHERE schedule_type <> 'O' ORDER BY id"
    before = shop.sql(there)
    add_pgq(shop)
    assert imported(shop)[0] == 0
    shop.manage("pgq_worker", "--run-once", "--max-tasks", "25", "--workers", "1")
    due = [key for key in ledger(shop) if key.startswith("due")]
    [back] = [text for text in texts("docs/migrate/django-q.md", "sql") if "django_q_row" in text]
    shop.sql(back)
    # The schedule that was due has fired here, and goes on there.
    after = shop.sql(there)
    assert after[:-1] == before[:-1]
    assert shop.sql("SELECT count(*) FROM pgq_schedule") == [(0,)]
    assert shop.sql("SELECT count(*) FROM pgq_queue WHERE options ? 'django_q_row' AND attempts = 0") == [(0,)]
    # Follow-ons of what has run here: the new release finishes them.
    shop.manage("pgq_worker", "--run-once", "--workers", "1")
    here = sum(ledger(shop).values())
    with running(shop, "manage.py", "qcluster"):
        left = "SELECT count(*) FROM django_q_ormq WHERE lock < '9000-01-01'"
        wait_for(lambda: shop.sql(left) == [(0,)], "Django-Q has run what it got back")
    check(shop, 60)
    assert 25 <= here < len(everything(60)) + len(due)
