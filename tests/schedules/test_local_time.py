"""USE_TZ = False: the project's own moments are naive, in TIME_ZONE, on the way in and out; slots are what they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from django.urls import reverse
from django.utils import timezone

from pgq import status
from pgq.execution import result_cache
from pgq.models import QueuedTask, Schedule, Task
from pgq.recurrence import moments
from pgq.store.caller import callers_cursor
from pgq.tasks import async_task, fetch, schedule
from pgq.testing import drain, enqueued, fire_schedules, freeze
from tests.functions import common as functions

pytestmark = pytest.mark.django_db

#: In winter Paris is an hour ahead of UTC, in summer two; in 2032 clocks go forward on 28 March.
START = datetime(2032, 3, 27, 10, 0)


@pytest.fixture(autouse=True)
def local_time():
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Paris"):
        yield


@pytest.fixture
def clock():
    with freeze(START) as clock:
        yield clock


def stored(column: str, table: str) -> datetime:
    """The instant as the database has it."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} AT TIME ZONE 'UTC' FROM {table}")
        return cursor.fetchone()[0]


def test_the_clock_is_local(clock):
    assert (timezone.now(), clock.now, clock.tick(hours=24)) == (START, START, START + timedelta(hours=25))


def test_schedules_go_by_local_time(clock):
    row = schedule(functions.dated, schedule_type="C", cron="30 2 * * *", intended_date_kwarg="when")
    # There is no 02:30 that day.
    assert row.next_run == Schedule.objects.get().next_run == datetime(2032, 3, 28, 3, 0)
    assert row.upcoming(2) == [datetime(2032, 3, 28, 3, 0), datetime(2032, 3, 29, 2, 30)]
    assert row.calculate_next_run() == datetime(2032, 3, 29, 2, 30)
    assert stored("next_run", "pgq_schedule") == datetime(2032, 3, 28, 1, 0)
    assert fire_schedules() == 0
    clock.now = datetime(2032, 3, 28, 3, 0)
    assert fire_schedules() == 1
    row.refresh_from_db()
    assert (row.next_run, row.last_slot) == (datetime(2032, 3, 29, 2, 30), datetime(2032, 3, 28, 3, 0))
    assert [ran.result for ran in drain()] == ["2032-03-28T01:00:00+00:00"]
    assert fire_schedules(datetime(2032, 3, 29, 2, 30)) == 1


@pytest.mark.parametrize("given", [datetime(2032, 3, 27, 12), datetime(2032, 3, 27, 11, tzinfo=UTC)])
def test_moments_may_be_local_or_aware(given, clock):
    row = schedule(functions.nothing, schedule_type="D", next_run=given)
    assert row.next_run == Schedule.objects.get().next_run == datetime(2032, 3, 27, 12)
    async_task(functions.nothing, run_after=given)
    assert enqueued()[0].run_after == datetime(2032, 3, 27, 12)
    assert stored("run_after", "pgq_queue") == datetime(2032, 3, 27, 11)


@pytest.mark.parametrize("delay", [60, timedelta(minutes=1)])
def test_delays(delay, clock):
    async_task(functions.nothing, run_after=delay)
    assert enqueued()[0].run_after == START + timedelta(minutes=1)
    assert drain() == []
    clock.tick(minutes=1)
    assert [ran.state for ran in drain()] == ["succeeded"]


def test_what_the_orm_writes_and_jitter(clock):
    row = Schedule.objects.create(
        func="tests.functions.common.registered", schedule_type="C", cron="0 11 * * *", jitter=9
    )
    assert row.next_run == START + timedelta(hours=1)
    Schedule.objects.filter(pk=row.pk).update(cron="0 10 * * *", next_run=START)
    assert fire_schedules() == 1
    assert START <= enqueued()[0].run_after <= START + timedelta(seconds=9)


def test_results_are_local():
    now = timezone.now()
    id = async_task(functions.nothing)
    drain()
    assert abs(Task.objects.get().started - now) < timedelta(minutes=1)
    with override_settings(PGQ={"cached": True}):
        id = async_task(functions.nothing)
        drain()
        assert abs(fetch(id, cached=True).stopped - now) < timedelta(minutes=1)
        assert result_cache.find(id).time_taken() >= 0


