"""async_task and AsyncTask: options, ids, names, sync. In the test's own transaction."""

from __future__ import annotations

import math
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.signing import BadSignature
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from pgq.errors import EnqueueError, NotStorable, UnknownFunction
from pgq.ground import ids
from pgq.models import OrmQ, QueuedTask, Success, Task
from pgq.tasks import AsyncTask, async_task, current_task, fetch, queue_size, result
from pgq.testing import drain, enqueued
from tests.functions import common as functions
from tests.functions.common import TaskError

pytestmark = pytest.mark.django_db

MULTIPLY = "tests.functions.common.multiply"


def run(func, *args, **kwargs):
    """Enqueue, run, fetch."""
    id = async_task(func, *args, **kwargs)
    drain()
    return fetch(id)


# ------------------------------------------------------------------------------------------------- the call


def test_id_is_32_hex_digits():
    id = async_task(functions.multiply, 2, 3)
    assert isinstance(id, str)
    assert len(id) == 32
    assert uuid.UUID(id).hex == id


@pytest.mark.parametrize("func", [functions.multiply, MULTIPLY])
def test_function_or_its_path(func):
    finished = run(func, 6, 7)
    assert (finished.result, finished.func, finished.args, finished.success) == (42, MULTIPLY, (6, 7), True)


def test_builtin_and_nested_functions():
    assert run("math.copysign", 2, -2).result == -2
    assert run(math.sqrt, 9).result == 3
    assert run("tests.functions.common.Sums.add", 1, 2).result == 3
    assert run(functions.Sums.add, 1, 2).result == 3


def test_unknown_function_is_refused_when_enqueued():
    with pytest.raises(UnknownFunction, match="common has no nowhere"):
        async_task("tests.functions.common.nowhere")
    with pytest.raises(UnknownFunction, match="there is no module"):
        async_task("nowhere.to.be.found")
    with pytest.raises(UnknownFunction, match="lambda"):
        async_task(lambda: 1)
    assert queue_size() == 0


def test_args_and_kwargs_reach_the_function():
    finished = run(functions.echo, 1, "two", three=3, name="n")
    assert finished.result == ((1, "two"), {"three": 3, "name": "n"})
    assert finished.args == (1, "two")
    assert finished.kwargs == {"three": 3, "name": "n"}


def test_arguments_may_be_models_and_callables():
    user = User.objects.create_user("ada")
    assert run(functions.find_me, user).result == "ada"
    assert run(functions.echo, functions.multiply).result[0][0] is functions.multiply
    when = timezone.now()
    assert run(functions.falsy, when).result == when


def test_argument_that_cannot_be_stored_is_named():
    with pytest.raises(NotStorable, match=r"kwargs.*stream"):
        async_task(functions.echo, stream=object())


def test_coroutine_function():
    assert run(functions.coroutine, 4).result == 8


def test_queue_size_counts_what_is_ready():
    async_task(functions.multiply, 1, 1)
    async_task(functions.multiply, 1, 1, run_after=60)
    assert queue_size() == 1
    assert queue_size(broker=None) == 1
    drain()
    assert queue_size() == 0


# ------------------------------------------------------------------------------------------------- options


def test_options_are_not_the_functions():
    id = async_task(
        functions.echo, 1, hook=functions.hook, group="g", save=True, cached=False, ack_failure=True, timeout=9,
        task_name="t", cluster="c", broker=None, keep="mine",
    )  # fmt: skip
    [row] = enqueued()
    assert (row.id, row.group, row.timeout, row.name, row.queue) == (id, "g", 9.0, "t", "c")
    assert row.hook == "tests.functions.common.hook"
    assert row.kwargs == {"keep": "mine"}
    assert row.options["ack_failure"] is True


def test_task_name_then_q_options_then_four_words():
    assert run(functions.nothing, task_name="given", q_options={}).name == "given"
    assert run(functions.nothing, q_options={"task_name": "in q_options"}).name == "in q_options"
    unnamed = run(functions.nothing)
    assert unnamed.name == ids.task_name(uuid.UUID(unnamed.id))
    assert len(unnamed.name.split("-")) == 4


def test_q_options_win_and_leave_the_keyword_to_the_function():
    id = async_task(functions.echo, group="the function's", hook=functions.hook, q_options={"group": "the task's"})
    [row] = enqueued()
    assert (row.id, row.group, row.kwargs) == (id, "the task's", {"group": "the function's"})
    # What is not in q_options is an option still.
    assert row.hook == "tests.functions.common.hook"


