"""Strands: tasks that count as one for a limit, so a worker runs them one after the other, also in slots.

A claim of a hundred tasks of a key whose limit is 1 has one strand, and takes one place. The main thread runs one task
at a time, so there a strand needs no care. In slots a task whose strand is busy is put off, and those behind it start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from pgq.records import Claim


class Strands:
    """The tasks that a worker has put off, since one of their strand runs in a slot.

    Args:
        running: Returns the claims of the tasks that run in slots.
    """

    def __init__(self, running: Callable[[], Iterable[Claim]]) -> None:
        self.running = running
        #: In the order in which they were claimed.
        self.put_off: deque[Claim] = deque()

    def next(self, waiting: deque[Claim]) -> Claim | None:
        """Take the next task that may be started, first of those put off; None: there is none."""
        if self.put_off and (free := self._first_free()) is not None:
            self.put_off.remove(free)
            return free
        while True:
            try:
                claim = waiting.popleft()
            except IndexError:
                return None
            if claim.strand is None or claim.strand not in self._busy():
                return claim
            self.put_off.append(claim)

    def is_any_free(self) -> bool:
        """Whether a task that was put off may be started."""
        return self._first_free() is not None

    def _first_free(self) -> Claim | None:
        busy = self._running()
        return next((claim for claim in self.put_off if claim.strand not in busy), None)

    def _busy(self) -> set[int | None]:
        # One that is put off comes before those that follow it in its strand.
        return self._running() | {claim.strand for claim in self.put_off}

    def _running(self) -> set[int | None]:
        return {claim.strand for claim in self.running()}
