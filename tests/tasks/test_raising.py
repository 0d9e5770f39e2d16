"""``raise_error=True``: the caller gets what the task raised, by its type if that can be had."""

from __future__ import annotations

import asyncio
import pickle
import sys
from types import ModuleType

import pytest
from django.core.exceptions import ObjectDoesNotExist, ValidationError

from pgq import tasks, testing
from pgq.errors import Discard, NotFinished, PgqError, Retry, TaskCancelled, TaskFailed
from pgq.models import Task
from pgq.tasks import async_task
from tests.functions import common as functions
from tests.functions.common import TaskError

pytestmark = pytest.mark.django_db


class Declined(Exception):
    """Wants arguments, and says its text by what they have set."""

    made = 0

    def __init__(self, *, code, reason):
        Declined.made += 1
        self.code, self.reason = code, reason

    def __str__(self):
        return f"{self.code}: {self.reason}"


class Watched(Declined):
    """Code runs when a class is derived from it."""

    def __init_subclass__(cls):
        raise AssertionError("a class was derived")


class Outer:
    class Inner(ValueError):
        pass


def fail(which):
    raise {
        "builtin": lambda: ValueError("wrong"),
        "key": lambda: KeyError("x"),
        "os": lambda: FileNotFoundError(2, "No such file", "/x"),
        "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        "own": lambda: TaskError("loudly"),
        "nested": lambda: Outer.Inner("deep"),
        "declined": lambda: Declined(code=7, reason="no money"),
        "watched": lambda: Watched(code=7, reason="no money"),
        "validation": lambda: ValidationError({"name": ["missing"]}),
        "django": lambda: ObjectDoesNotExist("gone"),
        "exit": lambda: SystemExit("bye"),
        "stop": lambda: StopIteration("over"),
        "discard": lambda: Discard("no use"),
        "retry": lambda: Retry(reason="again"),
        "local": local,
    }[which]()


def local():
    class Local(Exception):
        pass

    return Local("hidden")


def caught(which):
    id = async_task(fail, which)
    testing.drain()
    with pytest.raises(Exception) as info:  # noqa: PT011  # which one is what is tested
        tasks.result(id, raise_error=True)
    return info.value


@pytest.mark.parametrize(
    ("which", "kind", "text"),
    [
        ("builtin", ValueError, "wrong"),
        ("key", KeyError, "'x'"),
        ("os", FileNotFoundError, "[Errno 2] No such file: '/x'"),
        ("unicode", UnicodeDecodeError, "'utf-8' codec can't decode byte 0xff in position 0: bad"),
        ("own", TaskError, "loudly"),
        ("nested", Outer.Inner, "deep"),
        ("declined", Declined, "7: no money"),
        ("validation", ValidationError, "{'name': ['missing']}"),
        ("django", ObjectDoesNotExist, "gone"),
    ],
)
def test_by_type(which, kind, text):
    made = Declined.made
    error = caught(which)
    assert isinstance(error, kind)
    assert type(error).__qualname__ == kind.__qualname__
    assert str(error) == text
    assert Declined.made == made + (which == "declined")
    failure = error.__cause__
    assert isinstance(failure, TaskFailed)
    assert failure.message == text
    assert "in fail" in failure.traceback
    assert failure.traceback in failure.__notes__[0]


@pytest.mark.parametrize("which", ["watched", "exit", "stop", "discard", "retry", "local"])
def test_what_cannot_be_raised_again(which):
    error = caught(which)
    assert type(error) is TaskFailed
    assert isinstance(error, PgqError)
    assert error.exception.rpartition(".")[2] in str(error)
    assert error.message in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.task, copy.message, copy.traceback) == (error.task, error.message, error.traceback)


def test_a_row_has_nothing_imported_or_called(monkeypatch):
    lazy = ModuleType("lazy_module")
    asked = []

    def answer(name):
        asked.append(name)
        raise AttributeError(name)

    lazy.__getattr__ = answer
    lazy.not_a_class, lazy.Other = ValueError("x"), int
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    never = "ftplib"
    assert never not in sys.modules
    for path in ("lazy_module.Error", "lazy_module.not_a_class", "lazy_module.Other", "lazy_module",
                 f"{never}.Error", "__main__.Error", "", "x", "builtins.ValueError.mro"):  # fmt: skip
        row = Task.objects.create(func="a.b", success=False, exception=path, message="text", traceback="")
        with pytest.raises(TaskFailed, match="text"):
            tasks.result(row.id, raise_error=True)
        assert "Error" not in asked, path
    assert never not in sys.modules


def test_good_results_and_no_results():
    id = async_task(functions.multiply, 2, 3)
    for wait in (0, 1):
        with pytest.raises(NotFinished) if not wait else pytest.raises(PgqError):
            tasks.result(id, wait, raise_error=True)
    testing.drain()
    assert id.result(raise_error=True) == tasks.result(id, raise_error=True) == 6
    with pytest.raises(TimeoutError, match="has not finished"):
        tasks.result("0" * 32, raise_error=True)


def test_cancelled():
    id = async_task(functions.multiply, 2, 3)
    id.cancel()
    testing.drain()
    with pytest.raises(TaskCancelled):
        id.result(raise_error=True)


@pytest.mark.django_db(transaction=True)
def test_in_a_coroutine():
    from asgiref.sync import sync_to_async
    from django.db import connections

    id = async_task(functions.fail, "loudly")
    testing.drain()

    async def main():
        try:
            for ask in (id.aresult, lambda **given: tasks.aresult(id, wait=60_000, **given)):
                with pytest.raises(TaskError, match="loudly"):
                    await ask(raise_error=True)
            with pytest.raises(NotFinished):
                await tasks.aresult("0" * 32, wait=20, raise_error=True)
        finally:
            await sync_to_async(connections.close_all)()

    asyncio.run(main())