def test_q_options_are_not_changed():
    options = {"task_name": "n", "group": "g", "sync": False}
    async_task(functions.nothing, q_options=options)
    assert options == {"task_name": "n", "group": "g", "sync": False}


def test_unknown_option_in_q_options_is_named():
    with pytest.raises(EnqueueError, match="q_options: there is no option grop"):
        async_task(functions.nothing, q_options={"grop": "g"})
    with pytest.raises(EnqueueError, match="q_options: must be a dict"):
        async_task(functions.nothing, q_options="group")


def test_inner_options_of_django_q_are_refused():
    for option in ("iter_count", "iter_cached", "chain"):
        with pytest.raises(EnqueueError, match=option):
            async_task(functions.nothing, **{option: 1})


def test_cluster_is_the_queue():
    async_task(functions.nothing, cluster="long")
    async_task(functions.nothing, q_options={"cluster": "short"})
    async_task(functions.nothing, queue="mail")
    assert [row.queue for row in enqueued()] == ["long", "short", "mail"]


@pytest.mark.parametrize(("timeout", "stored"), [(10, 10.0), (0.5, 0.5), (None, None), (-1, None)])
def test_timeout_in_seconds(timeout, stored):
    async_task(functions.nothing, timeout=timeout)
    assert enqueued()[0].timeout == stored


def test_timeout_none_leaves_it_to_the_settings_and_minus_one_does_not():
    with override_settings(PGQ={"timeout": 5}):
        async_task(functions.nothing, timeout=None)
        async_task(functions.nothing, timeout=-1)
    assert [row.timeout for row in enqueued()] == [5.0, None]


@pytest.mark.parametrize("timeout", [0, "5", True])
def test_wrong_timeout_is_refused(timeout):
    with pytest.raises(EnqueueError, match="timeout"):
        async_task(functions.nothing, timeout=timeout)


def test_timeout_interrupts_the_task():
    finished = run(functions.sleep, 30, timeout=0.05)
    assert not finished.success
    assert "longer than its timeout" in finished.result
    assert finished.exception == "pgq.errors.TaskTimeout"


def test_save_false_keeps_no_success_and_every_failure():
    assert run(functions.multiply, 1, 1, save=False) is None
    assert run(functions.fail, save=False).success is False


def test_save_limit_below_zero_keeps_none_unless_asked():
    with override_settings(PGQ={"save_limit": -1}):
        assert run(functions.multiply, 1, 1) is None
        assert run(functions.multiply, 1, 1, save=True).result == 1
        assert run(functions.fail).success is False


def test_ack_failure_makes_a_failure_final():
    id = async_task(functions.fail, ack_failure=True, max_attempts=0)
    [ran] = drain()
    assert ran.state == "failed"
    assert fetch(id).attempt_count == 1


def test_ack_failures_of_the_settings_travels_with_the_task():
    with override_settings(PGQ={"ack_failures": True, "max_attempts": 0}):
        async_task(functions.fail)
    [ran] = drain()
    assert ran.state == "failed"


def test_priority_and_order():
    for name, priority in (("b", 0), ("c", -5), ("a", 5)):
        async_task(functions.note, name, priority=priority)
    async_task(functions.note, "b2")
    drain()
    assert functions.seen == ["a", "b", "b2", "c"]
    with pytest.raises(EnqueueError, match="priority"):
        async_task(functions.nothing, priority=101)


def test_run_after():
    moment = timezone.now() + timedelta(hours=1)
    for run_after in (moment, timedelta(hours=1), 3600):
        async_task(functions.nothing, run_after=run_after)
    assert drain() == []
    assert all(abs(row.run_after - moment) < timedelta(minutes=1) for row in enqueued())
    assert len(drain(due=True)) == 3
    async_task(functions.nothing, run_after=moment - timedelta(hours=2))
    assert len(drain()) == 1


def test_started_is_when_it_ran():
    finished = run(functions.sleep, 0.02)
    assert finished.enqueued_at <= finished.started <= finished.stopped
    assert 0.02 <= finished.time_taken() < 5


def test_cluster_of_a_finished_task_is_who_ran_it():
    with override_settings(PGQ={"name": "my-pool"}):
        finished = run(functions.nothing, queue="q")
    assert (finished.cluster, finished.queue) == ("my-pool", "q")


def test_signed_row_that_was_changed_is_parked_not_run():
    id = async_task(functions.note, "signed")
    OrmQ.objects.filter(pk=id).update(func="tests.functions.common.fail")
    [ran] = drain()
    assert ran.state == "parked"
    assert "signature" in OrmQ.objects.get(pk=id).parked
    assert functions.seen == []
    # Django's exception is no part of it: nothing is unpickled.
    assert not isinstance(ran.error, BadSignature)


