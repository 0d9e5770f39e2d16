"""How public projects use Django-Q: the shapes of their code, with the imports renamed.

Each test is one shape that several projects share, in words of our own. What works another way here has a row in
docs/migrate/django-q.md, whose last column names the test.
"""

from __future__ import annotations

import io
import json
import subprocess
import uuid
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.sites import AdminSite
from django.core import checks
from django.core.management import call_command
from django.db import connection, models
from django.db.models import Count, OuterRef, Q, Subquery
from django.db.models.functions import TruncDate
from django.db.models.signals import pre_save
from django.dispatch import receiver
from django.forms import modelform_factory
from django.template import Context, Template
from django.test import RequestFactory, override_settings
from django.test.utils import isolate_apps
from django.urls import reverse
from django.utils import timezone

from pgq import conf, signals, tasks
from pgq.admin import FailAdmin, QueueAdmin, ScheduleAdmin, TaskAdmin
from pgq.cluster import Cluster
from pgq.models import Failure, OrmQ, Schedule, Success, Task
from pgq.status import IDLE, WORKING, Stat
from pgq.tasks import (
    AsyncTask,
    Chain,
    Iter,
    async_chain,
    async_iter,
    async_task,
    count_group,
    delete_group,
    fetch,
    fetch_group,
    queue_size,
    result,
    result_group,
    schedule,
)
from pgq.testing import drain, fire_schedules
from tests.functions import common as functions
from tests.support.blocks import texts

pytestmark = pytest.mark.django_db

HERE = "tests.integration.test_public_projects"
FUNC = "tests.functions.common"


@tasks.task
def heartbeat():
    """Runs every few minutes, and clears up after itself: what stands in for a health check in many projects."""
    old = timezone.now() - timedelta(minutes=30)
    Success.objects.filter(func=f"{HERE}.heartbeat", started__lte=old).delete()
    for queued in OrmQ.objects.all():
        if queued.func == f"{HERE}.heartbeat" and queued.state == "ready":
            queued.delete()
    return "alive"


@tasks.task
def report(account, *, dry=False):
    return f"{account}{' dry' if dry else ''}"


def with_lock(function, *args, **kwargs):
    return function(*args, **kwargs)


def judge(task):
    """A hook that corrects the task it is told of."""
    task.success, task.result = task.result["ok"], task.result["text"]
    task.hook = None
    task.save()


def verdict(ok):
    return {"ok": ok, "text": "said"}


# ------------------------------------------------------------------------------------------------- enqueuing


def test_every_option_in_either_place():
    options = {
        "hook": functions.hook,
        "group": "g",
        "save": True,
        "ack_failure": True,
        "timeout": 60,
        "cluster": "long",
    }
    for given in (options, {"q_options": options}):
        async_task(f"{FUNC}.hello", "you", task_name="greet", broker=None, **given)
    for queued in OrmQ.objects.all():
        assert (queued.name, queued.group, queued.timeout, queued.queue) == ("greet", "g", 60, "long")
        assert queued.hook == f"{FUNC}.hook"
    drain()
    assert [success for _, success, _ in functions.seen] == [True, True]


def test_a_wrapper_of_ones_own_passes_a_function_on():
    def enqueue(function, *args, **kwargs):
        options = kwargs.pop("q_options", {})
        options["hook"] = f"{FUNC}.hook"
        return tasks.async_task(with_lock, function, *args, q_options=options, **kwargs)

    id = enqueue(functions.multiply, 6, y=7, q_options={"task_name": f"lock-{1}"})
    drain()
    assert (fetch(id).name, result(id)) == ("lock-1", 42)


def test_the_class_takes_options_among_the_arguments():
    task = AsyncTask(f"{FUNC}.hello", "you", group="inventory", timeout=5)
    task.run()
    other = AsyncTask(with_lock, functions.hello, name="me", q_options={"task_name": "index"})
    other.run()
    drain()
    assert (task.result(), task.fetch().group) == ("hello you", "inventory")
    assert (other.result(), other.fetch().name) == ("hello me", "index")


def test_a_group_may_be_the_number_of_a_row():
    """`group=issue.pk`, and later `fetch_group(issue.pk)`."""
    async_task(functions.multiply, 1, 2, group=7)
    async_task(functions.multiply, 2, 2, group=uuid.UUID(int=5))
    drain()
    assert [task.result for task in fetch_group(7)] == [2]
    assert (count_group(7), result_group(7), result_group(uuid.UUID(int=5))) == (1, [2], [4])
    assert delete_group(7, tasks=True)[0] == 1


