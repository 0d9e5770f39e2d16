"""What a log says during an outage."""

from __future__ import annotations

import re

from tests.support.pools import Pool

#: What one process may say in a second, and how often it may knock (the start of the backoff knocks faster).
LINES, KNOCKS = 5, 20


def lines_per_second(pool: Pool, of: str = "PostgreSQL") -> float:
    """The most that one process has said of it in one second of the log (I11)."""
    seconds: dict[tuple[str, str], int] = {}
    for line in pool.log().splitlines():
        if of in line and (found := re.match(r"(\d\d:\d\d:\d\d)\.\d+ \w+ +(\d+) ", line)):
            key = found[1], found[2]
            seconds[key] = seconds.get(key, 0) + 1
    return max(seconds.values(), default=0)
