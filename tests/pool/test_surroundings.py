"""What a worker's process is like between tasks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pgq.enqueue import registry
from pgq.pool.worker.process_state import SPARE, counts
from pgq.tasks import async_task, fetch
from tests.support.hand import Hand
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_a_module_does_at_its_import_stays_and_what_its_function_does_goes(monkeypatch):
    id = async_task("tests.functions.first_import.change")
    # In a worker the module is imported for the first time: unlike here, where enqueuing has done so.
    del sys.modules["tests.functions.first_import"]
    registry._home.cache_clear()
    for name in ("PGQ_TEST_BY_MODULE", "PGQ_TEST_BY_FUNCTION"):
        # Both are taken away when the test has ended, too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    hand = Hand()
    try:
        hand.work()
    finally:
        hand.close()
    assert fetch(id).success
    assert os.environ.get("PGQ_TEST_BY_MODULE") == "stays"
    assert "PGQ_TEST_BY_FUNCTION" not in os.environ


def test_processes_of_a_tasks_processes_are_a_leak_of_its_worker_too():
    spare = SPARE["child processes"]
    before = counts()["child processes"]
    # One child, which has many.
    shell = subprocess.Popen(
        ["sh", "-c", f"for i in $(seq {spare}); do sleep 100 & done; wait"], start_new_session=True
    )
    try:
        wait_for(lambda: counts()["child processes"] > before + spare, "the shell's processes are counted")
    finally:
        os.killpg(shell.pid, 9)
        shell.wait()
