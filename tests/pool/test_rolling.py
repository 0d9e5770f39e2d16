"""Two pools are restarted one after the other under load: nothing is lost, and no task waits longer than a second.

By SIGHUP, as `systemctl reload` does it, and by SIGTERM and a new pool, as a deployment does it. How long each task
waited is read from its row.
"""

from __future__ import annotations

import signal
import threading

import pytest
from django.db import connection

from pgq.tasks import async_task
from tests.support.deploy import FULL
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

#: Seconds between two tasks of the load.
PACE = 0.02
NAP = "tests.functions.oracle.nap"


class Load:
    """Enqueues tasks evenly, by a thread of its own, until it is stopped."""

    def __init__(self, seconds: float) -> None:
        #: How long each task takes.
        self.seconds = seconds
        self.count = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._enqueue)
        self.thread.start()

    def _enqueue(self) -> None:
        while not self.ended.wait(PACE):
            async_task(NAP, self.count, self.seconds, group=str(self.count))
            self.count += 1
        connection.close()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()

    def more(self, count: int = 50) -> None:
        """Wait until so many more were enqueued."""
        wanted = self.count + count
        wait_for(lambda: self.count >= wanted)


def waited() -> list[float]:
    """Return for each task of the load, in its order, how long it waited (seconds)."""
    with connection.cursor() as cursor:
        cursor.execute(
            'SELECT extract(epoch FROM started - enqueued_at)::float8 FROM pgq_task WHERE success ORDER BY "group"::int'
        )
        return [seconds for (seconds,) in cursor.fetchall()]


def restart(pool, pools, load, *, by_signal, apart):
    """Restart each of the pools, or put a new one in its place; return those that run then."""
    now = []
    for running in pools:
        if by_signal:
            booted = running.log().count("workers on")
            running.signal(signal.SIGHUP)
            running.wait_for(lambda r=running, n=booted: r.log().count("workers on") > n, "it has executed itself anew")
            now.append(running.wait_until_ready())
        else:
            running.stop()
            now.append(pool("--name", "new", workers=running.settings["workers"], save_limit=0))
        load.more(apart)
    return now


def roll(pool, oracle, *, rounds, workers, seconds, apart):
    """Restart two pools under load, so often in each way; return how long tasks waited before that, and since."""
    pools = [pool("--name", name, workers=workers, save_limit=0) for name in ("a", "b")]
    load = Load(seconds)
    try:
        load.more()
        steady = load.count
        for _ in range(rounds):
            pools = restart(pool, pools, load, by_signal=True, apart=apart)
            pools = restart(pool, pools, load, by_signal=False, apart=apart)
    finally:
        load.stop()
    wait_for(lambda: len(oracle.count("end")) == load.count, "all have run")
    wait_for(lambda: len(waited()) == load.count, "all have their result")
    assert max(oracle.count("start").values()) == 1, "none ran twice"
    return waited()[:steady], waited()[steady:]


def test_a_rolling_restart_loses_and_delays_nothing(pool, oracle):
    before, rolling = roll(pool, oracle, rounds=1, workers=1, seconds=0, apart=20)
    # What a busy machine adds is in the first number as well.
    assert max(rolling) < max(before) + 1.0


@FULL
def test_a_rolling_restart_delays_no_task_by_a_second(pool, oracle):
    """Longer, with tasks at hand whenever a pool is told to stop, and without any allowance. One pool can do them."""
    before, rolling = roll(pool, oracle, rounds=4, workers=4, seconds=0.06, apart=100)
    print(f"{len(before) + len(rolling)} tasks; waited at most {max(before):.3f} s, while rolling {max(rolling):.3f} s")  # noqa: T201
    assert max(rolling) < 1.0
