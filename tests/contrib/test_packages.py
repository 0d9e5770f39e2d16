"""Lists of ten move over from the programs that hold them: those very programs say what fires when."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.deploy import FULL
from tests.support.projects import Project

SETTINGS = """
from pgq.config import DjangoQ2Config, DjangoQ2ScheduleConfig

INSTALLED_APPS += ["django_crontab"]
CRONTAB_EXECUTABLE = str(BASE_DIR / "crontab")
CRONTAB_LOCK_JOBS = True
CRONJOBS = [
    ("*/5 * * * *", "shop.tasks.note", ["a"]),
    ("0 4 * * *", "django.core.management.call_command", ["clearsessions"]),
    ("0 0 1 * *", "shop.tasks.plain", ">> /tmp/log 2>&1"),
    ("0 0 * * 0", "shop.tasks.note", ["b"], {}, "> /dev/null"),
    ("0 6 * * 1-5", "django.core.management.call_command", ["check"], {"verbosity": 0}),
    ("@hourly", "shop.tasks.plain"),
    ("15,45 8-18/2 * * *", "shop.tasks.note", ["c"], {"y": 1}),
    ("30 2 29 2 *", "shop.tasks.note", ["d"]),
    ("0 12 * jan,jul *", "shop.tasks.note", ["e"]),
    ("59 23 31 12 *", "shop.tasks.note", ["f"]),
]
def scheduled(name, schedule_type, **fields):
    return DjangoQ2ScheduleConfig(name=name, schedule_type=schedule_type, **({"func": "shop.tasks.plain"} | fields))

PGQ = DjangoQ2Config(
    workers=1,
    schedules=[
        scheduled("cfg minutes", "minutes", minutes=5),
        scheduled("cfg hourly", "hourly"),
        scheduled("cfg daily", "daily"),
        scheduled("cfg weekly", "weekly"),
        scheduled("cfg monthly", "monthly"),
        scheduled("cfg yearly", "yearly"),
        scheduled("cfg cron", "cron", cron="0 2 * * *", func="shop.tasks.note", args=["x"], kwargs={"y": 2}),
        scheduled("cfg once", "once", repeats=1),
        scheduled("cfg command", "cron", cron="0 3 * * 0", func=None, command="clearsessions"),
        scheduled("cfg off", "daily", enabled=False),
    ],
)
"""
CELERY = """
from datetime import timedelta
from celery import Celery
from celery.schedules import crontab, schedule

app = Celery("shop", broker="memory://")
app.conf.timezone = "Europe/Paris"
NOTE = {"task": "shop.tasks.note", "args": ("x",)}
app.conf.beat_schedule = {
    "every minute": NOTE | {"schedule": crontab()},
    "nightly": NOTE | {"schedule": crontab(minute=30, hour=2)},
    "thrice": NOTE | {"schedule": crontab(minute=0, hour="*/8")},
    "monday": NOTE | {"schedule": crontab(minute=0, hour="9,17", day_of_week="mon-fri")},
    "set": NOTE | {"schedule": crontab(minute={0, 20, 40}, hour=[6, 18])},
    "month": NOTE | {"schedule": crontab(minute=0, hour=0, day_of_month="1,15", month_of_year="*/3")},
    "sunday": NOTE | {"schedule": crontab(minute=5, hour=4, day_of_week="sunday")},
    "seconds": NOTE | {"schedule": 30.0},
    "delta": NOTE | {"schedule": timedelta(hours=2), "options": {"queue": "slow"}},
    "schedule": NOTE | {"schedule": schedule(timedelta(seconds=90))},
}
"""
#: As the man page of cron and the manuals of distributions have them.
CRONTAB = """\
# run five minutes after midnight, every day
5 0 * * * cd /srv && python manage.py clearsessions >> $HOME/log 2>&1
15 14 1 * * /srv/venv/bin/python /srv/manage.py check --tag models
0 22 * * 1-5 cd /srv && python manage.py check --tag security
23 0-23/2 * * * cd /srv && python manage.py check --tag urls
5 4 * * sun cd /srv && python manage.py check --tag caches
0 */4 1 * mon cd /srv && python manage.py check --tag admin
@weekly cd /srv && python manage.py check --deploy
*/10 * * * * flock -n /tmp/x python /srv/manage.py check --tag files
0 1 * * * cd /srv && python manage.py dbshell < /srv/nightly.sql
0 2 * * * pg_dump shop > /backup/shop.sql
"""
#: The name that scripts have for the command.
QCLUSTER = "from pgq.management.commands.pgq_worker import Command"
TASKS = "def note(x, y=0): ...\ndef plain(): ...\n"
#: A program in place of cron's own: it keeps the table in a file.
CRON = '#!/bin/sh\nif [ "$1" = -l ]; then cat {0} 2>/dev/null; else cp "$1" {0}; fi\n'

#: Imports all, twice, in one process, and asks Celery when it would fire: from a second before pgq's first slot on.
MOVE = """
import io, json, sys
from datetime import timedelta
from celery.schedules import crontab
from django.core.management import call_command
from pgq.models import Schedule
from pgq.recurrence.moments import aware
from shop.celery import app

