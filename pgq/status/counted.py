"""What was settled, counted: how many reports had which outcome, and how long something took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgq.ground import histogram
from pgq.store.metrics import OUTCOMES
from pgq.store.series import Counted

_SHARES = {"median": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many reports had which outcome."""

    #: Tasks that returned.
    succeeded: int = 0
    #: Tasks that failed, with no attempt left.
    failed: int = 0
    #: Attempts that failed and were followed by another one.
    retried: int = 0
    #: Tasks that were cancelled.
    cancelled: int = 0
    #: Tasks that failed since they ran too long.
    timed_out: int = 0
    #: Attempts that ended with the death of their worker.
    crashed: int = 0
    #: Rows that cannot run as they are.
    parked: int = 0
    #: Tasks that raised Discard.
    discarded: int = 0

    @classmethod
    def of(cls, row: Counted) -> Counts:
        """Return those of a row."""
        return cls(**{name: getattr(row, name) for name in OUTCOMES})

    @property
    def ended(self) -> int:
        """Tasks that have ended, however."""
        return self.succeeded + self.failed + self.cancelled + self.timed_out + self.discarded

    @property
    def failures(self) -> int:
        """Tasks that have ended as failed, but those that were cancelled."""
        return self.failed + self.timed_out + self.discarded

    @property
    def all(self) -> int:
        """All reports."""
        return self.ended + self.retried + self.crashed + self.parked


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in seconds; None: it did not happen. Quantiles are wrong by a fifth at most."""

    #: How often.
    number: int
    #: All together.
    total: float
    #: Of all.
    average: float | None
    #: Half of them took no longer.
    median: float | None
    #: Of a hundred, 95 took no longer.
    p95: float | None
    #: Of a hundred, 99 took no longer.
    p99: float | None
    #: Exact.
    longest: float | None

    @classmethod
    def of(cls, counts: Mapping[int, int], total: float, longest: float) -> Times:
        """Return what a histogram tells."""
        number = sum(counts.values())
        if not number:
            return cls(0, 0.0, None, None, None, None, None)
        # Interpolated in the last bucket, a quantile may be above the longest time.
        median, p95, p99 = (min(histogram.quantile(counts, share) or 0.0, longest) for share in _SHARES.values())
        return cls(number, total, total / number, median, p95, p99, longest)
