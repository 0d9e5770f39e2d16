"""What each worker is doing, in memory that it shares with the supervisor.

A worker writes its cell before and after each task, which costs no system call. The supervisor reads the cells to
enforce timeouts, to know which task killed a worker, and to report. Nothing that a task could forge is trusted: a
worker can only write its own cell, and the worst that a forged one does is to have that worker killed.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from uuid import UUID

from pgq.ground.private import arena

# started, deadline (monotonic seconds; 0: none), id of the running task (zero: none), how many run, succeeded, failed
_CELL = struct.Struct("=dd16sQQQ")
_NO_TASK = bytes(16)


@dataclass(frozen=True, slots=True)
class Activity:
    """One reading of a cell. Times are seconds of CLOCK_MONOTONIC, which all processes of a host share."""

    started: float
    #: When the supervisor kills the worker; 0: never.
    deadline: float
    #: The task that is running, or None; of several the one with the next deadline.
    task: UUID | None
    #: How many are running.
    count: int
    succeeded: int
    failed: int


class ActivityCell:
    """The memory that one worker shares with its supervisor; can be handed to a child process."""

    def __init__(self) -> None:
        # Pages of its own. RawArrays share one mapping, so that each worker could write the cells of all.
        self._memory = arena(mmap.PAGESIZE)

    def write(self, started: float, deadline: float, task: bytes, succeeded: int, failed: int, count: int = 1) -> None:
        """Show the task that runs."""
        _CELL.pack_into(self._memory.buffer, 0, started, deadline, task, count, succeeded, failed)

    def idle(self, succeeded: int, failed: int) -> None:
        """Show that no task runs."""
        _CELL.pack_into(self._memory.buffer, 0, 0.0, 0.0, _NO_TASK, 0, succeeded, failed)

    @property
    def inside(self) -> bool:
        """Whether the worker is inside the gate (see `pgq.pool.gate`)."""
        return bool(self._memory.buffer[_CELL.size])

    @inside.setter
    def inside(self, value: bool) -> None:
        self._memory.buffer[_CELL.size] = value

    def read(self) -> Activity:
        """Read the cell, again until two readings agree: the worker may write at the same time."""
        raw = self._memory.buffer[: _CELL.size]
        for _ in range(100):
            again = self._memory.buffer[: _CELL.size]
            if again == raw:
                break
            raw = again
        started, deadline, task, *counts = _CELL.unpack(raw)
        return Activity(started, deadline, UUID(bytes=task) if task != _NO_TASK else None, *counts)
