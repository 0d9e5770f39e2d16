"""Cancel, retry or move all tasks that match, in batches: for commands and pages, and for code that cleans up.

Tasks are looked at by id, 20,000 in a statement, and treated 500 in a transaction, so that neither a long statement nor
a long transaction arises on a table of millions. Each is checked again, under a lock, when it is treated.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from django.db import transaction

from pgq.codec import signing
from pgq.codec.failures import path_of
from pgq.conf import at as chosen_database
from pgq.conf import database_of, get_settings, places
from pgq.conf.queues import as_like
from pgq.enqueue.make import check_text
from pgq.errors import NotAllowed, TaskCancelled
from pgq.execution import ending
from pgq.store import bulk, overview
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor

__all__ = [
    "BATCH",
    "CANCELLABLE",
    "MOVABLE",
    "RETRIABLE",
    "TaskFilter",
    "Treated",
    "cancel_matching",
    "count",
    "move_matching",
    "retry_matching",
]

#: The states of live tasks, and of those that ended as failures.
READY, RUNNING, WAITING, PARKED, FAILED = "ready", "running", "waiting", "parked", "failed"
#: States in which a task can be cancelled.
CANCELLABLE = (READY, RUNNING, WAITING, PARKED)
#: States in which a task can be run again, or at once.
RETRIABLE = (FAILED, WAITING, PARKED)
#: States in which a task can be moved to another queue.
MOVABLE = (READY, WAITING, PARKED)
#: Tasks treated in one transaction.
BATCH = 500

#: Takes how many tasks were looked at and how many of them matched.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks are meant: those of which all holds that is given. In each text ``*`` stands for any characters.

    Raises:
        ValueError: A state is unknown, a text is empty, or a time is naive; the message names the field.
    """

    #: Some of ready, running, waiting, parked, failed.
    states: tuple[str, ...]
    #: Its queue.
    queue: str | None = None
    #: Dotted path of its function.
    func: str | None = None
    #: Its group.
    group: str | None = None
    #: Dotted path of the exception a task failed with. Without it, tasks that were cancelled are no failures.
    exception: str | None = None
    #: Enqueued at that time or later; of failures: ended.
    since: datetime | None = None
    #: Enqueued before that time; of failures: ended.
    until: datetime | None = None

    def __post_init__(self) -> None:
        known = {*CANCELLABLE, *RETRIABLE}
        wrong = [state for state in self.states if state not in known]
        if wrong or not self.states:
            raise ValueError(f"states: must be some of {', '.join(sorted(known))}, got {', '.join(wrong) or 'none'}")
        for name in ("queue", "func", "group", "exception"):
            if getattr(self, name) == "":
                raise ValueError(f"{name}: must not be empty; leave it out to match any")
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{name}: must be a time with a zone, got {moment!r}")
        if self.exception is not None and set(self.states) != {FAILED}:
            raise ValueError("exception: only failed tasks have one, so states must be ('failed',)")


@dataclass(slots=True)
class Treated:
    """What became of the tasks that matched."""

    #: How many tasks the filter matched.
    matched: int = 0
    #: How many by what was done: "cancelled", "told to stop", "made ready", "run again".
    done: Counter[str] = field(default_factory=Counter)
    #: Whose state was another one by then, or which another transaction had locked.
    skipped: int = 0
    #: Failures that stay where they are, since a row of another table refers to them.
    referenced: int = 0
    #: There are more: the limit was reached.
    more: bool = False


def count(which: TaskFilter, *, most: int | None = None, progress: Progress | None = None) -> Treated:
    """Count the tasks that match, and change nothing.

    Args:
        which: The tasks that are meant.
        most: Stop there, with `more` set.
        progress: Called after each window.
    """
    seen = Treated()

    def count_here() -> None:
        with callers_cursor(get_settings().database) as cursor:
            for _states, window in _windows(cursor, which, progress, wanted=False):
                if seen.more:
                    break
                seen.matched += window.matched
                if most is not None and seen.matched >= most:
                    seen.matched, seen.more = most, True

    places.each(count_here)
    return seen


def cancel_matching(which: TaskFilter, *, limit: int | None = None, progress: Progress | None = None) -> Treated:
    """Cancel the live tasks that match. Those that run are told to stop, as by `pgq.tasks.cancel`.

    Args:
        which: The tasks that are meant.
        limit: Treat no more than so many.
        progress: Called after each window.

    Raises:
        ValueError: `which` names a state that no live task has.
    """
    _only(which, CANCELLABLE, "cancelled")
    return _treat(which, cancel_some, limit, progress)


def retry_matching(which: TaskFilter, *, limit: int | None = None, progress: Progress | None = None) -> Treated:
    """Run the failed tasks that match again, and make the parked and waiting ones ready, as by `pgq.tasks.retry`.

    Args:
        which: The tasks that are meant.
        limit: Treat no more than so many.
        progress: Called after each window.

    Raises:
        ValueError: `which` names a state in which a task cannot be retried.
    """
    _only(which, RETRIABLE, "retried")
    return _treat(which, retry_some, limit, progress)


