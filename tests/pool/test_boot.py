"""Workers are set up as the process that started them: by whatever program that was, and on the test's database."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from pgq.cluster import Cluster
from pgq.errors import PgqError
from pgq.models import Task
from pgq.tasks import async_task
from tests.support.projects import IMPORTER

SET_UP_IMPORTER = """

def setup():
    global installed
    sys.meta_path.insert(0, Importer())
    installed = True
    os.environ |= {"CONFIGURATION": "Dev", "DJANGO_SETTINGS_MODULE": "project.settings"}
    import django
    django.setup()
"""
TASKS = {"shop": {"tasks.py": "from pgq.tasks import task\n\n@task\ndef add(a, b): return a + b\n"}}

#: A project in one file, which sets up everything where only the program itself comes by.
ONE_FILE = """\
import sys

if __name__ == "__main__":
    import django
    from django.conf import settings
    from pgq.contrib.embedded import database_from_url
    from project.settings import SECRET_KEY

    settings.configure(
        SECRET_KEY=SECRET_KEY, INSTALLED_APPS=["pgq", "shop"], DATABASES={{"default": database_from_url({dsn!r})}},
        PGQ={{"workers": 1, "start_method": {start_method!r}}},
    )
    from django.core.management import call_command, execute_from_command_line

    if len(sys.argv) > 1:
        execute_from_command_line(sys.argv)
    else:
        django.setup()
        from pgq.tasks import async_task

        async_task("shop.tasks.add", 1, 2)
        call_command("pgq_worker", run_once=True)
"""

#: One that sets up everything wherever it is imported.
SCRIPT = """\
import django
from django.conf import settings
from pgq.contrib.embedded import database_from_url

settings.configure(
    SECRET_KEY="x" * 50, INSTALLED_APPS=["pgq", "shop"], DATABASES={{"default": database_from_url({dsn!r})}},
    PGQ={{"workers": 1}},
)
django.setup()
from django.core.management import call_command
from shop.tasks import add

if __name__ == "__main__":
    add.enqueue(2, 3)
    call_command("pgq_worker", run_once=True)
