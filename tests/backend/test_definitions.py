"""Tasks as they are defined and varied: what Django's tests of `Task` expect, with PgqBackend behind them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings
from django.utils import timezone
from django.utils.module_loading import import_string

from pgq.backend import PgqBackend
from pgq.testing import drain, enqueued
from tests.functions import django_custom as custom
from tests.functions import django_tasks as functions
from tests.support.django_tasks import (
    PASSES_ON,
    PICKLES,
    InvalidTask,
    InvalidTaskBackend,
    backend,
    base,
    exceptions,
    tasks,
)

pytestmark = [pytest.mark.django_db, pytest.mark.smoke]


def makes_lines():
    yield 1


TASKS = {
    "default": {"BACKEND": "pgq.backend.PgqBackend", "QUEUES": ["default", "special"]},
    "second": {"BACKEND": "pgq.backend.PgqBackend", "QUEUES": []},
    "custom": {"BACKEND": "tests.functions.django_custom.CustomBackend", "OPTIONS": {"prefix": "PREFIX: "}},
    "immediate": {"BACKEND": f"{tasks.__name__}.backends.immediate.ImmediateBackend", "QUEUES": []},
    "missing": {"BACKEND": "does.not.exist"},
}


@pytest.fixture(autouse=True)
def _settings():
    with override_settings(TASKS=TASKS):
        yield


def test_a_decorated_function_is_a_task():
    for task in (functions.nothing, functions.placed, functions.nothing_async):
        assert isinstance(task, base.Task)
        assert type(task.get_backend()) is PgqBackend
        assert import_string(task.module_path) is task
    assert (functions.nothing.name, functions.placed.name) == ("nothing", "placed")
    assert functions.nothing.module_path == "tests.functions.django_tasks.nothing"
    assert functions.Holder.inside.module_path == "tests.functions.django_tasks.Holder.inside"
    assert (functions.placed.priority, functions.placed.queue_name, functions.placed.backend) == (
        7,
        "special",
        "default",
    )


def test_using_makes_another_task():
    task, moment = functions.nothing, timezone.now()
    changed = task.using(priority=5, queue_name="special", run_after=moment, backend="second")
    assert (changed.priority, changed.queue_name, changed.run_after, changed.backend) == (
        5,
        "special",
        moment,
        "second",
    )
    assert (task.priority, task.queue_name, task.run_after, task.backend) == (0, "default", None, "default")
    assert changed.func is task.func
    assert task.using() == task
    assert changed.using(priority=0).priority == 0
    result = changed.enqueue()
    assert (result.backend, result.task, result.task.get_backend().alias) == ("second", changed, "second")
    # By whichever backend it is read, and whatever that one's queues are.
    assert tasks.task_backends["default"].get_result(result.id) == result == task.get_result(result.id)
    with pytest.raises(TypeError):
        task.using(unknown=1)


def test_the_default_backend_is_the_one_of_the_settings():
    assert tasks.default_task_backend == tasks.task_backends["default"]
    assert isinstance(tasks.task_backends["second"], PgqBackend)
    with backend(OPTIONS={"timeout": 5}):
        assert tasks.task_backends["default"].options == {"timeout": 5}
    assert tasks.task_backends["default"].options == {}


def test_what_is_called_here_runs_here():
    assert functions.meaning.call() == async_to_sync(functions.meaning.acall)() == "42"
    assert functions.meaning_async.call() == async_to_sync(functions.meaning_async.acall)() == "42"
    assert enqueued() == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"priority": 101}, "must be a whole number between -100 and 100"),
        ({"priority": -101}, "must be a whole number between -100 and 100"),
        ({"priority": 3.1}, "must be a whole number between -100 and 100"),
        ({"queue_name": "unknown"}, "Queue 'unknown' is not valid for backend"),
    ],
)
def test_wrong_values(given, text):
    with pytest.raises(InvalidTask, match=text):
        functions.nothing.using(**given)
    with pytest.raises(InvalidTask, match=text):
        tasks.task(**given)(functions.nothing.func)


@pytest.mark.parametrize("priority", [-100, -1, 0, 50, 100, 2.0])
def test_priorities(priority):
    task = functions.nothing.using(priority=priority)
    result = task.enqueue()
    assert [row.priority for row in enqueued()] == [priority]
    assert functions.nothing.get_result(result.id) == result


def test_wrong_functions():
    def inner():
        return None

    for wrong in (inner, functions.nothing, int, len, object()):
        with pytest.raises(InvalidTask, match="module level"):
            tasks.task()(wrong)
    with pytest.raises(InvalidTask, match="has a yield"):
        tasks.task()(makes_lines)
    for wrong in (functions.meaning.func, functions.echo.func):
        with pytest.raises(InvalidTask, match="does not have a first argument of 'context'"):
            tasks.task(takes_context=True)(wrong)
    with pytest.raises(TypeError):
        tasks.task(unknown=1)(functions.nothing.func)


def test_wrong_backends():
    with pytest.raises(InvalidTaskBackend, match=r"does\.not\.exist"):
        functions.nothing.using(backend="missing")
    with pytest.raises(InvalidTaskBackend, match="unknown"):
        functions.nothing.using(backend="unknown")
    with pytest.raises(InvalidTaskBackend, match=r"does\.not\.exist"):
        tasks.task(backend="missing")(functions.nothing.func)


@pytest.mark.skipif(not PICKLES, reason="Django 6.1 and later")
def test_pickles_and_copies():
    for task in (functions.placed, functions.placed.using(priority=9)):
        assert pickle.loads(pickle.dumps(task)) == copy.deepcopy(task) == task
    result = functions.placed.enqueue(1)
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(ValueError, match="to point to a Task instance"):
        pickle.loads(pickle.dumps(tasks.task(custom.other)))


@pytest.mark.skipif(not PASSES_ON, reason="Django 6.1 and later, and the backport")
def test_run_after_is_not_for_the_decorator():
    with pytest.raises(TypeError, match="run_after"):
        tasks.task(run_after=timezone.now())(functions.nothing.func)


def test_errors_of_a_result():
    result = functions.fail.enqueue()
    drain()
    result.refresh()
    [error] = result.errors
    assert error.exception_class is ValueError
    for path in ("builtins.list", "tests.functions.django_tasks.nothing"):
        with pytest.raises(ValueError, match="does not reference a valid exception"):
            dataclasses.replace(error, exception_class_path=path).exception_class
    with pytest.raises(ImportError):
        dataclasses.replace(error, exception_class_path="does.not.Exist").exception_class


def test_a_task_class_of_ones_own():
    kind = custom.CustomTask
    # Django 6.0 has no defaults.
    task = kind(func=custom.work, backend="custom", foo=5, priority=0, queue_name="default", run_after=None)
    assert (task.foo, task.bar, task.get_backend().prefix) == (5, "default", "PREFIX: ")
    plain = task.enqueue(1)
    varied = dataclasses.replace(task, bar="other", length=timedelta(hours=1), names=["a"], priority=4)
    result = varied.enqueue(2)
    assert task.get_result(plain.id) == plain
    assert (plain.task, plain.task.foo) == (task, 5)
    read = task.get_result(result.id)
    assert read == result
    assert (type(read.task), read.task.length, read.task.names) == (kind, timedelta(hours=1), ["a"])
    drain()
    result.refresh()
    assert (result.return_value, result.task.bar) == (2, "other")
    unstorable = dataclasses.replace(task, names=lambda: None)
    with pytest.raises(TypeError, match="CustomTask"):
        unstorable.enqueue()
    # The same function as a task of another backend, and class.
    second = tasks.task(backend="second")(custom.work)
    both = second.enqueue(3), task.enqueue(4)
    assert (second.get_result(both[0].id), task.get_result(both[1].id)) == both
    assert (type(second.get_result(both[0].id).task), type(task.get_result(both[1].id).task)) == (base.Task, kind)


@pytest.mark.skipif(not PASSES_ON, reason="Django 6.1 and later, and the backport")
def test_the_decorator_passes_on_to_the_class():
    assert tasks.task(backend="custom", foo=7, bar="x")(custom.other).foo == 7
    task = tasks.task(backend="custom", priority=10, bar="y")(custom.other)
    assert (task.priority, task.foo, task.bar) == (10, 3, "y")
    with pytest.raises(TypeError):
        tasks.task(backend="custom", unknown=1)(custom.other)


def test_a_result_of_a_backend_that_is_gone_can_be_read():
    result = functions.nothing.using(backend="second", queue_name="later gone").enqueue()
    with backend(QUEUES=["default"]):
        read = tasks.task_backends["default"].get_result(result.id)
        assert (read.task.queue_name, read.backend) == ("later gone", "second")
        drain()
        assert tasks.task_backends["default"].get_result(result.id).is_finished


def test_missing_result_of_a_task():
    with pytest.raises(exceptions.TaskResultDoesNotExist):
        functions.nothing.get_result("123")
    with pytest.raises(exceptions.TaskResultDoesNotExist):
        async_to_sync(functions.nothing.aget_result)("123")
