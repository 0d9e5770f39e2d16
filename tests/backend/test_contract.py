"""What Django's tests of its own backends hold them to, held against PgqBackend; tasks run in `drain`."""

from __future__ import annotations

import inspect
import logging
import sys
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SuspiciousOperation
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from pgq.backend import PgqBackend
from pgq.errors import NotStorable
from pgq.models import QueuedTask, Task
from pgq.signals import post_execute, pre_execute
from pgq.tasks import async_task, cancel, retry
from pgq.testing import drain, enqueued, inline
from tests.app.models import Note
from tests.functions import common
from tests.functions import django_tasks as functions
from tests.support.django_tasks import InvalidTask, Received, backend, base, exceptions, signals, tasks

pytestmark = [pytest.mark.django_db, pytest.mark.smoke]

READY, RUNNING = base.TaskResultStatus.READY, base.TaskResultStatus.RUNNING
FAILED, SUCCESSFUL = base.TaskResultStatus.FAILED, base.TaskResultStatus.SUCCESSFUL


def ran(result):
    """Run all that is ready; return the result as it is then."""
    drain(due=True)
    result.refresh()
    return result


# ------------------------------------------------------------------------------------------------- enqueuing


def test_the_setting_makes_this_backend():
    assert type(tasks.task_backends["default"]) is PgqBackend
    assert functions.nothing.get_backend().alias == "default"
    assert all(getattr(PgqBackend, f"supports_{what}") for what in ("defer", "async_task", "get_result", "priority"))


@pytest.mark.parametrize("name", ["nothing", "nothing_async", "placed"])
def test_enqueue(name):
    task = getattr(functions, name)
    result = task.enqueue(1, two=3)
    assert (result.status, result.is_finished) == (READY, False)
    assert (result.task, result.args, result.kwargs, result.backend) == (task, [1], {"two": 3}, "default")
    assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
    assert (result.attempts, result.errors, result.worker_ids) == (0, [], [])
    with pytest.raises(ValueError, match="Task has not finished yet"):
        result.return_value
    [row] = enqueued(task)
    assert (row.id, row.queue, row.priority) == (result.id, task.queue_name, task.priority)
    assert row.enqueued_at == result.enqueued_at
    # Another look at it is the same result, as a dataclass compares it.
    assert task.get_result(result.id) == result == tasks.default_task_backend.get_result(result.id)


def test_a_coroutine_enqueues_and_reads():
    @async_to_sync
    async def use():
        result = await functions.nothing_async.aenqueue(1, two=3)
        assert await functions.nothing_async.aget_result(result.id) == result
        assert await tasks.default_task_backend.aget_result(result.id) == result
        await result.arefresh()
        return result

    assert use().args == [1]
    assert len(enqueued()) == 1


def test_arguments_come_as_json_has_them():
    result = functions.echo.enqueue((1, (2,)), b"text", x={"a": (3,)}, f=1.5, none=None)
    assert (result.args, result.kwargs) == ([[1, [2]], "text"], {"x": {"a": [3]}, "f": 1.5, "none": None})
    assert functions.echo.get_result(result.id) == result
    assert ran(result).return_value == [result.args, result.kwargs]


@pytest.mark.parametrize("value", [datetime(2030, 1, 1), timedelta(1), {1, 2}, object(), lambda: None, uuid4()])
def test_what_json_has_no_word_for_is_refused_before_the_insert(value):
    for given in ((value,), ([value],)):
        with pytest.raises(TypeError, match="Unsupported type"):
            functions.echo.enqueue(*given)
        with pytest.raises(TypeError, match="Unsupported type"):
            functions.echo.enqueue(x=given)
    assert enqueued() == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "is nan, which JSON cannot store"),
        (float("-inf"), "is -inf, which JSON cannot store"),
        ("a\x00b", "holds a NUL character"),
        ("\ud800", "holds a lone surrogate"),
    ],
)
def test_what_postgresql_has_no_word_for_is_refused_as_well(value, text):
    with pytest.raises(NotStorable, match=rf"args\[1\]\[0\] {text}"):
        functions.echo.enqueue(1, [value])
    with pytest.raises(NotStorable, match=r"kwargs\['x'\]"):
        functions.echo.enqueue(x=value)
    with pytest.raises(NotStorable, match=text):
        functions.echo.get_backend().enqueue_many(functions.echo, [1, value])
    assert enqueued() == []


