"""Schedules: making them, and firing those that are due.

`fire_due` runs in the leader's transaction. A slot and the step to the next one are written together, and the step only
from the slot that was read, so a slot is enqueued once even if two processes believe to lead.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings

from pgq import codec, enqueue, signing, store
from pgq.conf import Settings
from pgq.db import Cursor
from pgq.ids import new_id
from pgq.records import NewTask
from pgq.recurrence import Recurrence, anchored, missed, next_slot, parse_zone

logger = logging.getLogger("pgq")

#: Schedules fired in one transaction.
BATCH = 200


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule that is due, as due_schedules.sql returns it."""

    id: int
    name: str | None
    func: str
    hook: str | None
    args: str
    kwargs: str
    options: str
    queue: str | None
    priority: int
    schedule_type: str
    minutes: int | None
    seconds: float | None
    cron: str | None
    repeats: int
    next_run: datetime
    time_zone: str | None
    catch_up: bool | None
    overlap: str
    jitter: float
    intended_date_kwarg: str | None
    day: int | None
    wall_time: Any
    task: UUID | None
    signature: bytes | None
    now: datetime


def default_zone(settings: Settings) -> tzinfo:
    """Return the zone in which schedules count days unless they name one."""
    if settings.time_zone:
        return parse_zone(settings.time_zone, UTC)
    return ZoneInfo(django_settings.TIME_ZONE) if django_settings.USE_TZ else UTC


def recurrence_of(schedule: Any, settings: Settings) -> Recurrence:
    """Return how a schedule recurs; takes a `Due` or a `Schedule`.

    Raises:
        ValueError: Its time zone is unknown.
    """
    return Recurrence(
        kind=schedule.schedule_type,
        minutes=schedule.minutes,
        seconds=schedule.seconds,
        cron=schedule.cron,
        zone=parse_zone(schedule.time_zone, default_zone(settings)),
        day=schedule.day,
        wall=schedule.wall_time,
        name=schedule.name,
    )


def fire_due(cursor: Cursor, settings: Settings) -> int:
    """Fire the schedules that are due, inside the leader's transaction; return how many tasks that made."""
    fired = 0
    for row in store.due_schedules(cursor, queues=settings.queues, limit=BATCH):
        due = Due(*row)
        try:
            # A savepoint for each, so that one which fails leaves the others and the transaction alone.
            with cursor.connection.transaction():
                fired += _fire(cursor, due, settings)
        except Exception as error:
            logger.error("schedule %s (%s) could not be fired: %s", due.id, due.name or due.func, error)
            store.fault_schedule(cursor, due.id, codec.clean_text(f"{type(error).__name__}: {error}", 1000))
    return fired


def _fire(cursor: Cursor, due: Due, settings: Settings) -> int:
    slots, following, recurrence = _slots(due, settings)
    if due.repeats > 0:
        slots = slots[: due.repeats]
    slots = _without_overlap(cursor, due, slots)
    tasks = [_task(due, slot, settings) for slot in slots]
    repeats = max(due.repeats - max(len(slots), 1), 0) if due.repeats > 0 else -1
    if following is None and due.schedule_type == "O" and due.repeats < 0:
        if tasks:
            store.enqueue_many(cursor, tasks)
        store.end_schedule(cursor, due.id)
        return len(tasks)
    moved = store.fire(
        cursor, id=due.id, slot=due.next_run, next_run=following, repeats=0 if following is None else repeats,
        day=recurrence.day, wall_time=recurrence.wall, task=tasks[-1].id if tasks else None,
        last_slot=slots[-1] if slots else None,
    )  # fmt: skip
    if moved and tasks:
        store.enqueue_many(cursor, tasks)
    return len(tasks) if moved else 0


def _slots(due: Due, settings: Settings) -> tuple[list[datetime], datetime | None, Recurrence]:
    """Return the slots to fire, the one after them, and the recurrence with its anchors."""
    recurrence = anchored(recurrence_of(due, settings), due.next_run)
    catch_up = settings.catch_up if due.catch_up is None else due.catch_up
    slots, following = missed(recurrence, due.next_run, due.now, settings.catch_up_limit if catch_up else 1)
    if due.schedule_type == "C" and not catch_up and slots:
        following = next_slot(recurrence, due.now)
    return slots, following, recurrence


def _without_overlap(cursor: Cursor, due: Due, slots: list[datetime]) -> list[datetime]:
    """Apply the overlap policy: skip while the last run lives, or let only one wait."""
    if due.overlap == "allow" or not slots:
        return slots
    running, waiting = store.live_of_schedule(cursor, due.id)
    if due.overlap == "skip":
        return slots[-1:] if running + waiting == 0 else []
    return slots[-1:] if waiting == 0 else []


def _task(due: Due, slot: datetime, settings: Settings) -> NewTask:
    options = json.loads(due.options)
    kwargs = due.kwargs
    if due.intended_date_kwarg:
        kwargs = codec.canonical({**json.loads(kwargs), due.intended_date_kwarg: slot.isoformat()})
    task = NewTask(
        id=new_id(),
        func=due.func,
        args=due.args,
        kwargs=kwargs,
        options=codec.canonical(options.get("extra", {})),
        queue=due.queue or settings.default_queue,
        priority=due.priority,
        name=options.get("task_name"),
        group=options.get("group") or due.name or str(due.id),
        hook=due.hook,
        timeout=options.get("timeout", settings.timeout),
        max_attempts=options.get("max_attempts", settings.max_attempts),
        run_after=due.now + timedelta(seconds=random.uniform(0, due.jitter)) if due.jitter else None,
        schedule=due.id,
        slot=slot,
    )
    # Only what Python signed as a schedule becomes a task that Python has signed.
    trusted = due.signature is not None and signing.verify_schedule(
        due.signature,
        func=due.func,
        hook=due.hook,
        args=due.args,
        kwargs=due.kwargs,
        options=due.options,
        queue=due.queue,
    )
    return enqueue.signed(task) if trusted else dataclasses.replace(task, signature=None)
