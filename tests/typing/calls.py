"""Right and wrong calls of tasks. Type checkers refuse just the lines marked so; `test_typing.py` runs them."""

from __future__ import annotations

from typing import Any, assert_type

from pgq import task
from pgq.models import Schedule
from pgq.tasks import TaskCall, TaskId, async_task
from pgq.tasks import task as same_task


@task
def plain(a: int, b: str = "") -> float:
    return a + len(b)


@task(queue="mail", backoff=[1, 2])
def by_name(a: int, *, loud: bool = False) -> int:
    return a


@task
async def later(a: int) -> bytes:
    return bytes(a)


@task(takes_context=True)
def with_context(context: Any, a: int) -> int:
    return a


@task(takes_context=True)
async def later_with_context(context: Any, a: int, b: str = "") -> str:
    return b


@task
def none() -> None:
    """Take nothing."""


@task
def three(a: int, b: str, c: list[int]) -> None:
    """Take three."""


@task
def any_number(*numbers: int) -> None:
    """Take any number."""


@same_task(max_attempts=3)
def untyped(a, b=1):  # type: ignore[no-untyped-def]
    return a


@task(backof=3)  # refused
def with_wrong_option() -> None:
    """Take nothing."""


def enqueue() -> None:
    assert_type(plain.enqueue(1), TaskId[float])
    assert_type(plain.enqueue(1, b="two").result(), float | None)
    assert_type(later.enqueue(1).result(wait=10), bytes | None)
    plain.enqueue(1, "two")
    plain.enqueue("one")  # refused
    plain.enqueue()  # refused
    plain.enqueue(1, "two", 3)  # refused
    plain.enqueue(1, c=2)  # refused
    plain.enqueue(1, b=2)  # refused
    by_name.enqueue(1, loud=True)
    by_name.enqueue(1, True)  # refused
    none.enqueue()
    none.enqueue(1)  # refused
    later.enqueue(1)
    later.enqueue("one")  # refused
    any_number.enqueue(1, 2, 3)
    any_number.enqueue(1, "two")  # refused
    untyped.enqueue(1, b=2)
    plain.delay(1)
    plain.delay("one")  # refused
    assert_type(async_task(plain, 1), TaskId[Any])


def context() -> None:
    assert_type(with_context.enqueue(1), TaskId[int])
    with_context.enqueue("one")  # refused
    with_context.enqueue(None, 1)  # refused
    later_with_context.enqueue(1, b="two")
    later_with_context.enqueue(1, b=2)  # refused
    later_with_context.delay(None, 1, "two")  # refused
    with_context(None, 1)
    with_context(1)  # refused
    with_context.using(priority=1).enqueue(1)
    with_context.using(priority=1).enqueue(None, 1)  # refused


def here() -> None:
    assert_type(plain(1), float)
    assert_type(with_context(None, 1), int)
    plain("one")  # refused


async def awaiting() -> None:
    assert_type(await later(1), bytes)
    assert_type(await later.aenqueue(1), TaskId[bytes])
    assert_type(await plain.using(priority=1).aenqueue(1), TaskId[float])
    await plain.aenqueue("one")  # refused
    await later.aenqueue()  # refused
    await with_context.aenqueue(None, 1)  # refused
    assert_type(await plain.aenqueue_many([(1, "two")]), list[TaskId[float]])
    await plain.aenqueue_many([("one",)])  # refused


def using() -> None:
    plain.using(priority=5, run_after=60, queue_name="mail", backoff=None, retry_on=[ValueError, OSError]).enqueue(1)
    plain.using(priority=None).using(timeout=3).enqueue(1, b="two")
    plain.using(priority=5).enqueue("one")  # refused
    plain.using(priority=5).delay()  # refused
    plain.using(prioritty=5).enqueue(1)  # refused
    plain.using(priority="high").enqueue(1)  # refused
    plain.using(run_after="tomorrow")  # refused
    later.using(priority=5).enqueue("one")  # refused


def calls() -> None:
    call: TaskCall[..., float] = plain.call_of(1)
    plain.enqueue_many([call])
    plain.call_of("one")  # refused
    plain.using(priority=5).call_of(b="two")  # refused


def many() -> None:
    assert_type(plain.enqueue_many([(1, "two"), (3, "four")]), list[TaskId[float]])
    plain.enqueue_many([(1,), (2,)], priority=5, then="app.tasks.done", chunk=100)
    plain.enqueue_many([1, 2])
    plain.enqueue_many((number, str(number)) for number in range(3))
    plain.enqueue_many([{"a": 1}, {"a": 1, "b": "two"}])
    plain.enqueue_many([plain.call_of(1), plain.call_of(2, "three")])
    plain.enqueue_many(["one", "two"])  # refused
    plain.enqueue_many([("one", "two")])  # refused
    plain.enqueue_many([(1, "two", 3)])  # refused
    plain.enqueue_many([later.call_of(1)])  # refused
    plain.enqueue_many([plain.call_of("one")])  # refused
    plain.enqueue_many([1], prioritty=5)  # refused
    plain.enqueue_many(1)  # refused
    by_name.enqueue_many([1, 2])
    by_name.enqueue_many([(1, True)])  # refused
    none.enqueue_many([(), ()])
    none.enqueue_many([1])  # refused
    three.enqueue_many([(1, "two", [3])])
    three.enqueue_many([(1, "two", ["three"])])  # refused
    three.enqueue_many([(1, "two")])  # refused
    any_number.enqueue_many([(1, 2), (3, 4)])
    with_context.enqueue_many([1, 2])
    with_context.enqueue_many([(None, 1)])  # refused
    later.using(priority=5).enqueue_many([1, 2])
    later.using(priority=5).enqueue_many(["one"])  # refused
    untyped.enqueue_many([(1, 2), (3, 4)])


def schedules() -> None:
    assert_type(plain.schedule(cron="0 3 * * *", name="nightly", args=(1,)), Schedule)
    plain.using(timeout=5).schedule(minutes=5, args=[1], kwargs={"b": "two"}, task_name="every", queue="mail")
    plain.schedule(corn="0 3 * * *")  # refused
    plain.schedule(minutes="5")  # refused
    plain.schedule(minutes=5, prioritty=1)  # refused


def django() -> None:
    assert_type((plain.name, plain.module_path, plain.priority), tuple[str, str, int])
    assert_type((plain.queue_name, plain.takes_context), tuple[str, bool])
