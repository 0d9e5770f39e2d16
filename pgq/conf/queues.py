"""Which queues a pool serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues that a pool serves: those of `only` (None: all, also new ones), but none of `excluded`."""

    only: Sequence[str] | None = None
    excluded: Sequence[str] = ()

    def __str__(self) -> str:
        excluded = ", ".join(map(str, self.excluded))
        served = "all" if self.only is None else ", ".join(map(str, self.only))
        return f"{served} but {excluded}" if excluded else served

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of a statement: `queues` (NULL: all), and `excluded` (NULL: none)."""
        return {
            "queues": None if self.only is None else list(self.only),
            "excluded": list(self.excluded) or None,
        }


#: What a pool serves that names no queue.
ALL = Queues()
