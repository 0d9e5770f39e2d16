"""Two pools are restarted one after the other under load: nothing is lost, and no task waits longer than a second."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from django.db import connection

from pgq.tasks import async_task
from tests.support.hand import MARK
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

#: Seconds between two tasks of the load.
PACE = 0.02


class Load:
    """Enqueues tasks evenly, by a thread of its own, until it is stopped."""

    def __init__(self) -> None:
        #: When each was enqueued (CLOCK_MONOTONIC).
        self.at: list[float] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._enqueue)
        self.thread.start()

    def _enqueue(self) -> None:
        while not self.ended.wait(PACE):
            self.at.append(time.monotonic())
            async_task(MARK, len(self.at) - 1)
        connection.close()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()

    def more(self, count: int = 50) -> None:
        """Wait until so many more were enqueued."""
        wanted = len(self.at) + count
        wait_for(lambda: len(self.at) >= wanted)


def test_a_rolling_restart_loses_and_delays_nothing(pool, oracle):
    """Once by SIGHUP, as `systemctl reload` does it; once by SIGTERM and a new pool, as a deployment does it."""
    pools = [pool("--name", name, workers=1) for name in ("a", "b")]
    load = Load()
    try:
        load.more()
        steady = len(load.at)
        for running in pools:
            booted = running.log().count("workers on")
            running.signal(signal.SIGHUP)
            running.wait_for(lambda r=running, n=booted: r.log().count("workers on") > n, "it has executed itself anew")
            running.wait_until_ready()
            load.more(20)
        for running in pools:
            running.stop()
            pool("--name", "new", workers=1)
            load.more(20)
    finally:
        load.stop()
    wait_for(lambda: len(oracle.count("end")) == len(load.at), "all have run")
    assert max(oracle.count("start").values()) == 1
    began = {int(line[1]): float(line[3]) for line in oracle.lines() if line[0] == "start"}
    delays = [began[number] - at for number, at in enumerate(load.at)]
    # What a busy machine adds is in the first number as well.
    assert max(delays[steady:]) < max(delays[:steady]) + 1.0
