"""Projects whose tests run no migrations: the tables are those of the SQL files all the same."""

from __future__ import annotations

from pgq.store import schema

MODELS = """
from django.db import models
from pgq.models import Schedule

class Job(models.Model):
    schedule = models.OneToOneField(Schedule, null=True, on_delete=models.SET_NULL)
"""
TESTS = """
from django.db import connection
from django.test import TestCase
from pgq import testing
from pgq.models import QueuedTask, Schedule, Task
from pgq.tasks import async_task, schedule
from shop.models import Job

class ShopTest(TestCase):
    def test_tables_are_the_real_ones(self):
        Job.objects.create(schedule=Schedule.objects.create(func="f", args="1", schedule_type="D", paused=True))
        schedule("math.hypot", 3, 4)
        self.assertEqual(testing.fire_schedules(), 1)
        QueuedTask.objects.create(func="f")
        self.assertEqual(len(async_task("math.hypot", 6, 8)), 32)
        testing.drain()
        self.assertEqual(sorted(task.result for task in Task.objects.all()), [5.0, 10.0])
        with connection.cursor() as cursor:
            cursor.execute("SELECT relkind FROM pg_class WHERE oid = 'pgq_task'::regclass")
            self.assertEqual(cursor.fetchall(), [("p",)])
"""


def test_the_tests_of_a_project_run_without_migrations(project):
    shop = project(migrate=False, apps={"shop": {"models.py": MODELS, "tests.py": TESTS}})
    for settings in (
        "DATABASES['default']['TEST'] = {'MIGRATE': False}",
        "MIGRATION_MODULES = {'pgq': None}",
        # What pytest --nomigrations puts there.
        "class Off(dict):\n    __contains__ = lambda self, key: True\n    __getitem__ = lambda self, key: None\n"
        "MIGRATION_MODULES = Off()",
    ):
        shop.configure(settings)
        ended = shop.manage("test", "--noinput")
        assert "Ran 1 test" in ended.stderr, ended.stderr


def test_migrate_of_a_project_without_migrations_may_be_repeated(project):
    shop = project("MIGRATION_MODULES = {'pgq': None}", migrate=False)
    for _ in range(2):
        shop.manage("migrate", "--verbosity=0", "--run-syncdb")
    assert shop.sql("SELECT max(version) FROM pgq_schema") == [(schema.VERSION,)]
    # It misses nothing but a pool.
    said = shop.manage("pgq_check", code=1).stdout
    assert said.count("problem") == 1
    assert "no pool is running" in said
