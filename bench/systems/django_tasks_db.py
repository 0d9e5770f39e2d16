"""django-tasks-db: the database backend of Django's tasks."""

from __future__ import annotations

from bench.systems.base import System, django_setup, migrate


class DjangoTasksDb(System):
    name = "django-tasks-db"
    requirements = ("django-tasks-db==0.13.0", "django-tasks==0.12.0", "django==5.2.19", "psycopg[binary]==3.3.9")
    settings = (
        "one `db_worker` process for each worker, connections that stay open, `--interval 0.1` (the default is 1 s); "
        "many: `enqueue` in one transaction (it has no bulk enqueue)"
    )
    done = "SELECT count(*) FROM django_tasks_database_dbtaskresult WHERE status = 'SUCCESSFUL'"
    rate = 250.0
    chunk = 200

    def environment(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": "bench.apps.django_tasks_db"}

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        command = [python, "-m", "django", "db_worker", "--interval", "0.1", "--no-startup-delay", "--verbosity", "0"]
        return [command] * workers

    def prepare(self) -> None:
        migrate()

    def open(self) -> None:
        django_setup()
        from bench.apps import django_tasks_db_tasks

        self._tasks = django_tasks_db_tasks

    def enqueue_one(self, task: str, *args: int) -> None:
        getattr(self._tasks, task).enqueue(*args)

    def enqueue_many(self, task: str, count: int) -> None:
        from django.db import transaction

        with transaction.atomic():
            for _ in range(count):
                self.enqueue_one(task)
