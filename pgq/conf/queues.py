"""Which queues a pool serves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


def is_pattern(name: str) -> bool:
    """Whether a name stands for each queue that it matches: ``mail.*``. A star is any text, also none."""
    return "*" in name


@lru_cache(maxsize=1000)
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def are_named(queue: str, names: Iterable[str]) -> bool:
    """Whether one of the names is that of the queue, or a pattern that it matches."""
    return any(name == queue or (is_pattern(name) and _expression(name).fullmatch(queue)) for name in names)


def as_like(name: str) -> str:
    """Return a name or pattern as PostgreSQL's LIKE has it: only the star has a meaning."""
    return re.sub(r"([\\%_])", r"\\\1", name).replace("*", "%")


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues that a pool serves: those of `only` (None: all, also new ones), but none of `excluded`.

    Both hold names and patterns (see `is_pattern`). A new queue that a pattern matches is served without more ado.
    """

    only: Sequence[str] | None = None
    excluded: Sequence[str] = ()

    def __str__(self) -> str:
        excluded = ", ".join(map(str, self.excluded))
        served = "all" if self.only is None else ", ".join(map(str, self.only))
        return f"{served} but {excluded}" if excluded else served

    def serves(self, queue: str) -> bool:
        """Whether the queue is among them."""
        return (self.only is None or are_named(queue, self.only)) and not are_named(queue, self.excluded)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of a statement: `queues` (NULL: all), and `excluded` (NULL: none)."""
        return {
            "queues": None if self.only is None else _comparable(self.only),
            "excluded": _comparable(self.excluded) or None,
        }

    def operators(self) -> dict[str, str]:
        """Return the parts of a statement by which it compares a queue with its parameters.

        Names are compared by an index; a pattern is not. So a pool that names its queues pays nothing for patterns.
        """
        return {
            "among": "LIKE ANY" if any(map(is_pattern, self.only or ())) else "= ANY",
            "apart": "NOT LIKE ALL" if any(map(is_pattern, self.excluded)) else "<> ALL",
        }


def _comparable(names: Sequence[str]) -> list[str]:
    return list(map(as_like, names)) if any(map(is_pattern, names)) else list(names)


#: What a pool serves that names no queue.
ALL = Queues()
