"""The gate: only a few workers of a pool exchange many tasks with PostgreSQL at the same time.

Large claims at the same time read the same rows. Each claim has to step over the rows that the others have locked.
And a claim whose snapshot is older than the commit of another locks rows that the other worker holds already; that
worker then waits for the end of the claim before it can settle them. 64 workers so took three times the processor time
of 4 workers, for a third of the tasks (see docs/explain/benchmarks.md).

The gate only saves work, and nothing relies on it: a worker that has waited too long goes on without a place, and so
does a worker of a pool without a gate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pgq.pool.activity import ActivityCell

#: Workers inside at the same time: two keep two processors busy, with their sessions; the others are to spare.
PLACES = 4
#: Exchanges of fewer tasks are so short that they rarely meet: they do not wait.
LARGE = 64
#: Seconds that a worker waits for a place: if none is free by then, workers were frozen inside. (In a pool of hundreds
#: of workers it takes two seconds until a worker's turn comes.)
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
    def passage(self, cell: ActivityCell, count: int) -> Iterator[None]:
        """Be inside while so many tasks are exchanged. The cell shows it, in case the worker dies there."""
        if self._places is None or count < LARGE or not self._places.acquire(timeout=WAIT_FOR_GATE_SECONDS):
            yield
            return
        cell.inside = True
        try:
            yield
        finally:
            cell.inside = False
            self._leave()

    def free_place_of(self, cell: ActivityCell) -> None:
        """Free the place of a worker that died inside."""
        if cell.inside and self._places is not None:
            self._leave()

    def _leave(self) -> None:
        # A task can reach the semaphore, too, and may have released it: then there is no place to give back.
        with contextlib.suppress(ValueError):
            self._places.release()
