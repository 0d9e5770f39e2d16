"""A backend with a task class of its own, as Django documents it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pgq.backend import PgqBackend
from pgq.enqueue.django_api import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomTask(Task):
    foo: int = 3
    bar: str = "default"
    length: timedelta | None = None
    names: list[str] = field(default_factory=list)


class CustomBackend(PgqBackend):
    task_class = CustomTask

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.prefix = self.options.pop("prefix", "")


def work(x: int = 1) -> int:
    return x


def other(x: int = 1) -> int:
    return x
