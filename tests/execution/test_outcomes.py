"""A test helper is no kinder than a worker: what comes of a task is the same whoever runs it.

`outcome_tasks` has the tasks and what must come of each, with what differs by nature and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from pgq import testing
from pgq.models import QueuedTask, Task
from pgq.signals import pre_enqueue
from pgq.tasks import async_task, cancel
from tests.app.models import Note
from tests.functions import outcomes as outcome_tasks
from tests.functions.outcomes import CASES, Case, Outcome
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def enqueue(case: Case, **options: Any) -> str:
    id = async_task(case.func, **{**case.options, **options})
    if case.cancelled:
        cancel(id)
    return id


def outcome(id: str) -> Outcome:
    """What the tables say of a task, and what it has left."""
    wrote = tuple(sorted(note.text.partition(" ")[2] for note in Note.objects.filter(text__startswith=f"{id} ")))
    task = Task.objects.filter(pk=id).first()
    if task is None:
        row = QueuedTask.objects.filter(pk=id).first()
        return Outcome("parked" if row is not None and row.parked else "nowhere", wrote=wrote)
    if task.success:
        return Outcome("succeeded", _shown(task.result), None, task.attempt_count, wrote)
    return Outcome("failed", None, task.exception, task.attempt_count, wrote)


def _shown(value: Any) -> Any:
    return value if isinstance(value, str | int | list | None) else f"<{value.type}, not stored>"


@contextlib.contextmanager
def a_test() -> Iterator[None]:
    """The transaction of Django's TestCase."""
    atomic = transaction.atomic()
    atomic._from_testcase = True
    with atomic:
        yield
        if not connection.closed_in_transaction:
            transaction.set_rollback(True)


def drained(case: Case) -> Outcome:
    id = enqueue(case)
    try:
        testing.drain(due=True)
    except RuntimeError as error:
        return Outcome("refused", error=f"builtins.{type(error).__name__}")
    return outcome(id)


def run_at_once(case: Case, **options: Any) -> Outcome:
    announced: list[UUID] = []

    def note(sender: Any, task: Any, **_: Any) -> None:
        announced.append(task["id"])

    pre_enqueue.connect(note)
    try:
        async_task(case.func, **{**case.options, **options})
    except BaseException as error:
        if isinstance(error, RuntimeError) and "ended the transaction" in str(error):
            return Outcome("refused", error="builtins.RuntimeError")
        left = outcome(announced[0])
        assert left.state == "nowhere"
        return Outcome("failed", None, f"{type(error).__module__}.{type(error).__qualname__}", 1, left.wrote)
    finally:
        pre_enqueue.disconnect(note)
    return outcome(announced[0])


def drained_in_a_test(case: Case) -> Outcome:
    with a_test():
        return drained(case)


def inline_in_a_test(case: Case) -> Outcome:
    with a_test(), testing.inline():
        return run_at_once(case)


RUNNERS = {
    "drain": drained,
    "drain in a test": drained_in_a_test,
    "inline in a test": inline_in_a_test,
    "sync": lambda case: run_at_once(case, sync=True),
}


@contextlib.contextmanager
def callers_variable() -> Iterator[None]:
    token = outcome_tasks.CALLERS.set("the caller's")
    try:
        yield
    finally:
        outcome_tasks.CALLERS.reset(token)


def cases_of(runner: str) -> dict[Case, tuple[str, Outcome]]:
    """What must come of each task there, and why."""
    expected = {case: case.unlike.get(runner, ("as in a worker", case.outcome)) for case in CASES}
    return {case: (why, outcome) for case, (why, outcome) in expected.items() if outcome is not None}


def compare(expected: dict[Case, tuple[str, Outcome]], found: list[Outcome]) -> None:
    wrong = [
        f"{case.name}: {came}\n  and not, {why}: {outcome}"
        for (case, (why, outcome)), came in zip(expected.items(), found, strict=True)
        if came != outcome
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("runner", ["worker", "threads"])
def test_in_a_worker(pool, runner):
    expected = cases_of(runner)
    with callers_variable():
        ids = [enqueue(case) for case in expected]
    pool(workers=1, threads=4 if runner == "threads" else 1)
    wait_for(lambda: not QueuedTask.objects.filter(parked=None).exists(), "all have ended")
    compare(expected, [outcome(id) for id in ids])


@pytest.mark.parametrize("runner", RUNNERS)
def test_in_the_caller(runner):
    expected = cases_of(runner)
    with callers_variable():
        compare(expected, [RUNNERS[runner](case) for case in expected])
