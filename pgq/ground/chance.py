"""Random numbers for pauses, from the operating system.

The module `random` has one sequence for the whole process. A task may have seeded it and count on its order, and so may
code that enqueues. So pgq draws nothing from it.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Final

_RANDOM: Final = SystemRandom()


def between(least: float, most: float) -> float:
    """Return a number from `least` to `most`."""
    return _RANDOM.uniform(least, most)
