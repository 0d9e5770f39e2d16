"""A port on which a test's server can listen."""

from __future__ import annotations

import random
import socket

#: Below what a system gives to who asks for any port (Linux: from 32768, others: from 49152). One of those is free when
#: it is looked for, and the end of somebody's connection when the server starts.
RANGE = range(20_000, 32_000)


def free_port(count: int = 1) -> int:
    """The first of `count` ports in a row on which nothing listens at 127.0.0.1."""
    while True:
        first = random.choice(RANGE[:-count])
        try:
            for port in range(first, first + count):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        return first
