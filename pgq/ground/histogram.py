"""Histograms of times: how many took how long, in buckets that grow with the time.

A time is a whole number of microseconds. Two buckets for each power of two, told apart by the second bit of the number:
bucket 4 begins at 2 microseconds, bucket 5 at 3, bucket 6 at 4, bucket 7 at 6, bucket 8 at 8, bucket 9 at 12.

So a bucket's number takes no logarithm and no table, 36 hours are bucket 75, and a quantile read from a histogram is
wrong by a fifth at most. ``pgq_bucket`` and ``pgq_quantile`` do the same in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

#: Buckets there are, for numbers of up to 62 bits.
SIZE = 126
#: The longest time that is told from longer ones, in microseconds.
LONGEST = (1 << 62) - 1


def bucket(microseconds: int) -> int:
    """Return the bucket of a time, which is 0 or more."""
    bits = microseconds.bit_length()
    return 2 * bits + ((microseconds >> (bits - 2)) & 1) if bits > 1 else 2 * bits


def begin(bucket: int) -> float:
    """Return the seconds at which a bucket begins; it ends where `following` begins."""
    if bucket < 4:
        return 0.0 if bucket < 2 else 1e-6
    return ((2 + bucket % 2) << (bucket // 2 - 2)) / 1e6


def following(bucket: int) -> int:
    """Return the next bucket that a time may be in: 1 and 3 stay empty."""
    return bucket + 1 if bucket >= 4 else bucket - bucket % 2 + 2


def dense(counts: Mapping[int, int]) -> tuple[int, list[int]] | tuple[None, None]:
    """Return the first bucket and the counts from there on, as the tables hold them."""
    filled = [number for number, count in counts.items() if count]
    if not filled:
        return None, None
    first = min(filled)
    return first, [counts.get(number, 0) for number in range(first, max(filled) + 1)]


def merged(histograms: Iterable[tuple[int | None, Sequence[int] | None]]) -> dict[int, int]:
    """Return the sum of histograms, each given by its first bucket and its counts."""
    total: dict[int, int] = {}
    for first, counts in histograms:
        if first is not None and counts is not None:
            for number, count in enumerate(counts, first):
                if count:
                    total[number] = total.get(number, 0) + count
    return total


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the seconds that a share (0 to 1) of the times do not exceed; None: there are no times."""
    rank = share * sum(counts.values())
    passed = 0
    for number in sorted(counts):
        count = counts[number]
        if count and passed + count >= rank:
            low, high = begin(number), begin(following(number))
            return low + (high - low) * max(rank - passed, 0) / count
        passed += count
    return None
