"""Tasks with keys and limits."""

from __future__ import annotations

from typing import Any

from pgq.tasks import Rate, task


@task(key="account", concurrency=2)
def for_account(account: Any) -> None:
    """The limit is of each account."""


@task(key=lambda text, more=0: f"{text.upper()}{more}" if text else None)
def by_function(text: str, more: int = 0) -> None:
    """No limit: the keys only take turns."""


@task(key=lambda number: 1 / 0)
def failing(number: int) -> None:
    """Its key cannot be computed."""


@task(concurrency=("stripe", 5), rate=("stripe", Rate(100, 60)))
def named() -> None:
    """Shares a limit by its name."""


@task(concurrency=3)
def alone() -> None:
    """Has a limit for all its calls."""


@task
def plain(number: int) -> None:
    """Has none."""


@task
def nothing() -> None:
    """Has none, and takes nothing."""


@task
def with_key(key: str) -> None:
    """Has an argument of its own that is named as the option."""


def plain_function(number: int) -> None:
    """Is not registered."""
