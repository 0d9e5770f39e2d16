"""What a worker's process is like between tasks."""

from __future__ import annotations

import os
import sys

import pytest

from pgq.enqueue import registry
from pgq.tasks import async_task, fetch
from tests.support.hand import Hand

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
