"""A call that its function cannot take is refused where it is enqueued, by every door; a right one never is."""

from __future__ import annotations

from datetime import timedelta
from unittest import mock

import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from pgq.enqueue import registry
from pgq.enqueue.signature import check_call
from pgq.errors import EnqueueError, WrongCall
from pgq.models import QueuedTask, Schedule
from pgq.tasks import (
    AsyncTask,
    Chain,
    Iter,
    async_chain,
    async_iter,
    async_task,
    enqueue_from,
    enqueue_many,
    fetch,
    schedule,
)
from pgq.testing import drain
from tests.app.models import Note
from tests.functions import common, signatures
from tests.functions.common import multiply

HERE = "tests.functions.signatures"

# ------------------------------------------------------------------------------------------------- what fits

PLAIN = [
    "none", "two", "optional", "by_name", "placed", "open_ended", "half", "unhashable",
    "Klass", "Klass.method", "Klass.of", "Klass.plain", "Made",
]  # fmt: skip
#: What they do with their arguments shows only when they run.
WRAPPERS = ["added", "taken", "Claiming", "Wrapped"]


@pytest.mark.parametrize("name", [*PLAIN, *WRAPPERS])
@given(count=st.integers(0, 4), names=st.sets(st.sampled_from(["x", "y", "loud", "key", "other"])))
@example(count=0, names=set())
@example(count=2, names=set())
def test_what_python_takes_is_taken_and_nothing_else(name, count, names):
    path = f"{HERE}.{name}"
    func = registry.locate(path)
    try:
        func(*(None,) * count, **dict.fromkeys(names))
    except TypeError:
        if name in PLAIN:
            with pytest.raises(WrongCall):
                check_call(path, count, names)
    else:
        check_call(path, count, names)


@pytest.mark.parametrize("path", ["builtins.print", "builtins.int", "builtins.max", "builtins.dict.fromkeys"])
def test_what_is_written_in_c_takes_what_it_takes(path):
    check_call(path, 2)


def test_an_async_function_and_a_mock():
    check_call(f"{HERE}.later", 1)
    with pytest.raises(WrongCall):
        check_call(f"{HERE}.later", 2)
    with mock.patch(f"{HERE}.two"):
        check_call(f"{HERE}.two", 9, ["z"])
    with pytest.raises(WrongCall):
        check_call(f"{HERE}.two", 9, ["z"])


MESSAGES = [
    ("two", 0, (), "args: tests.functions.signatures.two(x, y) needs x and y, which are missing"),
    ("two", 1, (), "args: tests.functions.signatures.two(x, y) needs y, which is missing"),
    ("two", 3, (), "args: tests.functions.signatures.two(x, y) takes 2 positional arguments at most, got 3"),
    ("none", 1, (), "args: tests.functions.signatures.none() takes no positional argument, got 1"),
    ("two", 2, ["y"], "kwargs: tests.functions.signatures.two(x, y) is given y twice, by place and by name"),
    ("optional", 1, ["luod"],
     "kwargs: tests.functions.signatures.optional(x, y=..., *, loud=...) has no argument luod; did you mean loud?"),
    ("by_name", 0, (), "kwargs: tests.functions.signatures.by_name(*, key) needs key, which is missing"),
    ("placed", 0, ["x"], "kwargs: tests.functions.signatures.placed(x, /, y=...) has no argument x"),
    ("with_context", 0, (), "args: tests.functions.signatures.with_context(context, x, y=...) is called with its "
                            "context first, and needs x, which is missing"),
    ("with_context", 3, (), "args: tests.functions.signatures.with_context(context, x, y=...) is called with its "
                            "context first, and takes 2 positional arguments at most besides, got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count", "names", "message"), MESSAGES)
def test_the_message_names_function_signature_and_what_is_wrong(name, count, names, message):
    with pytest.raises(WrongCall) as raised:
        check_call(f"{HERE}.{name}", count, names)
    assert str(raised.value) == message
    assert isinstance(raised.value, EnqueueError)
    assert isinstance(raised.value, TypeError)


# ------------------------------------------------------------------------------------------------- every door


@pytest.fixture
def notes():
    Note.objects.create(text="one")


