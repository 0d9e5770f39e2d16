"""The gate between the workers of a pool and large exchanges."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pgq.models import QueuedTask, Task
from pgq.pool import gate
from pgq.pool.activity import ActivityCell
from pgq.pool.gate import LARGE, PLACES, Gate
from pgq.tasks import enqueue_many
from tests.support.gate_child import hold
from tests.support.pools import wait_for

CONTEXT = multiprocessing.get_context("forkserver")


def fill(shared: Gate) -> list[tuple[multiprocessing.process.BaseProcess, ActivityCell]]:
    cells = [ActivityCell() for _ in range(PLACES)]
    processes = [CONTEXT.Process(target=hold, args=(shared, cell), daemon=True) for cell in cells]
    for process in processes:
        process.start()
    wait_for(lambda: all(cell.inside for cell in cells))
    return list(zip(processes, cells, strict=True))


def seconds_to_enter(shared: Gate, cell: ActivityCell, count: int = LARGE) -> float:
    began = time.monotonic()
    with shared.passage(cell, count):
        return time.monotonic() - began


@contextmanager
def taken(shared: Gate, places: int = PLACES) -> Iterator[None]:
    """Be inside so many times."""
    with ExitStack() as others:
        for _ in range(places):
            others.enter_context(shared.passage(ActivityCell(), LARGE))
        yield


@pytest.fixture
def shared():
    return Gate(CONTEXT, PLACES + 1)


def test_few_are_inside_and_the_next_one_waits(shared, monkeypatch):
    monkeypatch.setattr(gate, "WAIT_FOR_GATE_SECONDS", 0.3)
    cell = ActivityCell()
    with taken(shared):
        assert seconds_to_enter(shared, cell) >= 0.3
    assert seconds_to_enter(shared, cell) < 0.3
    assert not cell.inside


def test_few_tasks_pass_at_once(shared):
    with taken(shared):
        assert seconds_to_enter(shared, ActivityCell(), LARGE - 1) < 1


def test_a_small_pool_has_none():
    small = Gate(CONTEXT, PLACES)
    with taken(small, 2 * PLACES):
        pass


def test_who_dies_inside_leaves_his_place_to_others(shared):
    for process, cell in fill(shared):
        process.kill()
        process.join()
        assert cell.inside
        shared.free_place_of(cell)
    assert seconds_to_enter(shared, ActivityCell()) < gate.WAIT_FOR_GATE_SECONDS / 2


def test_who_was_outside_leaves_none(shared, monkeypatch):
    monkeypatch.setattr(gate, "WAIT_FOR_GATE_SECONDS", 0.2)
    shared.free_place_of(ActivityCell())
    with taken(shared):
        assert seconds_to_enter(shared, ActivityCell()) >= 0.2


def test_places_that_somebody_else_gave_back_are_no_error(shared):
    with shared.passage(ActivityCell(), LARGE):
        shared._places.release()


def test_an_error_inside_frees_the_place(shared):
    cell = ActivityCell()
    for _ in range(PLACES):
        with pytest.raises(ZeroDivisionError), shared.passage(cell, LARGE):
            raise ZeroDivisionError
    assert not cell.inside
    assert seconds_to_enter(shared, cell) < 1


@pytest.mark.django_db(transaction=True)
def test_a_large_pool_goes_on_while_its_workers_are_killed(pool):
    running = pool(workers=PLACES + 2, save_limit=0)
    ids = enqueue_many("tests.app.tasks.noop", [()] * 15_000)
    for victim in running.worker_pids():
        left = QueuedTask.objects.count()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: QueuedTask.objects.count() < left or not left)  # noqa: B023  # called at once
    wait_for(lambda: not QueuedTask.objects.exists())
    assert Task.objects.filter(success=True).count() == len(ids)
