"""Random numbers for pauses, from the operating system.

Not those of `random`: a task may have seeded them and count on their order, and so may whoever enqueues.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Final

_RANDOM: Final = SystemRandom()


def between(least: float, most: float) -> float:
    """Return a number from `least` to `most`."""
    return _RANDOM.uniform(least, most)
