"""Who waits inside of a transaction for a task that it has enqueued is told so: it cannot run before the commit."""

from __future__ import annotations

import time

import pytest
from django.db import transaction
from django.test import override_settings

from pgq import tasks
from pgq.errors import NotCommitted
from pgq.tasks import AsyncTask, Chain, Iter, async_chain, async_iter, async_task
from pgq.testing import drain
from tests.functions import common as functions
from tests.support.hand import run_all

ADD = functions.multiply
#: All that waits, for a task of the name "n" in the group "g" that this transaction has enqueued.
WAITS = {
    "result": lambda id: tasks.result(id, wait=60_000),
    "fetch": lambda id: tasks.fetch(id, wait=-1),
    "by name": lambda id: tasks.fetch("n", wait=-1),
    "result_cached": lambda id: tasks.result_cached(id, wait=60_000),
    "fetch_cached": lambda id: tasks.fetch_cached(id, wait=60_000),
    "result_group": lambda id: tasks.result_group("g", wait=60_000),
    "fetch_group": lambda id: tasks.fetch_group("g", wait=60_000),
    "count": lambda id: tasks.fetch_group("g", count=1),
    "result_group_cached": lambda id: tasks.result_group_cached("g", wait=60_000),
    "fetch_group_cached": lambda id: tasks.fetch_group_cached("g", count=1),
}


def started(new):
    new.run()
    return new


OBJECTS = {
    "AsyncTask.result": lambda: started(AsyncTask(ADD, 2, 3, group="x")).result(wait=60_000),
    "AsyncTask.fetch": lambda: started(AsyncTask(ADD, 2, 3)).fetch(wait=60_000),
    "AsyncTask.result_group": lambda: started(AsyncTask(ADD, 2, 3, group="x")).result_group(wait=60_000),
    "AsyncTask.fetch_group": lambda: started(AsyncTask(ADD, 2, 3, group="x")).fetch_group(count=1),
    "Iter.result": lambda: started(Iter(ADD, [(2, 3)])).result(wait=60_000),
    "Iter.fetch": lambda: started(Iter(ADD, [(2, 3)])).fetch(wait=60_000),
    "Chain.result": lambda: started(Chain([(ADD, (2, 3)), (ADD, (4, 5))])).result(wait=60_000),
    "Chain.fetch": lambda: started(Chain([(ADD, (2, 3))])).fetch(wait=60_000),
    "async_iter": lambda: tasks.result(async_iter(ADD, [(2, 3)]), wait=60_000),
    "async_chain": lambda: tasks.result_group(async_chain([(ADD, (2, 3))]), wait=60_000),
}


@pytest.mark.django_db
@pytest.mark.parametrize("nested", [False, True], ids=["", "in a savepoint"])
def test_wait_inside_of_the_transaction_is_an_error_at_once(nested):
    if nested:
        with transaction.atomic():
            id = async_task(ADD, 2, 3, task_name="n", group="g")
    else:
        id = async_task(ADD, 2, 3, task_name="n", group="g")
    began = time.monotonic()
    for name, wait in WAITS.items():
        with pytest.raises(NotCommitted, match=r"before the commit.*drain\(\)") as caught:
            wait(id)
        assert str(caught.value).startswith(("task ", "group g")), name
    for ask in OBJECTS.values():
        with pytest.raises(NotCommitted):
            ask()
    assert time.monotonic() - began < 30
    # A look is no wait, and the transaction goes on.
    assert tasks.result(id) is None
    assert drain()
    assert tasks.result(id, wait=60_000) == 6
    assert tasks.result_group("g", wait=60_000) == [6]


@pytest.mark.django_db(transaction=True)
def test_tasks_of_others_are_waited_for_in_a_transaction(session):
    id = async_task(ADD, 2, 3, task_name="n", group="g")
    with transaction.atomic():
        async_task(ADD, 4, 5, group="g")
        # What was committed may finish meanwhile; of the group one can, two cannot.
        assert tasks.fetch(id, wait=1) is None
        assert tasks.fetch("n", wait=1) is None
        assert tasks.fetch_group("g", wait=1) is None
        with pytest.raises(NotCommitted, match="1 of its tasks"):
            tasks.fetch_group("g", wait=60_000, count=2)
        assert tasks.fetch("another", wait=1) is None
        run_all(session())
        assert tasks.result(id, wait=60_000) == 6
        assert tasks.result_group("g", wait=60_000) == [6]


@pytest.mark.django_db(transaction=True)
def test_wait_after_the_commit_and_without_a_transaction():
    with transaction.atomic():
        committed = async_task(ADD, 2, 3)
    assert tasks.fetch(committed, wait=1) is None
    assert tasks.fetch(async_task(ADD, 2, 3), wait=1) is None
    with override_settings(PGQ={"sync": True}), transaction.atomic():
        assert tasks.result(async_task(ADD, 2, 3), wait=60_000) == 6
