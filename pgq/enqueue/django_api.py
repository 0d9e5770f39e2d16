"""The names of django.tasks: Django's own from 6.0 on, else those of its backport, the package django-tasks.

Both read the setting TASKS. With Django 6 both may be installed: Django's are the ones that count.

Raises:
    ImportError: This Django has no tasks of its own, and the backport is not installed.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.tasks import TaskContext as TaskContext
    from django.tasks import task_backends as task_backends
    from django.tasks.backends.base import BaseTaskBackend as BaseTaskBackend
    from django.tasks.base import Task as Task
    from django.tasks.base import TaskError as TaskError
    from django.tasks.base import TaskResult as TaskResult
    from django.tasks.base import TaskResultStatus as TaskResultStatus
    from django.tasks.exceptions import InvalidTask as InvalidTask
    from django.tasks.exceptions import InvalidTaskBackend as InvalidTaskBackend
    from django.tasks.exceptions import TaskResultDoesNotExist as TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued as task_enqueued
    from django.tasks.signals import task_finished as task_finished
    from django.tasks.signals import task_started as task_started

    def normalize_json(value: Any) -> Any:
        """Return a value as JSON has it."""
else:
    PACKAGE = "django.tasks" if find_spec("django.tasks") else "django_tasks"
    if find_spec(PACKAGE) is None:
        raise ImportError(
            "pgq.backend needs django.tasks: use Django 6.0 or later, or install its backport: pip install django-tasks"
        )
    importlib.import_module(PACKAGE)
    _base = importlib.import_module(f"{PACKAGE}.base")
    Task, TaskContext, TaskError = _base.Task, _base.TaskContext, _base.TaskError
    TaskResult, TaskResultStatus = _base.TaskResult, _base.TaskResultStatus
    task_backends = importlib.import_module(PACKAGE).task_backends
    BaseTaskBackend = importlib.import_module(f"{PACKAGE}.backends.base").BaseTaskBackend
    _exceptions = importlib.import_module(f"{PACKAGE}.exceptions")
    # The backport's release 0.12 has other names for these two.
    InvalidTask = getattr(_exceptions, "InvalidTask", None) or _exceptions.InvalidTaskError
    InvalidTaskBackend = getattr(_exceptions, "InvalidTaskBackend", None) or _exceptions.InvalidTaskBackendError
    TaskResultDoesNotExist = _exceptions.TaskResultDoesNotExist
    _signals = importlib.import_module(f"{PACKAGE}.signals")
    task_enqueued, task_started, task_finished = _signals.task_enqueued, _signals.task_started, _signals.task_finished
    # Each has it in another module of its own.
    normalize_json = _base.normalize_json
