"""Celery on Redis."""

from __future__ import annotations

from typing import Any

from bench.systems.base import System

PREFETCH = 128


class Celery(System):
    name = "celery"
    requirements = ("celery[redis]==5.7.0",)
    server = "redis"
    settings = (
        f"prefork pool, `worker_prefetch_multiplier` {PREFETCH}, results in the same Redis, no gossip, mingle or "
        "heartbeat; many: `apply_async` over one producer. Its Redis writes nothing to disk"
    )
    done = "#redis.call('keys', 'celery-task-meta-*')"
    rate = 800.0

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        command = [python, "-m", "celery", "-A", "bench.apps.celery", "worker", "--loglevel", "WARNING"]
        return [[*command, "-c", str(workers), "--without-gossip", "--without-mingle", "--without-heartbeat"]]

    def open(self) -> None:
        from bench.apps import celery

        self._app = celery
        self._producer = celery.app.producer_pool.acquire(block=True)

    def enqueue_one(self, task: str, *args: int) -> None:
        self._function(task).apply_async(args, producer=self._producer)

    def enqueue_many(self, task: str, count: int) -> None:
        function = self._function(task)
        for _ in range(count):
            function.apply_async(producer=self._producer)

    def _function(self, task: str) -> Any:
        return getattr(self._app, task)