def test_the_task_is_validated_when_it_is_enqueued():
    task = functions.nothing.using(queue_name="elsewhere")
    with backend(QUEUES=["default"]):
        with pytest.raises(InvalidTask, match="Queue 'elsewhere' is not valid for backend"):
            task.enqueue()
        with pytest.raises(InvalidTask, match="Queue 'elsewhere' is not valid for backend"):
            async_to_sync(task.aenqueue)()
        with pytest.raises(InvalidTask, match="Queue 'elsewhere'"):
            task.get_backend().enqueue_many(task, [1])
    assert enqueued() == []


def test_a_queue_may_match_a_pattern():
    with backend(QUEUES=["default", "mail.*"]):
        for queue in ("default", "mail.", "mail.bulk"):
            functions.nothing.using(queue_name=queue).enqueue()
        with pytest.raises(InvalidTask, match="Queue 'mail' is not valid for backend"):
            functions.nothing.using(queue_name="mail").enqueue()
        assert functions.nothing.get_backend().check() == []
    assert [row.queue for row in enqueued()] == ["default", "mail.", "mail.bulk"]


@pytest.mark.django_db(transaction=True)
def test_enqueuing_is_part_of_the_callers_transaction():
    with transaction.atomic():
        gone = functions.nothing.enqueue()
        assert (gone.status, gone.enqueued_at is not None) == (READY, True)
        assert functions.nothing.get_result(gone.id) == gone
        transaction.set_rollback(True)
    with pytest.raises(exceptions.TaskResultDoesNotExist):
        gone.refresh()
    with transaction.atomic():
        transaction.on_commit(functions.nothing.enqueue)
        assert enqueued() == []
    assert len(enqueued()) == 1


def test_many_calls_are_one_statement(django_assert_max_num_queries):
    task = functions.echo.using(priority=3, queue_name="special")
    with Received() as received, django_assert_max_num_queries(4):
        results = task.get_backend().enqueue_many(task, [1, (2, 3), {"x": 4}])
    assert [(result.args, result.kwargs) for result in results] == [([1], {}), ([2, 3], {}), ([], {"x": 4})]
    assert [task.get_result(result.id) for result in results] == results
    assert {(row.queue, row.priority) for row in enqueued()} == {("special", 3)}
    assert [event[2] for event in received.events] == [result.id for result in results]
    drain()
    assert task.get_result(results[2].id).return_value == [[], {"x": 4}]
    assert task.get_backend().enqueue_many(task, []) == []
    more = async_to_sync(task.get_backend().aenqueue_many)(task.using(run_after=timedelta(hours=1)), [5, 6])
    assert [task.get_result(result.id) for result in more] == more
    with pytest.raises(ValueError, match="calls"):
        task.get_backend().enqueue_many(task, "12")


# ------------------------------------------------------------------------------------------------- later, and where


def test_run_after():
    moment = timezone.now() + timedelta(hours=2)
    result = functions.nothing.using(run_after=moment).enqueue()
    assert enqueued()[0].run_after == moment
    assert result.task.run_after == moment
    assert functions.nothing.get_result(result.id) == result
    assert drain() == []
    # The row forgets the time once it has come; the result does not.
    assert ran(result).status == SUCCESSFUL
    assert functions.nothing.get_result(result.id).task == result.task


def test_run_after_may_be_a_duration():
    before = timezone.now()
    task = functions.nothing.using(run_after=timedelta(minutes=10))
    assert before + timedelta(minutes=10) <= task.run_after <= timezone.now() + timedelta(minutes=10)
    assert functions.nothing.get_result(task.enqueue().id).task == task


def test_a_naive_time_is_refused():
    with pytest.raises(InvalidTask, match="run_after must be an aware datetime"):
        functions.nothing.using(run_after=datetime(2030, 1, 1))