def move_matching(
    which: TaskFilter, queue: str, *, limit: int | None = None, progress: Progress | None = None
) -> Treated:
    """Move the live tasks that match to another queue, behind what is there. Those that run stay.

    Args:
        which: The tasks that are meant.
        queue: The queue to move them to.
        limit: Treat no more than so many.
        progress: Called after each window.

    Raises:
        ValueError: `which` names a state in which a task cannot be moved.
        EnqueueError: That is no name of a queue.
    """
    _only(which, MOVABLE, "moved")
    check_text("queue", queue)
    # What lies in another database cannot go there.
    with chosen_database(database_of(queue)):
        return _treat(which, functools.partial(move_some, queue=queue), limit, progress)


#: What is said of a failure that another table refers to.
REFERENCED = "referenced"


def cancel_some(cursor: Cursor, ids: Sequence[UUID], states: Sequence[str]) -> list[str]:
    """Cancel those tasks that are still in one of these states; return what was done with each of those.

    Args:
        cursor: On the caller's connection to the database at hand.
    """
    names = {"queued": "cancelled", "running": "told to stop"}
    # One transaction: what was in one of these states when it was locked is so when it is cancelled.
    with transaction.atomic(using=get_settings().database):
        found = ending.cancel(bulk.lock_queued(cursor, ids, states=states))
    return [names.get(what, what) for what in found.values()]


def retry_some(cursor: Cursor, ids: Sequence[UUID], states: Sequence[str]) -> list[str]:
    """Do the same as `cancel_some`, but retry. The states are FAILED, or those of live tasks."""
    if FAILED in states:
        names = {True: "run again", None: REFERENCED, False: ""}
        return [name for what in bulk.retry_failed(cursor, ids) if (name := names[what])]
    return ["made ready" for what in bulk.retry_queued(cursor, ids, states=states) if what]


def move_some(cursor: Cursor, ids: Sequence[UUID], states: Sequence[str], queue: str) -> list[str]:
    """Do the same as `cancel_some`, but move to another queue, behind what is there.

    The queue is a part of what a signature covers: it is made anew for a task whose signature is good. One whose is not
    stays where it is: there it is parked.
    """
    with transaction.atomic(using=get_settings().database):
        signatures: dict[UUID, bytes | None] = {}
        for task in bulk.lock_to_move(cursor, ids, states=states, queue=queue):
            with contextlib.suppress(NotAllowed):
                signatures[task.id] = None if task.signature is None else signing.sign_for_queue(task, queue)
        found = bulk.move(cursor, list(signatures), list(signatures.values()), queue=queue)
    return ["moved" for _ in found]


def _only(which: TaskFilter, states: tuple[str, ...], verb: str) -> None:
    wrong = [state for state in which.states if state not in states]
    if wrong:
        raise ValueError(f"states: a task that is {wrong[0]} cannot be {verb}; it must be {' or '.join(states)}")


def _treat(
    which: TaskFilter,
    treat: Callable[[Cursor, Sequence[UUID], Sequence[str]], list[str]],
    limit: int | None,
    progress: Progress | None,
) -> Treated:
    treated = Treated()

    def treat_here() -> None:
        with callers_cursor(get_settings().database) as cursor:
            for states, window in _windows(cursor, which, progress, wanted=True):
                if treated.more:
                    break
                treat_window(cursor, states, window.ids)

    def treat_window(cursor: Cursor, states: list[str], ids: list[UUID]) -> None:
        if limit is not None and treated.matched + len(ids) > limit:
            ids, treated.more = ids[: limit - treated.matched], True
        treated.matched += len(ids)
        for first in range(0, len(ids), BATCH):
            batch = ids[first : first + BATCH]
            done = Counter(treat(cursor, batch, states))
            treated.skipped += len(batch) - done.total()
            treated.referenced += done.pop(REFERENCED, 0)
            treated.done += done

    # In each of PGQ["databases"]; inside of `pgq.conf.at` in that one alone.
    places.each(treat_here)
    return treated


def _windows(
    cursor: Cursor, which: TaskFilter, progress: Progress | None, *, wanted: bool
) -> Iterator[tuple[list[str], bulk.Looked]]:
    """Yield the states it was searched for, and what matches, of each window of the tables in which something does."""
    if which.until is None:
        # What fails again, or is enqueued, meanwhile is not meant.
        which = replace(which, until=overview.now(cursor))
    texts = {"queue": which.queue, "func": which.func, "group": which.group, "exception": which.exception}
    match = bulk.Match(
        states=[state for state in which.states if state != FAILED],
        since=which.since,
        until=which.until,
        **{name: text and as_like(text) for name, text in texts.items()},
    )
    looked = matched = 0
    for states in filter(None, (match.states, [state for state in which.states if state == FAILED])):
        after = bulk.FIRST
        while True:
            if FAILED in states:
                window = bulk.look_failed(cursor, match, after=after, wanted=wanted, cancelled=path_of(TaskCancelled))
            else:
                window = bulk.look_queued(cursor, match, after=after, wanted=wanted)
            looked, matched = looked + window.looked, matched + window.matched
            if progress is not None:
                progress(looked, matched)
            if window.matched:
                yield states, window
            if window.last is None or window.looked < bulk.WINDOW:
                break
            after = window.last