"""


def results(project) -> list[tuple[int]]:
    return project.sql("SELECT result::int FROM pgq_task WHERE success ORDER BY id")


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_settings_that_only_an_importer_can_import(start_method, project):
    """As with django-configurations."""
    shop = project(apps=TASKS)
    shop.boot_by_importer(f"PGQ = {{'workers': 1, 'start_method': '{start_method}'}}")
    shop.manage("shell", "-c", "from pgq.tasks import async_task; async_task('shop.tasks.add', 1, 2)")
    ran = shop.manage("pgq_worker", "--run-once")
    assert results(shop) == [(3,)]
    assert "died" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_cluster_of_such_a_project(project):
    """Started by a process of which nobody knows how it came to be, it is told by what function to set Django up."""
    shop = project({"PGQ": {"workers": 1}}, apps=TASKS)
    shop.write("importer.py", IMPORTER + SET_UP_IMPORTER)
    shop.settings_file.write_text(
        shop.settings_file.read_text() + "\nimport importer\nassert importer.installed\n\nclass Dev: pass\n"
    )
    source = (
        "import importer; importer.setup()\n"
        "from pgq.cluster import Cluster\n"
        "from pgq.tasks import async_task\n"
        "async_task('shop.tasks.add', 1, 2)\n"
        "cluster = Cluster(arguments=['--run-once'])\n"
        "cluster.start()\n"
        "assert cluster.process.wait(30) == 0\n"
    )
    shop.run(sys.executable, "-c", source, env={"PGQ_SETUP": "importer.setup"})
    assert results(shop) == [(3,)]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_project_in_one_file(start_method, project):
    shop = project(apps=TASKS)
    shop.write("one.py", ONE_FILE.format(dsn=shop.dsn, start_method=start_method))
    by_call = shop.run(sys.executable, "one.py")
    shop.python("from pgq.tasks import async_task; async_task('shop.tasks.add', 2, 3)")
    by_command_line = shop.run(sys.executable, "one.py", "pgq_worker", "--run-once")
    assert results(shop) == [(3,), (5,)]
    assert "died" not in by_call.stderr + by_command_line.stderr


def test_script_that_sets_up_where_it_is_imported(project):
    shop = project(apps=TASKS)
    shop.write("script.py", SCRIPT.format(dsn=shop.dsn))
    ran = shop.run(sys.executable, "script.py")
    assert results(shop) == [(5,)]
    assert "died" not in ran.stderr


def test_settings_and_path_that_the_command_line_names(project):
    shop = project()
    shop.write("elsewhere/theirs.py", "from project.settings import *\nINSTALLED_APPS += ['depot']\n")
    shop.write("elsewhere/depot/tasks.py", TASKS["shop"]["tasks.py"])
    named = ("--settings=theirs", f"--pythonpath={shop.folder / 'elsewhere'}")
    # A console script, as `uv run` starts them; and the same as a module.
    admin = (str(Path(sys.executable).parent / "django-admin"),)
    environment = {"PYTHONPATH": str(shop.folder)}
    enqueue = "from pgq.tasks import async_task; async_task('depot.tasks.add', 1, 2)"
    shop.run(sys.executable, "-m", "django", "shell", "-c", enqueue, *named, env=environment)
    shop.run(*admin, "pgq_worker", "--run-once", "--workers=1", *named, env=environment)
    assert results(shop) == [(3,)]


def test_program_that_cannot_run_twice(project):
    """As one that listens on a port for a debugger: the supervisor has it."""
    shop = project(apps=TASKS)
    manage = (shop.folder / "manage.py").read_text()
    start = "    execute_from_command_line("
    shop.write("manage.py", manage.replace(start, "    os.mkdir('taken')\n" + start))
    shop.python("from pgq.tasks import async_task; async_task('shop.tasks.add', 1, 2)")
    ran = shop.manage("pgq_worker", "--run-once", "--workers=1")
    assert results(shop) == [(3,)]
    assert "manage.py cannot be run again to set up a worker: FileExistsError" in ran.stderr


def test_script_whose_settings_cannot_be_handed_over(project):
    shop = project(apps=TASKS)
    source = ONE_FILE.format(dsn=shop.dsn, start_method="forkserver").replace("SECRET_KEY=", "F=lambda: 0, SECRET_KEY=")
    shop.write("one.py", source)
    refused = shop.run(sys.executable, "one.py", code=1)
    assert "PGQ_SETUP" in refused.stderr.splitlines()[-1]
    # A function that sets Django up makes up for it. What the program itself does is not done again.
    shop.write(
        "booting.py",
        "def setup():\n    import django, os\n    os.environ['DJANGO_SETTINGS_MODULE'] = 'project.settings'\n"
        "    django.setup()\n",
    )
    shop.run(sys.executable, "one.py", env={"PGQ_SETUP": "booting.setup"})
    assert results(shop) == [(3,), (3,)]


# ------------------------------------------------------------------------------------------------- in tests


@pytest.mark.django_db(transaction=True)
def test_command_inside_a_test_uses_the_database_of_the_test(capfd):
    id = async_task("tests.app.tasks.add", 1, 2)
    before = signal.getsignal(signal.SIGINT), os.environ.get("PGQ_NAME")
    call_command("pgq_worker", run_once=True, workers=1, name="called")
    assert Task.get_result(id) == 3
    assert Task.objects.get(pk=id).cluster == "called"
    assert "died" not in capfd.readouterr().err
    assert (signal.getsignal(signal.SIGINT), os.environ.get("PGQ_NAME")) == before


@pytest.mark.django_db
def test_inside_a_transaction_a_pool_is_refused():
    with pytest.raises(CommandError, match=r"inside a transaction on 'default'.*pgq\.testing\.drain"):
        call_command("pgq_worker", run_once=True)
    with pytest.raises(PgqError, match=r"inside a transaction.*pgq\.testing\.drain"):
        Cluster().start()
    assert connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_cluster_inside_a_test_uses_the_database_of_the_test():
    id = async_task("tests.app.tasks.add", 1, 2)
    cluster = Cluster(arguments=["--workers", "1", "--run-once"])
    cluster.start()
    assert cluster.process is not None
    assert cluster.process.wait(30) == 0
    assert Task.get_result(id) == 3