def test_results_of_a_group_with_failures():
    for number in range(3):
        async_task(functions.multiply, number, 2, group="g")
    async_task(functions.fail, group="g")
    drain()
    assert sorted(result_group("g", count=4)) == [0, 2, 4]
    assert len(result_group("g", failures=True)) == 4
    assert (count_group("g"), count_group("g", failures=True)) == (4, 1)
    assert [task.success for task in fetch_group("g", failures=False)] == [True] * 3
    assert sum(1 for task in fetch_group("g") if not task.success) == 1


def test_a_group_is_a_queryset():
    """Django-Q's own page goes on with `.exclude(success=False)`."""
    async_task(functions.multiply, 3, 2, group="g")
    async_task(functions.fail, group="g")
    drain()
    found = fetch_group("g")
    assert [task.result for task in found.exclude(success=False)] == [6]
    assert (len(found), found.count(), found.order_by("started").first().result) == (2, 2, 6)
    assert fetch_group("nowhere") is None


def test_iters_and_chains():
    whole = async_iter(functions.multiply, [(number, 2) for number in range(3)], q_options={"hook": functions.hook})
    parts = Iter(f"{FUNC}.hello")
    parts.append("a")
    parts.run()
    links = Chain(group="load")
    for number in range(2):
        links.append(functions.multiply, number, 2, cluster="imports")
    group = links.run()
    other = async_chain([(f"{FUNC}.hello", ("b",)), (functions.multiply, (2, 3), {"timeout": 9})])
    drain()
    assert (result(whole), parts.result()) == ([0, 2, 4], ["hello a"])
    assert (group, links.current(), sorted(links.result())) == ("load", 2, [0, 2])
    assert sorted(map(str, result_group(other))) == ["6", "hello b"]
    assert functions.seen == [(whole, True, [0, 2, 4])]


def test_mocks_find_the_names_where_they_were():
    with patch("pgq.tasks.async_task", return_value="id") as enqueue, patch("pgq.models.Schedule"):
        assert tasks.async_task("x", 1) == "id"
    enqueue.assert_called_once_with("x", 1)


@override_settings(Q_CLUSTER={"name": "shop", "sync": True, "orm": "default", "timeout": 90, "retry": 120})
def test_a_test_that_switches_sync_on():
    id = async_task(functions.multiply, 6, 7, task_name="row-1")
    assert Task.objects.filter(name="row-1", success=True).exists()
    assert (Task.objects.get(name="row-1").args, result(id)) == ((6, 7), 42)


# ------------------------------------------------------------------------------------------------- results by the ORM


@pytest.fixture
def finished():
    """Three successes and a failure."""
    ids = [async_task(functions.multiply, number, 2, task_name=f"index-{number}", group="g") for number in range(3)]
    ids.append(async_task(functions.fail, "out of reach", task_name="index-bad"))
    drain()
    return ids


def test_counts_and_the_latest(finished):
    since = timezone.now() - timedelta(minutes=20)
    func = f"{FUNC}.multiply"
    assert Success.objects.filter(func=func, started__gte=since).exists()
    assert Success.objects.filter(stopped__gte=since).count() == 3
    assert Failure.objects.filter(stopped__gte=since).count() == 1
    assert Success.objects.order_by("-stopped").values_list("stopped", flat=True).first() >= since
    assert Success.objects.filter(func=func).order_by("-stopped").first().result == 4
    assert Success.objects.filter(id__in=finished).count() + Failure.objects.filter(id__in=finished).count() == 4
    assert Task.objects.filter(success=False, stopped__isnull=False, started__gte=since).count() == 1
    assert Task.objects.filter(started__isnull=False, stopped__isnull=True).count() == 0
    assert Task.objects.filter(func__in=[func, "gone"]).count() == 3
    assert Task.objects.filter(func__contains="multiply", name__startswith="index").count() == 3


def test_patterns_and_sums(finished):
    recent = Task.objects.filter(Q(name__icontains="INDEX") | Q(func__icontains="nothing")).order_by("-stopped")
    assert len(recent[:3]) == 3
    [day] = recent.order_by().annotate(day=TruncDate("stopped")).values("day").annotate(number=Count("id"))
    assert day["number"] == 4
    per = Task.objects.values("func").annotate(number=Count("id")).order_by("-number")
    assert [row["number"] for row in per] == [3, 1]
    last = Task.objects.filter(func=OuterRef("func")).order_by("-started").values("name")[:1]
    assert Success.objects.annotate(last=Subquery(last)).first().last == "index-2"


