"""Firing: a due schedule becomes tasks and steps to its next slot, in one transaction."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from django.db import IntegrityError, transaction

from pgq import codec
from pgq.codec import signing
from pgq.conf import Settings, get_settings, policy_of
from pgq.enqueue import registry, write
from pgq.enqueue.options import with_policy
from pgq.enqueue.unique import write_many
from pgq.enqueue.watched import watched
from pgq.errors import NotAllowed
from pgq.ground import chance, events
from pgq.ground.ids import new_id
from pgq.models import Schedule
from pgq.records import Fired, NewTask, UniqueCall
from pgq.records.options import TaskOptions
from pgq.recurrence import Recurrence, anchored, missed, moments, next_slot
from pgq.recurrence.moments import as_project, aware
from pgq.store import schedules
from pgq.store.caller import savepoint
from pgq.store.connection import Cursor
from pgq.store.schedules import Due

logger = logging.getLogger("pgq")

#: Schedules fired in one transaction.
BATCH = 200
#: Seconds until a schedule that could not be fired is tried again: PostgreSQL refused it; the schedule is wrong.
REFUSED_PAUSE, FAULT_PAUSE = 5.0, 60.0
#: What PostgreSQL says of itself, and not of the statement. A server that takes no writes (25006) is an internal error.
REFUSALS = (psycopg.OperationalError, psycopg.InternalError)


@dataclass(frozen=True, slots=True)
class Resumed:
    """What `resume` did to a schedule."""

    #: Whether it was paused.
    was_paused: bool
    #: How many missed slots upkeep is going to fire at once.
    missed: int
    #: Its next slot, as the project's models hold it; None: there is none.
    next_run: datetime | None


def fire_due(cursor: Cursor, settings: Settings, now: datetime | None = None) -> int:
    """Fire the schedules that are due, inside the leader's transaction; return how many tasks that made.

    Args:
        now: The present, for tests; None: the database's time.
    """
    fired = 0
    for due in schedules.due_schedules(cursor, queues=settings.served, limit=BATCH, now=now):
        try:
            # A savepoint for each schedule: one that fails must undo neither the others nor the transaction.
            with savepoint(cursor):
                fired += _fire(cursor, due, settings)
        except Exception as error:
            logger.error("schedule %s (%s) could not be fired: %s", due.id, due.name or due.func, error)
            # PostgreSQL may soon take what it refused now; a wrong schedule stays wrong until it is edited.
            pause = REFUSED_PAUSE if isinstance(error, REFUSALS) else FAULT_PAUSE
            message = codec.clean_text(f"{type(error).__name__}: {error}", 1000)
            schedules.fault_schedule(cursor, due.id, message, pause=pause)
    return fired


def _fire(cursor: Cursor, due: Due, settings: Settings) -> int:
    slots, following, recurrence = _slots(due, settings)
    if due.repeats > 0:
        slots = slots[: due.repeats]
    if slots:
        _refuse_unless_allowed(due)
    slots = _without_overlap(cursor, due, slots)
    tasks = [_task(due, slot, settings) for slot in slots]
    repeats = max(due.repeats - max(len(slots), 1), 0) if due.repeats > 0 else -1
    if following is None and due.schedule_type == "O" and due.repeats < 0:
        written = _enqueue(cursor, due, tasks, settings) if tasks else _NOTHING
        _end(cursor, due, written.last)
        return written.number
    moved = schedules.fire(
        cursor,
        id=due.id,
        slot=due.next_run,
        next_run=following,
        repeats=0 if following is None else repeats,
        day=recurrence.day,
        wall_time=recurrence.wall,
        task=tasks[-1].id if tasks else None,
        last_slot=slots[-1] if slots else None,
    )
    if not moved or not tasks:
        return 0
    written = _enqueue(cursor, due, tasks, settings)
    if written.last != tasks[-1].id:
        schedules.name_task(cursor, due.id, written.last)
    return written.number


class _Written(NamedTuple):
    """What became of the tasks of some slots."""

    #: How many were enqueued: a slot whose unique key is taken makes none.
    number: int
    #: The task of the last slot, or the one that has its unique key.
    last: UUID | None


_NOTHING = _Written(0, None)


def _enqueue(cursor: Cursor, due: Due, tasks: list[NewTask], settings: Settings) -> _Written:
    with watched(tuple(tasks), settings.database) as writing:
        ids = write_many(cursor, writing.tasks)
        writing.count = sum(id == task.id for id, task in zip(ids, tasks, strict=True))
    for id, task in zip(ids, writing.tasks, strict=True):
        if id == task.id and events.fire.listeners:
            assert task.slot is not None
            events.fire.tell(Fired(due.id, due.name, task.slot, task))
    return _Written(writing.count, ids[-1])


def _end(cursor: Cursor, due: Due, task: UUID | None) -> None:
    """Remove a schedule that was to run once. One that other rows refer to stays, ended, with the reason as its error.

    The references are checked at once: a deferred constraint would fail the commit, and with it all that was fired.
    """
    try:
        with savepoint(cursor):
            schedules.end_schedule(cursor, due.id)
            schedules.check_references(cursor)
    except (psycopg.IntegrityError, IntegrityError) as error:
        logger.warning("schedule %s (%s) has run and could not be removed: %s", due.id, due.name or due.func, error)
        slot = due.next_run
        schedules.fire(
            cursor, id=due.id, slot=slot, next_run=None, repeats=0, day=None, wall_time=None, task=task, last_slot=slot
        )
        message = codec.clean_text(f"it has run and could not be removed: {type(error).__name__}: {error}", 1000)
        schedules.fault_schedule(cursor, due.id, message, pause=FAULT_PAUSE)


def _refuse_unless_allowed(due: Due) -> None:
    """Refuse a schedule whose tasks would all be parked: it keeps the reason as its error, and no task is made.

    Raises:
        NotAllowed: The schedule is unsigned, and an unsigned row may not name its function or its hook.
    """
    if _is_signed(due):
        return
    for name, path in (("func", due.func), ("hook", due.hook)):
        if path and not registry.may_be_named(path):
            raise NotAllowed(
                f"{name}: the schedule is not signed, and {path} is neither registered with @task nor listed in "
                "PGQ['allowed']; register it, or make the schedule by schedule()"
            )


def _slots(due: Due, settings: Settings) -> tuple[list[datetime], datetime | None, Recurrence]:
    """Return the slots to fire, the one after them, and the recurrence with its anchors."""
    recurrence = anchored(Recurrence.of(due, settings.zone), due.next_run)
    most = _most(due, settings)
    slots, following = missed(recurrence, due.next_run, due.now, most)
    if due.schedule_type == "C" and most == 1 and slots:
        following = next_slot(recurrence, due.now)
    return slots, following, recurrence


def _without_overlap(cursor: Cursor, due: Due, slots: list[datetime]) -> list[datetime]:
    """Apply the overlap policy: skip the slots while a task of the schedule lives, or let only one task wait."""
    if due.overlap == "allow" or not slots:
        return slots
    running, waiting = schedules.live_of_schedule(cursor, due.id)
    if due.overlap == "skip":
        return slots[-1:] if running + waiting == 0 else []
    return slots[-1:] if waiting == 0 else []


def database_at(schedule: Schedule) -> str:
    """Return the alias of the database that a schedule was read from."""
    return schedule._state.db or get_settings().database


def resume(schedule: Schedule, *, skip_missed: bool = False) -> Resumed:
    """Have a paused schedule fire again.

    Args:
        skip_missed: Leave out the missed slots, if another slot follows them.

    Raises:
        ValueError: The rule cannot be read. The schedule stays paused.
    """
    settings, alias = get_settings(), database_at(schedule)
    rows = Schedule.objects.using(alias)
    with transaction.atomic(using=alias):
        row = rows.select_for_update().get(pk=schedule.pk)
        if not row.paused:
            return Resumed(False, 0, row.next_run)
        number, next_run = 0, row.next_run
        if row.repeats != 0 and next_run is not None:
            first, most = aware(next_run), _most(row, settings)
            slots, following = missed(anchored(Recurrence.of(row, settings.zone), first), first, moments.now(), most)
            number = len(slots) if row.repeats < 0 else min(len(slots), row.repeats)
            if number and skip_missed and following is not None:
                number, next_run = 0, as_project(following)
        # Only these columns: upkeep may move the schedule on at the same time.
        changes = {"paused": False, "auto_paused": False}
        rows.filter(pk=row.pk).update(**changes, **({} if next_run == row.next_run else {"next_run": next_run}))
    return Resumed(True, number, next_run if row.repeats != 0 else None)


def _most(row: Schedule | Due, settings: Settings) -> int:
    """Return how many of the missed slots are fired at once, at most."""
    catch_up = settings.catch_up if row.catch_up is None else row.catch_up
    return settings.catch_up_limit if catch_up else 1


def run_now(schedule: Schedule) -> str:
    """Enqueue one task of a schedule at once, paused or not, in the caller's transaction; its next slot stays.

    The task is made from the row in the table, and only a signed row gives a signed task.

    Returns:
        The task's id: 32 hex digits.

    Raises:
        Schedule.DoesNotExist: It is gone.
        ValueError: Its options cannot be read.
    """
    settings, alias = get_settings(), database_at(schedule)
    with transaction.atomic(using=alias):
        rows = Schedule.objects.using(alias)
        row = rows.select_for_update().get(pk=schedule.pk)
        now = moments.now()
        # Without jitter, since the task is to run at once.
        due = replace(Due.of(row, now=now), jitter=0)
        # The slot is the present moment, so that UNIQUE (schedule, slot) never takes it for a slot that is due.
        task = _task(due, now, settings)
        id = write.enqueue(task, using=alias)
        rows.filter(pk=row.pk).update(task=id)
    return id.hex


def _task(due: Due, slot: datetime, settings: Settings) -> NewTask:
    """Return the task of a slot. What its schedule does not say is what `@task` of its function fixes, or else PGQ."""
    options = json.loads(due.options)
    chosen = _options(due, options)
    kwargs = due.kwargs
    if due.intended_date_kwarg:
        kwargs = codec.with_kwarg(kwargs, due.intended_date_kwarg, slot.isoformat())
    queue = chosen.queue or settings.default_queue
    policy = policy_of(queue)
    timeout = policy.timeout if chosen.timeout is None else chosen.timeout
    unique = _unique_of(options)
    if unique is not None:
        chosen = chosen.but(is_unique=unique.until)
    delay = chance.between(0, due.jitter) if due.jitter else 0.0
    if unique is not None and unique.quiet is not None:
        delay += unique.quiet
    run_after = due.now.astimezone(UTC) + timedelta(seconds=delay) if delay else None
    expires = options.get("expires")
    task = NewTask(
        id=new_id(),
        func=due.func,
        args=due.args,
        kwargs=kwargs,
        options=with_policy(chosen, policy).text(),
        queue=queue,
        priority=chosen.priority or 0,
        name=options.get("task_name"),
        group=options.get("group") or due.name or str(due.id),
        hook=due.hook,
        timeout=options.get("timeout", None if timeout == -1 else timeout),
        max_attempts=policy.max_attempts if chosen.max_attempts is None else chosen.max_attempts,
        run_after=run_after,
        schedule=due.id,
        slot=slot,
        key=options.get("key"),
        expires_at=due.now.astimezone(UTC) + timedelta(seconds=delay + expires) if expires else None,
        unique=unique,
    )
    # Only a schedule that Python signed may become a task that Python signed.
    return signing.signed(task) if _is_signed(due) else task


def _options(due: Due, stored: Mapping[str, Any]) -> TaskOptions:
    """Return the options of a schedule's task. A timeout that the schedule gives is not among them.

    Args:
        stored: The options column of the schedule. Of an unsigned row it may hold anything.
    """
    own = TaskOptions.of_stored(stored.get("extra", {})).but(
        queue=due.queue, priority=due.priority or None, max_attempts=stored.get("max_attempts")
    )
    entry = registry.registered(due.func)
    if entry is None:
        return own
    reset = stored.get("reset")
    taken = frozenset(name for name in reset if isinstance(name, str)) if isinstance(reset, list) else None
    return own.but(reset=taken or None).over(entry.options)


def _unique_of(options: Mapping[str, Any]) -> UniqueCall | None:
    """Return what is unique of the tasks of a schedule, from its options."""
    stored = options.get("unique")
    if stored is None:
        return None
    unique = UniqueCall(**stored)
    # Of a slot there is no caller who could be told.
    return unique._replace(conflict="skip") if unique.conflict == "raise" else unique


def _is_signed(due: Due) -> bool:
    """Whether Python signed what the schedule enqueues, and it is unchanged since."""
    return due.signature is not None and signing.verify_schedule(
        due.signature,
        func=due.func,
        hook=due.hook,
        args=due.args,
        kwargs=due.kwargs,
        options=due.options,
        queue=due.queue,
    )
