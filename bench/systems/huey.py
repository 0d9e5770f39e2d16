"""Huey on Redis."""

from __future__ import annotations

from bench.systems.base import System


class Huey(System):
    name = "huey"
    requirements = ("huey==3.5.4", "redis==8.1.0")
    server = "redis"
    settings = (
        "worker processes (`-k process`), blocking pops, results in the same Redis (`store_none`); many: one call a "
        "task (it has no bulk enqueue). Its Redis writes nothing to disk"
    )
    done = "redis.call('hlen', 'huey.results.bench')"
    rate = 800.0

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        command = [python, "-m", "huey.bin.huey_consumer", "bench.apps.huey.huey", "-w", str(workers)]
        return [[*command, "-k", "process", "--quiet"]]

    def open(self) -> None:
        from bench.apps import huey

        self._app = huey

    def enqueue_one(self, task: str, *args: int) -> None:
        getattr(self._app, task)(*args)

    def enqueue_many(self, task: str, count: int) -> None:
        for _ in range(count):
            self.enqueue_one(task)
