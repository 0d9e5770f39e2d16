"""When a supervisor looks at the queue while its workers sleep: in time, however slowly PostgreSQL replies."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgq.conf import ALL, get_settings
from pgq.pool.seats import State
from pgq.pool.sleepers import Sleepers
from pgq.store import pools
from pgq.store.turns import Turns
from pgq.tasks import enqueue_many
from tests.support.hand import WORKER

pytestmark = pytest.mark.django_db(transaction=True)

#: Seconds.
PERIOD = 1.0


@pytest.fixture
def own(session: Any) -> psycopg.Connection[Any]:
    """A session; of a key whose rate is 1 a period, one task has started, and one waits for the next."""
    own: psycopg.Connection[Any] = session()
    own.execute("SELECT pgq_set_limit('k', rate => 1, period => %s)", [PERIOD])
    enqueue_many("tests.functions.common.multiply", [(1, 2), (3, 4)], key="k")
    assert len(Turns(ALL).claim(own.cursor(), limit=8, worker=WORKER, receipt=uuid4())) == 1
    return own


@pytest.fixture
def sleepers() -> Sleepers:
    """Those of a pool whose one worker sleeps."""
    worker = SimpleNamespace(state=State.ASLEEP, post=lambda message: None)
    children: Any = SimpleNamespace(any_worker=lambda state: worker.state is state, workers=lambda: [worker])
    return Sleepers(children, replace(get_settings(), poll=10.0))


def poll(sleepers: Sleepers, own: psycopg.Connection[Any]) -> None:
    sleepers.poll_at = 0.0
    sleepers.poll_queue(own.cursor(), time.monotonic(), notified=False)


def is_awake(sleepers: Sleepers) -> bool:
    return not sleepers.children.any_worker(State.ASLEEP)


def test_a_rate_that_opens_during_a_look_is_not_overlooked(own, sleepers, monkeypatch):
    def slow(*given: Any, **named: Any) -> Any:
        found = pools_peek(*given, **named)
        time.sleep(PERIOD * 1.1)
        return found

    poll(sleepers, own)
    poll(sleepers, own)
    pools_peek = pools.peek
    monkeypatch.setattr(pools, "peek", slow)
    sleepers.pause = 10.0
    poll(sleepers, own)
    assert not is_awake(sleepers)
    assert sleepers.poll_at < time.monotonic()
    poll(sleepers, own)
    assert is_awake(sleepers)


def test_the_next_look_is_after_the_opening_however_slow_the_reply(own, sleepers, monkeypatch):
    (opens_at,) = own.execute("SELECT extract(epoch FROM not_before)::float8 FROM pgq_rate").fetchone()
    opens_at += time.monotonic() - time.time()
    opens_in = sleepers.turns.opens_in

    def slow(cursor: Any) -> float | None:
        time.sleep(PERIOD / 4)
        return opens_in(cursor)

    poll(sleepers, own)
    monkeypatch.setattr(sleepers.turns, "opens_in", slow)
    sleepers.pause = 10.0
    poll(sleepers, own)
    assert opens_at < sleepers.poll_at < opens_at + 0.5


def test_a_look_that_finds_the_first_rate_is_followed_by_another_soon(own, sleepers):
    sleepers.pause = 10.0
    poll(sleepers, own)
    assert sleepers.turns.has_rates
    assert sleepers.poll_at < time.monotonic() + 0.1