def run(*arguments):
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()

def imported(*arguments):
    return json.loads(run("pgq_schedules", *arguments, "--json"))

def theirs(name, first):
    when, last = app.conf.beat_schedule[name]["schedule"], first - timedelta(seconds=1)
    when.app = app
    for _ in range(5):
        since, step, _ = when.remaining_delta(last)
        last = since + step
        yield last

call_command("crontab", "add")
ways = [("import-django-crontab",), ("import-crontab", "table"), ("import-crontab", "ten")]
ways.append(("import-celery-beat", "shop.celery.app"))
said = {" ".join(way): imported(*way) for way in ways}
again = [each["name"] for way in ways for each in imported(*way) if not each["refused"]]
run("migrate")
fires = {}
for row in Schedule.objects.all():
    slots = [aware(slot) for slot in row.upcoming(5)]
    entry = app.conf.beat_schedule.get(row.name)
    if entry and isinstance(entry["schedule"], crontab):
        fires[row.name] = [slots == list(theirs(row.name, slots[0])), *map(str, slots)]
json.dump({"said": said, "again": again, "fires": fires}, open("moved", "w"))
"""
#: Beat copies the settings into its rows; an operator switches one off, and adds rows of each kind of its own.
BEAT = """
import io, json
from datetime import timedelta
from django.core.management import call_command
from django.utils.timezone import now
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler
from pgq.models import Schedule
from shop.celery import app

DatabaseScheduler(app=app, lazy=False)
assert PeriodicTask.objects.count() == 11  # with celery.backend_cleanup
PeriodicTask.objects.filter(name="nightly").update(enabled=False)
night = CrontabSchedule.objects.create(minute="0", hour="3", timezone="Asia/Tokyo")
hours = IntervalSchedule.objects.create(every=3, period="hours")
clock = ClockedSchedule.objects.create(clocked_time=now() + timedelta(days=1))
def more(name, **fields):
    PeriodicTask.objects.create(name=name, task="shop.tasks.note", args='["y"]', **fields)
