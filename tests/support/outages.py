"""What a log holds of an outage."""

from __future__ import annotations

import re

from tests.support.pools import Pool

#: Lines that one process may log in a second, and its attempts to connect (more at the start of the backoff).
LINES, KNOCKS = 5, 20


def lines_per_second(pool: Pool, of: str = "PostgreSQL") -> float:
    """The most lines that one process has logged of it in one second (I11)."""
    seconds: dict[tuple[str, str], int] = {}
    for line in pool.log().splitlines():
        if of in line and (found := re.match(r"(\d\d:\d\d:\d\d)\.\d+ \w+ +(\d+) ", line)):
            key = found[1], found[2]
            seconds[key] = seconds.get(key, 0) + 1
    return max(seconds.values(), default=0)
