"""pgq as the backend of Django's tasks: the same rows and workers, by Django's door and by Django's rules."""

from __future__ import annotations

from bench.systems.pgq import COROUTINES, Pgq


class PgqTasks(Pgq):
    name = "pgq-tasks"
    settings = (
        f"`PgqBackend` of `django.tasks`, which checks results and sends signals; `save_limit` 0 and"
        f" `coroutines` {COROUTINES} as pgq; many: `enqueue_many` of the backend by 5,000"
    )
    #: As those of pgq: the keys are the same.
    limited = {}
    rescues = False

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "DJANGO_SETTINGS_MODULE": "bench.apps.pgq_tasks"}

    def open(self) -> None:
        super().open()
        from bench.apps import pgq_tasks_tasks

        self._django = pgq_tasks_tasks

    def enqueue_one(self, task: str, *args: int) -> None:
        getattr(self._django, task).enqueue(*args)

    def enqueue_many(self, task: str, count: int) -> None:
        found = getattr(self._django, task)
        found.get_backend().enqueue_many(found, [()] * count)
