"""Unique tasks: the key of a call, and what becomes of a call whose key is taken.

The key is computed at enqueue and stored. Whether it is taken, a unique index decides, or for a length of time the row
of a table: so of two transactions with one key the second waits for the first. No change of a task's state can meet the
index: a claim and whatever puts a task back only ever take its key away.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from pgq import codec
from pgq.codec.signing import digest, signed
from pgq.config.unique import Debounce, Unique
from pgq.enqueue.registry import signature_of
from pgq.errors import EnqueueError, NotUnique
from pgq.records import NewTask, UniqueCall
from pgq.records.options import TaskOptions
from pgq.store import endings, queue
from pgq.store import unique as store
from pgq.store.caller import savepoint
from pgq.store.connection import Cursor

#: The arguments and keyword arguments of a call.
Arguments = tuple[Sequence[Any], Mapping[str, Any]]
#: Bytes of a key as it was given; of a longer one there is a digest. (And of each key of a `sensitive` task.)
_READABLE = 200
#: How often an enqueue looks again when the task that had its key was gone a moment later.
_TRIES = 100


class Existing(str):
    """The id of a task that was there already, 32 hex digits: another call with its unique key has written it."""

    __slots__ = ()


# ------------------------------------------------------------------------------------------------- the key


def call_of(options: TaskOptions, path: str, func: Callable[..., Any], call: Arguments) -> UniqueCall | None:
    """Return what is unique of a call; None: nothing is.

    Raises:
        EnqueueError: Its options do not fit each other or the function; the message names the option.
    """
    rule: Unique | None = options.unique or None
    pause: Debounce | None = options.debounce or None
    if rule is None and pause is None:
        return None
    if pause is not None and rule is not None and (rule.until != "start" or rule.conflict != "skip"):
        raise EnqueueError("debounce", "says what becomes of another call: leave until and conflict of unique out")
    prefix = path if rule is None or rule.name is None else rule.name
    # Without a key all calls of the function put one task off.
    text = "" if rule is None else _text(rule, func, bool(options.takes_context), call)
    if text is None:
        return None
    if options.sensitive and text:
        text = digest(text)
    elif len(text.encode()) > _READABLE:
        text = sha256(text.encode()).hexdigest()
    key = f"{prefix}:{text}" if text else prefix
    if len(key.encode()) > 1000:
        raise EnqueueError("unique", "the function's path is too long for a key; give Unique a name")
    if pause is not None:
        return UniqueCall(key, "start", "debounce", pause.quiet, pause.longest, pause.args)
    assert rule is not None
    return UniqueCall(key, rule.until, rule.conflict)  # type: ignore[arg-type]  # Unique has made it seconds


def _text(rule: Unique, func: Callable[..., Any], takes_context: bool, call: Arguments) -> str | None:
    """Return the key of a call without what stands before it; None: this call is not unique."""
    if callable(rule.key):
        try:
            value = rule.key(*call[0], **call[1])
        except Exception as error:
            reason = f"its function fails for this call: {type(error).__name__}: {error}"
            raise EnqueueError("unique", reason[:500]) from error
        return None if value is None else _encoded(value)
    given = _by_name(func, takes_context, call)
    if rule.key is True:
        return _encoded(given)
    names = (rule.key,) if isinstance(rule.key, str) else rule.key
    for name in names:
        if name not in given:
            known = ", ".join(given) or "this call has none"
            raise EnqueueError("unique", f"must name an argument ({known}), True or a function, got {name!r}")
    values = [given[name] for name in names]
    return _encoded(values[0] if len(values) == 1 else values)


def _encoded(value: Any) -> str:
    try:
        return codec.encode(value, where="unique")
    except EnqueueError as error:
        raise error.of("unique") from error.__cause__


def _by_name(func: Callable[..., Any], takes_context: bool, call: Arguments) -> dict[str, Any]:
    """Return the arguments of a call by their names, defaults included: by place or by name they are the same."""
    args, kwargs = call
    try:
        signature = _signature(func, takes_context)
        bound = signature.bind(*args, **kwargs)
    except (TypeError, ValueError):
        # It cannot be inspected, or what a wrapper shows is not what it takes.
        return {**{str(place): value for place, value in enumerate(args)}, **kwargs}
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = list(value) if kind is inspect.Parameter.VAR_POSITIONAL else value
    return found


@functools.lru_cache(maxsize=1000)
def _signature(func: Callable[..., Any], takes_context: bool) -> inspect.Signature:
    signature = signature_of(func)
    # The worker gives the context, not the caller.
    return signature.replace(parameters=[*signature.parameters.values()][1:]) if takes_context else signature


# ------------------------------------------------------------------------------------------------- writing


def write(cursor: Cursor, task: NewTask) -> UUID:
    """Write a unique task in the caller's transaction; return its id, or that of the task that has its key.

    Raises:
        NotUnique: Another one has its key, and the call wants to know. Nothing was written.
    """
    unique = task.unique
    assert unique is not None
    if _is_simple(task):
        return _write(cursor, task, unique)
    # Several statements, and the row stays locked from one to the next.
    with savepoint(cursor):
        return _write(cursor, task, unique)


def _write(cursor: Cursor, task: NewTask, unique: UniqueCall) -> UUID:
    for _ in range(_TRIES):
        if isinstance(unique.until, str):
            if store.enqueue_unique(cursor, task):
                return task.id
        elif store.take_key(cursor, unique.key, task.id, seconds=unique.until):
            queue.enqueue(cursor, task)
            return task.id
        found = resolve(cursor, task)
        if found is not None:
            return found
    raise NotUnique(unique.key, None)


def write_many(cursor: Cursor, tasks: Sequence[NewTask]) -> list[UUID]:
    """Write tasks in the caller's transaction, those that are unique as `write` does; return the id for each.

    Raises:
        NotUnique: See `write`. Some may have been written.
    """
    found: dict[int, UUID] = {}
    plain = [(place, task) for place, task in enumerate(tasks) if task.unique is None]
    if plain:
        queue.enqueue_many(cursor, [task for _, task in plain])
        found.update((place, task.id) for place, task in plain)
    simple = [(place, task) for place, task in enumerate(tasks) if _is_simple(task)]
    if simple:
        written = store.enqueue_unique_many(cursor, [task for _, task in simple])
        others = {task.unique.key for _, task in simple if task.unique is not None and task.id not in written}
        holders = store.holders(cursor, others) if others else {}
        for place, task in simple:
            assert task.unique is not None
            if task.id in written:
                found[place] = task.id
            elif task.unique.conflict == "skip" and task.unique.key in holders:
                found[place] = holders[task.unique.key]
    # In the order of the keys, as the statement above: two transactions cannot deadlock.
    left = [
        (task.unique.key, place) for place, task in enumerate(tasks) if task.unique is not None and place not in found
    ]
    for _, place in sorted(left):
        found[place] = write(cursor, tasks[place])
    return [found[place] for place in range(len(tasks))]


def _is_simple(task: NewTask) -> bool:
    unique = task.unique
    if unique is None or not isinstance(unique.until, str) or unique.conflict not in ("skip", "raise"):
        return False
    # Else it has columns that the statement for many does not name.
    return task.schedule is None and task.remaining is None


def resolve(cursor: Cursor, task: NewTask) -> UUID | None:
    """Do to the task that has a call's key what the call wants; return its id. None: the key is free now.

    Raises:
        NotUnique: The call wants to know that there is one.
    """
    unique = task.unique
    assert unique is not None
    if unique.conflict in ("skip", "raise"):
        id = _holder_id(cursor, unique)
        if id is not None and unique.conflict == "raise":
            raise NotUnique(unique.key, id)
        return id
    holder = _hold(cursor, unique)
    if holder is None:
        # It took the key for a time, and has ended.
        id = _holder_id(cursor, unique)
        if id is None or unique.conflict != "cancel":
            return id
    if unique.conflict == "cancel":
        _cancel(cursor, unique, holder)
        return None
    assert holder is not None
    if unique.conflict == "debounce":
        return _put_off(cursor, task, unique, holder)
    if not holder.runs and not holder.stands:
        if unique.conflict == "replace":
            _replace(cursor, task, holder)
        else:
            store.reschedule(cursor, holder.id, task.run_after)
    return holder.id


def _holder_id(cursor: Cursor, unique: UniqueCall) -> UUID | None:
    if isinstance(unique.until, str):
        return store.holders(cursor, [unique.key]).get(unique.key)
    return store.taken_by(cursor, unique.key)


def _hold(cursor: Cursor, unique: UniqueCall) -> store.Holder | None:
    if isinstance(unique.until, str):
        return store.hold(cursor, "unique_key", unique.key)
    id = store.taken_by(cursor, unique.key)
    return None if id is None else store.hold(cursor, "id", id)


def _cancel(cursor: Cursor, unique: UniqueCall, holder: store.Holder | None) -> None:
    if holder is not None:
        endings.cancel(cursor, [holder.id])
        store.let_go(cursor, holder.id)
    if not isinstance(unique.until, str):
        store.free_key(cursor, unique.key)


def _put_off(cursor: Cursor, task: NewTask, unique: UniqueCall, holder: store.Holder) -> UUID | None:
    """Let a task that still waits for its time wait longer; None: it is due, and has let go of the key."""
    quiet = timedelta(seconds=unique.quiet or 0)
    if holder.runs or holder.stands or holder.run_after is None or holder.run_after <= holder.now:
        store.let_go(cursor, holder.id)
        return None
    until: datetime = holder.now + quiet
    if unique.longest is not None:
        until = min(until, holder.enqueued_at + timedelta(seconds=unique.longest))
    if unique.args == "last":
        _replace(cursor, task._replace(run_after=until), holder)
    elif until - holder.run_after >= quiet / 10:
        # Less is not worth another version of the row.
        store.reschedule(cursor, holder.id, until)
    return holder.id


def _replace(cursor: Cursor, task: NewTask, holder: store.Holder) -> None:
    lane = (holder.queue, holder.priority, holder.key)
    options = TaskOptions.parse(task.options)
    # A collector waits for those tasks of its call that were written. (Of one that waits for the holder: see `stands`.)
    alone = task.options if options.collector is None else options.but(collector=None, index=None).text()
    new = task._replace(id=holder.id, options=alone)
    keeps_place = holder.run_after is None and task.run_after is None and lane == (task.queue, task.priority, task.key)
    # The signature covers the id.
    store.replace(cursor, new if task.signature is None else signed(new), keeps_place=keeps_place)
