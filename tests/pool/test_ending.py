"""How workers end: what was meant for the end of the process runs, for a bounded time."""

from __future__ import annotations

import pytest

from pgq.tasks import async_task, fetch
from tests.support.hand import MARK

pytestmark = pytest.mark.django_db(transaction=True)

TASKS = "tests.functions.ending"


def test_what_was_meant_for_the_end_runs(pool, oracle, tmp_path):
    file = tmp_path / "file"
    running = pool(workers=1, recycle=2)
    async_task(f"{TASKS}.leave_things", str(file))
    # What raises there harms neither the rest nor the pool.
    async_task(f"{TASKS}.raise_at_exit")
    after = async_task(MARK, "after")
    assert fetch(after, wait=20_000).success
    assert {line[1] for line in oracle.lines() if line[0] == "end"} == {"thread", "atexit", "pgq-worker-0", "after"}
    assert file.read_text() == "in a buffer"
    assert running.log().count("ValueError: at the end") == 2
    assert "died" not in running.log()


def test_what_does_not_end_is_killed(pool, oracle):
    running = pool(workers=1, recycle=1)
    hangs = async_task(f"{TASKS}.hang_at_exit")
    after = async_task(MARK, "after")
    assert fetch(after, wait=20_000).success
    assert fetch(hangs).success
    assert running.log().count("pgq worker 0 has not ended 5 s after its work was done and is killed") == 1
    assert "died" not in running.log()
