"""Dramatiq on Redis."""

from __future__ import annotations

from bench.systems.base import System

THREADS = 8


class Dramatiq(System):
    name = "dramatiq"
    requirements = ("dramatiq[redis]==2.2.1",)
    server = "redis"
    settings = (
        f"one process for each worker with {THREADS} threads (the default), results in the same Redis; many: `send` "
        "(it has no bulk enqueue). Its Redis writes nothing to disk"
    )
    #: The keys of results are bare digests.
    done = "redis.call('dbsize') - #redis.call('keys', 'dramatiq:*')"
    rate = 800.0
    sleepers = THREADS

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        command = [python, "-m", "dramatiq", "bench.apps.dramatiq", "--processes", str(workers)]
        return [[*command, "--threads", str(THREADS)]]

    def open(self) -> None:
        from bench.apps import dramatiq

        self._app = dramatiq

    def enqueue_one(self, task: str, *args: int) -> None:
        getattr(self._app, task).send(*args)

    def enqueue_many(self, task: str, count: int) -> None:
        for _ in range(count):
            self.enqueue_one(task)