#: Each enqueues a wrong call of a function of two arguments, or of one that has a wrong call as a part.
DOORS = {
    "async_task": lambda: async_task(multiply, 1),
    "by path": lambda: async_task("tests.functions.common.multiply", 1),
    "by @task": lambda: common.registered.enqueue(1, 2),
    "using": lambda: common.registered.using(priority=1).enqueue(y=1),
    "AsyncTask": lambda: AsyncTask(multiply, 1).run(),
    "sync": lambda: async_task(multiply, 1, sync=True),
    "enqueue_many": lambda: enqueue_many(multiply, [(1, 2), (1, 2, 3)]),
    "enqueue_many by name": lambda: enqueue_many(multiply, [{"x": 1, "y": 2}, {"x": 1, "z": 2}]),
    "enqueue_many in the second chunk": lambda: enqueue_many(multiply, [(1, 2), (1, 2), (1,)], chunk=2),
    "enqueue_many later": lambda: enqueue_many(multiply, [(1, 2), (1,)], run_after=60),
    "then": lambda: enqueue_many(multiply, [(1, 2)], then=multiply),
    "async_iter": lambda: async_iter(multiply, [(1, 2), (1,)]),
    "Iter": lambda: Iter(multiply, [(1,)]).run(),
    "enqueue_from": lambda: enqueue_from(common.registered, Note.objects.all(), ["text", "pk"]),
    "first link": lambda: async_chain([(multiply, (1,)), (multiply, (1, 2))]),
    "later link": lambda: async_chain([(multiply, (1, 2)), (multiply, (1,))]),
    "first link, with results": lambda: async_chain([(multiply, (1,)), (multiply, (2,))], pass_results=True),
    "later link, with results": lambda: async_chain([(multiply, (1, 2)), (multiply, (1, 2))], pass_results=True),
    "Chain": lambda: Chain([(multiply, (1, 2)), (multiply, (1,))]).run(),
    "hook": lambda: async_task(multiply, 1, 2, hook=multiply),
    "hook of many": lambda: enqueue_many(multiply, [(1, 2)], hook=multiply),
    "hook of a link": lambda: async_chain([(multiply, (1, 2)), (multiply, (1, 2), {"hook": multiply})]),
    "schedule": lambda: schedule(multiply, 1, schedule_type="D"),
    "schedule with its slot": lambda: schedule(multiply, 1, 2, schedule_type="D", intended_date_kwarg="when"),
    "hook of a schedule": lambda: schedule(multiply, 1, 2, schedule_type="D", hook=multiply),
}


@pytest.mark.django_db
@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_a_wrong_call_and_writes_nothing(door):
    with pytest.raises(WrongCall, match=r"common\.(multiply|registered)\("):
        DOORS[door]()
    assert (QueuedTask.objects.count(), Schedule.objects.count()) == (0, 0)


@pytest.mark.django_db
def test_the_field_is_the_callers_name_for_what_is_wrong():
    for argument, call in {"hook": DOORS["hook"], "then": DOORS["then"]}.items():
        with pytest.raises(WrongCall) as raised:
            call()
        assert raised.value.field == argument


@pytest.mark.django_db
def test_arguments_that_pgq_gives_are_counted():
    async_chain([(multiply, (2, 3)), (multiply, (4,)), multiply_by_two], pass_results=True)
    async_task(multiply, 1, 2, hook=common.hook)
    enqueue_many(multiply, [(1, 2)], then=common.falsy)
    schedule(common.dated, schedule_type="D", intended_date_kwarg="when", next_run=None)
    schedule(multiply, 1, schedule_type="D", intended_date_kwarg="y")
    async_task(signatures.with_context, 1)
    async_task(signatures.with_context, x=1, y=2)
    async_chain([(multiply, (2, 3)), signatures.with_context], pass_results=True)
    enqueue_many(signatures.with_context, [1, (1, 2), {"x": 1}])
    assert 24 * 2 in [ran.result for ran in drain()]


def multiply_by_two(x):
    return x * 2


@pytest.mark.django_db
@override_settings(PGQ={"max_attempts": 1})
def test_a_wrong_call_from_psql_fails_in_the_worker():
    row = QueuedTask.objects.create(func="tests.functions.common.registered", args=[1, 2, 3])
    [ran] = drain()
    assert (ran.state, type(ran.error)) == ("failed", TypeError)
    assert "takes from 0 to 1 positional arguments" in fetch(row.pk).result


@pytest.mark.django_db
def test_a_schedule_row_of_the_orm_is_free():
    Schedule.objects.create(func="tests.functions.common.registered", args=[1, 2, 3], schedule_type="D")
    assert Schedule.objects.count() == 1


@pytest.mark.django_db
def test_a_task_that_waits_is_looked_at_as_well():
    with pytest.raises(WrongCall):
        async_task(multiply, 1, run_after=timedelta(days=1))