@override_settings(SECRET_KEY_FALLBACKS=["an old key, long enough for a test"])
def test_secret_key_fallbacks_are_used():
    with override_settings(SECRET_KEY="an old key, long enough for a test", SECRET_KEY_FALLBACKS=[]):
        id = async_task(functions.multiply, 2, 2)
    drain()
    assert result(id) == 4


def test_enqueued_in_the_callers_transaction():
    def enqueue_and_fail():
        with transaction.atomic():
            async_task(functions.nothing)
            assert queue_size() == 1
            raise TaskError

    with pytest.raises(TaskError):
        enqueue_and_fail()
    assert queue_size() == 0


# ------------------------------------------------------------------------------------------------- sync


def test_sync_runs_at_once_and_writes_the_success():
    id = async_task(functions.multiply, 6, 7, sync=True)
    assert result(id) == 42
    assert Success.objects.get(pk=id).args == (6, 7)
    assert queue_size() == 0


def test_sync_raises_what_the_function_raised_and_writes_nothing():
    with pytest.raises(TaskError, match="loudly"):
        async_task(functions.fail, "loudly", sync=True)
    assert (Task.objects.count(), QueuedTask.objects.count()) == (0, 0)


def test_sync_calls_the_hook():
    id = async_task(functions.multiply, 2, 2, sync=True, hook=functions.hook)
    assert functions.seen == [(id, True, 4)]


def test_sync_of_the_settings_and_of_the_call():
    with override_settings(PGQ={"sync": True}):
        assert result(async_task(functions.multiply, 1, 2)) == 2
        functions.registered.enqueue(1)
        functions.registered.using(priority=3).enqueue(1)
        assert queue_size() == 0
        async_task(functions.multiply, 1, 2, sync=False)
        assert queue_size() == 1
    async_task(functions.multiply, 1, 2, q_options={"sync": True})
    assert queue_size() == 1


def test_current_task_inside_and_outside():
    assert current_task() is None
    assert run(functions.fail_first, 0).result == 1
    assert current_task() is None


# ------------------------------------------------------------------------------------------------- AsyncTask


def test_async_task_class():
    task = AsyncTask(functions.multiply, 3, 4)
    assert (task.id, task.started, task.result(), task.fetch()) == ("", False, None, None)
    id = task.run()
    assert (task.id, task.started) == (id, True)
    drain()
    assert task.result() == 12
    assert task.fetch().id == id
    assert task.result(wait=10) == 12


def test_async_task_setters_reset_started():
    task = AsyncTask(functions.multiply, 3, 4)
    task.run()
    for name, value in {
        "hook": functions.hook, "group": "g", "save": True, "sync": False, "cached": False, "broker": None,
        "timeout": 5, "cluster": "c", "ack_failure": True, "task_name": "n", "priority": 1, "run_after": None,
    }.items():  # fmt: skip
        task.started = True
        setattr(task, name, value)
        assert task.started is False, name
        assert getattr(task, name) == value
    task.run()
    row = enqueued()[-1] if enqueued()[-1].group else enqueued()[0]
    assert (row.queue, row.group, row.name, row.timeout, row.priority) == ("c", "g", "n", 5.0, 1)


def test_async_task_func_and_args_may_change():
    task = AsyncTask("math.floor", 1.5)
    task.func, task.args = "math.ceil", (2.5,)
    task.run()
    drain()
    assert task.result() == 3


def test_async_task_setters_write_into_q_options_if_there_are_any():
    task = AsyncTask(functions.echo, q_options={"group": "old"}, group="the function's")
    assert task.group == "old"
    task.group = "new"
    task.run()
    [row] = enqueued()
    assert (row.group, row.kwargs) == ("new", {"group": "the function's"})


def test_async_task_group_results():
    task = AsyncTask(functions.multiply, 3, 4, group="g")
    assert (task.result_group(), task.fetch_group()) == (None, None)
    task.run()
    async_task(functions.fail, group="g")
    drain()
    assert task.result_group() == [12]
    assert len(task.result_group(failures=True)) == 2
    assert [found.success for found in task.fetch_group()] == [False, True]
    assert [found.success for found in task.fetch_group(failures=False, wait=50, count=2)] == [True]
    task.group = None
    assert task.result_group() is None


def test_async_task_sync_and_hook():
    task = AsyncTask(functions.multiply, 3, 4)
    task.sync, task.hook, task.save = True, functions.hook, True
    task.run()
    assert task.result() == 12
    assert functions.seen == [(task.id, True, 12)]