def test_a_list_of_tasks_as_a_page_shows_it(finished):
    page = Template(
        "{% for t in tasks %}{{ t.name }} {{ t.func }} {{ t.success }} {{ t.args }} {{ t.kwargs }} {{ t.time_taken }} "
        "{{ t.started|date:'Y' }} {{ t.stopped|timesince }} {{ t.attempt_count }} {{ t.result|truncatechars:9 }}|END|"
        "{% endfor %}"
    )
    shown = page.render(Context({"tasks": Task.objects.all().order_by("-started")}))
    assert shown.count("|END|") == 4
    assert "out of r…" in shown
    failure = Failure.objects.get()
    assert failure.result.startswith("out of reach : Traceback")
    assert (failure.stopped - failure.started).total_seconds() >= 0


def test_columns_of_tasks(finished):
    rows = Task.objects.order_by("name").values("id", "name", "func", "args", "kwargs", "success", "started", "group")
    assert {row["id"] for row in rows} == set(finished)
    # Columns of stored values are the text of their JSON; what was "result" is "value" in a query.
    assert [json.loads(row["args"]) for row in rows] == [[0, 2], [1, 2], [2, 2], ["out of reach"]]
    assert [json.loads(text) for text in Success.objects.order_by("name").values_list("value", flat=True)] == [0, 2, 4]
    assert [task.result for task in Success.objects.order_by("name").only("value", "success")] == [0, 2, 4]


def test_clearing_up(finished):
    Task.objects.filter(pk=finished[0]).update(stopped=timezone.now() - timedelta(days=40), started=timezone.now())
    month = timezone.now() - timedelta(days=30)
    deleted, _ = Success.objects.filter(stopped__lt=month).delete()
    assert deleted == 1
    Failure.objects.filter(started__lte=timezone.now()).delete()
    Task.get_task(finished[1]).delete()
    assert [task.id for task in Task.objects.all()] == [finished[2]]


def test_asking_for_a_task_that_may_run_still(finished):
    pending = async_task(functions.nothing)
    assert fetch(pending) is None
    assert OrmQ.objects.filter(id=pending).exists()
    found = fetch(finished[3])
    assert (found.success, found.name, found.id) == (False, "index-bad", finished[3])


def test_running_a_failure_once_more(finished):
    failed = Failure.objects.get()
    again = async_task(failed.func, *(failed.args or ()), task_name=f"again {failed.name}", **(failed.kwargs or {}))
    failed.delete()
    drain()
    assert (fetch(again).name, Failure.objects.count()) == ("again index-bad", 1)


# ------------------------------------------------------------------------------------------------- the queue


def test_what_waits_in_the_queue():
    assert (OrmQ.objects.count(), queue_size()) == (0, 0)
    ids = [async_task(functions.multiply, 1, 1, group="g", cluster="long"), async_task(functions.nothing)]
    assert (OrmQ.objects.count(), queue_size()) == (2, 2)
    assert OrmQ.objects.filter(lock__isnull=True).count() == 2
    assert OrmQ.objects.filter(lock__isnull=False).count() == 0
    assert [row.id for row in OrmQ.objects.all().order_by("lock", "id")] == ids
    # The key of a row is its queue, and a query says so.
    assert OrmQ.objects.filter(queue="long").count() == 1
    row = OrmQ.objects.get(id=ids[0])
    assert (row.func, row.args, row.kwargs, row.group) == (f"{FUNC}.multiply", (1, 1), {}, "g")
    assert (row.key, row.task_id) == ("long", ids[0])
    OrmQ.objects.all().delete()
    assert drain() == []


def test_a_queue_row_as_the_task_of_django_q():
    """`[row.task["func"] for row in OrmQ.objects.all()]`, and the like of a dashboard."""
    id = async_task(functions.multiply, 1, y=2, group="g", task_name="n", hook=functions.hook)
    [task] = [row.task for row in OrmQ.objects.all()]
    assert (task["id"], task["name"], task["func"], task["group"]) == (id, "n", f"{FUNC}.multiply", "g")
    assert (task["args"], task["kwargs"], task.get("hook")) == ((1,), {"y": 2}, f"{FUNC}.hook")
    assert task["started"] <= timezone.now()


def test_a_heartbeat_that_clears_up():
    for _ in range(3):
        async_task(heartbeat)
    ran = drain()
    # The first took the others out of the queue.
    assert ran[0].result == "alive"
    assert (len(ran), OrmQ.objects.count()) == (1, 0)


# ------------------------------------------------------------------------------------------------- schedules by the ORM


