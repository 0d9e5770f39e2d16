"""The context of a task, without a pool: what it knows, what it says, and that wrong words do no harm."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from django.db import connection
from django.test import override_settings
from django.utils.translation import gettext_lazy

from pgq.errors import EnqueueError
from pgq.execution import context as contexts
from pgq.models import Progress, QueuedTask, Task
from pgq.signals import pre_execute
from pgq.tasks import async_task, current_task, fetch, retry, task
from pgq.testing import drain, inline
from tests.functions import context as functions

pytestmark = pytest.mark.django_db

SAY = functions.say_all


def messages(id: str) -> list[str]:
    progress = Progress.of(id)
    return [] if progress is None else [line["message"] for line in progress.log]


# ------------------------------------------------------------------------------------------------- what it knows


def test_the_first_argument_is_the_context():
    id = functions.describe.using(queue="mail", timeout=60, max_attempts=4).enqueue("a", upper=True)
    with override_settings(PGQ={"queues": ["mail"]}):
        [ran] = drain()
    found = ran.result
    assert found.pop("enqueued_at") == fetch(id).enqueued_at
    assert abs(found.pop("deadline") - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=30)
    assert found == {
        "id": id, "attempt": 1, "max_attempts": 4, "func": "tests.functions.context.describe", "queue": "mail",
        "cancelled": False, "task_result": None, "key": "A",
    }  # fmt: skip


def test_without_a_timeout_there_is_no_deadline_and_times_are_aware():
    with override_settings(USE_TZ=False):
        functions.describe.using(timeout=-1).enqueue("a")
        [ran] = drain()
    assert ran.result["deadline"] is None
    assert ran.result["enqueued_at"].tzinfo is not None


def test_inline_and_sync_and_coroutines_have_one_too():
    with inline():
        id = functions.describe.enqueue("a")
    assert fetch(id).result["id"] == id
    id = async_task("tests.functions.context.adescribe", sync=True)
    assert fetch(id).result == (id, True)
    id = functions.adescribe.enqueue()
    assert drain()[0].result == (id, True)


def test_a_row_of_psql_has_one_too():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pgq_enqueue('tests.functions.context.two_attempts', max_attempts => 2)")
        [id] = cursor.fetchone()
    assert [ran.state for ran in drain(due=True)] == ["retried", "succeeded"]
    assert messages(id.hex) == ["attempt 1 begins", "attempt 2 begins", "done"]


def test_current_task_is_the_context_also_of_a_function_that_takes_none():
    assert current_task() is None
    id = async_task(functions.ask)
    [ran] = drain()
    assert ran.result == (id, 1, True)
    assert ran.progress == (1, None, None)
    assert fetch(id).progress.done == 1
    assert current_task() is None


def test_receivers_are_told_of_the_arguments_without_the_context():
    told = []
    receiver = lambda func, task, **_: told.append(task["args"])  # noqa: E731
    pre_execute.connect(receiver)
    try:
        functions.describe.enqueue("a")
        drain()
    finally:
        pre_execute.disconnect(receiver)
    assert told == [("a",)]


@pytest.mark.parametrize(
    "func", [lambda: None, lambda ctx: None, lambda *context: None, lambda a, context: None, lambda *, context: None]
)
def test_a_first_argument_of_another_name_is_refused(func):
    func.__qualname__ = "wrong"
    with pytest.raises(EnqueueError, match=r"^takes_context: the first argument of wrong must be named 'context'"):
        task(takes_context=True)(func)


def test_the_guard_notes_that_a_task_is_cancelled(monkeypatch):
    monkeypatch.setattr(contexts._Cancelled, "most", 2)
    seen = []

    def look() -> None:
        from pgq.execution.call import running_claim

        before = current_task().cancelled
        claim = running_claim()
        for other in (claim._replace(receipt=claim.id), claim):
            contexts.note_cancelled(other)
            seen.append((before, current_task().cancelled))

    monkeypatch.setattr(functions, "ask", look)
    async_task("tests.functions.context.ask")
    assert drain()[0].state == "succeeded"
    assert seen == [(False, False), (False, True)]
    # No more than so many are remembered.
    assert len(contexts._Cancelled.claims) <= 2


# ------------------------------------------------------------------------------------------------- what it says


def test_lines_add_up_over_attempts_and_the_last_word_stays():
    id = functions.two_attempts.enqueue()
    first, second = drain(due=True)
    assert (first.progress, first.log) == ((1, 2, "counting"), ("attempt 1 begins",))
    assert (second.progress, second.log) == ((2, 2, "counting"), ("attempt 2 begins", "done"))
    progress = fetch(id).progress
    assert (progress.done, progress.total, progress.text, progress.fraction) == (2, 2, "counting", 1)
    assert [(line["level"], line["attempt"], line["message"]) for line in progress.log] == [
        ("INFO", 1, "attempt 1 begins"),
        ("INFO", 2, "attempt 2 begins"),
        ("WARNING", 2, "done"),
    ]
    assert datetime.fromisoformat(progress.log[0]["at"]).tzinfo is not None


def test_a_failed_attempt_of_an_atomic_task_keeps_its_lines():
    id = functions.two_atomic_attempts.enqueue()
    assert [ran.state for ran in drain(due=True)] == ["retried", "succeeded"]
    assert messages(id) == ["attempt 1", "attempt 2"]
    assert Progress.of(id).done == 2


def test_one_that_fails_for_good_keeps_them_and_so_does_one_that_is_run_again():
    id = async_task(SAY, [("info", ["once"]), ("nothing", [])])
    drain()
    assert fetch(id).success is False
    assert messages(id) == ["once"]
    assert retry(id)
    assert QueuedTask.objects.get().progress.log == Progress.of(id).log
    drain()
    assert messages(id) == ["once", "once"]


def test_a_result_that_is_not_kept_leaves_nothing():
    async_task(SAY, [("info", ["x"])], save=False)
    assert [ran.log for ran in drain()] == [("x",)]
    assert not Progress.objects.exists()


def test_a_task_that_says_nothing_leaves_no_row_and_what_is_said_later_is_not_kept():
    functions.describe.enqueue("a")
    functions.keep_context.enqueue()
    drain()
    context = functions.kept.pop()
    context.progress(2)
    context.log.info("late")
    assert (contexts.last_progress(context), contexts.messages(context)) == ((1, None, None), [])
    assert Progress.objects.get().task == context.id


def test_lines_go_to_the_logger_too(caplog):
    caplog.set_level(logging.INFO, "pgq.task")
    id = async_task(SAY, [("debug", ["hidden"]), ("info", ["%s of %d", "one", 2])])
    drain()
    [record] = [record for record in caplog.records if record.name == "pgq.task"]
    assert (record.getMessage(), record.task_id, record.attempt) == ("one of 2", id, 1)
    assert (record.msg, record.funcName) == ("%s of %d", "say_all")
    assert messages(id) == ["one of 2"]
    # INFO is kept though the logger does not take it; DEBUG only if it does.
    caplog.clear()
    caplog.set_level(logging.ERROR, "pgq.task")
    assert [ran.log for ran in _say([("debug", ["d"]), ("info", ["i"])])] == [("i",)]
    assert not [record for record in caplog.records if record.name == "pgq.task"]
    caplog.set_level(logging.DEBUG, "pgq.task")
    assert [ran.log for ran in _say([("debug", ["d"])])] == [("d",)]


def _say(says):
    async_task(SAY, says)
    return drain()


def test_the_traceback_of_an_exception_is_kept(monkeypatch):
    def fail(context: contexts.Context) -> None:
        try:
            raise ValueError("inner")
        except ValueError as error:
            context.log.exception("it failed")
            context.log.error("it %s", "did", exc_info=error)
            context.log.warning("no", exc_info=(None, None, None))

    monkeypatch.setattr(functions, "ask", lambda: fail(current_task()))
    async_task("tests.functions.context.ask")
    first, second, third = drain()[0].log
    assert first.startswith("it failed\nTraceback")
    assert first.endswith("ValueError: inner")
    assert second.startswith("it did\nTraceback")
    assert third == "no"


# ------------------------------------------------------------------------------------------------- wrong words


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("5",), "TypeError: progress: done must be a number, got '5'"),
        ((None,), "TypeError: progress: done must be a number, got None"),
        ((True,), "TypeError: progress: done must be a number, got True"),
        ((1j,), "TypeError: progress: done must be a number, got 1j"),
        ((Unspeakable(),), "TypeError: progress: done must be a number, got a value of type Unspeakable"),
        ((float("nan"),), "ValueError: progress: done must be from 0 on and finite, got nan"),
        ((-1,), "ValueError: progress: done must be from 0 on and finite, got -1"),
        ((1, float("inf")), "ValueError: progress: total must be from 0 on and finite, got inf"),
        ((10**5000,), "ValueError: progress: done must be from 0 on and finite, got a value of type int"),
        ((Decimal("sNaN"),), "ValueError: progress: done must be from 0 on and finite, got Decimal('sNaN')"),
        ((1, 2, 3), "TypeError: progress: text must be a text or None, got 3"),
        ((1, 2, b"x"), "TypeError: progress: text must be a text or None, got b'x'"),
    ],
    ids=map(str, range(12)),
)
def test_what_is_no_progress_is_refused_where_it_is_said(args, error, monkeypatch):
    monkeypatch.setattr(functions, "ask", lambda: current_task().progress(*args))
    async_task("tests.functions.context.ask")
    [ran] = drain()
    assert f"{type(ran.error).__name__}: {ran.error}" == error
    assert not Progress.objects.exists()


@pytest.mark.parametrize(
    ("args", "kept", "fraction"),
    [
        ((0,), (0, None, None), None),
        ((0, 0), (0, 0, None), None),
        ((7, 5), (7, 5, None), 1),
        ((Decimal("0.5"), Fraction(2)), (0.5, 2, None), 0.25),
        ((1e-300, 1e300), (1e-300, 1e300, None), 0),
        ((1, 4, "NUL \0 and half \ud800 a pair"), (1, 4, "NUL � and half � a pair"), 0.25),
        ((1, 4, gettext_lazy("later")), (1, 4, "later"), 0.25),
    ],
    ids=map(str, range(7)),
)
def test_what_is_unusual_is_kept(args, kept, fraction, monkeypatch):
    monkeypatch.setattr(functions, "ask", lambda: current_task().progress(*args))
    id = async_task("tests.functions.context.ask")
    assert drain()[0].state == "succeeded"
    progress = Progress.of(id)
    assert (progress.done, progress.total, progress.text) == kept
    assert progress.fraction == fraction


def test_what_is_too_long_is_cut_and_the_newest_lines_stay(monkeypatch):
    def talk() -> None:
        context = current_task()
        context.progress(1, 2, "x" * 1_000_000)
        for number in range(1000):
            context.log.info("%d " + "€" * 20_000, number)

    monkeypatch.setattr(functions, "ask", talk)
    id = async_task("tests.functions.context.ask")
    [ran] = drain()
    assert len(ran.log) == 200
    progress = Progress.of(id)
    assert len(progress.text) == 500
    assert progress.log[-1]["message"].startswith("999 ")
    assert max(len(line["message"]) for line in progress.log) == 4000
    assert 4 <= len(progress.log) <= 6
    assert len(json.dumps(progress.log, ensure_ascii=False).encode()) <= 65_536


def test_what_does_not_fit_a_format_is_kept_as_it_is(monkeypatch, caplog):
    # logging itself would raise it in a test.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def talk() -> None:
        log = current_task().log
        log.info("%d", "x")
        log.info(Unspeakable())
        log.info("%(a)s", {"a": "by name"})
        log.info("NUL \0, \ud800")
        log.info({"no": "text"})
        with pytest.raises(TypeError, match="level must be an int"):
            log.log("INFO", "x")

    monkeypatch.setattr(functions, "ask", talk)
    caplog.set_level(logging.ERROR, "pgq.task")
    id = async_task("tests.functions.context.ask")
    assert drain()[0].error is None
    wrong, unspeakable, *others = messages(id)
    assert wrong.startswith("'%d' with ('x',) (TypeError: ")
    assert unspeakable.startswith("a value of type Unspeakable with ()")
    assert others == ["by name", "NUL �, �", "{'no': 'text'}"]


def test_a_task_does_not_fail_for_what_it_said(caplog):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE pgq_progress ADD CHECK (text <> 'refused')")
    id = async_task(SAY, [("progress", [1, 2, "refused"]), ("info", ["x"])])
    atomic = functions.two_atomic_attempts.enqueue()
    assert [ran.state for ran in drain(due=True)] == ["succeeded", "retried", "succeeded"]
    assert fetch(id).success
    assert Progress.of(id) is None
    assert "what 1 tasks said of their progress is not kept" in caplog.text
    assert messages(atomic) == ["attempt 1", "attempt 2"]


def test_an_id_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not by 'name'"):
        Progress.of("name")
    assert Task(id="0" * 32).progress is None


# ------------------------------------------------------------------------------------------------- django.tasks
