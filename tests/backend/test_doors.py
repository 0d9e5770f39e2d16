"""A Task object of django.tasks at pgq's own doors, and how a project sets the backend up."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django.utils import timezone

from pgq import testing
from pgq.backend import PgqBackend
from pgq.enqueue import registry
from pgq.errors import EnqueueError, UnknownFunction, UnknownOption
from pgq.models import QueuedTask, Schedule
from pgq.tasks import async_chain, async_task, enqueue_from, enqueue_many, fetch, result, schedule
from pgq.testing import assert_enqueued, drain, enqueued
from tests.app.models import Note
from tests.functions import django_tasks as functions
from tests.support.django_tasks import Received, backend, tasks

pytestmark = pytest.mark.django_db

PLACED = "tests.functions.django_tasks.placed"


# ------------------------------------------------------------------------------------------------- pgq's doors


def test_async_task_takes_a_task():
    moment = timezone.now() + timedelta(hours=1)
    async_task(functions.placed, 1)
    async_task(PLACED, 2)
    async_task(functions.placed.using(priority=9, run_after=moment), 3)
    async_task(functions.placed, 4, priority=1, queue="third", q_options={"group": "g"})
    rows = enqueued(functions.placed)
    assert [row.args for row in rows] == [(1,), (2,), (3,), (4,)]
    assert [(row.queue, row.priority, row.run_after) for row in rows] == [
        ("special", 7, None),
        ("special", 7, None),
        ("special", 9, moment),
        ("third", 1, None),
    ]
    with Received() as received:
        drain(due=True)
    assert received.names == ["started", "finished"] * 4
    assert functions.placed.get_result(rows[3].id).task == functions.placed.using(priority=1, queue_name="third")


def test_a_task_that_takes_a_context_gets_it_by_each_door():
    ids = [async_task(functions.look, 1), async_task("tests.functions.django_tasks.look", 2)]
    ids += enqueue_many(functions.look, [3])
    drain()
    assert [result(id)["args"] for id in ids] == [[1], [2], [3]]
    assert result(async_task(functions.look, 4, sync=True))["attempt"] == 1


def test_more_doors():
    Note.objects.create(text="a")
    enqueue_many(functions.placed, [1, 2])
    assert enqueue_from(functions.placed, Note.objects.all(), ["text"]) == 1
    assert [(row.queue, row.priority) for row in assert_enqueued(functions.placed, count=3)] == [("special", 7)] * 3
    assert_enqueued(functions.placed, args=(1,), queue="special", count=1)
    with pytest.raises(AssertionError, match="placed"):
        assert_enqueued(functions.nothing)
    made = schedule(functions.placed, 5, schedule_type=Schedule.DAILY, name="daily")
    assert made.func == PLACED
    testing.fire_schedules()
    assert assert_enqueued(functions.placed, args=(5,), count=1)[0].priority == 7
    drain()
    chained = async_chain([(functions.meaning, ()), (functions.echo, (1,))])
    assert len(drain()) == 2, chained
    hooked = async_task(functions.meaning, hook="tests.functions.common.hook")
    drain()
    assert fetch(hooked).result == "42"


def test_a_task_under_the_name_that_another_module_gives_it():
    async_task("tests.backend.test_doors.functions.meaning")
    [row] = enqueued()
    assert row.func == "tests.functions.django_tasks.meaning"


def test_tasks_are_registered_where_they_are_defined():
    assert registry.registered(PLACED).options.queue == "special"
    assert registry.registered("tests.functions.django_tasks.look").options.takes_context
    assert registry.locate(PLACED) is functions.placed.func
    with pytest.raises(UnknownFunction, match="has no gone"):
        registry.locate("tests.functions.django_tasks.gone")


def test_drain_reports_a_task():
    functions.fail.enqueue()
    [ran] = drain()
    assert (ran.state, type(ran.error), ran.func) == ("failed", ValueError, "tests.functions.django_tasks.fail")


# ------------------------------------------------------------------------------------------------- options


def test_the_options_of_a_backend_are_those_of_its_tasks():
    with backend(OPTIONS={"timeout": 7, "max_attempts": 4, "backoff": [60, 120], "database": "default"}):
        functions.nothing.enqueue()
        functions.nothing.get_backend().enqueue_many(functions.nothing, [1])
    for row in enqueued():
        assert (row.timeout, row.max_attempts, row.options["backoff"]) == (7, 4, [60, 120])
    with override_settings(PGQ={"timeout": 9}):
        functions.nothing.enqueue()
    assert enqueued()[2].timeout == 9


def test_the_key_of_a_task_by_the_options_of_its_backend():
    with backend(OPTIONS={"key": lambda *args, **kwargs: f"tenant:{args[0]}" if args else None}):
        for number in (1, 1, 2):
            functions.echo.enqueue(number)
        functions.nothing.enqueue()
    assert [row.task_key for row in enqueued()] == ["tenant:1", "tenant:1", "tenant:2", None]


def test_under_sync_a_taken_key_is_respected():
    with backend(OPTIONS={"unique": True}):
        waiting = functions.echo.enqueue(1)
        with override_settings(PGQ={"sync": True}):
            again, other = functions.echo.enqueue(1), functions.echo.enqueue(2)
    assert (again.id, str(again.status)) == (waiting.id, "READY")
    assert (other.id == waiting.id, str(other.status)) == (False, "SUCCESSFUL")


def test_unique_tasks_and_those_that_expire():
    with backend(OPTIONS={"unique": True, "expires": "1h"}):
        first, other = functions.echo.enqueue(1), functions.echo.enqueue(2)
        again = functions.echo.enqueue(1)
        assert (again, again.enqueued_at) == (first, first.enqueued_at)
        many = functions.echo.get_backend().enqueue_many(functions.echo, [1, 3])
        assert [result.id == first.id for result in many] == [True, False]
        assert len(enqueued()) == 3
        assert all(row.expires_at > timezone.now() for row in enqueued())
        QueuedTask.objects.filter(pk=other.id).update(expires_at=timezone.now())
        with Received() as received:
            drain()
        other.refresh()
        assert (str(other.status), other.errors[0].exception_class_path) == ("FAILED", "pgq.errors.Expired")
        assert ("finished", "FAILED", "Expired") in [(event[0], event[3], event[4]) for event in received.events]


def test_a_backoff_may_be_a_function():
    with backend(OPTIONS={"max_attempts": 2, "backoff": half_a_minute}):
        functions.fail.enqueue()
        assert [ran.state for ran in drain()] == ["retried"]
    [row] = enqueued()
    assert 20 < (row.run_after - timezone.now()).total_seconds() < 31


def half_a_minute(attempt, error):
    return 30


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"max_atempts": 3},
            r"TASKS\['default'\]\['OPTIONS'\].* max_atempts; did you mean max_attempts",
        ),
        ({"timeout": "soon"}, "timeout: must be seconds above 0"),
        ({"max_attempts": -1}, "max_attempts: must be a whole number"),
        ({"backoff": "x"}, "retry_backoff|backoff"),
        ({"database": "gone"}, "database is 'gone', which is not in DATABASES"),
    ],
)
def test_wrong_options_are_errors_of_the_system_check(options, text):
    with backend(OPTIONS=options):
        [error] = tasks.task_backends["default"].check()
        assert isinstance(error, checks.Error)
        with pytest.raises(SystemCheckError, match=text):
            call_command("check")


def test_good_options_are_none():
    with backend(OPTIONS={"database": "default", "timeout": 3.5, "max_attempts": 0, "backoff": 2}):
        assert tasks.task_backends["default"].check() == []


def test_an_option_of_django_tasks_db_has_no_effect_and_a_warning():
    given = {"BACKEND": "pgq.backend.PgqBackend", "OPTIONS": {"id_function": "uuid.uuid7"}}
    with override_settings(TASKS={"default": given}):
        [warning] = tasks.task_backends["default"].check()
        assert (warning.id, warning.msg) == (
            "pgq.W023",
            "TASKS['default']['OPTIONS']: id_function has no effect: ids are UUIDv7, ordered by time.",
        )
        assert functions.nothing.enqueue().status == "READY"


def test_an_unknown_option_is_refused_at_the_enqueue_as_well():
    with backend(OPTIONS={"retries": 3}), pytest.raises(UnknownOption, match="retries"):
        functions.nothing.enqueue()
    with backend(OPTIONS={"timeout": -3}), pytest.raises(EnqueueError, match="timeout"):
        functions.nothing.enqueue()
    assert enqueued() == []


def test_many_arguments_that_are_wrong():
    with pytest.raises(EnqueueError, match="calls"):
        functions.nothing.get_backend().enqueue_many(functions.nothing, 5)


# ------------------------------------------------------------------------------------------------- setting up


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


EARLY = """
import django.conf
django.conf.settings.configure(
    SECRET_KEY="x", TASKS={"default": {"BACKEND": "pgq.backend.PgqBackend"}}, INSTALLED_APPS=["pgq"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "nowhere", "HOST": "/nowhere"}},
    PGQ={"no such setting": 1},
)
"""


def test_a_task_may_be_defined_before_the_apps_are_ready():
    # Wrong settings, no database, no models: none of it is asked for.
    done = run(f"{EARLY}\nimport tests.support.django_early\nfrom django.apps import apps\nassert not apps.ready")
    assert (done.returncode, done.stderr) == (0, "")


WITHOUT = """
import sys
class No:
    def find_spec(self, name, path=None, target=None):
        if name in ("django.tasks", "django_tasks"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, No())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("django.tasks", "django_tasks") else find(name, *rest)
"""


def test_without_django_tasks_only_the_backend_is_missing():
    code = f"""{WITHOUT}
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
django.setup()
import pgq.tasks, pgq.execution.inline, pgq.pool.worker.loop
from pgq.enqueue import django_tasks
assert not django_tasks.is_there()
try:
    import pgq.backend
except ImportError as error:
    print(error)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "install its backport: pip install django-tasks" in done.stdout


def test_each_thread_has_a_backend_of_its_own_and_nothing_is_kept_by_alias():
    first = tasks.task_backends["default"]
    with backend(OPTIONS={"timeout": 3}):
        second = tasks.task_backends["default"]
        functions.nothing.enqueue()
    functions.nothing.enqueue()
    assert isinstance(second, PgqBackend)
    assert second is not first
    assert [row.timeout for row in enqueued()] == [3, None]