def test_a_schedule_that_is_made_at_every_start():
    values = {"schedule_type": Schedule.CRON, "cron": "0 3 * * *", "repeats": -1}
    for minutes in (5, 10):
        Schedule.objects.update_or_create(name="nightly", defaults={"func": f"{HERE}.report", **values})
        Schedule.objects.get_or_create(
            func=f"{HERE}.heartbeat", defaults={"name": "beat", "schedule_type": "I", "minutes": minutes, "repeats": -1}
        )
    assert sorted(Schedule.objects.values_list("name", "minutes")) == [("beat", 5), ("nightly", None)]
    nightly = Schedule.objects.get(name="nightly")
    assert (nightly.next_run.hour, nightly.next_run > timezone.now()) == (3, True)


def test_registering_by_the_function():
    """If there is one, its settings are brought up to date; else it is made."""
    for minutes in (5, 10):
        rows = Schedule.objects.filter(func=f"{HERE}.heartbeat")
        if rows.exists():
            rows.update(schedule_type="I", minutes=minutes, repeats=-1)
        else:
            Schedule.objects.create(name="beat", func=f"{HERE}.heartbeat", schedule_type="I", minutes=minutes)
    assert Schedule.objects.get().minutes == 10
    assert Schedule.objects.get().get_schedule_type_display() == "Minutes"
    fire_schedules()
    assert [ran.result for ran in drain()] == ["alive"]


def test_with_a_key_of_ones_own_and_in_bulk():
    Schedule.objects.bulk_create(
        [Schedule(name="old", func=f"{HERE}.report", schedule_type="I", minutes=1, repeats=-1)]
    )
    Schedule.objects.filter(name="old").exclude(id=5).delete()
    Schedule.objects.update_or_create(
        id=5, defaults={"name": "kept", "func": f"{HERE}.heartbeat", "schedule_type": Schedule.MINUTES, "minutes": 60}
    )
    row = Schedule.objects.get(id=5)
    assert (row.name, row.minutes, row.cron, row.repeats) == ("kept", 60, None, -1)


def test_moving_the_next_run():
    row = Schedule.objects.create(
        func=f"{HERE}.report", args="'acme'", kwargs="{'dry': True}", schedule_type=Schedule.ONCE, repeats=1,
        next_run=timezone.now() + timedelta(days=1),
    )  # fmt: skip
    assert row.next_run - timezone.now() < timedelta(days=1)
    assert fire_schedules() == 0
    Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now())
    assert fire_schedules() == 1
    assert [ran.result for ran in drain()] == ["acme dry"]
    row.refresh_from_db()
    assert (row.success(), fetch(row.task).result) == (True, "acme dry")
    # A single run is over once it has run: it has no next one until it is given one.
    assert (row.next_run, row.repeats) == (None, 0)
    row.next_run, row.repeats = timezone.now() + timedelta(days=7), -1
    row.save()
    assert list(Schedule.objects.filter(next_run__gte=timezone.now(), repeats__lt=0).order_by("next_run")) == [row]


def test_the_cluster_of_a_schedule():
    row = Schedule.objects.create(func=f"{HERE}.report", args="1", cluster="long", name="n")
    Schedule.objects.update_or_create(name="n", defaults={"cluster": "short"})
    row.refresh_from_db()
    assert (row.cluster, row.queue) == ("short", "short")
    # In a query it is the queue.
    assert Schedule.objects.filter(queue="short").update(queue="long") == 1


def test_a_schedule_as_a_page_shows_it():
    Schedule.objects.create(name="n", func=f"{HERE}.report", args="1, 'x'", schedule_type="D")
    page = Template(
        "{% for s in all %}{{ s.name }} {{ s.func }} {{ s.get_schedule_type_display }} {{ s.next_run|date:'Y' }} "
        "{{ s.cron|default:'-' }} {{ s.repeats }} {{ s.success }} {{ s.args }}{% endfor %}"
    )
    shown = page.render(Context({"all": Schedule.objects.order_by("next_run")}))
    assert f"n {HERE}.report Daily" in shown
    columns = Schedule.objects.values("id", "name", "func", "next_run", "schedule_type", "repeats", "cron", "minutes")
    assert columns.get()["schedule_type"] == "D"


