"""docs/migrate/celery-beat.md: what a real beat has sent, a pool fires after the import, and nothing else sends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from celery.app.defaults import DEFAULTS
from celery.bin.beat import beat

from tests.support.deploy import FULL, running
from tests.support.moving import code, missing, old_project, receipts, unknown
from tests.support.pools import wait_for
from tests.support.projects import Project

PAGE = "docs/migrate/celery-beat.md"
#: One process that sends and runs.
BEAT = ("-A", "project.celery", "worker", "-B", "--pool", "solo", "--without-gossip", "--without-mingle")
#: The fields of django-celery-beat, as the package declares them.
FIELDS = """
import json
from django_celery_beat import models

kinds = ("PeriodicTask", "IntervalSchedule", "CrontabSchedule", "ClockedSchedule", "SolarSchedule")
names = [field.name for kind in kinds for field in getattr(models, kind)._meta.fields if field.name != "id"]
json.dump([*kinds, *names], open("names", "w"))
"""


def test_a_pool_goes_on_where_beat_has_stopped(project: Callable[..., Project]) -> None:
    shop = old_project(project, PAGE)
    (shop.folder / "broker").mkdir()
    log, env = shop.folder / "celery.log", {"DJANGO_SETTINGS_MODULE": "project.settings"}
    with running(sys.executable, "-m", "celery", *BEAT, folder=shop.folder, log=log, **env):
        wait_for(lambda: len(receipts(shop)) >= 2, "beat has sent it twice")
    assert set(receipts(shop)) == {(1, "Celery")}
    before = len(receipts(shop))
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'django_celery_results_taskresult'"
    assert missing(PAGE, {name for (name,) in shop.sql(columns)} - {"id"}) == []

    shop.manage("pgq_schedules", "import-celery-beat", "project.celery.app", "--write", "shop/schedules.py")
    settings = code(PAGE)["project/settings.py, after"]
    shop.configure(code(PAGE)["project/settings.py, before"] + settings)
    shop.write("shop/tasks.py", code(PAGE)["shop/tasks.py, after"])
    shop.manage("migrate", "--verbosity=0")
    assert shop.sql("SELECT name, cron, seconds, time_zone, args FROM pgq_schedule ORDER BY name") == [
        ("nightly", "30 2 * * *", None, "Europe/Paris", [2]),
        ("tick", None, 1.0, None, [1]),
        ("weekdays", "0 9,17 * * mon-fri", None, "Europe/Paris", [3]),
    ]
    with running(sys.executable, "manage.py", "pgq_worker", "-w1", folder=shop.folder, log=shop.folder / "pgq.log"):
        wait_for(lambda: len(receipts(shop)) >= before + 2, "a pool has fired it twice")
    assert receipts(shop).count((1, "Celery")) == before, "beat sends nothing any more"
    assert set(receipts(shop)) == {(1, "Celery"), (1, "pgq")}


def test_every_name_of_beat_has_a_row() -> None:
    names = {name for name in DEFAULTS if name.startswith("beat_")}
    names |= {option for parameter in beat.params for option in parameter.opts if option.startswith("--")}
    assert missing(PAGE, names) == []


@FULL
def test_every_field_of_django_celery_beat_has_a_row(project: Callable[..., Project], tmp_path: Path) -> None:
    """It forbids the latest Django without need, so it is installed beside it."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "beat")]
    needed = ["django-celery-beat==2.9.0", "django-timezone-field", "cron-descriptor", "python-crontab", "tzlocal"]
    subprocess.run([*pip, *needed], check=True, capture_output=True, timeout=120)
    shop = project("INSTALLED_APPS += ['django_celery_beat']", migrate=False)
    shop.python(FIELDS, env={"PYTHONPATH": str(tmp_path / "beat")})
    assert missing(PAGE, json.loads((shop.folder / "names").read_text())) == []


def test_every_name_of_the_page_is_one_of_pgq() -> None:
    assert unknown(PAGE) == []
