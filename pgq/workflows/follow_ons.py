"""Follow-ons of a task: the next link of its chain, its hook, the collector of its group. Builders of new rows.

Follow-ons are written in the transaction that settles their task, so a crash loses none and doubles none. They run as
tasks of their own: a hook that fails is a failed task and never touches the result it was called for.

A chain travels in the options of its current link, as a list of the links to come. A collector is a row from the
beginning: it waits (`remaining`) until so many tasks that name it (`collector`) have settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pgq.codec import signing
from pgq.ground.ids import new_id
from pgq.records import Claim, NewTask
from pgq.records.options import TaskOptions

_LINK_FIELDS = (
    "func",
    "args",
    "kwargs",
    "queue",
    "priority",
    "name",
    "group",
    "hook",
    "timeout",
    "max_attempts",
    "key",
)


def chained(tasks: Sequence[NewTask], *, pass_results: bool, continue_on_failure: bool) -> NewTask:
    """Return the first task of a chain, with the others in its options.

    Args:
        pass_results: Give each link the result of the one before as its first argument.
        continue_on_failure: Go on after a link that failed (with None as its result).
    """
    links = [{**{name: getattr(task, name) for name in _LINK_FIELDS}, "options": task.options} for task in tasks]
    return _link_task(links, pass_results, continue_on_failure, None)


def _link_task(
    links: Sequence[Mapping[str, Any]],
    passing: bool,
    continuing: bool,
    result: str | None,
    trace: Mapping[str, str] | None = None,
) -> NewTask:
    link, rest = links[0], links[1:]
    options = TaskOptions.parse(link["options"])
    if trace is not None:
        # What follows a task belongs to its trace.
        options = options.but(trace=trace)
    if rest:
        options = options.but(chain=list(rest), chain_pass=passing or None, chain_on_failure=continuing or None)
    args = link["args"] if result is None else _with_first(result, link["args"])
    # A link from psql names what it needs.
    fields: dict[str, Any] = {name: link[name] for name in _LINK_FIELDS if name in link}
    return signing.signed(NewTask(**{**fields, "id": new_id(), "args": args, "options": options.text()}))


def _with_first(result: str, args: str) -> str:
    return f"[{result}]" if args == "[]" else f"[{result}, {args[1:]}"


def follow_ons(claim: Claim, options: TaskOptions, result: str | None) -> tuple[NewTask, ...]:
    """Return the tasks to enqueue when this one settles.

    Args:
        result: Its result as it is stored; None: it failed.
    """
    new = []
    links, passing, continuing = options.chain, bool(options.chain_pass), bool(options.chain_on_failure)
    if links and (result is not None or continuing):
        given = (result or "null") if passing else None
        new.append(_link_task(links, passing, continuing, given, options.trace))
    if claim.hook is not None:
        new.append(_hook(claim, claim.hook, keep=kept(options), trace=options.trace))
    return tuple(new)


def kept(options: TaskOptions) -> bool:
    """Whether the caller wants this task's result in the database."""
    save = options.save if options.save is not None else options.keep is not False
    return bool(save) and not options.cached


def needed(claim: Claim, options: TaskOptions) -> bool:
    """Whether a hook or a collector is going to read this task's result from the database."""
    return claim.hook is not None or options.collector is not None


def _hook(claim: Claim, hook: str, *, keep: bool, trace: Mapping[str, str] | None) -> NewTask:
    """Return the hook as a task. Its argument is the finished task, which it reads from the database or the cache."""
    options = TaskOptions(hook_of=claim.id.hex, forget=None if keep else True, trace=trace).text()
    # In no group: the count of a group's tasks leaves their hooks out.
    return signing.signed(NewTask(id=new_id(), func=hook, options=options, queue=claim.queue, priority=claim.priority))