def test_the_function_schedule_and_its_row():
    later = timezone.now() + timedelta(minutes=5)
    row = schedule(
        f"{HERE}.report", "acme", name="r", hook=f"{FUNC}.hook", schedule_type=Schedule.ONCE, next_run=later,
        repeats=-1, cluster="long", dry=True, q_options={"timeout": 1200, "ack_failure": True},
    )  # fmt: skip
    assert (row.pk, row.next_run, row.kwargs) == (Schedule.objects.get(name="r").pk, later, {"dry": True})
    fire_schedules(later)
    assert [ran.result for ran in drain()] == ["acme dry", None]
    assert Task.objects.get(func=f"{HERE}.report").group == "r"
    assert not Schedule.objects.exists()


def test_a_receiver_that_keeps_a_schedule_as_it_is():
    @receiver(pre_save, sender=Schedule)
    def keep(sender, instance, **kwargs):
        instance.minutes = 60

    try:
        row = Schedule.objects.create(func=f"{HERE}.heartbeat", schedule_type="I", minutes=1)
    finally:
        pre_save.disconnect(keep, sender=Schedule)
    assert Schedule.objects.get(pk=row.pk).minutes == 60


# ------------------------------------------------------------------------------------------------- migrations, models


def test_a_model_with_keys_to_schedules_and_tasks():
    """A reminder with its schedule, and the task that came of it; read from either side."""
    with isolate_apps("tests.app"):

        class Reminder(models.Model):  # noqa: DJ008  # it is shown nowhere
            planned = models.OneToOneField("pgq.Schedule", models.SET_NULL, null=True, related_name="reminder")
            ran = models.OneToOneField("pgq.Task", models.CASCADE, null=True, related_name="+")

            class Meta:
                app_label = "app"
                apps = apps

    try:
        with connection.schema_editor() as editor:
            editor.create_model(Reminder)
        row = schedule(f"{HERE}.report", "acme", name="x - CRON", schedule_type="D")
        spare = schedule(f"{HERE}.report", "acme", name="y - CRON", schedule_type="D")
        reminder = Reminder.objects.create(planned=row)
        assert row.reminder == reminder
        dangling = Schedule.objects.filter(name__endswith=" - CRON", reminder__isnull=True)
        assert list(dangling) == [spare]
        fire_schedules()
        drain()
        row.refresh_from_db()
        reminder.ran = Task.objects.get(id=row.task)
        reminder.save()
        assert Reminder.objects.filter(ran__success=True, planned__func=f"{HERE}.report").get().ran.result == "acme"
        row.delete()
        reminder.refresh_from_db()
        assert reminder.planned is None
        Task.objects.all().delete()
        assert not Reminder.objects.exists()
    finally:
        apps.all_models["app"].pop("reminder", None)
        apps.clear_cache()


# ------------------------------------------------------------------------------------------------- signals


def test_receivers_as_instrumentation_writes_them():
    seen = []

    def enqueued(sender, task, **kwargs):
        seen.append(("enqueued", task["name"], task["id"], task["func"]))

    def begins(sender, func, task, **kwargs):
        seen.append(("begins", func.__name__, task.get("id"), task.get("func")))

    def ended(sender, task, **kwargs):
        took = task["stopped"] - task["started"] if task.get("stopped") else timedelta(0)
        seen.append(("ended", task["name"], task.get("success"), task.get("result")))
        assert took >= timedelta(0)

    signals.pre_enqueue.connect(enqueued)
    signals.pre_execute.connect(begins)
    signals.post_execute.connect(ended, dispatch_uid="ended")
    try:
        id = async_task(f"{FUNC}.multiply", 6, 7, task_name="n")
        drain()
    finally:
        signals.pre_enqueue.disconnect(enqueued)
        signals.pre_execute.disconnect(begins)
        signals.post_execute.disconnect(dispatch_uid="ended")
    func = f"{FUNC}.multiply"
    assert seen == [("enqueued", "n", id, func), ("begins", "multiply", id, func), ("ended", "n", True, 42)]


def test_a_finished_task_is_told_by_post_execute_not_by_post_save():
    told = {"post_save": 0, "post_execute": 0}

    def saved(sender, instance, **kwargs):
        told["post_save"] += 1

    def executed(sender, task, **kwargs):
        told["post_execute"] += 1

    for sender in (Task, Success, Failure, OrmQ):
        models.signals.post_save.connect(saved, sender=sender)
    signals.post_execute.connect(executed)
    try:
        async_task(functions.nothing)
        drain()
    finally:
        signals.post_execute.disconnect(executed)
        for sender in (Task, Success, Failure, OrmQ):
            models.signals.post_save.disconnect(saved, sender=sender)
    assert told == {"post_save": 0, "post_execute": 1}


# ------------------------------------------------------------------------------------------------- status, commands


