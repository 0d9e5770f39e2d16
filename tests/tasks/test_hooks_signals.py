"""Hooks and signals."""

from __future__ import annotations

import base64
import contextlib
import zlib
from datetime import timedelta

import pytest
from django.db import connection
from django.test import override_settings
from django.utils import timezone

from pgq import signals
from pgq.errors import UnknownFunction
from pgq.models import Failure, Task
from pgq.tasks import async_task, fetch, result
from pgq.testing import drain, enqueued
from tests.functions import common as functions
from tests.functions.common import TaskError

pytestmark = pytest.mark.django_db

SIGNALS = ("pre_enqueue", "post_spawn", "pre_execute", "post_execute_in_worker", "post_execute", "pre_exit")


@contextlib.contextmanager
def received(name):
    """Collect what a signal says."""
    got = []

    def receive(sender, signal, **arguments):
        got.append((sender, arguments))

    getattr(signals, name).connect(receive)
    try:
        yield got
    finally:
        getattr(signals, name).disconnect(receive)


# ------------------------------------------------------------------------------------------------- hooks


@pytest.mark.parametrize("hook", [functions.hook, "tests.functions.common.hook"])
def test_hook_gets_the_finished_task(hook):
    id = async_task(functions.multiply, 6, 7, hook=hook, group="g")
    drain()
    assert functions.seen == [(id, True, 42)]
    finished = fetch(id)
    assert finished.hook == "tests.functions.common.hook"
    # It is a task of its own, and not one of the group.
    assert finished.group_count() == 1


def test_hook_of_a_failure_is_called_when_it_is_final():
    id = async_task(functions.fail, "loudly", hook=functions.hook, max_attempts=2)
    drain(due=True)
    [(hooked, success, text)] = functions.seen
    assert (hooked, success) == (id, False)
    assert text.startswith("loudly : Traceback")


def test_hook_that_fails_is_seen_and_never_touches_the_result():
    id = async_task(functions.multiply, 6, 7, hook=functions.broken_hook)
    drain()
    finished = fetch(id)
    assert (finished.success, finished.result) == (True, 42)
    [failure] = Failure.objects.all()
    assert failure.func == "tests.functions.common.broken_hook"
    assert failure.message == "the hook is broken"


def test_hook_is_called_though_nothing_is_saved():
    id = async_task(functions.multiply, 6, 7, hook=functions.hook, save=False)
    drain()
    assert functions.seen == [(id, True, 42)]
    assert fetch(id) is None
    with override_settings(PGQ={"save_limit": -1}):
        async_task(functions.multiply, 1, 1, hook=functions.hook)
        drain()
    assert len(functions.seen) == 2


def test_hook_that_is_not_there_is_refused_when_enqueued():
    with pytest.raises(UnknownFunction, match="hook"):
        async_task(functions.nothing, hook="tests.functions.common.nowhere")
    with pytest.raises(UnknownFunction, match="hook"):
        async_task(functions.nothing, hook=lambda task: None)


def test_hook_may_be_a_method_of_a_class():
    async_task(functions.multiply, 1, 1, hook="tests.functions.common.Sums.add")
    assert enqueued()[0].hook == "tests.functions.common.Sums.add"


def test_saving_a_task_calls_no_hook():
    id = async_task(functions.multiply, 6, 7, hook=functions.hook)
    drain()
    fetch(id).save()
    drain()
    assert len(functions.seen) == 1


def test_hook_may_enqueue():
    async_task(functions.multiply, 6, 7, hook=enqueue_more)
    assert [ran.result for ran in drain()] == [42, None, 84]


def enqueue_more(task):
    async_task(functions.multiply, task.result, 2)


# ------------------------------------------------------------------------------------------------- signals


def test_signals_there_are():
    assert all(hasattr(signals, name) for name in SIGNALS)


def test_pre_enqueue():
    with received("pre_enqueue") as got:
        id = async_task(functions.multiply, 6, 7, task_name="n", group="g")
    [(sender, arguments)] = got
    assert sender == signals.SENDER == "pgq"
    task = arguments["task"]
    assert (task["id"], task["name"], task["func"], task["group"]) == (
        id, "n", "tests.functions.common.multiply", "g",
    )  # fmt: skip
    assert abs(task["started"] - timezone.now()) < timedelta(seconds=60)


def test_pre_enqueue_sees_the_four_words():
    with received("pre_enqueue") as got:
        id = async_task(functions.nothing)
    drain()
    assert got[0][1]["task"]["name"] == fetch(id).name


def test_pre_execute_gets_function_and_task():
    with received("pre_execute") as got:
        id = async_task(functions.multiply, 6, y=7)
        assert got == []
        drain()
    [(_, arguments)] = got
    assert arguments["func"] is functions.multiply
    task = arguments["task"]
    assert (task["id"], task["args"], task["kwargs"], task["attempt"]) == (id, (6,), {"y": 7}, 1)
    assert task["name"] == fetch(id).name
    assert task["started"] == fetch(id).enqueued_at


def test_post_execute_in_worker_knows_the_result():
    with received("post_execute_in_worker") as got:
        async_task(functions.multiply, 6, 7)
        async_task(functions.fail)
        drain()
    (_, good), (_, bad) = got
    assert (good["task"]["success"], good["task"]["result"]) == (True, 42)
    assert bad["func"] is functions.fail
    assert bad["task"]["success"] is False


def test_post_execute_comes_after_the_result_is_there():
    looked = []

    def receive(sender, task, **kwargs):
        looked.append((task["success"], result(task["id"]) == task["result"]))

    signals.post_execute.connect(receive)
    try:
        async_task(functions.multiply, 6, 7)
        async_task(functions.fail)
        drain()
    finally:
        signals.post_execute.disconnect(receive)
    assert looked == [(True, True), (False, True)]


def test_post_execute_knows_the_call_and_when_it_ended():
    with received("post_execute") as got:
        id = async_task(functions.multiply, 6, y=7)
        drain()
    [(_, arguments)] = got
    task = arguments["task"]
    assert (task["args"], task["kwargs"]) == ((6,), {"y": 7})
    assert task["started"] == fetch(id).enqueued_at
    assert abs(task["stopped"] - timezone.now()) < timedelta(seconds=60)


def test_post_execute_of_a_row_whose_arguments_are_none_harms_nobody():
    """Compressed by hand, what should be args and kwargs may be two numbers."""
    packed = base64.b64encode(zlib.compress(b"[5, 5]")).decode()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgq_queue (func, args) VALUES ('tests.functions.common.registered', %s)",
            (f'[{{"$zlib": "{packed}"}}]',),
        )
    with received("post_execute") as got:
        [ran] = drain()
    assert ran.state == "parked"
    [described] = got[0][1]["task"]["args"]
    assert described.startswith("<compressed ")


@pytest.mark.parametrize("name", ["pre_enqueue", "pre_execute", "post_execute_in_worker", "post_execute"])
def test_receiver_that_raises_harms_nobody(name, caplog):
    def receive(sender, **kwargs):
        raise TaskError("the receiver is broken")

    getattr(signals, name).connect(receive)
    try:
        id = async_task(functions.multiply, 6, 7)
        drain()
    finally:
        getattr(signals, name).disconnect(receive)
    assert result(id) == 42
    assert "the receiver is broken" in caplog.text
    assert Task.objects.filter(success=False).count() == 0