def test_a_naive_time_is_the_projects_without_use_tz():
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin"):
        moment = datetime.now().replace(microsecond=0) + timedelta(days=1)
        result = functions.nothing.using(run_after=moment).enqueue()
        assert functions.nothing.get_result(result.id) == result
        assert result.enqueued_at.tzinfo is None
        assert ran(result).finished_at >= result.started_at >= result.enqueued_at
        assert functions.nothing.get_result(result.id).task.run_after == moment


def test_order_is_priority_then_first_come():
    first = functions.note.enqueue("c")
    functions.note.using(priority=10).enqueue("a")
    functions.note.using(priority=10, run_after=timezone.now() - timedelta(days=1)).enqueue("b")
    functions.note.using(priority=-10).enqueue("d")
    ran(first)
    assert list(Note.objects.order_by("id").values_list("text", flat=True)) == ["a", "b", "c", "d"]


# ------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", ["meaning", "meaning_async"])
def test_success(name):
    result = getattr(functions, name).enqueue()
    with Received() as received:
        ran(result)
    assert (result.status, result.return_value, result.is_finished) == (SUCCESSFUL, "42", True)
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert (result.attempts, len(result.worker_ids), result.errors) == (1, 1, [])
    assert received.events == [
        ("started", PgqBackend, result.id, "RUNNING", None),
        ("finished", PgqBackend, result.id, "SUCCESSFUL", None),
    ]
    told = received.results[1]
    assert (told.return_value, told.attempts, told.finished_at >= told.started_at) == ("42", 1, True)


@pytest.mark.parametrize(
    ("name", "path", "ending"),
    [
        ("fail", "builtins.ValueError", "ValueError: on purpose\n"),
        ("fail_async", "builtins.ValueError", "ValueError: on purpose, on a loop\n"),
        ("leave", "builtins.SystemExit", "SystemExit: leaving\n"),
        ("interrupt", "builtins.KeyboardInterrupt", "KeyboardInterrupt: ^C\n"),
        ("return_lambda", "builtins.TypeError", "\n"),
        ("fail_hard", "builtins.ValueError", ">)\n"),
    ],
)
def test_failure(name, path, ending):
    result = getattr(functions, name).enqueue()
    with Received() as received:
        ran(result)
    assert (result.status, result.attempts) == (FAILED, 1)
    with pytest.raises(ValueError, match="Task failed"):
        result.return_value
    [error] = result.errors
    assert (error.exception_class_path, error.exception_class.__name__) == (path, path.rpartition(".")[2])
    assert error.traceback.endswith(ending)
    assert error.traceback.startswith("Traceback (most recent call last)")
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert [(event[0], event[3], event[4]) for event in received.events] == [
        ("started", "RUNNING", None),
        ("finished", "FAILED", path.rpartition(".")[2]),
    ]
    assert received.results[1].errors == result.errors


def test_a_function_learns_of_its_attempt():
    result = functions.look.enqueue(5)
    assert ran(result).return_value == {
        "attempt": 1,
        "attempts": 1,
        "id": result.id,
        "status": "RUNNING",
        "workers": result.worker_ids,
        "errors": [],
        "args": [5],
    }
    assert ran(functions.look_async.enqueue()).return_value == 1


def test_each_attempt_is_in_the_result():
    with backend(OPTIONS={"max_attempts": 5, "backoff": 3600}):
        result = functions.fail_first.enqueue(2)
        with Received() as received:
            assert [one.state for one in drain()] == ["retried"]
            result.refresh()
            assert (result.status, result.attempts, result.finished_at) == (READY, 1, None)
            assert result.started_at == result.last_attempted_at >= result.enqueued_at
            began = result.started_at
            assert received.names == ["started"]
            ran(result)
    assert (result.status, result.attempts, result.started_at) == (SUCCESSFUL, 3, began)
    assert result.last_attempted_at > began
    assert [error.traceback.splitlines()[-1] for error in result.errors] == [
        "ValueError: attempt 1",
        "ValueError: attempt 2",
    ]
    assert (result.return_value["attempt"], result.return_value["workers"]) == (3, result.worker_ids)
    assert result.return_value["errors"] == ["builtins.ValueError"] * 2
    # An attempt that is followed by another has not finished the task.
    assert received.names == ["started", "started", "started", "finished"]