@pytest.mark.django_db(transaction=True)
def test_a_health_check_reads_the_pools(pool):
    assert Stat.get_all() == []
    pool(workers=2)
    [stat] = Stat.get_all(broker=None)
    alive = [one for one in Stat.get_all() if one.status in (IDLE, WORKING, "Starting") and one.workers]
    assert alive[0].cluster_id == stat.cluster_id
    assert len(stat.workers) == 2
    assert (timezone.now() - stat.timestamp).total_seconds() < 20
    assert stat.tob <= timezone.now()
    assert (stat.host, stat.reincarnations, stat.task_q_size) == (Cluster().host, 0, 0)


SHOP = {
    "apps.py": """
import os
from django.apps import AppConfig
from pgq.cluster import Cluster

class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        if os.environ.get("WITH_CLUSTER"):
            Cluster().start()
""",
    "tasks.py": """
from pgq.tasks import task

@task
def beat():
    return "alive"
""",
    "management/commands/qcluster.py": """
from pgq.management.commands.pgq_worker import Command as Worker
from pgq.models import Schedule

class Command(Worker):
    def handle(self, *args, **options):
        Schedule.objects.get_or_create(func="shop.tasks.beat", defaults={"schedule_type": "H", "name": "beat"})
        super().handle(*args, **options)
""",
}


def test_a_command_around_the_worker_and_a_cluster_in_ready(project):
    """The first makes its schedules and goes on. The second would start pool after pool, so it is refused."""
    shop = project(apps={"shop": SHOP})
    shop.manage("qcluster", "--run-once")
    assert shop.sql("SELECT result FROM pgq_task WHERE func = 'shop.tasks.beat'") == [("alive",)]
    refused = shop.manage("check", code=1, env={"WITH_CLUSTER": "1"})
    assert "not start one where each process of the project passes" in refused.stderr
    assert "the pool ended with exit code 1 before it had started" in refused.stderr


def test_a_cluster_that_never_ran_can_be_stopped():
    assert Cluster().stop() is False


def test_commands_with_their_options():
    for command, options in (("pgq_info", {}), ("pgq_monitor", {"run_once": True}), ("pgq_info", {"config": True})):
        out = io.StringIO()
        call_command(command, stdout=out, **options)
        assert out.getvalue()


def test_dumping_all_but_the_queue():
    async_task(functions.nothing)
    drain()
    out = io.StringIO()
    left_out = ["pgq.schedule", "pgq.task", "pgq.queuedtask", "pgq.limit", "contenttypes", "auth"]
    call_command("dumpdata", exclude=left_out, stdout=out)
    assert "pgq." not in out.getvalue().replace("pgq.lane", "")


# ------------------------------------------------------------------------------------------------- admin


def _page(model_admin, user, *, url="/", **query):
    request = RequestFactory().get(url, query)
    request.user = user
    return model_admin.changelist_view(request).render().content.decode()


def test_admins_are_changed_by_subclasses(admin_user):
    @admin.action(description="Enqueue now")
    def enqueue_now(modeladmin, request, queryset):
        for row in queryset:
            async_task(row.func, *row.args, **row.kwargs)

    class Themed:
        """Stands for the ModelAdmin of a theme, which comes second."""

        list_per_page = 5

    class OwnSchedules(ScheduleAdmin, Themed):
        list_display = ("name", "func", "schedule_type", "next_run", "cluster", "get_last_run", "get_success")
        list_display_links = ("name",)
        list_filter = ("schedule_type",)
        actions = [*ScheduleAdmin.actions, enqueue_now]

    class OwnSuccesses(TaskAdmin, Themed):
        list_display = ("name", "group", "func", "cluster", "started", "stopped", "time_taken")

    class OwnFailures(FailAdmin, Themed):
        list_display = ("name", "func", "started", "stopped", "short_result")

        def has_delete_permission(self, request, obj=None):
            return False

    class OwnQueue(QueueAdmin, Themed):
        list_display = ("id", "key", "name", "group", "func", "lock", "task_id")

    site = AdminSite()
    mine = {Schedule: OwnSchedules, Success: OwnSuccesses, Failure: OwnFailures, OrmQ: OwnQueue}
    for model, own in mine.items():
        site.register(model, own)
        site.unregister(model)
        site.register(model, own)
    assert [error.id for error in site.check(None)] == []
    async_task(functions.multiply, 1, 1, task_name="good")
    async_task(functions.fail, task_name="bad")
    row = schedule(f"{HERE}.report", 1, name="n", schedule_type="D")
    fire_schedules()
    drain()
    async_task(functions.multiply, 1, 1, task_name="waits", cluster="long")
    reverse("admin:index")  # the urls are loaded once for all tests, so not with this site
    with patch("django.contrib.admin.site", site):
        pages = {model: _page(own(model, admin.site), admin_user) for model, own in mine.items()}
    assert "good" in pages[Success]
    assert "on purpose" in pages[Failure]
    assert "waits" in pages[OrmQ]
    assert "long" in pages[OrmQ]
    assert str(row) in pages[Schedule]


