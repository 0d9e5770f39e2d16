"""Fields and methods of the models, by the names that Django-Q's users know."""

from __future__ import annotations

import pytest
from django.db import models

from pgq.models import Failure, OrmQ, QueuedTask, Schedule, Success, Task
from pgq.tasks import async_task, fetch, queue_size
from pgq.testing import drain, enqueued
from tests.functions import common as functions

pytestmark = pytest.mark.django_db

TASK_FIELDS = (
    "id", "name", "func", "hook", "args", "kwargs", "group", "cluster", "started", "stopped", "success",
    "attempt_count",
)  # fmt: skip
SCHEDULE_FIELDS = (
    "id", "name", "func", "hook", "args", "kwargs", "schedule_type", "minutes", "repeats", "next_run", "cron", "task",
    "intended_date_kwarg",
)  # fmt: skip


def names(model):
    return {field.name for field in model._meta.get_fields()}


def test_fields_of_django_q_are_there():
    assert set(TASK_FIELDS) <= names(Task) == names(Success) == names(Failure)
    assert set(SCHEDULE_FIELDS) <= names(Schedule)
    assert isinstance(Task.result, property)
    assert isinstance(Schedule.cluster, property)


def test_types_and_methods_of_a_task():
    id = async_task(functions.multiply, 2, y=3, hook=functions.hook, group="g")
    drain()
    task = Task.objects.get(pk=id)
    assert (task.id, task.pk) == (id, id)
    assert (task.args, task.kwargs, task.result, task.group) == ((2,), {"y": 3}, 6, "g")
    assert isinstance(task.time_taken(), float)
    assert str(task) == task.name
    assert (task.success, task.attempt_count) == (True, 1)
    assert Task.objects.filter(func__contains="multiply", group="g", success=True, stopped__gte=task.started).exists()


def test_name_is_stored_only_if_it_was_given():
    unnamed, named = async_task(functions.nothing), async_task(functions.nothing, task_name="n")
    assert [row.name for row in enqueued()] == [OrmQ.objects.get(pk=unnamed).name, "n"]
    drain()
    assert Task.objects.filter(name=None).count() == 1
    task = fetch(unnamed)
    assert task.name == task.display_name == str(task)
    task.save()
    assert Task.objects.filter(name=None).count() == 1
    assert fetch(named).name == "n"
    assert QueuedTask(func="f").name is None


def test_ormq_is_the_queue():
    assert OrmQ is QueuedTask
    id = async_task(functions.multiply, 2, y=3, task_name="n", group="g", cluster="c", save=True)
    row = OrmQ.objects.get()
    assert (row.id, row.name, row.group, row.queue, row.func) == (id, "n", "g", "c", "tests.functions.common.multiply")
    assert (row.args, row.kwargs, row.options, row.lock) == ((2,), {"y": 3}, {"save": True}, None)
    assert row.state == "ready"
    assert OrmQ.objects.count() == queue_size() == 1
    row.delete()
    assert queue_size() == 0


def test_ormq_states():
    for options in ({}, {"run_after": 60}):
        async_task(functions.nothing, **options)
    OrmQ.objects.create(func="tests.functions.common.note")
    assert [row.state for row in enqueued()] == ["ready", "waiting", "ready"]
    drain()
    assert sorted(row.state for row in enqueued()) == ["parked", "waiting"]


def test_orm_creates_tasks_of_registered_functions():
    OrmQ.objects.create(func="tests.functions.common.registered", args=[41])
    [ran] = drain()
    assert ran.result == 42


def test_newest_first():
    ids = [async_task(functions.nothing) for _ in range(3)]
    drain()
    assert [task.id for task in Task.objects.all()] == ids[::-1]
    assert [task.id for task in Success.objects.all()] == ids[::-1]
    assert isinstance(Task.objects.all(), models.QuerySet)
