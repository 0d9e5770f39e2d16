"""pgq itself."""

from __future__ import annotations

import json
import os
from itertools import cycle, islice

from bench.systems.base import KEYS, System, django_setup, migrate

COROUTINES = 500
#: Tasks behind a full key, and lanes that upkeep has marked as idle.
BEHIND = """
    INSERT INTO pgq_queue (func, key) SELECT 'bench.tasks.noop', 'full' FROM generate_series(1, %s)
"""
IDLE = """
    INSERT INTO pgq_keyed (queue, key, idle_since)
    SELECT 'default', 'keys:idle' || n, now() FROM generate_series(1, %s) n
"""


class Pgq(System):
    name = "pgq"
    settings = (
        f"the defaults, but `save_limit` 0: every result is kept, and `coroutines` {COROUTINES}: tasks that sleep are"
        " `async def`; `enqueue_many` by 5,000"
    )
    done = "SELECT count(*) FROM pgq_task"
    rate = 15000.0
    chunk = 5000
    sleepers = COROUTINES
    limited = {"one-key": 8000.0, "keys": 8000.0, "rated": 1000.0}
    rescues = True

    def __init__(self, queues: int = 1, *, keys: int = 0, behind: int = 0, idle: int = 0) -> None:
        #: Over so many queues, or keys with a limit of 2, are the tasks of `enqueue_many` spread, in turns.
        self.queues, self.keys = queues, keys
        #: So many tasks lie behind a key whose limit is 0; so many lanes of keys are there and idle.
        self.behind, self.idle = behind, idle

    def environment(self) -> dict[str, str]:
        return {
            "BENCH_QUEUES": str(self.queues),
            "BENCH_KEYS": json.dumps([self.keys, self.behind, self.idle]),
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "BENCH_PGQ": json.dumps({"save_limit": 0, "coroutines": COROUTINES}),
        }

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        return [[python, "-m", "django", "pgq_worker", "--workers", str(workers), "--log-level", "WARNING"]]

    def prepare(self) -> None:
        migrate()
        from pgq.tasks import Rate, set_limit

        set_limit("one-key", concurrency=1)
        set_limit("keys", concurrency=2)
        set_limit("rated", rate=Rate(self.per_second, 1))
        set_limit("full", concurrency=0)
        _, behind, idle = json.loads(os.environ["BENCH_KEYS"])
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(BEHIND, [behind])
            cursor.execute(IDLE, [idle])

    def open(self) -> None:
        django_setup()
        from pgq import tasks
        from pgq.enqueue import make, write
        from pgq.records import options

        self._tasks, self._make, self._write, self._options = tasks, make, write, options.TaskOptions
        self.queues = int(os.environ["BENCH_QUEUES"])
        self.keys = json.loads(os.environ["BENCH_KEYS"])[0]

    def enqueue_one(self, task: str, *args: int) -> None:
        self._tasks.async_task(_path(task), *args)

    def enqueue_many(self, task: str, count: int) -> None:
        if task == "keys" or self.keys:
            keys = (self._options(key=f"keys:{number % (self.keys or KEYS)}") for number in range(count))
            self._write.enqueue_all(self._make.make_task("bench.tasks.noop", options=options) for options in keys)
            return
        if task in self.limited:
            self._tasks.enqueue_many("bench.tasks.noop", ((),) * count, chunk=5000, key=task)
            return
        if self.queues == 1:
            self._tasks.enqueue_many(_path(task), ((),) * count, chunk=5000)
            return
        queues = islice(cycle(range(self.queues)), count)
        made = (self._make.make_task(_path(task), options=self._options(queue=f"queue{n}")) for n in queues)
        self._write.enqueue_all(made)


def _path(task: str) -> str:
    return "bench.tasks.sleep_async" if task == "sleep" else f"bench.tasks.{task}"