def test_default_admins_can_be_taken_off_and_put_on_again():
    try:
        for model in (Schedule, Success, Failure, OrmQ):
            admin.site.unregister(model)
            assert not admin.site.is_registered(model)
    finally:
        for model, own in ((Schedule, ScheduleAdmin), (Success, TaskAdmin), (Failure, FailAdmin), (OrmQ, QueueAdmin)):
            if not admin.site.is_registered(model):
                admin.site.register(model, own)


def test_links_to_the_admin():
    names = ("schedule_changelist", "success_changelist", "failure_changelist", "queuedtask_changelist")
    assert [reverse(f"admin:pgq_{name}") for name in names]
    assert reverse("admin:pgq_failure_change", args=("0" * 32,))


# ------------------------------------------------------------------------------------------------- names


def test_names_of_tasks_before_they_run():
    """`humanize(async_task(...))` is shown to the user, and later the task is found by it."""
    from pgq.contrib.django_q.humanhash import humanize
    from pgq.contrib.django_q.humanhash import uuid as name_and_id

    id = async_task(functions.multiply, 6, 7)
    drain()
    assert humanize(id) == fetch(id).name
    assert fetch(humanize(id)).id == id
    name, group = name_and_id()
    assert (len(name.split("-")), len(group)) == (4, 32)


def test_a_form_of_a_schedule():
    form = modelform_factory(Schedule, fields=["name", "func", "schedule_type", "minutes", "next_run", "repeats"])
    filled = form({"name": "n", "func": f"{HERE}.heartbeat", "schedule_type": "I", "minutes": 5, "repeats": -1})
    assert filled.is_valid(), filled.errors
    assert filled.save().minutes == 5


def test_system_checks_have_nothing_to_say():
    assert [message for message in checks.run_checks() if message.id.startswith("pgq")] == []


# ------------------------------------------------------------------------------------------------- texts as arguments


def test_schedules_found_by_their_arguments():
    """One for each account, whose number is the text of `args`; later it is changed or taken away by it."""
    func, account = f"{HERE}.report", 41
    for _ in range(2):
        row, _ = Schedule.objects.update_or_create(
            func=func, args=f"{account}", defaults={"schedule_type": Schedule.MINUTES, "minutes": 5}
        )
    Schedule.objects.create(func=func, args=str(("acme",)), schedule_type="D")
    Schedule.objects.create(func=func, args="'beta', 7", schedule_type="D")
    assert Schedule.objects.count() == 3
    for same in (account, str(account), [account], str((account,))):
        assert Schedule.objects.filter(args=same, func=func).first() == row
    assert Schedule.objects.filter(args="('acme',)").count() == 1
    assert Schedule.objects.filter(args__contains="beta").exists()
    assert not Schedule.objects.filter(args__contains="gamma").exists()
    assert Schedule.objects.filter(args=str(account)).delete()[0] == 1


def test_a_form_with_the_arguments_as_text():
    fields = ["name", "func", "args", "kwargs", "schedule_type", "minutes", "next_run", "repeats"]
    form = modelform_factory(Schedule, fields=fields)
    filled = form({
        "name": "n", "func": f"{HERE}.report", "args": "'acme'", "kwargs": "{'dry': True}", "schedule_type": "I",
        "minutes": 5, "repeats": -1,
    })  # fmt: skip
    assert filled.is_valid(), filled.errors
    row = filled.save()
    fire_schedules()
    assert [ran.result for ran in drain()] == ["acme dry"]
    again = form(instance=Schedule.objects.get(pk=row.pk))
    assert (again["args"].value(), again["kwargs"].value()) == (("acme",), {"dry": True})
    wrong = form({**filled.data, "args": "acme("}, instance=row)
    assert "args" in wrong.errors


def test_finished_tasks_that_a_test_makes_up():
    now = timezone.now()
    for success, value in ((True, {"sent": 1}), (False, "refused")):
        Task.objects.create(
            id=uuid.uuid4().hex, name="probe", group="g", func=f"{HERE}.report", started=now, stopped=now,
            success=success, result=value, cluster="test",
        )  # fmt: skip
    assert Success.objects.get(group="g").result == {"sent": 1}
    assert Failure.objects.get(group="g").result.startswith("refused")


