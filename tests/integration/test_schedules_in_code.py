"""Schedules in code in a stranger's project: deploys at once, a rolling deploy, a rollback, an operator, a pool."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.pools import wait_for

#: What the variable LIST holds is the release: so the same project is the old code and the new code.
SETTINGS = """
import os
from pgq.config import Config, CrontabJobConfig, Every, ScheduleConfig, cron

def nightly(expression="0 2 * * *", name="nightly", **more):
    return ScheduleConfig(name, func="shop.tasks.note", args=["x"], when=cron(expression), **more)

LISTS = {
    "old": [nightly(name=name) for name in ("nightly", "leaving", "before", "paused", "edited")],
    "new": [nightly(name="after"), *(nightly("0 3 * * *", name) for name in ("nightly", "paused", "edited"))],
    "now": [
        ScheduleConfig("command", command="greet", args=["--loud"], kwargs={"who": "you"}, schedule_type="once"),
        ScheduleConfig("fails", command="greet", args=["--fail"], schedule_type="once"),
    ],
    "wrong": [nightly("0 99 * * *"), ScheduleConfig("b", func="shop.tasks.gone", schedule_type="daily")],
}
PGQ = Config(
    workers=1,
    schedules=LISTS[os.environ.get("LIST", "old")],
    release=os.environ.get("RELEASE"),
    sync_schedules=os.environ.get("SYNC", "migrate"),
    allowed_commands=("greet",),
)
"""
TASKS = """
from pgq.config import cron
from pgq.tasks import task

@task
def note(x): ...

@task(schedule=cron("0 5 * * *"))
def beside(): ...
"""
GREET = """
from django.core.management.base import BaseCommand, CommandError

class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("--loud", action="store_true")
        parser.add_argument("--fail", action="store_true")
        parser.add_argument("--who", default="all")

    def handle(self, *args, **options):
        if options["fail"]:
            raise CommandError("no greeting today")
        greeting = f"{'HELLO' if options['loud'] else 'hello'} {options['who']}"
        self.stdout.write("x" * 5000 if options["who"] == "long" else greeting)
