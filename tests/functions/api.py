"""Functions that REST may enqueue."""

from __future__ import annotations

from typing import Any

from pgq.tasks import task


@task(api=True)
def offered(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@task(api=True)
def strict(a: int) -> int:
    return a