def test_a_hook_that_corrects_its_task():
    id = async_task(verdict, False, hook=f"{HERE}.judge", group="g")
    drain()
    task = fetch(id)
    assert (task.success, task.message, task.hook) == (False, "said", None)
    good = async_task(verdict, True, hook=f"{HERE}.judge")
    drain()
    assert (fetch(good).success, result(good)) == (True, "said")


def test_what_is_not_in_conf_is_refused_with_a_way_out():
    with pytest.raises(ImportError, match=r"get_settings\(\)"):
        from pgq.conf import Conf  # noqa: F401
    with pytest.raises(ImportError, match=r'logging.getLogger\("pgq"\)'):
        from pgq.conf import logger  # noqa: F401
    assert (conf.get_settings().workers > 0, hasattr(conf, "nothing")) == (True, False)


def test_fieldsets_of_ones_own(rf, admin_user):
    class Own(ScheduleAdmin):
        def get_fieldsets(self, request, obj=None):
            return [
                (None, {"fields": ["name", "func", "hook", "arguments", "keywords"]}),
                ("When", {"fields": ["cron"]}),
            ]

        def get_form(self, request, obj=None, change=False, **kwargs):
            form = super().get_form(request, obj, change, **kwargs)
            form.base_fields["cron"].help_text = "five fields"
            return form

    request = rf.get("/")
    request.user = admin_user
    shown = Own(Schedule, admin.site).add_view(request).render().content.decode()
    for name in ("func", "arguments", "keywords", "cron"):
        assert f'name="{name}"' in shown
    assert "five fields" in shown
    assert 'name="minutes"' not in shown


RENAMED = {
    "from django_q.tasks import async_task": "from pgq.tasks import async_task",
    "from django_q.models import OrmQ, Schedule": "from pgq.models import OrmQ, Schedule",
    "from django_q.management.commands.qcluster import Command as Q": (
        "from pgq.management.commands.pgq_worker import Command as Q"
    ),
    "from django_q.exceptions import TimeoutException": "from pgq.errors import TaskTimeout as TimeoutException",
    '        ("django_q", "0018_task_success_index"),': '        ("pgq", "0001_initial"),',
    "        ('django_q', '__latest__'),": "        ('pgq', '0001_initial'),",
    'Schedule = apps.get_model("django_q", "Schedule")': 'Schedule = apps.get_model("pgq", "Schedule")',
    'OrmQ = apps.get_model("django_q", "OrmQ")': 'OrmQ = apps.get_model("pgq", "QueuedTask")',
    'models.ForeignKey("django_q.Task", models.CASCADE)': 'models.ForeignKey("pgq.Task", models.CASCADE)',
    'to="django_q.schedule"': 'to="pgq.schedule"',
    'EXCLUDE = ["django_q.task", "django_q.ormq"]': 'EXCLUDE = ["pgq.task", "pgq.queuedtask"]',
    'reverse("admin:django_q_ormq_changelist")': 'reverse("admin:pgq_queuedtask_changelist")',
    "reverse('admin:django_q_failure_change', args=(id,))": "reverse('admin:pgq_failure_change', args=(id,))",
    'user.has_perm("django_q.view_task")': 'user.has_perm("pgq.view_task")',
    'patch("django_q.tasks.async_task")': 'patch("pgq.tasks.async_task")',
    '"loggers": {"django-q": {"level": "INFO"}}': '"loggers": {"pgq": {"level": "INFO"}}',
    'cursor.execute("SELECT 1 FROM django_q_task")': 'cursor.execute("SELECT 1 FROM django_q_task")',
    "import django_q_registry": "import django_q_registry",
}


def test_the_command_that_renames(tmp_path):
    [command] = texts("docs/migrate/django-q.md", "bash")
    file = tmp_path / "code.py"
    file.write_text("\n".join(RENAMED))
    # Files are those of git; here there is one.
    listed = command.partition("|")[0]
    subprocess.run(["bash", "-ec", command.replace(listed, "echo code.py ")], cwd=tmp_path, check=True)
    assert file.read_text().splitlines() == list(RENAMED.values())


def test_names_that_came_along():
    from pgq.tasks import Schedule as of_tasks
    from pgq.tasks import Task as result_of_tasks

    assert (of_tasks, result_of_tasks) == (Schedule, Task)
