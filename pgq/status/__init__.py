"""What can be seen of pools, queues and tasks. `Stat` is Django-Q's."""

from pgq.status.pools import ALIVE, IDLE, STARTING, STOPPED, STOPPING, WORKING, Stat, Status

__all__ = [
    "ALIVE",
    "IDLE",
    "STARTING",
    "STOPPED",
    "STOPPING",
    "WORKING",
    "Stat",
    "Status",
]
