"""What follows a task: the next link of a chain, its hook, the collector of its group. Builders of new rows.

Follow-ons are written in the transaction that settles their task, so a crash loses none and doubles none. They run as
tasks of their own: a hook that fails is a failed task and never touches the result it was called for.

A chain travels in the options of its current link, as a list of the links to come. A collector is a row from the
beginning: it waits (`remaining`) until so many tasks that name it (`collector`) have settled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from pgq import codec, enqueue
from pgq.ids import new_id, parse_id
from pgq.records import Claim, NewTask

_LINK_FIELDS = ("func", "args", "kwargs", "queue", "priority", "name", "group", "hook", "timeout", "max_attempts")


def chained(tasks: Sequence[NewTask], *, pass_results: bool, continue_on_failure: bool) -> NewTask:
    """Return the first task of a chain, with the others in its options.

    Args:
        pass_results: Give each link the result of the one before as its first argument.
        continue_on_failure: Go on after a link that failed (with None as its result).
    """
    links = [{**{name: getattr(task, name) for name in _LINK_FIELDS}, "options": task.options} for task in tasks]
    return _link_task(links, pass_results, continue_on_failure, None)


def _link_task(links: Sequence[Mapping[str, Any]], passing: bool, continuing: bool, result: str | None) -> NewTask:
    link, rest = links[0], links[1:]
    options = json.loads(link["options"])
    if rest:
        options |= {"chain": list(rest)}
        options |= {"chain_pass": True} if passing else {}
        options |= {"chain_on_failure": True} if continuing else {}
    args = link["args"] if result is None else _with_first(result, link["args"])
    fields = {name: link[name] for name in _LINK_FIELDS}
    return enqueue.signed(NewTask(**{**fields, "id": new_id(), "args": args, "options": codec.canonical(options)}))


def _with_first(result: str, args: str) -> str:
    return f"[{result}]" if args == "[]" else f"[{result}, {args[1:]}"


def follow_ons(claim: Claim, options: Mapping[str, Any], result: str | None) -> tuple[NewTask, ...]:
    """Return the tasks to enqueue when this one settles.

    Args:
        result: Its result as it is stored; None: it failed.
    """
    new = []
    links = options.get("chain")
    if links and (result is not None or options.get("chain_on_failure")):
        passing, continuing = bool(options.get("chain_pass")), bool(options.get("chain_on_failure"))
        new.append(_link_task(links, passing, continuing, (result or "null") if passing else None))
    if claim.hook is not None:
        new.append(_hook(claim, claim.hook, keep=kept(options)))
    return tuple(new)


def kept(options: Mapping[str, Any]) -> bool:
    """Whether the caller wants this task's result in the database."""
    return bool(options.get("save", True)) and not options.get("cached")


def needed(claim: Claim, options: Mapping[str, Any]) -> bool:
    """Whether a hook or a collector is going to read this task's result from the database."""
    return claim.hook is not None or "collector" in options


def _hook(claim: Claim, hook: str, *, keep: bool) -> NewTask:
    """The hook's argument is the finished task, which is in the database, or in the cache, when the hook runs."""
    options = codec.encode({"hook_of": claim.id.hex} if keep else {"hook_of": claim.id.hex, "forget": True})
    # In no group: who counts the group's tasks does not mean their hooks.
    return enqueue.signed(NewTask(id=new_id(), func=hook, options=options, queue=claim.queue, priority=claim.priority))


def collectors(finished: Iterable[tuple[Mapping[str, Any], bool]]) -> dict[UUID, tuple[int, int]]:
    """Return how many of the finished tasks each collector was waiting for: signed ones, and others.

    Args:
        finished: The options of each, and whether Python signed it.
    """
    counts: dict[UUID, tuple[int, int]] = {}
    for options, signed in finished:
        # Rows from psql may hold anything here.
        id = parse_id(options.get("collector"))
        if id is not None:
            before = counts.get(id, (0, 0))
            counts[id] = (before[0] + signed, before[1] + (not signed))
    return counts
