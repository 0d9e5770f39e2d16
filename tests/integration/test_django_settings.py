"""Settings of Django that projects turn, times plain, atomic, async and threaded tasks, times `drain` and a worker.

Each cell is a project of its own kind in which nothing may be different: what is enqueued runs, writes what it writes,
and comes back as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.django_settings import SETTINGS
from tests.support.projects import Project, new_databases

MODELS = """
from django.db import models

class Note(models.Model):
    text = models.TextField()
    at = models.DateTimeField(auto_now_add=True)
"""

TASKS = """
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.utils import timezone
from pgq.tasks import task
from shop.models import Note

def note(text):
    found = Note.objects.create(text=text)
    if not transaction.get_autocommit() and not connection.in_atomic_block:
        transaction.commit()
    return found.at

@task
def plain(key):
    return note(f"plain {key}")

@task(atomic=True)
def atomic(key):
    return Note.objects.create(text=f"atomic {key}").at

@task
async def coroutine(key):
    return await sync_to_async(note)(f"coroutine {key}")

@task(atomic=True)
def no_sql(key):
    return key
"""
FUNCTIONS = ("plain", "atomic", "coroutine", "no_sql")

#: Enqueues everything for two pools, drains the rest here, and looks at what a caller sees of it.
CALLER = """
from datetime import timedelta
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from pgq import testing
from pgq.tasks import async_task, fetch, result, schedule
from shop import tasks

FUNCTIONS = [tasks.plain, tasks.atomic, tasks.coroutine, tasks.no_sql]
with transaction.atomic():
    ids = [async_task(func, "drain") for func in FUNCTIONS]
if not transaction.get_autocommit():
    transaction.commit()
assert [ran.state for ran in testing.drain()] == ["succeeded"] * 4
started = [fetch(id).started for id in ids]
for moment in [*started, *map(result, ids[:3])]:
    assert timezone.is_aware(moment) == settings.USE_TZ, moment
    assert abs(timezone.now() - moment) < timedelta(minutes=2), (moment, timezone.now())
assert result(ids[3]) == "drain"
with transaction.atomic():
    for queue in ("alone", "threads"):
        for func in FUNCTIONS:
            async_task(func, queue, queue=queue)
        async_task(tasks.plain, f"{queue} later", queue=queue, run_after=timedelta(milliseconds=10))
    schedule("shop.tasks.plain", "alone once", name="once", cluster="alone")
if not transaction.get_autocommit():
    transaction.commit()
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, pg_dsn: str) -> Iterator[Project]:
    """One project for all settings: they change nothing that would have to be migrated anew."""
    with new_databases(pg_dsn) as new_database:
        apps = {"shop": {"models.py": MODELS, "tasks.py": TASKS}}
        project = Project(tmp_path_factory.mktemp("shop"), new_database(), apps=apps, warm=True)
        project.manage("migrate", "--run-syncdb", "--verbosity=0")
        project.sql(
            "DO $$ BEGIN CREATE ROLE pgq_stranger; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$"
        )
        project.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO pgq_stranger")
        project.sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO pgq_stranger")
        try:
            yield project
        finally:
            project.sql("DROP OWNED BY pgq_stranger")


def read(project: Project) -> Counter[tuple[str, bool]]:
    """What has finished, as ``"plain alone"``, and whether it succeeded."""
    rows = project.sql("SELECT replace(func, 'shop.tasks.', '') || ' ' || (args ->> 0), success FROM pgq_task")
    return Counter((name, success) for name, success in rows)


@pytest.mark.parametrize("name", SETTINGS)
def test_tasks_run_as_ever(shop: Project, tmp_path: Path, name: str):
    shop.sql("TRUNCATE pgq_queue, pgq_task, pgq_schedule, shop_note")
    shop.configure(
        "import os\nPGQ = {'workers': 1, 'save_limit': 0, 'threads': int(os.environ.get('THREADS', '1'))}\n"
        + SETTINGS[name]
    )
    shop.python(CALLER, flags=("-Werror::DeprecationWarning",))
    shop.manage("pgq_worker", "--run-once", "--queues", "alone")
    shop.manage("pgq_worker", "--run-once", "--queues", "threads", env={"THREADS": "3"})

    expected = [f"{func} {where}" for func in FUNCTIONS for where in ("drain", "alone", "threads")]
    expected += ["plain alone later", "plain threads later", "plain alone once"]
    assert read(shop) == Counter((name, True) for name in expected)
    written = Counter(text for (text,) in shop.sql("SELECT text FROM shop_note"))
    assert written == Counter(text for text in expected if not text.startswith("no_sql"))
    assert shop.sql("SELECT count(*) FROM pgq_queue") == [(0,)]
