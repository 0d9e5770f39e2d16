"""A project moves from the real django-tasks-db, whose worker runs meanwhile, by the settings and SQL of the page."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.blocks import texts
from tests.support.projects import Project
from tests.support.strangers import running, wait_for

PAGE = "docs/migrate/django-tasks.md"
#: Django's own tasks, or the backport's. Nothing of it changes.
TASKS = """
import time
from datetime import timedelta
{imported}
from django.utils import timezone


@task(queue_name="mail", priority=5)
def add(a, b=0):
    time.sleep(0.03)
    return a + b


@task
def broken():
    raise ValueError("no")


def make():
    ids = [add.enqueue(number, b=1).id for number in range(40)]
    broken.enqueue()
    add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(99)
    print(" ".join(ids))
"""
RESULTS = """
import json, sys
from shop.tasks import add

def told(id, backend):
    result = add.using(backend=backend).get_result(id)
    return [str(result.status), result.return_value]

print(json.dumps([told(id, sys.argv[1]) for id in sys.argv[2:]]))
"""
THERE = "SELECT id, status FROM django_tasks_database_dbtaskresult"


def test_what_waits_moves_while_both_run(project: Callable[..., Project]) -> None:
    package = "django.tasks" if pytest.importorskip("django").VERSION >= (6, 0) else "django_tasks"
    backport = [] if package == "django.tasks" else ["django_tasks"]
    installed = f"INSTALLED_APPS += {['django_tasks_db', *backport]!r}\n"
    old = 'TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default", "mail"]}}'
    tasks = TASKS.format(imported=f"from {package} import task")
    shop = project(installed + old, apps={"shop": {"tasks.py": tasks}})
    ids = shop.python("from shop.tasks import make; make()").stdout.split()
    [settings] = [text for text in texts(PAGE, "python") if "TASKS" in text]
    new = installed + settings[settings.index("TASKS") :]
    [move] = texts(PAGE, "sql")

    with running(shop, "manage.py", "db_worker", "--queue-name", "*", "--no-startup-delay", "--no-reload"):
        wait_for(lambda: "SUCCESSFUL" in dict(shop.sql(THERE)).values(), "the old worker has run some")
        shop.configure(new)
        shop.sql(move)
    left = dict(shop.sql(THERE))
    done_there = {str(id).replace("-", "") for id, status in left.items() if status == "SUCCESSFUL"}
    assert set(left.values()) <= {"SUCCESSFUL", "FAILED"}
    waiting = "SELECT queue, priority, args, kwargs FROM pgq_queue WHERE run_after > now() + interval '50 minutes'"
    assert shop.sql(waiting) == [("mail", 5, [99], {})]

    shop.manage("pgq_worker", "--run-once", "--workers", "2")
    done_here = [name.split()[1].replace("-", "") for (name,) in shop.sql("SELECT name FROM pgq_task WHERE success")]
    assert sorted([*done_there, *done_here]) == sorted(id.replace("-", "") for id in ids), "each once"
    assert 0 < len(done_here) < 40
    failed = "SELECT exception FROM pgq_task WHERE NOT success"
    assert shop.sql(failed) == [("builtins.ValueError",)] or "FAILED" in left.values()

    # What was run there is read by the old backend, what was moved by pgq's, under the id that it has here.
    of_old = json.loads(shop.python(RESULTS, "old", *[id for id in ids if id.replace("-", "") in done_there]).stdout)
    moved = shop.sql("SELECT id, args FROM pgq_task WHERE success ORDER BY id")
    of_new = json.loads(shop.python(RESULTS, "default", *[str(id) for id, _ in moved]).stdout)
    assert [value for _, value in of_new] == [args[0] + 1 for _, args in moved]
    assert {status for status, _ in of_old + of_new} == {"SUCCESSFUL"}
    assert sorted(value for _, value in of_old + of_new) == list(range(1, 41))

    # Or the old worker finishes it, under the backend's new name.
    shop.python("from shop.tasks import add; add.using(backend='old').enqueue(1000)")
    shop.sql("UPDATE django_tasks_database_dbtaskresult SET backend_name = 'default' WHERE status = 'READY'")
    refused = shop.manage("db_worker", "--batch", code=2).stderr
    assert "Backend 'default' is not a database backend" in refused
    shop.sql("UPDATE django_tasks_database_dbtaskresult SET backend_name = 'old'")
    shop.manage("db_worker", "--backend", "old", "--queue-name", "*", "--batch", "--no-startup-delay")
    assert ("SUCCESSFUL", 1000) in shop.sql("SELECT status, return_value FROM django_tasks_database_dbtaskresult")
