"""Percentiles of the last seconds in bounded memory."""

from __future__ import annotations

import math
from collections import Counter, deque

#: Neighbouring buckets are this far apart: three significant figures.
_STEP = math.log(1.001)
_LOWEST = 0.001
_HIGHEST = 1e7


class Rolling:
    """Milliseconds that came within the last `window` seconds, in logarithmic buckets for each second.

    However many come, a second is at most some 23,000 buckets.
    """

    def __init__(self, window: int = 30) -> None:
        self.window = window
        self.seconds: deque[tuple[int, Counter[int]]] = deque()

    def add(self, milliseconds: float, now: float) -> None:
        second = int(now)
        if not self.seconds or self.seconds[-1][0] != second:
            self._forget(second)
            self.seconds.append((second, Counter()))
        value = min(max(milliseconds, _LOWEST), _HIGHEST)
        self.seconds[-1][1][int(math.log(value / _LOWEST) / _STEP)] += 1

    def quantiles(self, shares: tuple[float, ...], now: float) -> list[float]:
        """Return a value for each share; zeros if nothing came."""
        self._forget(int(now))
        merged: Counter[int] = Counter()
        for _, counts in self.seconds:
            merged.update(counts)
        total, found = merged.total(), []
        ordered = sorted(merged.items())
        for share in shares:
            left = share * total
            value = 0.0
            for bucket, count in ordered:
                value = _LOWEST * math.exp((bucket + 0.5) * _STEP)
                left -= count
                if left <= 0:
                    break
            found.append(value)
        return found

    def _forget(self, second: int) -> None:
        while self.seconds and self.seconds[0][0] <= second - self.window:
            self.seconds.popleft()
