"""Whether a pool does what it is there for: what `/health` answers, and what the heartbeat writes for `pgq_check`.

Judged by what can be seen from outside a worker: its cell, the state of its process, and whether tasks are ready.
"""

from __future__ import annotations

import time
from uuid import UUID

from pgq.conf import Settings
from pgq.pool.activity import Activity
from pgq.pool.children import Children
from pgq.pool.orphans import process_stat
from pgq.pool.seats import Child, State
from pgq.store import pools
from pgq.store.connection import Cursor

#: Seconds for which ready tasks may wait while a worker is free, at most.
_STALLED_SECONDS = 10.0
#: Seconds for which upkeep may be silent. It sends TICKED after each tick, and a large chore may take its time.
_UPKEEP_SILENT_SECONDS = 60.0

_BLANK = Activity(0.0, 0.0, None, 0, 0, 0)


class Pulse:
    """What the supervisor of a pool notes as it goes round.

    Args:
        beat: Seconds between two renewals.
    """

    def __init__(self, children: Children, settings: Settings, beat: float) -> None:
        self.children, self.settings = children, settings
        self.late = 2 * beat + 1.0
        self.stalled_after = min(_STALLED_SECONDS, 2 * settings.retry)
        self.connected = False
        #: What is wrong with the tables, if that is why there is no connection.
        self.outdated: str | None = None
        self.renewed_at = 0.0
        self.ticked_at = time.monotonic()
        #: Since when ready tasks wait though a worker is free (monotonic); None: they do not.
        self.stalled_since: float | None = None
        #: Tasks are ready, and all that this pool serves is paused.
        self.paused = False
        self.seen: dict[UUID, Activity] = {}

    def renewed(self) -> None:
        """Note that the leases were renewed."""
        self.connected = True
        self.renewed_at = time.monotonic()

    def ticked(self) -> None:
        """Note that upkeep has done its chores."""
        self.ticked_at = time.monotonic()

    def waited(self, cursor: Cursor) -> float | None:
        """Return for how many seconds tasks have waited that a free worker should have claimed (None: none do).

        One cheap query, and only if no worker has moved since the last call.
        """
        now = time.monotonic()
        workers = self._ready_workers()
        seen = {child.id: child.cell.read() for child in workers if child.cell is not None}
        moved = any(activity != self.seen.get(id, _BLANK) for id, activity in seen.items())
        self.seen = seen
        waiting = self.paused = False
        # A pool without a ready worker claims nothing either.
        if not moved and (not workers or any(map(self._is_free, workers))):
            waiting, self.paused = pools.waiting(cursor, queues=self.settings.served)
        if not waiting:
            self.stalled_since = None
            return None
        if self.stalled_since is None:
            self.stalled_since = now
        return now - self.stalled_since

    def trouble(self) -> str | None:
        """Return why this pool claims nothing just now, or None. Sends no query, so it can be called at any time."""
        now = time.monotonic()
        if self.children.closing:
            return "the pool is stopping"
        if not self.connected:
            return self.outdated or "there is no connection to PostgreSQL"
        if now - self.renewed_at > self.late:
            return f"PostgreSQL has not renewed the leases for {now - self.renewed_at:.0f} s"
        workers = self._ready_workers()
        if not workers:
            return "no worker is ready"
        if all(_is_frozen(child) for child in workers):
            return "all workers are frozen"
        if now - self.ticked_at > max(_UPKEEP_SILENT_SECONDS, 10 * self.settings.tick):
            return f"upkeep has said nothing for {now - self.ticked_at:.0f} s"
        if self.paused:
            return "tasks are ready, and all queues are paused"
        if self.stalled_since is not None and now - self.stalled_since > self.stalled_after:
            return f"tasks have been ready for {now - self.stalled_since:.0f} s, and no worker claims them"
        return None

    def _ready_workers(self) -> list[Child]:
        return [child for child in self.children.workers() if child.state in (State.AWAKE, State.ASLEEP)]

    def _is_free(self, child: Child) -> bool:
        if child.cell is None or child.state is State.ASLEEP:
            # It may have some in flight, but has asked for more.
            return True
        return child.cell.read().task is None or _is_frozen(child)


def _is_frozen(child: Child) -> bool:
    """Whether a process was stopped (SIGSTOP, a debugger). Known on Linux only."""
    try:
        return process_stat(child.process.pid or 0)[0] in ("T", "t")
    except OSError:
        return False
