"""pgq itself."""

from __future__ import annotations

import json

from bench.systems.base import System, django_setup, migrate


class Pgq(System):
    name = "pgq"
    settings = "the defaults, but `save_limit` 0: every result is kept; `enqueue_many` by 5,000"
    done = "SELECT count(*) FROM pgq_task"
    rate = 15000.0
    chunk = 5000

    def environment(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": "bench.settings", "BENCH_PGQ": json.dumps({"save_limit": 0})}

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        return [[python, "-m", "django", "pgq_worker", "--workers", str(workers), "--log-level", "WARNING"]]

    def prepare(self) -> None:
        migrate()

    def open(self) -> None:
        django_setup()
        from pgq import tasks

        self._tasks = tasks

    def enqueue_one(self, task: str, *args: int) -> None:
        self._tasks.async_task(f"bench.tasks.{task}", *args)

    def enqueue_many(self, task: str, count: int) -> None:
        self._tasks.enqueue_many(f"bench.tasks.{task}", ((),) * count, chunk=5000)
