"""The board: what each worker is doing, in shared memory.

A worker writes its slot before and after each task, which costs no system call; the supervisor reads the slots to
enforce timeouts, to know which task killed a worker, and to report. Nothing is trusted that a task could forge: a
worker can only write its own slot, and the worst a false one does is to have that worker killed.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from multiprocessing.heap import Arena
from uuid import UUID

# started, deadline (monotonic seconds; 0: none), id of the running task (zero: none), how many run, succeeded, failed
_SLOT = struct.Struct("=dd16sQQQ")
_NOBODY = bytes(16)


@dataclass(frozen=True, slots=True)
class Activity:
    """One reading of a slot. Times are seconds of CLOCK_MONOTONIC, which all processes of a host share."""

    started: float
    #: When the supervisor kills the worker; 0: never.
    deadline: float
    #: The task that is running, or None; of several the one with the next deadline.
    task: UUID | None
    #: How many are running.
    count: int
    succeeded: int
    failed: int


class Slot:
    """One worker's place on the board; can be handed to a child process."""

    def __init__(self) -> None:
        # Pages of its own. RawArrays share one mapping, so that each worker could write the slots of all.
        self._memory = Arena(mmap.PAGESIZE)

    def write(self, started: float, deadline: float, task: bytes, succeeded: int, failed: int, count: int = 1) -> None:
        _SLOT.pack_into(self._memory.buffer, 0, started, deadline, task, count, succeeded, failed)

    def idle(self, succeeded: int, failed: int) -> None:
        _SLOT.pack_into(self._memory.buffer, 0, 0.0, 0.0, _NOBODY, 0, succeeded, failed)

    @property
    def inside(self) -> bool:
        """Whether the worker holds a place in the gate (see `pgq.gate`)."""
        return bool(self._memory.buffer[_SLOT.size])

    @inside.setter
    def inside(self, value: bool) -> None:
        self._memory.buffer[_SLOT.size] = value

    def read(self) -> Activity:
        """Read the slot; it is read until two readings agree, since the writer does not wait for us."""
        raw = self._memory.buffer[: _SLOT.size]
        for _ in range(100):
            again = self._memory.buffer[: _SLOT.size]
            if again == raw:
                break
            raw = again
        started, deadline, task, *counts = _SLOT.unpack(raw)
        return Activity(started, deadline, UUID(bytes=task) if task != _NOBODY else None, *counts)
