"""awa: a Rust core under a Python API."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.systems.base import System, url

#: Tasks that one process has in hand; the number that awa's author measures with.
CONCURRENCY = 256


class Awa(System):
    name = "awa-pg"
    requirements = ("awa-pg==0.6.9",)
    settings = (
        f"async tasks, one process for each worker with {CONCURRENCY} tasks in hand, queue storage at its defaults; "
        "one: `insert` of the sync client; many: `enqueue_many_copy` by 1,000"
    )
    keeps = "the job and its outcome in its segments; it stores no results"
    #: Not the view awa.jobs: it takes seconds for a few thousand completed jobs. These are what it counts.
    done = (
        "SELECT (SELECT coalesce(sum(completed_count), 0) FROM awa.receipt_completion_batches)"
        " + (SELECT count(*) FROM awa.done_entries)"
    )
    rate = 2000.0
    sleepers = CONCURRENCY

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        return [[python, "-m", "bench.apps.awa"]] * workers

    def prepare(self) -> None:
        from bench.apps import awa

        # A database takes up the fast storage when the first worker starts in it.
        asyncio.run(awa.main(seconds=3))

    def open(self) -> None:
        from awa import Client

        from bench.apps import awa

        self._jobs, self._client = awa, Client(url())

    def enqueue_one(self, task: str, *args: int) -> None:
        self._client.insert(self._job(task, *args), queue=self._jobs.QUEUE)

    def enqueue_many(self, task: str, count: int) -> None:
        self._client.enqueue_many_copy([self._job(task)] * count, queue=self._jobs.QUEUE)

    def _job(self, task: str, *args: int) -> Any:
        return self._jobs.JOBS[task](*args)