more("own night", crontab=night)
more("own hours", interval=hours, queue="slow")
more("own clock", clocked=clock, one_off=True)
more("own once", crontab=night, one_off=True)
out = io.StringIO()
call_command("pgq_schedules", "import-celery-beat", "shop.celery.app", "--json", stdout=out)
rows = {row.name: row for row in Schedule.objects.filter(source=None)}
json.dump({
    "said": [(each["name"], each["refused"]) for each in json.loads(out.getvalue())],
    "paused": [name for name, row in rows.items() if row.paused],
    "zones": {name: row.time_zone for name, row in rows.items() if row.cron},
    "once": sorted(name for name, row in rows.items() if row.repeats == 1),
    "clock": rows["own clock"].next_run == clock.clocked_time,
}, open("moved", "w"))
"""


def moved(shop: Project, script: str, **env: str) -> Any:
    shop.python(script, env=env)
    return json.loads((shop.folder / "moved").read_text())


def test_lists_of_ten_move_over_with_nothing_lost_or_doubled(project: Callable[..., Project]) -> None:
    shop = project(
        SETTINGS, apps={"shop": {"tasks.py": TASKS, "celery.py": CELERY, "management/commands/qcluster.py": QCLUSTER}}
    )
    program = shop.folder / "crontab"
    program.write_text(CRON.format(shop.folder / "table"))
    program.chmod(0o755)
    (shop.folder / "ten").write_text(CRONTAB)
    # django-cfg's own words. All are there once, by the first migrate, but the one that is off.
    assert shop.sql("SELECT count(*), count(next_run) FROM pgq_schedule WHERE source IS NOT NULL") == [(9, 9)]
    done = moved(shop, MOVE)
    assert [len(found) for found in done["said"].values()] == [10] * 4, "nothing is lost"
    taken = [[each["name"] for each in found if not each["refused"]] for found in done["said"].values()]
    refused = [[each["refused"] for each in found if each["refused"]] for found in done["said"].values()]

    # django-crontab has written its jobs into the table of cron, from which they are not taken a second time.
    lines = (shop.folder / "table").read_text().splitlines()
    crons = [cron for (cron,) in shop.sql("SELECT cron FROM pgq_schedule WHERE name = ANY (%s) ORDER BY id", taken[0])]
    assert [line.partition(" /")[0] for line in lines] == crons
    assert len(crons) == 10
    assert taken[1] == []
    assert {why.partition(":")[0] for why in refused[1]} == {"django-crontab wrote it from CRONJOBS"}

    assert taken[2] == [
        "run five minutes after midnight, every day", "check --tag models", "check --tag security", "check --tag urls",
        "check --tag caches", "check --tag admin", "check --deploy", "check --tag files",
    ]  # fmt: skip
    assert [why.partition(":")[0] for why in refused[2]] == [
        "it reads its input from elsewhere, which a task has not",
        "not a management command",
    ]

    assert len(taken[3]) == 10
    assert len(done["fires"]) == 7, "its crontabs, the others are intervals"
    assert [name for name, (same, *_) in done["fires"].items() if not same] == [], "Celery fires when pgq does"

    # Twice, and one more migrate: nothing is doubled, and nothing has fired because of it.
    assert done["again"] == []
    assert shop.sql("SELECT count(*) FROM pgq_schedule") == [(9 + 10 + 8 + 10,)]
    assert shop.sql("SELECT count(*) FROM pgq_queue") == [(0,)]
    shop.manage("qcluster", "--run-once")
    assert shop.sql('SELECT "group" FROM pgq_task WHERE success AND "group" LIKE \'cfg %\'') == [("cfg once",)]


@FULL
def test_the_rows_of_django_celery_beat_move_over(project: Callable[..., Project], tmp_path: Path) -> None:
    """The real package; it forbids the latest Django without need, so it is installed beside it."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "beat")]
    needed = ["django-celery-beat==2.9.0", "django-timezone-field", "cron-descriptor", "python-crontab", "tzlocal"]
    subprocess.run([*pip, *needed], check=True, capture_output=True, timeout=120)
    path = {"PYTHONPATH": str(tmp_path / "beat")}
    shop = project(
        "INSTALLED_APPS += ['django_celery_beat']",
        apps={"shop": {"tasks.py": TASKS, "celery.py": CELERY}},
        migrate=False,
    )
    shop.manage("migrate", "--verbosity=0", env=path)
    done = moved(shop, BEAT, **path)
    copied = "django-celery-beat has a row of that name, which is taken"
    names = [name for name, why in done["said"] if not why]
    assert len(set(names)) == len(names) == 10 + 4
    assert [why for _, why in done["said"] if why].count(copied) == 10
    assert len(done["said"]) == 10 + 11 + 4
    assert done["paused"] == ["nightly"]
    assert done["zones"]["own night"] == "Asia/Tokyo"
    assert done["zones"]["thrice"] == "Europe/Paris"
    assert done["once"] == ["own clock", "own once"]
    assert done["clock"]
