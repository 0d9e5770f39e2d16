"""Events in a real worker: each is told in its place, listeners that raise change nothing, and the exit is bounded."""

from __future__ import annotations

import pytest

from pgq.tasks import async_task, fetch
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

TASKS = "tests.functions.listening"


def test_a_worker_tells_what_takes_place(pool, oracle):
    running = pool(workers=1, recycle=4)
    fetch(async_task(f"{TASKS}.listen"), wait=20_000)
    assert fetch(async_task(f"{TASKS}.succeed"), wait=20_000).result == 1
    assert fetch(async_task(f"{TASKS}.succeed_on_loop"), wait=20_000).result == 2
    # The last one of this worker.
    assert not fetch(async_task(f"{TASKS}.fail"), wait=20_000).success
    wait_for(lambda: "takes longer than" in running.log())
    said = [line[:2] for line in oracle.lines()]
    for func, error, outcome in (
        ("succeed", "NoneType", "Succeeded"),
        ("succeed_on_loop", "NoneType", "Succeeded"),
        ("fail", "ValueError", "Failed"),
    ):
        told = [
            ("claim", func),
            ("started", func),
            ("enter", func),
            ("leave", func),
            ("ended", f"{func}:{error}"),
            ("settled", f"{func}:{outcome}"),
        ]
        assert [list(one) for one in told] == [list(one) for one in said if tuple(one) in told]
    assert ["saw", "seen"] in [list(one) for one in said]
    assert ["woken", "0"] in [list(one) for one in said]
    assert [one[1] for one in said if one[0] == "exit"] == ["first", "hangs"]
    assert "a listener that raises" in running.log()
    assert "a hook that raises" in running.log()
