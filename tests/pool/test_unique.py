"""No two tasks of one key run at the same time, while many producers enqueue and workers are killed."""

from __future__ import annotations

import os
import signal
import threading
import time

from django.db import connection, transaction

from pgq.models import QueuedTask, Task
from tests.functions import unique

SECONDS = 1.5


def produce(stop: float, numbers: range) -> None:
    """Enqueue tasks of three keys, in transactions of which each third rolls back."""
    try:
        for number in numbers:
            if time.monotonic() > stop:
                return
            with transaction.atomic():
                unique.guarded.enqueue(number % 3, 0.003)
                transaction.set_rollback(number % 3 == number % 7)
    finally:
        connection.close()


def test_a_key_is_never_doubled(pool, oracle):
    running = pool(workers=2, threads=2, max_crashes=100)
    stop = time.monotonic() + SECONDS
    producers = [threading.Thread(target=produce, args=(stop, range(n, 100_000, 2))) for n in range(2)]
    for thread in producers:
        thread.start()
    while time.monotonic() < stop:
        time.sleep(SECONDS / 3)
        os.kill(running.worker_pids()[0], signal.SIGKILL)
    for thread in producers:
        thread.join()
    running.wait_for(lambda: not QueuedTask.objects.exists(), "all have ended")
    holds: dict[str, str] = {}
    for event, what, *_ in oracle.lines():
        key, task = what.split("/")
        # The same task may start again: its worker was killed.
        assert holds.get(key, task) == task, (event, what, holds)
        if event == "start":
            holds[key] = task
        else:
            holds.pop(key, None)
    assert len({what for _, what, *_ in oracle.lines()}) == Task.objects.count() > 30
