"""Statements about the lanes of keys: choose, claim, and what upkeep does for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from pgq.conf import Queues
from pgq.records import Claim
from pgq.store.connection import Cursor
from pgq.store.lanes import commit_unflushed
from pgq.store.statement import all_rows, one_row, records
from pgq.store.texts import sql

#: Lanes at which a claim looks at most. Full ones cost it a probe each.
LOOKED = 256
#: Higher than each priority.
ABOVE_ALL = 32_767


@dataclass(frozen=True, slots=True)
class Chosen:
    """The lanes that a claim may claim from, whose limits are locked, and where the rings go on."""

    #: Of all the lanes; None: there is no lane of a lower priority than was asked for.
    priority: int | None
    queues: list[str]
    keys: list[str]
    lows: list[int]
    #: Whether the lane's queue, or its key, has a limit.
    queue_limited: list[bool]
    key_limited: list[bool]
    #: Whether that limits the rate; of a key, or whether it is strict.
    queue_rated: list[bool]
    key_rated: list[bool]
    #: Lanes that have room and whose lock another session holds.
    busy: int
    #: Lanes that were looked at.
    looked: int
    #: For some queues, the key behind which the next claim begins.
    ring_queues: list[str] | None
    ring_keys: list[str] | None
    #: The queue behind which the next claim begins; None: it may begin anywhere.
    after: str | None
    #: Whether lanes of rows without a key may have a higher priority.
    plain_above: bool
    #: Or the same.
    plain_beside: bool
    #: Whether any limit is one of a rate.
    rates: bool
    #: Milliseconds that the session may be idle in this transaction; None: it was not changed.
    idle_limit: str | None


def in_use(cursor: Cursor) -> bool:
    """Return whether there are lanes of keys in use, or queues with a limit."""
    return bool(one_row(cursor, "in_use", {})[0])


def choose(
    cursor: Cursor,
    *,
    lanes: int,
    below: int,
    queues: Queues,
    after: str,
    keys: Mapping[str, str],
    plain_last: Collection[str] = (),
    locking: bool = True,
) -> Chosen:
    """Choose up to `lanes` lanes of keys that have ready rows and room, and lock their limits until the commit.

    Args:
        lanes: A power of two, since it is part of the text.
        below: Only of priorities below this one.
        after: The queue that has its turn last.
        keys: For each queue that was served lately the key that has its turn last.
        plain_last: Queues with a limit whose tasks without a key have their turn after all keys.
        locking: Lock the limits; else it only looks.
    """
    parameters = {
        **queues.parameters(),
        "below": below,
        "after": after,
        "ring_queues": list(keys),
        "ring_keys": list(keys.values()),
        "plain_last": list(plain_last),
        # A caller's own transaction may take as long as the caller wants.
        "idle_limit": None if isinstance(cursor, CursorWrapper) or not locking else "10000",
        "locking": locking,
    }
    part = sql("lanes_with_room", lanes=lanes, looked=max(LOOKED, lanes), **queues.operators())
    return records(cursor, Chosen, "choose", parameters, lanes_with_room=part, lanes=lanes)[0]


def rate_opens(cursor: Cursor) -> float | None:
    """Return in how many seconds the first of the rates that are used up lets a task start; None: none is used up."""
    seconds = one_row(cursor, "rate_opens", {})[0]
    return None if seconds is None else float(seconds)


class LaneOfKey(NamedTuple):
    """A lane of a key, by what it is known."""

    priority: int
    queue: str
    key: str


#: Before all lanes.
FIRST_LANE = LaneOfKey(-32_768, "", "")


@dataclass(frozen=True, slots=True)
class LaneLook:
    """A lane of a key in use, and its first ready row."""

    priority: int
    queue: str
    key: str
    low: int
    #: Its position; None: there is no ready row.
    first: int | None


def look_at_lanes(cursor: Cursor, *, behind: LaneOfKey, limit: int) -> list[LaneLook]:
    """Return the next lanes of keys in use behind that one."""
    parameters = {"priority": behind.priority, "queue": behind.queue, "key": behind.key}
    return records(cursor, LaneLook, "look_at_lanes", parameters, limit=limit)


def _arrays(lanes: Sequence[LaneOfKey]) -> dict[str, Any]:
    priorities, queues, keys = zip(*lanes, strict=True)
    return {"priorities": list(priorities), "queues": list(queues), "keys": list(keys)}


def advance_keyed(cursor: Cursor, lanes: Sequence[LaneOfKey], *, safe: int, idle: bool) -> int:
    """Move the watermarks of these lanes up; return how many were locked. Needs a transaction of its own.

    Args:
        safe: No watermark moves beyond it.
        idle: Mark those that have no ready row as idle.
    """
    commit_unflushed(cursor)
    # Two statements, so that the second one's snapshot is taken after the lanes are locked.
    locked = [LaneOfKey._make(row) for row in all_rows(cursor, "lock_keyed", _arrays(lanes))]
    if locked:
        cursor.execute(sql("advance_keyed"), {**_arrays(locked), "safe": safe, "idle": idle})
    return len(locked)


def sweep_keyed(cursor: Cursor) -> list[LaneOfKey]:
    """Bring lanes of keys into use that have ready rows which no claim finds; return them."""
    rows = all_rows(cursor, "stray_keyed", {})
    lanes = [LaneOfKey._make(row[:3]) for row in rows]
    if lanes:
        arrays = _arrays(lanes)
        cursor.execute(sql("mend_keyed"), {**arrays, "positions": [row[3] for row in rows]})
        all_rows(cursor, "make_keyed", arrays)
    return lanes


def forget_keyed(cursor: Cursor, *, age: float) -> int:
    """Delete lanes of keys that have been idle for `age` seconds; return how many."""
    cursor.execute(sql("forget_keyed"), {"age": age})
    return cursor.rowcount


def forget_rates(cursor: Cursor) -> None:
    """Delete what rates have counted and that counts no more."""
    cursor.execute(sql("forget_rates"))


def raise_strand_low(cursor: Cursor, *, safe: int) -> None:
    """Move the watermark of strands up, to `safe` at most."""
    all_rows(cursor, "raise_strand_low", {"safe": safe})


def reset_strand_low(cursor: Cursor) -> None:
    """Set the watermark of strands to nothing."""
    all_rows(cursor, "reset_strand_low", {})


def claim_keyed(
    cursor: Cursor,
    chosen: Chosen,
    *,
    limit: int,
    share: int,
    places: int,
    worker: UUID,
    receipt: UUID,
    seconds: float = 0.05,
) -> list[Claim]:
    """Claim up to `limit` tasks from lanes that were chosen in this transaction.

    Args:
        share: How many at most of each lane.
        places: How many tasks the worker runs at the same time. (Each is a power of two: they are parts of the text.)
        seconds: How long the worker would like to run what it claims; it takes that much of a rate, if more is left.
    """
    limited = any(chosen.queue_limited) or any(chosen.key_limited)
    parameters: dict[str, Any] = {
        "queues": chosen.queues,
        "keys": chosen.keys,
        "lows": chosen.lows,
        "queue_limited": chosen.queue_limited,
        "key_limited": chosen.key_limited,
        "priority": chosen.priority,
        "worker": worker,
        "receipt": receipt,
        "seconds": seconds,
    }
    rated = any(chosen.queue_rated) or any(chosen.key_rated)
    budgets = {"queue": ("m", "c.queue"), "key": ("l", "k.key")}
    budget = {
        f"{scope}_budget": sql("budget", scope=scope, limit=row, of=of) if rated else "NULL::bigint"
        for scope, (row, of) in budgets.items()
    }
    text = sql(
        "claim_keyed",
        limit=limit,
        places=places,
        strands=sql("new_strands", places=places) if limited else "NULL::bigint[]",
        most=f"least({share}, lane.most)" if rated else share,
        **budget,
    )
    cursor.execute(text, parameters)
    claims = [Claim._make((*row, receipt, worker)) for row in cursor.fetchall()]
    if rated:
        _count_starts(cursor, chosen, claims)
    return claims


def _count_starts(cursor: Cursor, chosen: Chosen, claims: Sequence[Claim]) -> None:
    """Count what was claimed for the rates of the lanes that were chosen."""
    numbers: dict[tuple[str, str], int] = {}
    for queue, key, by_queue, by_key in zip(
        chosen.queues, chosen.keys, chosen.queue_rated, chosen.key_rated, strict=True
    ):
        if by_queue:
            numbers["queue", queue] = 0
        if by_key and key:
            numbers["key", key] = 0
    for claim in claims:
        for name in (("queue", claim.queue), ("key", claim.key or "")):
            if name in numbers:
                numbers[name] += 1
    scopes, names = [scope for scope, _ in numbers], [name for _, name in numbers]
    parameters: dict[str, Any] = {"scopes": scopes, "names": names, "numbers": list(numbers.values())}
    cursor.execute(sql("count_starts"), parameters)
