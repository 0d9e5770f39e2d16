"""Retries, backoff, Retry, Discard; cancel, pause, resume, retry."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import override_settings
from django.utils import timezone

from pgq.models import Lane, Task
from pgq.tasks import async_chain, async_task, cancel, enqueue_many, fetch, pause, result, resume, retry
from pgq.testing import drain, enqueued
from tests.app.models import Note
from tests.functions import common as functions

pytestmark = pytest.mark.django_db


def delay():
    """Seconds until the next attempt of the only task."""
    return (enqueued()[0].run_after - timezone.now()).total_seconds()


# ------------------------------------------------------------------------------------------------- attempts


def test_default_is_one_attempt():
    id = async_task(functions.fail)
    [ran] = drain(due=True)
    assert (ran.state, fetch(id).attempt_count) == ("failed", 1)


def test_max_attempts_of_a_task():
    id = async_task(functions.fail, max_attempts=3)
    assert [ran.state for ran in drain(due=True)] == ["retried", "retried", "failed"]
    finished = fetch(id)
    assert (finished.attempt_count, finished.success) == (3, False)
    assert [entry["attempt"] for entry in finished.history] == [1, 2]
    assert finished.history[0]["message"] == "on purpose"


def test_max_attempts_of_the_settings():
    with override_settings(PGQ={"max_attempts": 2}):
        async_task(functions.fail)
    assert len(drain(due=True)) == 2


def test_max_attempts_zero_has_no_limit():
    id = async_task(functions.fail_first, 6, max_attempts=0, retry_backoff=0)
    ran = drain(due=True)
    assert [one.state for one in ran] == ["retried"] * 6 + ["succeeded"]
    assert (result(id), fetch(id).attempt_count) == (7, 7)


def test_what_a_failed_attempt_wrote_stays_unless_the_task_is_atomic():
    async_task(functions.note_and_fail, "x", max_attempts=2)
    drain(due=True)
    assert Note.objects.count() == 2
    async_task(functions.note_and_fail_atomically, "y", max_attempts=2)
    drain(due=True)
    assert Note.objects.count() == 2


def test_system_exit_is_a_failure():
    id = async_task(functions.leave, 0)
    drain()
    assert fetch(id).exception == "builtins.SystemExit"


# ------------------------------------------------------------------------------------------------- backoff


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (7, (7, 7)),
        ([1, 20], (1, 20, 20)),
        ({"kind": "linear", "base": 10}, (10, 20, 30)),
        ({"kind": "exponential", "base": 10, "factor": 3, "max": 50}, (10, 30, 50)),
        (functions.backoff, (100, 200)),
    ],
)
def test_backoff(policy, delays):
    async_task(functions.fail, max_attempts=0, retry_backoff=policy)
    for number, seconds in enumerate(delays):
        drain(limit=1) if number == 0 else _run_next()
        assert delay() == pytest.approx(seconds, abs=2)


def _run_next():
    retry(enqueued()[0].id)
    drain(limit=1)


def test_backoff_of_the_settings():
    with override_settings(PGQ={"retry_backoff": 50, "max_attempts": 2}):
        async_task(functions.fail)
        drain()
    assert delay() == pytest.approx(50, abs=2)


def test_retry_on_and_no_retry_on():
    for options, attempts in (
        ({"retry_on": [functions.TaskError]}, 3),
        ({"retry_on": ["builtins.ValueError"]}, 1),
        ({"no_retry_on": [functions.TaskError]}, 1),
        ({"no_retry_on": ["builtins.ValueError"]}, 3),
        ({"retry_on": [Exception]}, 3),
    ):
        id = async_task(functions.fail, max_attempts=3, **options)
        drain(due=True)
        assert fetch(id).attempt_count == attempts, options


def test_task_raises_retry():
    id = async_task(functions.ask_again, 30, max_attempts=2)
    drain()
    assert delay() == pytest.approx(30, abs=2)
    drain(due=True)
    assert fetch(id).exception == "pgq.errors.Retry"


def test_task_raises_discard():
    id = async_task(functions.discard, max_attempts=0)
    assert [ran.state for ran in drain(due=True)] == ["failed"]
    assert fetch(id).message == "no use"


def test_decorator_fixes_options_and_a_call_may_change_them():
    functions.configured.enqueue(1)
    functions.configured.using(queue="other", priority=1).enqueue(2)
    async_task(functions.configured, 3, max_attempts=9)
    first, second, third = enqueued()
    assert (first.queue, first.priority, first.max_attempts, first.timeout) == ("mail", 5, 3, 30.0)
    assert (second.queue, second.priority, second.max_attempts) == ("other", 1, 3)
    assert (third.queue, third.max_attempts) == ("mail", 9)
    assert first.options == {"backoff": [1, 2]}
    assert functions.configured(1) == 2


# ------------------------------------------------------------------------------------------------- control


def test_cancel_queued():
    id = async_task(functions.note, "x", hook=functions.hook)
    assert cancel(id) == "queued"
    drain()
    finished = fetch(id)
    assert (finished.success, finished.exception) == (False, "pgq.errors.TaskCancelled")
    # It did not run, and its hook has heard of it.
    assert [entry[:2] for entry in functions.seen] == [(id, False)]
    assert finished.attempt_count == 0


def test_cancel_waiting():
    id = async_task(functions.note, "x", run_after=3600)
    assert cancel(id) == "queued"
    drain()
    assert fetch(id).success is False


def test_cancel_too_late_or_unknown():
    id = async_task(functions.nothing)
    drain()
    assert cancel(id) == "finished"
    assert cancel("0" * 32) == "unknown"
    with pytest.raises(ValueError, match="task_id: must be an id"):
        cancel("name")


def test_cancelled_link_ends_the_chain():
    async_chain([functions.nothing, (functions.note, ("x",))])
    cancel(enqueued()[0].id)
    drain()
    assert functions.seen == []


def test_pause_and_resume():
    async_task(functions.note, "a", queue="mail")
    async_task(functions.note, "b")
    pause("mail")
    drain()
    assert functions.seen == ["b"]
    assert Lane.objects.filter(queue="mail", paused=True).exists()
    resume("mail")
    drain()
    assert functions.seen == ["b", "a"]


def test_retry_runs_a_failure_again_under_its_id_and_keeps_its_history():
    id = async_task(functions.fail, "first", task_name="n", group="g")
    drain()
    assert retry(id) is True
    assert Task.objects.count() == 0
    drain()
    finished = fetch(id)
    assert (finished.name, finished.group, finished.success) == ("n", "g", False)
    assert [entry["message"] for entry in finished.history] == ["first"]


def test_retry_runs_a_success_again():
    id = async_task(functions.note, "x")
    drain()
    assert retry(id) is True
    drain()
    assert functions.seen == ["x", "x"]
    assert fetch(id).success


def test_retry_releases_what_waits_and_what_is_parked():
    waiting = async_task(functions.note, "x", run_after=timedelta(hours=1))
    assert retry(waiting) is True
    drain()
    assert functions.seen == ["x"]
    assert retry("0" * 32) is False


def test_enqueue_many():
    ids = enqueue_many(functions.multiply, [(1, 2), {"x": 3, "y": 4}], group="g", then=functions.hello)
    assert len(ids) == 2
    drain()
    assert [result(id) for id in ids] == [2, 12]
    assert Task.objects.get(func="tests.functions.common.hello").result == "hello g"
