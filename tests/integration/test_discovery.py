"""What a project is told when it starts: of tasks that cannot be imported, of names that lead nowhere, of tables."""

from __future__ import annotations

import sys

import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from pgq import conf
from pgq.enqueue import discovery
from pgq.management.checks import _asked_by_migrate, check_database

OTHERS = "from a_queue_that_is_not_here import shared_task\n"


def stranger(project, source, **options):
    """A project with an app of others, installed where an installer would put it, and one of its own."""
    shop = project(migrate=False, installed=("pgq", "parcels", "shop"), apps={"shop": {"tasks.py": source}}, **options)
    shop.write("lib/site-packages/parcels/tasks.py", OTHERS)
    (shop.folder / "lib/site-packages/__init__.py").unlink(missing_ok=True)
    return shop, {"PYTHONPATH": str(shop.folder / "lib/site-packages")}


def test_project_starts_though_an_installed_apps_tasks_cannot_be_imported(project):
    shop, env = stranger(project, "from pgq.tasks import task\n@task\ndef pack(): return 'packed'\n")
    # The first migrate of a project needs no word about tables that are missing.
    first = shop.manage("migrate", "--verbosity=0", env=env)
    assert "pgq.W002" not in first.stderr
    said = shop.manage("check", env=env).stderr
    assert "pgq.W004" in said
    assert "parcels.tasks cannot be imported" in said
    assert "No module named 'a_queue_that_is_not_here'" in said
    shop.python("from pgq.tasks import async_task; async_task('shop.tasks.pack')", env=env)
    log = shop.manage("pgq_worker", "--run-once", "--workers=1", env=env).stderr
    assert log.count("parcels.tasks cannot be imported") == 1
    assert shop.sql("SELECT success, result FROM pgq_task") == [(True, "packed")]
    # One's own is loud: a typo there must not become a task that nobody knows.
    shop.write("shop/tasks.py", OTHERS)
    broken = shop.manage("check", env=env, code=1).stderr
    assert "ModuleNotFoundError: No module named 'a_queue_that_is_not_here'" in broken
    assert "shop/tasks.py" in broken


def test_missing_tables_are_named_by_who_does_not_make_them(project):
    shop = project(migrate=False)
    assert "pgq.W002" in shop.manage("check", "--database=default").stderr
    assert "pgq.W002" not in shop.manage("migrate", "shop_or_none", code=1).stderr
    assert "pgq.W002" not in shop.manage("migrate", "pgq", "--verbosity=0").stderr
    assert "pgq.W002" not in shop.manage("check", "--database=default").stderr
    shop.sql("DROP TABLE pgq_schema CASCADE")
    assert "pgq.W002" in shop.manage("check", "--database=default").stderr


@pytest.mark.django_db
def test_only_migrate_itself_is_spared(monkeypatch):
    assert not _asked_by_migrate()
    call_command("migrate", plan=True, verbosity=0, skip_checks=False)
    assert "django.core.management.commands.migrate" in sys.modules
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE pgq_schema CASCADE")
    assert [message.id for message in check_database(None, ["default"])] == ["pgq.W002"]


def test_whose_app_it_is(monkeypatch):
    class App:
        def __init__(self, name, path):
            self.name, self.path = name, path

    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings.production")
    for name, path, own in (
        ("parcels", "/usr/lib/python3/dist-packages/parcels", False),
        ("parcels.sub", "/srv/venv/lib/python3.13/site-packages/parcels/sub", False),
        ("orders", "/srv/shop/orders", True),
        # A project that is itself installed.
        ("shop.orders", "/srv/venv/lib/python3.13/site-packages/shop/orders", True),
        ("shopping", "/srv/venv/lib/python3.13/site-packages/shopping", False),
    ):
        assert discovery.is_own(App(name, path)) is own, name


# ------------------------------------------------------------------------------------------------- names in settings


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("allowed", ["shop.nope.x"], ["PGQ['allowed']", "'shop.nope.x'", "there is no module 'shop'"]),
        ("allowed", ["math.sqrt", "math.root"], ["'math.root'", "has no root"]),
        ("allowed", ["tests.app.tasks.add", "math.pi"], ["'math.pi'", "cannot be called"]),
        ("error_reporter", {"nope": {}}, ["PGQ['error_reporter']", "'nope'", "entry point"]),
        ("error_reporter", {"shop.nope.Reporter": {}}, ["'shop.nope.Reporter'", "No module named 'shop'"]),
        ("retry_backoff", {"callable": "shop.nope.f"}, ["PGQ['retry_backoff']", "'shop.nope.f'"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_names_in_settings_that_lead_nowhere_are_named(key, value, words):
    with override_settings(PGQ={key: value}):
        [message] = [found for found in checks.run_checks() if found.id.startswith("pgq.")]
        assert message.id == "pgq.W005"
        assert all(word in message.msg for word in words), message.msg
        assert message.hint
        # A warning: what is missing here may be there for the worker.
        assert conf.get_settings()


def test_names_in_settings_that_are_right():
    right = {
        "allowed": ["math.sqrt", "tests.functions.oracle.registered", "tests.functions.common.Sums.add"],
        "error_reporter": {"tests.execution.test_reporters.Collecting": {}},
        "retry_backoff": {"callable": "tests.functions.common.backoff"},
    }
    with override_settings(PGQ=right):
        assert [found for found in checks.run_checks() if found.id.startswith("pgq.")] == []
