"""What follows a task: the next link of a chain, its hook, the collector of its group. Pure builders of new rows.

Follow-ons are written in the transaction that settles their task, so a crash loses none and doubles none. They run as
tasks of their own: a hook that fails is a failed task and never touches the result it was called for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from pgq import codec, enqueue
from pgq.ids import new_id
from pgq.records import Claim, NewTask


def follow_ons(claim: Claim, options: Mapping[str, Any], *, success: bool) -> tuple[NewTask, ...]:
    """Return the tasks to enqueue when this one settles."""
    new = []
    chain = options.get("chain")
    if chain and (success or options.get("chain_on_failure")):
        new.append(_next_link(claim, options, chain))
    if claim.hook is not None:
        new.append(_hook(claim))
    return tuple(new)


def collectors(finished: Iterable[Mapping[str, Any]]) -> dict[UUID, int]:
    """Return how many of the finished tasks, given by their options, each collector was waiting for."""
    counts: dict[UUID, int] = {}
    for options in finished:
        collector = options.get("collector")
        if collector is not None:
            id = UUID(collector)
            counts[id] = counts.get(id, 0) + 1
    return counts


def _next_link(claim: Claim, options: Mapping[str, Any], chain: list[Any]) -> NewTask:
    link, rest = chain[0], chain[1:]
    task = NewTask(
        id=new_id(),
        func=link["func"],
        # Stored as texts, so that the tags in them stay what they are.
        args=link.get("args", "[]"),
        kwargs=link.get("kwargs", "{}"),
        options=codec.encode({**link.get("options", {}), **({"chain": rest} if rest else {})}),
        queue=link.get("queue") or claim.queue,
        priority=link.get("priority", claim.priority),
        name=link.get("name"),
        group=link.get("group", claim.group),
        hook=link.get("hook"),
        timeout=link.get("timeout"),
        max_attempts=link.get("max_attempts", claim.max_attempts),
    )
    return enqueue.signed(task)


def _hook(claim: Claim) -> NewTask:
    """The hook's argument is the finished task, which is in the database when the hook runs."""
    assert claim.hook is not None
    task = NewTask(
        id=new_id(),
        func=claim.hook,
        options=codec.encode({"hook_of": claim.id.hex}),
        queue=claim.queue,
        priority=claim.priority,
        group=None,
        name=None,
    )
    return enqueue.signed(task)
