"""Endpoints of schedules: listed, made, changed, fired now, paused, resumed, deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from pgq.errors import EnqueueError
from pgq.models import Schedule
from pgq.records.options import TaskOptions
from pgq.schedules import fire, overview
from pgq.schedules.define import define
from pgq.urls import access, found, kinds
from pgq.urls.endpoint import Answer, Call, endpoint
from pgq.urls.problems import Problem, invalid, unknown
from pgq.urls.tasks import offered

_OVERLAPS = tuple(word for word, _ in Schedule.OVERLAP)
_KINDS = tuple(letter for letter, _ in Schedule.TYPE)
#: When it fires: what may be changed.
_TIMING = {
    "schedule_type": kinds.choice(*_KINDS),
    "cron": kinds.text(200),
    "minutes": kinds.whole(1, 10**6),
    "seconds": kinds.number(0.1, 10**7),
    "repeats": kinds.whole(-1, 2**31 - 1),
    "next_run": kinds.moment(),
    "time_zone": kinds.text(100),
    "catch_up": kinds.flag(),
    "overlap": kinds.choice(*_OVERLAPS),
    "jitter": kinds.number(0, 86_400),
    "priority": kinds.whole(-100, 100),
    "queue": kinds.text(200),
}
_NEW = {
    "name": kinds.text(100),
    "func": kinds.text(500),
    "args": kinds.array(),
    "kwargs": kinds.mapping(),
    "paused": kinds.flag(),
    **_TIMING,
}
_LISTED = 200


def as_json(row: Schedule) -> dict[str, Any]:
    """Return a schedule without its arguments."""
    return {
        "id": row.pk,
        "name": row.name,
        "func": row.func,
        "queue": row.queue,
        "priority": row.priority,
        "schedule_type": row.schedule_type,
        "cron": row.cron,
        "minutes": row.minutes,
        "seconds": row.seconds,
        "repeats": row.repeats,
        "next_run": found.at(row.next_run),
        "last_slot": found.at(row.last_slot),
        "last_task": row.task,
        "time_zone": row.time_zone,
        "catch_up": row.catch_up,
        "overlap": row.overlap,
        "jitter": row.jitter,
        "paused": row.paused,
        "error": row.error,
        "source": "database" if row.source is None else "code",
    }


def _rows(call: Call) -> Any:
    return Schedule.objects.using(call.database).defer("args", "kwargs", "options", "spec")


def _one(call: Call, *, lock: bool = False) -> Schedule:
    rows = Schedule.objects.using(call.database)
    row = (rows.select_for_update() if lock else rows).filter(pk=call.parts["schedule"]).first()
    if row is None:
        raise unknown("schedule")
    return row


@endpoint(
    "GET",
    "v1/schedules",
    "List schedules by their ids",
    scope="read",
    permissions=("view_schedule",),
    answer="Schedules",
    query={"after": kinds.whole(0, 2**63 - 1), "limit": kinds.whole(1, _LISTED)},
)
def schedules(call: Call) -> Any:
    """Return a page of schedules."""
    limit = call.query.get("limit", 50)
    rows = list(_rows(call).filter(pk__gt=call.query.get("after", 0)).order_by("pk")[: limit + 1])
    following = f"{call.request.path}?after={rows[limit - 1].pk}&limit={limit}" if len(rows) > limit else None
    return {"schedules": [as_json(row) for row in rows[:limit]], "next": following}


@endpoint(
    "GET",
    "v1/schedules/{schedule}",
    "Show a schedule",
    scope="read",
    permissions=("view_schedule",),
    answer="Schedule",
    refusals=(404,),
)
def schedule(call: Call) -> Any:
    """Return one schedule."""
    return as_json(_one(call))


@endpoint(
    "POST",
    "v1/schedules",
    "Schedule a function that is registered with api=True",
    scope="enqueue",
    permissions=("add_schedule",),
    answer="Schedule",
    body=_NEW,
    required=("func",),
    answers=(201,),
    refusals=(409,),
)
def create(call: Call) -> Any:
    """Make a schedule."""
    given = dict(call.body)
    func = offered(given.pop("func"))
    args, kwargs = tuple(given.pop("args", [])), given.pop("kwargs", {})
    options = {name: given.pop(name) for name in ("queue", "priority") if name in given}

    def deed() -> Schedule:
        new = Schedule(**{"next_run": None, "schedule_type": None, **given})
        return define(new, func, args, kwargs, TaskOptions.of(**options))

    row = _written(call, deed)
    access.log(call.caller, "add_schedule", f"made schedule {row.pk} of {func}", str(row.pk))
    return Answer(as_json(row), 201)


@endpoint(
    "PATCH",
    "v1/schedules/{schedule}",
    "Change when a schedule fires, and where its tasks go",
    scope="act",
    permissions=("change_schedule",),
    answer="Schedule",
    body=_TIMING,
    refusals=(404, 409),
)
def change(call: Call) -> Any:
    """Change a schedule. What code says, code changes."""

    def deed() -> Schedule:
        row = _one(call, lock=True)
        if row.source is not None:
            raise Problem(409, "This schedule stands in code, and is changed there. It can be paused here.")
        for name, value in call.body.items():
            setattr(row, name, value)
        row.full_clean(exclude=["args", "kwargs", "options"])
        row.save(using=call.database)
        return row

    row = _written(call, deed)
    said = f"changed {', '.join(call.body) or 'nothing'} of schedule {row.pk}"
    access.log(call.caller, "change_schedule", said, str(row.pk))
    row.refresh_from_db(using=call.database)
    return as_json(row)


def _written(call: Call, deed: Callable[[], Schedule]) -> Schedule:
    """Do what makes or changes a schedule, and turn what may be wrong with it into a refusal."""
    try:
        with transaction.atomic(using=call.database):
            return deed()
    except ValidationError as error:
        fields = error.message_dict if hasattr(error, "error_dict") else {"schedule": error.messages}
        errors = {("schedule" if name == "__all__" else name): " ".join(texts) for name, texts in fields.items()}
        raise invalid(**errors) from None
    except EnqueueError as error:
        raise invalid(**{error.field: error.reason}) from None
    except IntegrityError:
        raise Problem(409, "There is a schedule of that name.", {"name": "is taken"}) from None


@endpoint(
    "DELETE",
    "v1/schedules/{schedule}",
    "Delete a schedule",
    scope="act",
    permissions=("delete_schedule",),
    answer="ScheduleDone",
    refusals=(404, 409),
)
def delete(call: Call) -> Any:
    """Delete a schedule; one that stands in code would come back."""
    try:
        with transaction.atomic(using=call.database):
            row = _one(call, lock=True)
            if row.source is not None:
                raise Problem(409, "This schedule stands in code: the next sync would make it again. Pause it instead.")
            row.delete()
    except IntegrityError:
        raise Problem(409, "A row of another table refers to this schedule.") from None
    return _done(call, "deleted")


@endpoint(
    "POST",
    "v1/schedules/{schedule}/run",
    "Enqueue a task of a schedule now",
    scope="act",
    permissions=("run_schedule",),
    answer="Enqueued",
    body={},
    answers=(201,),
    refusals=(404, 409),
)
def run(call: Call) -> Any:
    """Enqueue one task."""
    try:
        with transaction.atomic(using=call.database):
            id = fire.run_now(_one(call))
    except Schedule.DoesNotExist:
        raise unknown("schedule") from None
    except ValueError:
        raise Problem(409, "The options of this schedule cannot be read.") from None
    _done(call, "run now")
    return Answer({"id": id}, 201)


@endpoint(
    "POST",
    "v1/schedules/{schedule}/pause",
    "Pause a schedule",
    scope="act",
    permissions=("pause_schedule",),
    answer="ScheduleDone",
    body={},
    refusals=(404,),
)
def pause(call: Call) -> Any:
    """Pause a schedule."""
    with transaction.atomic(using=call.database):
        overview.pause(_one(call))
    return _done(call, "paused")


@endpoint(
    "POST",
    "v1/schedules/{schedule}/resume",
    "Have a paused schedule fire again",
    scope="act",
    permissions=("pause_schedule",),
    answer="ScheduleDone",
    body={"skip_missed": kinds.flag()},
    refusals=(404, 409),
)
def resume(call: Call) -> Any:
    """Resume a schedule; the slots that it missed are fired as PGQ["catch_up"] says, or left out."""
    try:
        with transaction.atomic(using=call.database):
            fire.resume(_one(call), skip_missed=call.body.get("skip_missed", False))
    except Schedule.DoesNotExist:
        raise unknown("schedule") from None
    except ValueError:
        raise Problem(409, "When this schedule fires cannot be read; change that first.") from None
    return _done(call, "resumed")


def _done(call: Call, done: str) -> dict[str, Any]:
    number = call.parts["schedule"]
    access.log(call.caller, f"schedule {done}", f"schedule {number} {done}", str(number))
    return {"id": call.parts["schedule"], "done": done}
