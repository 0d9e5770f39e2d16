"""Procrastinate, through its Django integration."""

from __future__ import annotations

from bench.systems.base import KEYS, System, django_setup, migrate

CONCURRENCY = 30
#: Seconds after which it polls; its default is 5. What a `lock` has held back is found by no notification.
POLL = 0.1


class Procrastinate(System):
    name = "procrastinate"
    requirements = ("procrastinate==3.10.0", "django==5.2.19", "psycopg[binary]==3.3.9", "psycopg-pool==3.3.3")
    settings = (
        f"Django integration, async tasks, one process for each worker with `--concurrency {CONCURRENCY} -p {POLL}`,"
        " jobs are not deleted, logging at WARNING; many: `batch_defer` by 1,000"
    )
    keeps = "the job's row and a row for each event; it stores no results"
    done = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
    rate = 300.0
    sleepers = CONCURRENCY
    #: A `lock` is of one at a time, so its "keys" are of one; there are no rates.
    limited = {"one-key": 50.0, "keys": 100.0}

    def environment(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": "bench.apps.procrastinate", "BENCH_CONCURRENCY": str(CONCURRENCY)}

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        command = [python, "-m", "django", "procrastinate", "worker", "--concurrency", str(CONCURRENCY)]
        return [[*command, "--delete-jobs", "never", "-p", str(POLL)]] * workers

    def prepare(self) -> None:
        migrate()

    def open(self) -> None:
        django_setup()
        from bench.apps import procrastinate_tasks

        self._tasks = procrastinate_tasks

    def enqueue_one(self, task: str, *args: int) -> None:
        getattr(self._tasks, task).defer(**({"number": args[0]} if args else {}))

    def enqueue_many(self, task: str, count: int) -> None:
        noop = self._tasks.noop
        if task == "one-key":
            noop.configure(lock=task).batch_defer(*[{}] * count)
            return
        if task == "keys":
            for number in range(count):
                noop.configure(lock=f"key {number % KEYS}").defer()
            return
        getattr(self._tasks, task).batch_defer(*[{}] * count)
