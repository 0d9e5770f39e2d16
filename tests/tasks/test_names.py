"""The names and signatures that Django-Q's users import and call."""

from __future__ import annotations

import importlib
import inspect
import io

import pytest
from django.core.management import call_command, get_commands

import pgq
from pgq import models, status, tasks
from pgq.status import Stat, Status
from pgq.tasks import async_task
from pgq.testing import drain
from tests.functions import common as functions

#: The parameters of Django-Q's functions, in order; ours may have more behind them.
SIGNATURES = {
    "async_task": "func args kwargs",
    "result": "task_id wait cached",
    "result_cached": "task_id wait broker",
    "result_group": "group_id failures wait count cached",
    "result_group_cached": "group_id failures wait count broker",
    "fetch": "task_id wait cached",
    "fetch_cached": "task_id wait broker",
    "fetch_group": "group_id failures wait count cached",
    "fetch_group_cached": "group_id failures wait count broker",
    "count_group": "group_id failures cached",
    "count_group_cached": "group_id failures broker",
    "delete_group": "group_id tasks cached",
    "delete_group_cached": "group_id broker",
    "delete_cached": "task_id broker",
    "queue_size": "broker",
    "async_iter": "func args_iter kwargs",
    "async_chain": "chain group cached sync broker",
    "Iter": "func args kwargs cached sync broker",
    "Chain": "chain group cached sync broker",
    "AsyncTask": "func args kwargs",
}
METHODS = {
    "Iter": "append run result fetch length",
    "Chain": "append run result fetch current length",
    "AsyncTask": "run result fetch result_group fetch_group",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    parameters = list(inspect.signature(getattr(tasks, name)).parameters)
    wanted = SIGNATURES[name].split()
    assert parameters[: len(wanted)] == wanted


def test_defaults():
    defaults = {
        name: parameter.default
        for function in (tasks.result_group, tasks.fetch_group)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    assert (defaults["wait"], defaults["count"]) == (0, None)
    assert inspect.signature(tasks.result_group).parameters["failures"].default is False
    assert inspect.signature(tasks.fetch_group).parameters["failures"].default is True


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    assert all(callable(getattr(getattr(tasks, name), method)) for method in METHODS[name].split())


def test_schedule_takes_django_qs_keywords():
    keywords = inspect.signature(tasks.schedule).parameters
    for name in ("name", "hook", "schedule_type", "minutes", "repeats", "next_run", "cron", "cluster",
                 "intended_date_kwarg"):  # fmt: skip
        assert name in keywords
    # ONCE unless minutes, seconds or cron say otherwise.
    assert keywords["schedule_type"].default is None
    assert keywords["repeats"].default == -1


@pytest.mark.parametrize(
    "name",
    ["tasks.async_task", "models.Task", "models.OrmQ", "models.Schedule", "models.Success", "models.Failure",
     "signals.pre_enqueue", "signals.post_spawn", "status.Stat", "status.Status", "cluster.Cluster", "testing.drain",
     "admin.FailAdmin", "admin.TaskAdmin", "admin.ScheduleAdmin", "admin.QueueAdmin"],
)  # fmt: skip
def test_imports(name):
    module, _, attribute = name.partition(".")
    assert hasattr(importlib.import_module(f"pgq.{module}"), attribute)


def test_version():
    assert isinstance(pgq.VERSION, tuple)
    assert pgq.__version__.startswith(".".join(map(str, pgq.VERSION)))


def test_app_label_and_tables():
    assert {model._meta.app_label for model in (models.Task, models.Schedule, models.OrmQ)} == {"pgq"}
    assert models.Task._meta.db_table == "pgq_task"


# ------------------------------------------------------------------------------------------------- commands, status


def test_commands_there_are():
    ours = {name for name, app in get_commands().items() if app == "pgq"}
    assert {"pgq_worker", "pgq_info", "pgq_monitor", "pgq_memory", "pgq_clean", "pgq_schedules"} <= ours


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("pgq_info", {}), ("pgq_info", {"config": True}), ("pgq_info", {"ids": True}),
        ("pgq_monitor", {"run_once": True}), ("pgq_memory", {"run_once": True}),
        ("pgq_memory", {"run_once": True, "workers": True}),
    ],
)  # fmt: skip
def test_commands_that_look(command, options):
    async_task(functions.multiply, 1, 1)
    drain()
    out = io.StringIO()
    call_command(command, stdout=out, **options)
    if options != {"ids": True}:
        assert out.getvalue()


@pytest.mark.django_db
def test_stat_without_a_pool():
    assert Stat.get_all() == []
    gone = Stat.get("0" * 32)
    assert isinstance(gone, Status)
    assert gone.status == status.STOPPED == "Stopped"


@pytest.mark.django_db(transaction=True)
def test_stat_of_a_pool(pool):
    running = pool(workers=2)
    [stat] = Stat.get_all()
    assert (stat.sentinel, stat.pid, len(stat.workers)) == (running.pid, running.pid, 2)
    assert stat.status in ("Starting", "Working", "Idle")
    assert stat.uptime() > 0
    assert stat.empty_queues()
    assert Stat.get(stat.pid, stat.cluster_id).status == Stat.get(stat.cluster_id).status
    for name in ("tob", "reincarnations", "cluster_id", "done_q_size", "host", "monitor", "task_q_size", "pusher",
                 "timestamp", "key"):  # fmt: skip
        assert hasattr(stat, name)


@pytest.mark.django_db(transaction=True)
def test_run_once_runs_what_is_ready_and_ends(pool):
    ids = [async_task(functions.multiply, number, 2) for number in range(20)]
    running = pool("--run-once", ready=False)
    assert running.wait() == 0
    assert [tasks.result(id) for id in ids] == [number * 2 for number in range(20)]
