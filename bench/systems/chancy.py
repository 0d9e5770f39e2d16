"""Chancy."""

from __future__ import annotations

import asyncio

from bench.systems.base import System, script

CONCURRENCY = 200


class Chancy(System):
    name = "chancy"
    requirements = ("chancy[cli]==0.26.0", "psycopg[binary]==3.3.9")
    settings = (
        f"async tasks, one worker process for each worker with a queue of `concurrency` {CONCURRENCY}, AsyncExecutor, "
        "`eager_polling`, `polling_interval` 1; many: `sync_push_many` by 1,000"
    )
    keeps = "the job's row with its state; it stores no results"
    done = "SELECT count(*) FROM chancy_jobs WHERE state = 'succeeded'"
    rate = 300.0
    sleepers = CONCURRENCY

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        return [[script(python, "chancy"), "--app", "bench.apps.chancy.app", "worker", "start"]] * workers

    def prepare(self) -> None:
        from bench.apps import chancy

        asyncio.run(chancy.prepare())

    def open(self) -> None:
        from bench.apps import chancy

        self._app = chancy

    def enqueue_one(self, task: str, *args: int) -> None:
        job = self._app.JOBS[task].job
        self._app.app.sync_push(job.with_kwargs(number=args[0]) if args else job)

    def enqueue_many(self, task: str, count: int) -> None:
        for _ in self._app.app.sync_push_many([self._app.JOBS[task].job] * count):
            pass
