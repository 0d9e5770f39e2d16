"""The workers of a pool that sleep: how they are woken, and how callers learn that one of them sleeps.

While a worker sleeps, the supervisor raises a flag in PostgreSQL every now and then, for a little longer than until the
next time. A caller that enqueues while it is raised sends a notification; while all workers are busy, none is sent.
What commits just before the flag is raised is found by the poll of the queue that comes with each raising.
"""

from __future__ import annotations

import time

from pgq.conf import Settings
from pgq.ground import chance
from pgq.pool.children import Children
from pgq.pool.protocol import WAKE
from pgq.pool.seats import Child, State
from pgq.store import pools
from pgq.store.connection import Cursor
from pgq.store.turns import Turns

#: Seconds between the first two polls of the queue; they double, up to `poll`.
_FIRST_PAUSE_SECONDS = 0.02
#: Seconds after a rate opens at which to poll: pools that wait for the same one come one after the other.
_AFTER_OPENING_SECONDS = (0.002, 0.01)
#: Seconds for which all workers must have been busy before the flag is lowered.
_BUSY_SECONDS = 0.1


class Sleepers:
    """The sleeping workers of one pool."""

    def __init__(self, children: Children, settings: Settings) -> None:
        self.children, self.settings = children, settings
        #: A notification came while no worker slept: the next one to fall asleep is woken.
        self.missed_wake = False
        #: The flag as it was raised last, see peek.sql; 0: it is lowered.
        self.flag = 0
        #: Since when no worker sleeps (monotonic); None: one does.
        self.all_busy_since: float | None = None
        self.pause = _FIRST_PAUSE_SECONDS
        #: Where the last look at the lanes of keys ended.
        self.turns = Turns(settings.served)
        #: When (monotonic) to poll the queue.
        self.poll_at = 0.0

    def next_poll(self) -> list[float]:
        """Return the monotonic times at which `poll_queue` has something to do."""
        return [self.poll_at] if self.children.any_worker(State.ASLEEP) else []

    def poll_queue(self, cursor: Cursor, now: float, *, notified: bool) -> None:
        """While a worker sleeps, raise the flag and poll the queue, at growing intervals.

        Args:
            notified: Whether notifications reach this pool; else no flag is raised.
        """
        if not self.children.any_worker(State.ASLEEP):
            self._lower_flag(cursor, now)
            return
        if now < self.poll_at:
            return
        poll = self.settings.poll
        # Asked before the look: what opens between the two, the look sees. The other way round neither would.
        knows_rates, opens_in = self.turns.has_rates, self.turns.opens_in(cursor)
        # After the reply: counted from before, the time would be over a little before the rate opens.
        asked = time.monotonic()
        self.flag, ready = pools.peek(
            cursor,
            milliseconds=int(poll * 1500) + 500 if notified else None,
            queues=self.settings.served,
            turns=self.turns,
        )
        self.pause = min(self.pause * 2, poll)
        self.poll_at = now + self.pause * chance.between(0.9, 1.0)
        if ready:
            self.wake(1)
        elif opens_in is not None:
            # Nothing notifies of the passing of time: tasks that a rate holds may start then, and not before.
            self.poll_at = min(self.poll_at, asked + opens_in + chance.between(*_AFTER_OPENING_SECONDS))
        elif self.turns.has_rates and not knows_rates:
            # This look is the first to find a rate: ask for its time at the next one, soon.
            self.poll_at = min(self.poll_at, now + _FIRST_PAUSE_SECONDS)

    def find_ready(self, cursor: Cursor) -> bool:
        """Return whether a task is ready, and lower the flag."""
        _, ready = pools.peek(cursor, milliseconds=0, queues=self.settings.served, turns=self.turns)
        return ready

    def _lower_flag(self, cursor: Cursor, now: float) -> None:
        if self.flag and self.all_busy_since is not None and now - self.all_busy_since > _BUSY_SECONDS:
            pools.all_awake(cursor, flag=self.flag)
            self.flag = 0

    def wake(self, count: int) -> None:
        """Wake up to `count` workers; if fewer sleep, remember it for the next one that falls asleep."""
        for child in self.children.workers():
            if count <= 0:
                return
            if child.state is State.ASLEEP:
                child.state = State.AWAKE
                child.post(WAKE)
                count -= 1
        if count > 0:
            self.missed_wake = True
        if not self.children.any_worker(State.ASLEEP):
            self.all_busy_since = time.monotonic()

    def wake_all(self) -> None:
        """Wake all workers, and poll the queue at once: what was sent while there was no connection is lost."""
        self.poll_at = 0.0
        self.wake(self.settings.workers)

    def fell_asleep(self, worker: Child, *, held: bool = False) -> None:
        """Note that a worker has found nothing to do. `held`: a rate may hold tasks that it looked at."""
        worker.state = State.ASLEEP
        self.all_busy_since = None
        if self.missed_wake:
            self.missed_wake = False
            self.wake(1)
        elif not self.flag or self.pause >= self.settings.poll or held:
            # The flag is lowered, or may soon be: raise it now. A caller may just have enqueued without notifying. And
            # what the worker ran may have used a rate up: look when it opens.
            self.pause = _FIRST_PAUSE_SECONDS / 2
            self.poll_at = 0.0