def test_missing_results():
    for id in ("123", str(uuid4()), uuid4().hex, "x" * 32, "", None):
        with pytest.raises(exceptions.TaskResultDoesNotExist):
            tasks.default_task_backend.get_result(id)
        with pytest.raises(exceptions.TaskResultDoesNotExist):
            async_to_sync(tasks.default_task_backend.aget_result)(id)


def test_the_result_of_another_task():
    result = functions.nothing.enqueue()
    with pytest.raises(exceptions.TaskResultMismatch):
        functions.meaning.get_result(result.id)
    with pytest.raises(exceptions.TaskResultMismatch):
        async_to_sync(functions.meaning.aget_result)(result.id)


def test_a_cancelled_task_has_failed():
    result = functions.nothing.enqueue()
    with Received() as received:
        cancel(result.id)
    result.refresh()
    assert (result.status, result.attempts, result.started_at) == (FAILED, 0, None)
    assert [error.exception_class_path for error in result.errors] == ["pgq.errors.TaskCancelled"]
    assert result.errors[0].traceback == "pgq.errors.TaskCancelled: the task was cancelled\n"
    assert [(event[0], event[3], event[4]) for event in received.events] == [("finished", "FAILED", "TaskCancelled")]
    assert received.results[0].errors == result.errors


def test_a_task_that_is_run_again_keeps_what_was():
    result = ran(functions.fail.enqueue())
    began = result.started_at
    assert retry(result.id)
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (READY, 1, 1)
    ran(result)
    assert (result.status, result.attempts, len(result.errors), result.started_at) == (FAILED, 2, 2, began)


def test_a_parked_row_has_not_finished():
    result = functions.nothing.enqueue()
    QueuedTask.objects.filter(id=result.id).update(parked="a reason")
    result.refresh()
    assert (result.status, result.errors[-1].traceback) == (READY, "pgq.errors.PgqError: a reason\n")
    assert result.errors[-1].exception_class is not None


# ------------------------------------------------------------------------------------------------- logs


def test_logs(caplog):
    logger = tasks.__name__
    with caplog.at_level(logging.DEBUG, logger):
        good, bad = functions.meaning.enqueue(), functions.fail.enqueue()
        assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG"]
        assert good.id in caplog.records[0].getMessage()
        caplog.clear()
        drain()
    of_good = [record for record in caplog.records if record.name == logger and good.id in record.getMessage()]
    of_bad = [record for record in caplog.records if record.name == logger and bad.id in record.getMessage()]
    assert [record.levelname for record in of_good] == ["INFO", "INFO"]
    assert [record.levelname for record in of_bad] == ["INFO", "ERROR"]
    assert "FAILED" in of_bad[1].getMessage()
    assert of_bad[1].exc_info[0] is ValueError
    assert [record.exc_info for record in of_good] == [None, None]
    assert "None" not in "".join(logging.Formatter().format(record) for record in of_good)


def test_a_receiver_that_raises_does_no_harm():
    def broken(**kwargs):
        raise RuntimeError("a broken receiver")

    signals.task_started.connect(broken)
    signals.task_finished.connect(broken)
    try:
        results = [functions.meaning.enqueue(), functions.meaning_async.enqueue(), functions.fail.enqueue()]
        assert [ran(result).status for result in results] == [SUCCESSFUL, SUCCESSFUL, FAILED]
    finally:
        signals.task_started.disconnect(broken)
        signals.task_finished.disconnect(broken)


def test_receivers_of_a_coroutine_may_use_the_orm():
    seen = []

    def receive(task_result, **kwargs):
        seen.append(Note.objects.count())

    signals.task_finished.connect(receive)
    try:
        ran(functions.meaning_async.enqueue())
    finally:
        signals.task_finished.disconnect(receive)
    assert seen == [0]


# ------------------------------------------------------------------------------------------------- here and now


