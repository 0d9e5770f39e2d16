"""How many tasks a pool may still start (``pgq_worker --max-tasks``), in memory that its processes share.

Before a claim a worker takes as many as it is going to claim, and gives back what it did not get or did not start. So
all workers together never start more, and exactly so many are started if there are so many.

Each worker has two numbers, which it alone writes: how many it has taken, and how many of these it has started. What is
left follows from the numbers of all workers, so a worker that dies leaves no half of a change behind; the supervisor
takes back what it had not started. The lock is one that the kernel lifts when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
from collections.abc import Iterator
from typing import Protocol

from pgq.ground.private import arena

_BYTES = 8


class Allowance:
    """What the processes of a pool share; can be handed to a child process.

    Args:
        tasks: How many may be started.
        workers: Size of the pool.
    """

    def __init__(self, tasks: int, workers: int) -> None:
        self.tasks, self.workers = tasks, workers
        self._memory = arena(2 * workers * _BYTES)

    def numbers(self) -> memoryview:
        """Return the memory: what each worker has taken, then what each has started. An element is written at once."""
        return memoryview(self._memory.buffer)[: 2 * self.workers * _BYTES].cast("Q")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process take anything meanwhile."""
        fcntl.lockf(self._memory.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._memory.fd, fcntl.LOCK_UN)

    def is_used_up(self) -> bool:
        """Whether all have been started."""
        return sum(self.numbers()[self.workers :]) >= self.tasks

    def take_back(self, number: int) -> None:
        """Take back what a dead worker had not started."""
        numbers = self.numbers()
        numbers[number] = numbers[self.workers + number]


class Claims(Protocol):
    """What a share needs of its worker's exchange."""

    def settle_and_claim(self, size: int, places: int = 1) -> int: ...
    def settle(self, *, insist: bool) -> None: ...
    def give_back(self, *, insist: bool) -> None: ...


class Share:
    """What one worker has of the allowance. Its main thread and its guard call it.

    Args:
        number: Of the worker's seat.
    """

    def __init__(self, allowance: Allowance, number: int) -> None:
        self._allowance, self._numbers = allowance, allowance.numbers()
        self._taken, self._started = number, allowance.workers + number
        #: The kernel's lock keeps out other processes, and no thread of this one.
        self._lock = threading.Lock()

    def take(self, most: int) -> int:
        """Take up to `most`, a power of two; return how many, which is one as well, or 0: there are none left."""
        with self._lock, self._allowance.locked():
            left = self._allowance.tasks - sum(self._numbers[: self._allowance.workers])
            count = min(most, left)
            count = 1 << count.bit_length() - 1 if count > 0 else 0
            self._numbers[self._taken] += count
        return count

    def claim(self, exchange: Claims, most: int, places: int = 1) -> int:
        """Settle and claim as the exchange does, no more than is left; return how many tasks were claimed."""
        count, claimed = self.take(most), 0
        if not count:
            # What other workers hold and do not start is given back, and then one of them wakes this worker.
            exchange.settle(insist=True)
            exchange.give_back(insist=True)
            return 0
        try:
            claimed = exchange.settle_and_claim(count, places)
        finally:
            self.give_back(count - claimed)
        return claimed

    def give_back(self, count: int) -> None:
        """Give back what was taken and is not going to be started."""
        with self._lock:
            self._numbers[self._taken] -= count

    def start(self) -> None:
        """Note that a task was started. Called by the main thread only."""
        self._numbers[self._started] += 1
