"""The systems that are compared, in the order of the report."""

from __future__ import annotations

from importlib import import_module

from bench.systems.base import System

_CLASSES = {
    "pgq": "pgq:Pgq",
    "pgq-tasks": "pgq_tasks:PgqTasks",
    "floor": "floor:Floor",
    "floor-100": "floor:Floor100",
    "django-q2": "django_q2:DjangoQ2",
    "django-tasks-db": "django_tasks_db:DjangoTasksDb",
    "procrastinate": "procrastinate:Procrastinate",
    "pgqueuer-10": "pgqueuer:Pgqueuer10",
    "pgqueuer-100": "pgqueuer:Pgqueuer100",
    "awa-pg": "awa:Awa",
    "dbos": "dbos:Dbos",
    "chancy": "chancy:Chancy",
    "celery": "celery:Celery",
    "dramatiq": "dramatiq:Dramatiq",
    "huey": "huey:Huey",
}
NAMES = tuple(_CLASSES)


def get(name: str) -> System:
    """Return a new object for the system of that name."""
    module, _, cls = _CLASSES[name].partition(":")
    return getattr(import_module(f"bench.systems.{module}"), cls)()
