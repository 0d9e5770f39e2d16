"""Turns: what one worker claims next, of tasks with a key and without.

Priorities are strict. Within one, tasks with a key and those without take turns, one claim each; among those with a key
the queues take turns, and within a queue its keys. A worker whose tasks have no key and whose queues have no limit pays
for none of this: each claim tells it whether there are others, and it asks when it finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from uuid import UUID

from psycopg.pq import TransactionStatus

from pgq.conf import ALL, Queues
from pgq.records import Claim
from pgq.store import keyed, queue
from pgq.store.connection import Cursor
from pgq.store.keyed import ABOVE_ALL, Chosen

#: Lanes that a claim keeps at first, and at most: each may need a lock, and all locks of the server have one table.
_LANES, _MOST_LANES = 64, 256
#: Times that a claim looks at further lanes, if those it looked at are full.
_LOOKS = 8
#: Queues whose ring of keys is remembered.
_RINGS = 64


class Turns:
    """Where the rings of one worker stand.

    Attributes:
        busy: The last claim found nothing, but another session was just claiming from lanes that have room.
        more: The last claim may have left tasks that another worker could take.
        has_rates: The last look found, with lanes of keys or queues with a limit, that a rate may hold tasks.
    """

    def __init__(self, queues: Queues = ALL) -> None:
        self.queues = queues
        self.busy = self.more = self.has_rates = False
        #: The queue whose turn comes last: of tasks without a key, and with one.
        self._after: str | None = None
        self._after_keyed = ""
        #: The key of each queue whose turn comes last, the queue that was served last at the end.
        self._keys: dict[str, str] = {}
        #: Queues with a limit where the keys have their turn before the tasks without one.
        self._plain_last: set[str] = set()
        #: `_keys` as they were before the lanes were chosen, of their queues.
        self._before: dict[str, str | None] = {}
        self._lanes = _LANES
        self._in_use = True
        self._keyed_first = False

    def claim(self, cursor: Cursor, *, limit: int, worker: UUID, receipt: UUID, places: int = 1) -> list[Claim]:
        """Claim up to `limit` tasks (one of CLAIM_SIZES), in the order in which they are to be run.

        Args:
            places: How many tasks the worker can run at the same time.
        """
        self.busy = self.more = False
        if self._after is None:
            self._after = queue.some_queue(cursor)
        plain = _Plain(self, cursor, worker, receipt)
        if not self._in_use:
            claims = plain.claim(limit)
            if claims or not self._look(cursor):
                self.more = len(claims) == limit
                return queue.in_order(claims)
        with _transaction(cursor):
            chosen = self._choose(cursor, limit)
            if chosen is None:
                claims = plain.claim(limit)
            else:
                claims = self._claim_both(cursor, chosen, plain, limit, max(places, 1))
        self.busy = self.busy and not claims
        self.more = self.more or len(claims) == limit
        return queue.in_order(claims)

    def is_any_ready(self, cursor: Cursor) -> bool:
        """Whether a claim would find a task with a key, or one of a queue with a limit: ready, and with room.

        A supervisor asks it while a worker sleeps. Were held tasks reported as well, workers would wake for nothing,
        again and again. Many looks in vain end before all lanes were seen; the next call goes on from there.
        """
        return self._choose(cursor, 1, locking=False) is not None

    def opens_in(self, cursor: Cursor) -> float | None:
        """Return in how many seconds the first rate that is used up lets a task start; None: none is known of.

        For a supervisor. It asks PostgreSQL only if the last look found rates.
        """
        return keyed.rate_opens(cursor) if self.has_rates else None

    def _look(self, cursor: Cursor) -> bool:
        self._in_use = keyed.in_use(cursor)
        return self._in_use

    def _claim_both(self, cursor: Cursor, chosen: Chosen, plain: _Plain, limit: int, places: int) -> list[Claim]:
        """Claim from the lanes that were chosen, and tasks without a key of their priority and above."""
        priority = chosen.priority
        assert priority is not None
        self._keyed_first = not self._keyed_first
        if not self._keyed_first:
            claims = plain.claim(limit, (priority, ABOVE_ALL)) if chosen.plain_above or chosen.plain_beside else []
            return claims + self._claim_keyed(cursor, chosen, plain, limit - len(claims), places)
        claims = plain.claim(limit, (priority + 1, ABOVE_ALL)) if chosen.plain_above else []
        claims += self._claim_keyed(cursor, chosen, plain, limit - len(claims), places)
        return claims + (plain.claim(limit - len(claims), (priority, priority)) if chosen.plain_beside else [])

    def _choose(self, cursor: Cursor, limit: int, *, locking: bool = True) -> Chosen | None:
        """Return the lanes of the highest priority that has any with room; None: there is none."""
        below, looks = ABOVE_ALL, 0
        while True:
            chosen = keyed.choose(
                cursor,
                lanes=min(self._lanes, limit),
                below=below,
                queues=self.queues,
                after=self._after_keyed,
                keys=self._keys,
                plain_last=self._plain_last,
                locking=locking,
            )
            self.busy = self.busy or chosen.busy > 0
            if chosen.priority is None:
                self._in_use = below != ABOVE_ALL
                self.has_rates = self._in_use and chosen.rates
                return None
            self.has_rates = chosen.rates
            self._remember(chosen)
            if chosen.queues:
                return chosen
            looks += 1
            # Full lanes may hide others behind them; after some looks the lower priorities must have their turn.
            if chosen.looked < keyed.LOOKED or looks >= _LOOKS:
                below, looks = chosen.priority, 0

    def _remember(self, chosen: Chosen) -> None:
        if chosen.after is not None:
            self._after_keyed = chosen.after
        self._before = {name: self._keys.get(name) for name in chosen.queues}
        for name, key in zip(chosen.ring_queues or (), chosen.ring_keys or (), strict=True):
            self._keys.pop(name, None)
            self._keys[name] = key
        while len(self._keys) > _RINGS:
            self._forget(next(iter(self._keys)))

    def _forget(self, name: str) -> None:
        self._keys.pop(name, None)
        self._plain_last.discard(name)

    def _go_on(self, chosen: Chosen, claims: Sequence[Claim]) -> None:
        """Begin the next claim where this one ended, if a rate, or the size, left lanes without a turn.

        A lane that brought nothing has had its turn as well: else one that cannot bring anything would stop the ring.
        """
        brought = {(claim.queue, claim.key or "") for claim in claims}
        lanes: dict[str, list[str]] = {}
        for name, key in zip(chosen.queues, chosen.keys, strict=True):
            lanes.setdefault(name, []).append(key)
        for name, keys in lanes.items():
            served = [key for key in keys if (name, key) in brought] or keys[:1]
            if served[-1] == keys[-1]:
                self._plain_last.discard(name)
                continue
            last, before = served[-1], self._before.get(name)
            self._forget(name)
            if "" in served:
                self._plain_last.add(name)
            if last or before is not None:
                self._keys[name] = last or before or ""

    def _claim_keyed(self, cursor: Cursor, chosen: Chosen, plain: _Plain, limit: int, places: int) -> list[Claim]:
        if limit < 1:
            self.more = True
            return []
        limit = queue.size_within(limit)
        lanes = len(chosen.queues)
        share = queue.size_within(max(limit // lanes, 1))
        claims = keyed.claim_keyed(
            cursor,
            chosen,
            limit=limit,
            share=share,
            places=queue.size_within(places),
            worker=plain.worker,
            receipt=plain.receipt,
        )
        self._go_on(chosen, claims)
        self.more = len(claims) >= share
        # As many lanes as fill a claim: more if they gave too little.
        if lanes == self._lanes:
            if len(claims) < limit // 2:
                self._lanes = min(2 * self._lanes, _MOST_LANES)
            elif share == 1 and len(claims) == limit:
                self._lanes = max(self._lanes // 2, _LANES)
        return claims


class _Plain:
    """Claims tasks without a key, under the receipt of one claim."""

    def __init__(self, turns: Turns, cursor: Cursor, worker: UUID, receipt: UUID) -> None:
        self.turns, self.cursor, self.worker, self.receipt = turns, cursor, worker, receipt

    def claim(self, limit: int, priorities: tuple[int, int] | None = None) -> list[Claim]:
        """Claim up to `limit` of these priorities (None: all)."""
        turns = self.turns
        if limit < 1:
            return []
        assert turns._after is not None
        claims, in_use = queue.claim_and_look(
            self.cursor,
            limit=queue.size_within(limit),
            worker=self.worker,
            receipt=self.receipt,
            queues=turns.queues,
            after=turns._after,
            priorities=priorities,
        )
        if claims:
            turns._in_use = in_use
            turns._after = queue.behind(_lanes_of(claims), after=turns._after)
        return claims


def _transaction(cursor: Cursor) -> AbstractContextManager[object]:
    """Return a transaction, unless the cursor is in one: the limits must stay locked until the claim commits."""
    connection = cursor.connection
    if connection.info.transaction_status is TransactionStatus.IDLE:
        return connection.transaction()
    return nullcontext()


def _lanes_of(claims: Sequence[Claim]) -> list[tuple[int, str]]:
    return [(claim.priority, claim.queue) for claim in claims]
