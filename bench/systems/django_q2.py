"""django-q2 with its ORM broker."""

from __future__ import annotations

from bench.systems.base import System, django_setup, migrate

BULK = 50


class DjangoQ2(System):
    name = "django-q2"
    requirements = ("django-q2==1.11.1", "django==5.2.19", "psycopg[binary]==3.3.9")
    settings = (
        f"ORM broker, connections that stay open, `bulk` {BULK}, `queue_limit` {4 * BULK}, `save_limit` 0 (all), no "
        "`timeout`, logging at WARNING; many: `async_task` in one transaction (it has no bulk enqueue)"
    )
    done = "SELECT count(*) FROM django_q_task"
    rate = 250.0
    chunk = 200

    def environment(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": "bench.apps.django_q2"}

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        return [["env", f"BENCH_WORKERS={workers}", python, "-m", "django", "qcluster"]]

    def prepare(self) -> None:
        migrate()

    def open(self) -> None:
        django_setup()
        from django_q.brokers import get_broker
        from django_q.tasks import async_task

        self._async_task, self._broker = async_task, get_broker()

    def enqueue_one(self, task: str, *args: int) -> None:
        self._async_task(f"bench.tasks.{task}", *args, broker=self._broker)

    def enqueue_many(self, task: str, count: int) -> None:
        from django.db import transaction

        with transaction.atomic():
            for _ in range(count):
                self.enqueue_one(task)
