"""The gate: only a few workers of a pool exchange many tasks with PostgreSQL at the same time.

Large claims that overlap look at the same rows. Each claim has to step over the rows that the others have locked. A
claim whose snapshot is older than another's commit locks rows that the other holds already, and until the one commits,
the other waits to settle them. With 64 workers that took three times the processor time of four, for a third of the
tasks (see docs/benchmarks.md).

A gate only saves work, and nothing relies on it: a worker that waits too long goes on without, as does a small pool's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pgq.board import Slot

#: So many at once: one for each processor that two busy sessions and their clients can make use of, and some to spare.
PLACES = 4
#: Fewer tasks than these do not meet often enough to be worth a wait.
LARGE = 64
#: Seconds after which a worker must have been stopped inside. (A pool of hundreds takes turns of two seconds.)
WAIT_FOR_GATE_SECONDS = 10.0


class Gate:
    """What the workers of a pool share; can be handed to a child process.

    Args:
        context: Of multiprocessing; None: no gate.
        workers: Size of the pool: a small one needs none.
    """

    def __init__(self, context: Any = None, workers: int = 0) -> None:
        self._places: Any = None
        if context is not None and workers > PLACES:
            # Some systems have no semaphores, or no place for them (/dev/shm).
            with contextlib.suppress(ImportError, OSError):
                self._places = context.BoundedSemaphore(PLACES)

    @contextlib.contextmanager
    def passage(self, slot: Slot, count: int) -> Iterator[None]:
        """Be inside while so many tasks are exchanged. The slot shows it, in case this worker dies there."""
        if self._places is None or count < LARGE or not self._places.acquire(timeout=WAIT_FOR_GATE_SECONDS):
            yield
            return
        slot.inside = True
        try:
            yield
        finally:
            slot.inside = False
            self._leave()

    def free(self, slot: Slot) -> None:
        """Free the place of a worker that died inside."""
        if slot.inside and self._places is not None:
            self._leave()

    def _leave(self) -> None:
        # A task can reach the semaphore as well, and may have released it once too often.
        with contextlib.suppress(ValueError):
            self._places.release()
