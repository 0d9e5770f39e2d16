"""Procrastinate, through its Django integration."""

from __future__ import annotations

from bench.systems.base import System, django_setup, migrate

CONCURRENCY = 30


class Procrastinate(System):
    name = "procrastinate"
    requirements = ("procrastinate==3.10.0", "django==5.2.19", "psycopg[binary]==3.3.9", "psycopg-pool==3.3.3")
    settings = (
        f"Django integration, async tasks, one process for each worker with `--concurrency {CONCURRENCY}`, jobs are "
        "not deleted, logging at WARNING; many: `batch_defer` by 1,000"
    )
    keeps = "the job's row and a row for each event; it stores no results"
    done = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
    rate = 300.0
    sleepers = CONCURRENCY

    def environment(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": "bench.apps.procrastinate", "BENCH_CONCURRENCY": str(CONCURRENCY)}

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        command = [python, "-m", "django", "procrastinate", "worker", "--concurrency", str(CONCURRENCY)]
        return [[*command, "--delete-jobs", "never"]] * workers

    def prepare(self) -> None:
        migrate()

    def open(self) -> None:
        django_setup()
        from bench.apps import procrastinate_tasks

        self._tasks = procrastinate_tasks

    def enqueue_one(self, task: str, *args: int) -> None:
        getattr(self._tasks, task).defer(**({"number": args[0]} if args else {}))

    def enqueue_many(self, task: str, count: int) -> None:
        getattr(self._tasks, task).batch_defer(*[{}] * count)
