"""What passes through the pipe between supervisor and child."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID


class Kind(enum.Enum):
    """What a child is. The value is the module whose `main` it runs; the supervisor never imports it."""

    WORKER = "pgq.pool.worker.loop"
    UPKEEP = "pgq.pool.upkeep_process"


# Messages on the pipe between the supervisor and a child: one byte, and an id where one is needed.
WAKE, STOP, CANCEL = b"w", b"s", b"c"
READY, IDLE, MORE, TICKED, BYE, ENDING = b"r", b"i", b"m", b"t", b"b", b"e"
# As IDLE, and there are rates: what one of them holds may start without being told.
HELD = b"h"
# With an id: from now on the worker claims under that one, and holds nothing under the one before.
RENAMED = b"n"
# With a number of kilobytes: the worker has taken more memory than max_rss before its first task.
LARGE = b"l"

#: Seconds that a child may take to end, see `leave`; then the supervisor kills it.
END_WITHIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """What a child gets from its supervisor. Everything else it reads from Django's settings."""

    #: Random id of this process; the `worker` of its claims.
    id: UUID
    #: Number of its seat in the pool, from 0.
    number: int
    pool: str
    database: str
    #: The queues that the pool serves (None: all), and those that it does not.
    queues: tuple[str, ...] | None
    exclude_queues: tuple[str, ...]
    #: From the command line; None: not given there.
    log_format: str | None
    log_level: str | None
    #: Names of databases by their aliases, as the supervisor uses them.
    databases: Mapping[str, str] = field(default_factory=dict)
    #: Settings that no module holds, see `boot`.
    configured: bytes | None = None