def test_inline_runs_as_djangos_immediate_backend():
    with inline(), Received() as received:
        good = functions.look.enqueue(1)
        assert (good.status, good.return_value["args"], good.attempts) == (SUCCESSFUL, [1], 1)
        assert good.enqueued_at <= good.started_at <= good.finished_at
        bad = functions.fail.enqueue()
        assert (bad.status, bad.errors[0].exception_class) == (FAILED, ValueError)
        with pytest.raises(KeyboardInterrupt):
            functions.interrupt.enqueue()
        assert functions.leave.enqueue().status == FAILED
        later = functions.meaning_async.using(run_after=timedelta(days=1)).enqueue()
        assert (later.status, later.return_value) == (SUCCESSFUL, "42")
        many = functions.echo.get_backend().enqueue_many(functions.echo, [1, 2])
        assert [one.return_value for one in many] == [[[1], {}], [[2], {}]]
    assert received.names[:6] == ["enqueued", "started", "finished"] * 2
    assert [functions.look.get_result(good.id), functions.fail.get_result(bad.id)] == [good, bad]
    assert enqueued() == []


def test_inline_without_use_tz():
    heard: list[dict[str, Any]] = []

    def hear(task: dict[str, Any], **kwargs: Any) -> None:
        heard.append(task)

    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Paris"), inline():
        for signal in (pre_execute, post_execute):
            signal.connect(hear)
        try:
            good = functions.look.enqueue(1)
        finally:
            for signal in (pre_execute, post_execute):
                signal.disconnect(hear)
        assert (good.status, good.return_value["args"]) == (SUCCESSFUL, [1])
        assert good.enqueued_at <= good.started_at <= good.finished_at
        assert [task["started"].tzinfo for task in heard] == [None, None]


def test_inline_in_a_coroutine():
    async def use():
        return await functions.meaning_async.aenqueue()

    with inline():
        assert async_to_sync(use)().return_value == "42"
        assert inspect.iscoroutinefunction(functions.meaning_async.func)


# ------------------------------------------------------------------------------------------------- what a row may name


def insert(func, options="{}"):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO pgq_queue (func, options) VALUES (%s, %s) RETURNING id", [func, options])
        return cursor.fetchone()[0].hex


def test_a_row_from_psql_is_a_task_as_well():
    id = insert("tests.functions.django_tasks.look")
    result = functions.look.get_result(id)
    assert (result.status, result.task, result.backend) == (READY, functions.look, "default")
    with Received() as received:
        assert ran(result).return_value["attempt"] == 1
    assert received.names == ["started", "finished"]


def test_rows_of_pgqs_own_tasks_can_be_read():
    result = tasks.default_task_backend.get_result(common.registered.enqueue(3))
    assert (result.status, result.args, result.task.func) == (READY, [3], common.registered.func)
    drain()
    assert tasks.default_task_backend.get_result(result.id).status == SUCCESSFUL


def test_what_is_no_task_is_refused():
    id = async_task(common.multiply, 2, 3)
    with pytest.raises(SuspiciousOperation, match=r"tests.functions.common.multiply.* is not a task"):
        tasks.default_task_backend.get_result(id)


def test_a_function_that_is_gone():
    result = functions.nothing.enqueue()
    for row, error in (("tests.functions.django_tasks.gone", ImportError), ("tests.functions.gone.f", ImportError)):
        with override_settings(PGQ={"allowed": [row]}):
            QueuedTask.objects.filter(id=result.id).update(func=row)
            with pytest.raises(error, match="gone"):
                result.refresh()


def test_reading_a_row_imports_nothing_that_only_the_row_names():
    sys.modules.pop("tests.functions.late", None)
    id = insert("tests.functions.late.f")
    with pytest.raises(SuspiciousOperation, match="not signed"):
        tasks.default_task_backend.get_result(id)
    assert "tests.functions.late" not in sys.modules
    # Nor may what an unsigned row says of its task be believed.
    stored = '{"django": {"backend": "nowhere", "run_after": "soon", "fields": "{\\"takes_context\\": true}"}}'
    result = tasks.default_task_backend.get_result(insert("tests.functions.django_tasks.meaning", stored))
    assert (result.backend, result.task.run_after, result.task.takes_context) == ("nowhere", None, False)
    assert functions.meaning.get_result(result.id).args == []
    drain()
    assert Task.objects.get(pk=result.id).value == "42"


def test_a_function_in_a_class():
    assert ran(functions.Holder.inside.enqueue(4)).return_value == 8
