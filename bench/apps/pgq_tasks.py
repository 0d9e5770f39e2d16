from bench.settings import *  # noqa: F403

TASKS = {"default": {"BACKEND": "pgq.backend.PgqBackend"}}
# As for django-tasks-db: no line for each task.
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"django.tasks": {"level": "WARNING"}}}