def test_pools_are_local():
    with callers_cursor("default") as cursor:
        cursor.execute("INSERT INTO pgq_worker (id, name, host, pid) VALUES (%s, 'p', 'h', 1)", [uuid4()])
        cursor.execute("SELECT clock_timestamp()")
        assert cursor.fetchone()[0].tzinfo is not None
    [pool] = status.Stat.get_all()
    for moment in (pool.tob, pool.timestamp):
        assert abs(moment - timezone.now()) < timedelta(minutes=1)


def test_commands(clock):
    schedule(functions.nothing, name="daily", cron="30 12 * * *", paused=True, next_run=START - timedelta(days=1))
    schedule(functions.nothing, name="later", cron="30 12 * * *")
    out = StringIO()
    for command in ("list", "show", "resume", "run"):
        call_command("pgq_schedules", command, *(["daily"] if command != "list" else []), stdout=out)
    assert "Sat 2032-03-27 12:30 CET" in out.getvalue()
    assert "resumed; 2 missed firings will follow" in out.getvalue()
    out = StringIO()
    call_command("pgq_schedules", "--json", stdout=out)
    assert json.loads(out.getvalue())[1]["next"][:2] == ["2032-03-27T12:30:00+01:00", "2032-03-28T12:30:00+02:00"]
    call_command("pgq_info", stdout=StringIO())
    call_command("pgq_monitor", "--run-once", stdout=StringIO())
    with pytest.raises(SystemExit):  # no pool runs
        call_command("pgq_check", stdout=StringIO())
    call_command("pgq_clean", "--older-than", "1", stdout=StringIO())


def test_admin(clock, admin_client):
    row = schedule("tests.functions.common.registered", 1, name="n", cron="30 12 * * *")
    async_task(functions.nothing)
    drain()
    for model in ("schedule", "success", "failure", "queuedtask", "workerpool"):
        assert admin_client.get(reverse(f"admin:pgq_{model}_changelist")).status_code == 200
    page = admin_client.get(reverse("admin:pgq_schedule_change", args=[row.pk]))
    assert "Sat 2032-03-27 12:30:00 CET" in page.content.decode()
    data = {
        "name": "made", "func": "tests.functions.common.registered", "schedule_type": "D", "repeats": "-1",
        "next_run_0": "2032-03-27", "next_run_1": "13:00:00", "overlap": "allow", "priority": "0", "jitter": "0",
    }  # fmt: skip
    preview = admin_client.post(reverse("admin:pgq_schedule_preview"), data)
    assert "Sun 2032-03-28 13:00:00 CEST" in preview.content.decode()
    assert admin_client.post(reverse("admin:pgq_schedule_add"), data).status_code == 302
    assert Schedule.objects.get(name="made").next_run == datetime(2032, 3, 27, 13)
    assert stored("next_run", "pgq_schedule WHERE name = 'made'") == datetime(2032, 3, 27, 12)
    queued = {"func": "tests.functions.common.registered", "run_after_0": "2032-03-28", "run_after_1": "12:00:00"}
    assert admin_client.post(reverse("admin:pgq_queuedtask_add"), queued).status_code == 302
    assert QueuedTask.objects.get().run_after == datetime(2032, 3, 28, 12)


def test_an_hour_that_comes_twice_is_kept_apart():
    # 02:30 in winter time; the summer's is an hour earlier.
    second = datetime(2032, 10, 31, 1, 30, tzinfo=UTC)
    row = schedule(functions.nothing, schedule_type="H", next_run=second)
    row = Schedule.objects.get(pk=row.pk)
    assert (row.next_run, row.next_run.fold) == (datetime(2032, 10, 31, 2, 30), 1)
    assert moments.aware(row.next_run).astimezone(UTC) == second
    assert row.calculate_next_run() == datetime(2032, 10, 31, 3, 30)
