"""Strands: tasks that count as one for a limit, so a worker runs them one after the other, also in slots.

A claim of a hundred tasks of a key whose limit is 1 has one strand, and takes one place. The main thread runs one task
at a time, so there a strand needs no care. In slots a task whose strand is busy is put off, and those behind it start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pgq.pool.worker.exchange import Exchange
from pgq.pool.worker.slots import Slots
from pgq.records import Claim


class Strands:
    """Gives a worker's main thread the tasks that were claimed, and puts off those whose strand is busy in a slot.

    Args:
        patience: Seconds that the worker waits for a strand, if all it has is put off.
        stopping: Whether the worker is to start nothing more.
    """

    def __init__(self, exchange: Exchange, slots: Slots, patience: float, stopping: Callable[[], bool]) -> None:
        self.exchange, self.slots, self.patience, self.stopping = exchange, slots, patience, stopping
        #: In the order in which they were claimed.
        self.put_off: deque[Claim] = deque()

    def next(self) -> Claim | None:
        """Take the next task that may be started; None: there is none. Then none is put off, either."""
        if not self.put_off:
            try:
                claim = self.exchange.waiting.popleft()
            except IndexError:
                return None
            if claim.strand is None or claim.strand not in self._running():
                return claim
            self.put_off.append(claim)
        return self._after_those_put_off()

    def give_back(self) -> None:
        """Release the tasks that were put off: another worker may have room for them sooner."""
        if self.put_off:
            self.exchange.waiting.extendleft(reversed(self.put_off))
            self.put_off.clear()
            self.exchange.give_back(insist=False)

    def _after_those_put_off(self) -> Claim | None:
        free = self._first_free()
        while free is None:
            try:
                claim = self.exchange.waiting.popleft()
            except IndexError:
                break
            # One that is put off comes before those that follow it in its strand.
            if claim.strand is None or claim.strand not in self._running() | {other.strand for other in self.put_off}:
                return claim
            self.put_off.append(claim)
            free = self._first_free()
        if free is None:
            self.slots.wait_until(lambda: self.stopping() or self._first_free() is not None, self.patience)
            free = self._first_free()
        if free is None or self.stopping():
            self.give_back()
            return None
        self.put_off.remove(free)
        return free

    def _first_free(self) -> Claim | None:
        busy = self._running()
        return next((claim for claim in self.put_off if claim.strand not in busy), None)

    def _running(self) -> set[int | None]:
        return {claim.strand for claim in self.slots.claims()}
