"""A project whose Django-Q2 was set up by django-cfg moves: its schedules are here once, and so is what waited."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.support.blocks import texts
from tests.support.projects import Project

SETTINGS = """
Q_CLUSTER = {"name": "django_cfg_cluster", "orm": "default", "workers": 1, "timeout": 300, "retry": 3600}
"""
#: What django-cfg did after each migrate: the schedules of its configuration became rows, due in ten seconds.
SYNCED = """
from datetime import timedelta
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_task

soon, func = timezone.now() + timedelta(seconds=10), "django.core.management.call_command"
Schedule.objects.create(
    name="Sync data", func=func, args="('check', '--tag=models')", kwargs="{'verbosity': 0}", schedule_type="I",
    minutes=5, next_run=soon,
)
Schedule.objects.create(name="Cleanup", func=func, args="('clearsessions',)", schedule_type="C", cron="0 2 * * *")
async_task("math.hypot", 3, 4, task_name="waited")
"""


def test_schedules_of_the_configuration_are_here_once_and_nothing_fires_by_it(project: Callable[..., Project]) -> None:
    shop = project(SETTINGS, installed=("django_q",), warm=True)
    shop.python(SYNCED)
    [configuration] = texts("docs/migrate/django-cfg.md", "python")
    shop.installed = ("pgq", "django_q")
    shop.configure(SETTINGS + configuration)
    shop.manage("check", "--fail-level", "WARNING")
    shop.manage("migrate", "--verbosity=0")
    said = json.loads(shop.manage("pgq_import_django_q", "--queued", "--results", "--json").stdout)
    assert (said["queued"]["imported"], "schedules" in said) == (1, False)
    found = "SELECT name, schedule_type, minutes, cron, next_run > now() FROM pgq_schedule ORDER BY name"
    assert shop.sql(found) == [("Cleanup", "C", None, "0 2 * * *", True), ("Sync data", "I", 5, None, True)]
    assert shop.sql("SELECT name FROM pgq_queue") == [("waited",)]
    shop.manage("pgq_schedules", "run", "Cleanup")
    shop.manage("pgq_worker", "--run-once", "--workers", "1")
    # The other one is due each five minutes of the clock, so perhaps now.
    ended = (
        'SELECT coalesce("group", name), success FROM pgq_task WHERE "group" IS DISTINCT FROM \'Sync data\' ORDER BY 1'
    )
    assert shop.sql(ended) == [("Cleanup", True), ("waited", True)]