"""
APPS = {"shop": {"tasks.py": TASKS, "management/__init__.py": "", "management/commands/greet.py": GREET}}


@pytest.fixture
def shop(project):
    made = project(SETTINGS, apps=APPS, migrate=False, warm=True)
    made.manage("migrate", "--verbosity=0", env={"SYNC": "off"})
    return made


def migrate(shop, list_, release=None):
    """Deploy a release as its `migrate` does; return what it printed."""
    return shop.manage("migrate", env={"LIST": list_, **({"RELEASE": release} if release else {})}).stdout


def rows(shop):
    found = shop.sql("SELECT name, cron, paused, stale_since IS NOT NULL, release FROM pgq_schedule ORDER BY name")
    return {name.rpartition(".")[2]: rest for name, *rest in found}


#: How many sessions wait for a lock.
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def at_once(shop, *calls):
    """Make calls that write schedules: none can, until all of them are about to."""
    with psycopg.connect(shop.dsn) as session, ThreadPoolExecutor(len(calls)) as threads:
        session.execute("LOCK TABLE pgq_schedule IN SHARE MODE")
        futures = [threads.submit(call) for call in calls]
        wait_for(lambda: shop.sql(WAITING) == [(len(calls),)])
        session.commit()
        return [future.result() for future in futures]


def test_deploys_at_once_a_rolling_deploy_a_rollback_and_an_operator(shop):
    # Two deploys of the same release at once make each schedule once.
    printed = at_once(shop, *[lambda: migrate(shop, "old", "9")] * 2)
    assert sum(out.count("Schedule nightly: inserted") for out in printed) == 1
    assert rows(shop).keys() == {"nightly", "leaving", "before", "paused", "edited", "beside"}
    assert shop.sql("SELECT count(*) FROM pgq_queue") == [(0,)]

    # An operator pauses one. Another is edited, and the edit is not committed yet, when the next release is deployed.
    shop.manage("pgq_schedules", "pause", "paused")
    with psycopg.connect(shop.dsn) as operator, ThreadPoolExecutor() as threads:
        operator.execute("UPDATE pgq_schedule SET cron = '30 4 * * *' WHERE name = 'edited'")
        # Old and new pods run `migrate` at once, each as it starts.
        deploys = [threads.submit(migrate, shop, list_, release) for list_, release in (("new", "10"), ("old", "9"))]
        wait_for(lambda: shop.sql(WAITING) == [(2,)], "both deploys wait, one for the operator, one for the other")
        operator.commit()
        for deploy in deploys:
            deploy.result()
    new = {
        "after": ["0 2 * * *", False, False, "10"],
        "beside": ["0 5 * * *", False, False, "10"],
        "before": ["0 2 * * *", True, True, "10"],
        "edited": ["30 4 * * *", False, False, "10"],
        "leaving": ["0 2 * * *", True, True, "10"],
        "nightly": ["0 3 * * *", False, False, "10"],
        "paused": ["0 3 * * *", True, False, "10"],
    }
    assert rows(shop) == new
    assert "were not synced: release '10' has written the schedules, and this is '9'" in migrate(shop, "old", "9")
    assert rows(shop) == new
    # The operator's edit, and what the code says since.
    check = shop.manage("pgq_schedules", "sync", "--check", env={"LIST": "new", "RELEASE": "10"}, code=3).stdout
    assert "edited: kept: edited here, and changed in the code" in check

    # A rollback is asked for; then the schedules are those of the old release again, and nothing has fired.
    shop.manage("pgq_schedules", "sync", env={"LIST": "old", "RELEASE": "9"})
    back = rows(shop)
    assert back["nightly"][:3] == ["0 2 * * *", False, False]
    assert back["leaving"][:3] == ["0 2 * * *", False, False]
    assert back["paused"][:3] == ["0 2 * * *", True, False]
    assert back["after"][:3] == ["0 2 * * *", True, True]
    assert shop.sql("SELECT count(*) FROM pgq_queue") == [(0,)]

    # What is wrong stops the deploy; where the checks are skipped, it leaves all as it is.
    stopped = shop.manage("migrate", env={"LIST": "wrong"}, code=1).stderr
    assert stopped.count("(pgq.E110)") == 2
    out = shop.manage("migrate", "--skip-checks", env={"LIST": "wrong"}).stdout
    assert 'were not synced: schedules[0] "nightly": cron: ' in out
    assert 'schedules[1] "b": func: ' in out
    assert rows(shop) == back


def test_a_pool_syncs_when_it_starts_and_runs_commands_whose_output_is_kept(shop):
    now = {"LIST": "now", "RELEASE": "1", "SYNC": "start"}
    shop.manage("pgq_worker", "--run-once", env=now)
    shop.manage("pgq_worker", "--run-once", env=now)
    kept = 'SELECT name, success, result, exception, message FROM pgq_task ORDER BY "group"'
    results = {group: rest for group, *rest in shop.sql(kept.replace("name,", '"group",'))}
    assert results == {
        "command": [True, "HELLO you\n", None, None],
        "fails": [False, None, "django.core.management.base.CommandError", "no greeting today"],
    }
    assert "pgq.E111" in shop.manage("check", env={"SYNC": "start"}, code=1).stderr

    # What nothing signed may run only the commands that are listed, and by the other function.
    insert = "INSERT INTO pgq_schedule (name, func, args) VALUES (%s, %s, %s)"
    shop.sql(insert, "listed", "pgq.schedules.commands.run_listed", '["greet", "--who=long"]')
    shop.sql(insert, "not listed", "pgq.schedules.commands.run_listed", '["shell", "-c", "print(1)"]')
    shop.sql(insert, "any", "pgq.schedules.commands.run", '["greet"]')
    shop.manage("pgq_worker", "--run-once")
    results = {group: rest for group, *rest in shop.sql(kept.replace("name,", '"group",'))}
    assert results["listed"][0]
    assert results["listed"][1] == "…" + 4094 * "x" + "\n"
    assert results["not listed"][2:] == [
        "pgq.errors.NotAllowed",
        "the command 'shell' is not listed in PGQ['allowed_commands']; list it, or make the schedule by "
        "schedule(command=...) or in code",
    ]
    assert "any" not in results
    assert "the schedule is not signed" in shop.sql("SELECT error FROM pgq_schedule WHERE name = 'any'")[0][0]


def test_the_database_for_tests_gets_no_schedules(shop):
    shop.write(
        "shop/tests.py",
        """
from django.test import TestCase
from pgq.models import Schedule

class Test(TestCase):
    def test(self):
        self.assertEqual(Schedule.objects.count(), 0)
""",
    )
    assert "Ran 1 test" in shop.manage("test", "shop", "--noinput").stderr
