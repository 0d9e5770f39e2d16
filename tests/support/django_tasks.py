"""django.tasks for tests: Django's own, or its backport, or the test is skipped."""

from __future__ import annotations

import importlib
import inspect
from importlib.util import find_spec
from typing import Any

import pytest
from django.test import override_settings

PACKAGE = "django.tasks" if find_spec("django.tasks") else "django_tasks"
tasks: Any = pytest.importorskip(PACKAGE)
base: Any = importlib.import_module(f"{PACKAGE}.base")
exceptions: Any = importlib.import_module(f"{PACKAGE}.exceptions")
signals: Any = importlib.import_module(f"{PACKAGE}.signals")
InvalidTask: Any = getattr(exceptions, "InvalidTask", None) or exceptions.InvalidTaskError
InvalidTaskBackend: Any = getattr(exceptions, "InvalidTaskBackend", None) or exceptions.InvalidTaskBackendError

#: Whether @task passes other arguments on to the class of the task, as Django does from 6.1 on.
PASSES_ON = any(kind.kind is kind.VAR_KEYWORD for kind in inspect.signature(base.task).parameters.values())
#: Whether a Task can be pickled.
PICKLES = "__reduce__" in vars(base.Task)


def backend(**entry: Any) -> Any:
    """Override TASKS: the entry "default" is PgqBackend's for any queue, changed by what is given."""
    return override_settings(TASKS={"default": {"BACKEND": "pgq.backend.PgqBackend", "QUEUES": [], **entry}})


class Received:
    """What the receivers of the three signals were told: (signal, sender, id, status, exception being handled)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, type, str, str, str | None]] = []
        self.results: list[Any] = []

    def __enter__(self) -> Received:
        self._receivers = {name: self._receiver(name) for name in ("enqueued", "started", "finished")}
        for name, receiver in self._receivers.items():
            getattr(signals, f"task_{name}").connect(receiver)
        return self

    def __exit__(self, *error: object) -> None:
        for name, receiver in self._receivers.items():
            getattr(signals, f"task_{name}").disconnect(receiver)

    def _receiver(self, name: str) -> Any:
        def receive(sender: type, task_result: Any, **kwargs: Any) -> None:
            import sys

            raised = sys.exc_info()[0]
            status = str(task_result.status.value)
            self.events.append((name, sender, task_result.id, status, raised.__name__ if raised else None))
            self.results.append(task_result)

        return receive

    @property
    def names(self) -> list[str]:
        return [event[0] for event in self.events]
