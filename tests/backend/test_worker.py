"""Tasks of django.tasks in a real pool: in processes, threads and on the loop."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
from django.utils import timezone

from pgq.backend import PgqBackend
from pgq.tasks import async_task, cancel
from tests.functions import django_tasks as functions
from tests.functions import oracle as oracle_tasks
from tests.support.pools import wait_for

pytestmark = pytest.mark.smoke


def finished(*results):
    for result in results:
        result.refresh()
    return all(result.is_finished for result in results)


def outcome(result):
    return str(result.status), result.attempts, [error.exception_class_path for error in result.errors]


@pytest.mark.parametrize("settings", [{"workers": 2}, {"workers": 1, "threads": 3}])
def test_all_kinds_of_tasks(pool, settings):
    patient = PgqBackend("default", {"QUEUES": [], "OPTIONS": {"max_attempts": 3, "backoff": 0}})
    results = {
        "meaning": functions.meaning.enqueue(),
        "async": functions.meaning_async.enqueue(),
        "echo": functions.echo.using(priority=-5, queue_name="elsewhere").enqueue((1, 2), x={"y": None}),
        "look": functions.look.using(run_after=timezone.now() - timedelta(days=1)).enqueue("arg"),
        "look async": functions.look_async.enqueue(),
        "fail": functions.fail.enqueue(),
        "fail async": functions.fail_async.enqueue(),
        "lambda": functions.return_lambda.enqueue(),
        "leave": functions.leave.enqueue(),
        "interrupt": functions.interrupt.enqueue(),
        "retried": patient.enqueue(functions.fail_first, (2,), {}),
        "cancelled": functions.meaning.using(run_after=timedelta(days=1)).enqueue(),
    }
    many = functions.echo.get_backend().enqueue_many(functions.echo, range(20))
    plain = async_task(functions.meaning)
    cancel(results["cancelled"].id)
    running = pool(**settings)
    running.wait_for(lambda: finished(*results.values(), *many), "all tasks have ended")
    good = {"meaning": "42", "async": "42", "echo": [[[1, 2]], {"x": {"y": None}}], "look async": 1}
    for name, value in good.items():
        assert (outcome(results[name]), results[name].return_value) == (("SUCCESSFUL", 1, []), value)
    bad = {"fail": "ValueError", "fail async": "ValueError", "lambda": "TypeError", "leave": "SystemExit"}
    for name, error in {**bad, "interrupt": "KeyboardInterrupt"}.items():
        assert outcome(results[name]) == ("FAILED", 1, [f"builtins.{error}"]), name
    assert outcome(results["cancelled"]) == ("FAILED", 0, ["pgq.errors.TaskCancelled"])
    seen = results["look"].return_value
    assert (seen["attempt"], seen["status"], seen["args"]) == (1, "RUNNING", ["arg"])
    assert seen["workers"] == results["look"].worker_ids
    again = results["retried"]
    assert outcome(again) == ("SUCCESSFUL", 3, ["builtins.ValueError"] * 2)
    assert (again.return_value["attempt"], again.return_value["workers"]) == (3, again.worker_ids)
    assert again.enqueued_at <= again.started_at < again.last_attempted_at <= again.finished_at
    for result in [*results.values(), *many]:
        if result.started_at:
            assert result.enqueued_at <= result.started_at <= result.last_attempted_at <= result.finished_at
    assert [result.return_value[0] for result in many] == [[number] for number in range(20)]
    assert wait_for(lambda: functions.meaning.get_result(plain).is_finished)
    # Whatever the receivers of its signals did in the worker, Django's own among them.
    assert "a receiver of a signal" not in running.log()


def test_a_running_task_and_a_killed_worker(pool, oracle):
    """A worker that is killed has begun an attempt: the next one knows of it."""
    result = functions.sleep.enqueue(30)
    running = pool(workers=1)
    running.wait_for(lambda: result.refresh() or str(result.status) == "RUNNING", "it runs")
    assert (result.attempts, len(result.worker_ids), result.finished_at) == (1, 1, None)
    assert result.enqueued_at <= result.started_at
    [worker] = running.worker_pids()
    oracle_pid = async_task(oracle_tasks.mark, "other")
    os.kill(worker, signal.SIGKILL)
    running.wait_for(lambda: result.refresh() or result.attempts == 2, "it runs again")
    assert outcome(result) == ("RUNNING", 2, ["pgq.errors.WorkerDied"])
    assert result.started_at < result.last_attempted_at
    cancel(result.id)
    running.wait_for(lambda: finished(result), "it was interrupted")
    assert outcome(result) == ("FAILED", 2, ["pgq.errors.WorkerDied", "pgq.errors.TaskCancelled"])
    running.wait_for(lambda: oracle.ends("other") == 1, oracle_pid)


def test_locked_rows_of_others_do_not_stop_a_worker(pool, session):
    held, free = functions.meaning.enqueue(), functions.meaning.enqueue()
    other = session(autocommit=False)
    other.execute("SELECT FROM pgq_queue WHERE id = %s FOR UPDATE", (held.id,))
    running = pool(workers=1)
    running.wait_for(lambda: finished(free), "the other one ran")
    held.refresh()
    assert str(held.status) == "READY"
    other.rollback()
    running.wait_for(lambda: finished(held), "it ran when it was free")
