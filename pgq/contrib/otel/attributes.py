"""Names of OpenTelemetry's semantic conventions for messaging (1.44, still "development"), and pgq's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pgq.records import Claim, NewTask

SCOPE = "pgq"
#: The release of the conventions whose names these are.
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

#: Always `pgq`.
SYSTEM = "messaging.system"
#: `enqueue` or `process`.
OPERATION_NAME = "messaging.operation.name"
#: `send` or `process`.
OPERATION_TYPE = "messaging.operation.type"
#: The queue; absent if tasks of several are written together.
DESTINATION = "messaging.destination.name"
#: The task's id, 32 hex digits; absent if several are written together.
MESSAGE_ID = "messaging.message.id"
#: How many tasks were written together; absent for one.
BATCH_COUNT = "messaging.batch.message_count"
#: The worker's id, 32 hex digits.
CLIENT_ID = "messaging.client.id"
#: Dotted path of the exception that an attempt ended with.
ERROR_TYPE = "error.type"
#: Dotted path of the function, its first 500 characters.
CODE_FUNCTION = "code.function.name"

#: The same, under pgq's own name.
FUNC = "pgq.task.func"
#: The number of this attempt, from 1.
ATTEMPT = "pgq.task.attempt"
#: `succeeded`, `failed`, `retried`, `parked` or `postponed`.
OUTCOME = "pgq.task.outcome"
#: The task's group; absent without one.
GROUP = "pgq.task.group"
#: The task's priority; absent if it is 0.
PRIORITY = "pgq.task.priority"
#: How many earlier attempts ended with the death of their worker; absent if none did.
CRASHES = "pgq.task.crashes"
#: Milliseconds from the enqueue to the first attempt; only of that one.
WAIT = "pgq.task.wait_ms"
#: Seconds until the task may run: given at the enqueue, or until the next attempt.
DELAY = "pgq.task.delay_s"
#: Id of the schedule whose task it is.
SCHEDULE = "pgq.schedule.id"
#: The instant for which the schedule fired, as ISO 8601 has it.
SLOT = "pgq.schedule.slot"
#: Milliseconds from that instant to the enqueue.
LATE = "pgq.schedule.late_ms"

Attributes = dict[str, str | int | float | bool]

#: An attribute may not be as long as what a row from psql may name.
_LONGEST = 500


def common(tasks: Sequence[NewTask]) -> Attributes:
    """Return what tasks that are written together have in common."""
    first = tasks[0]
    made: Attributes = {SYSTEM: SCOPE, OPERATION_NAME: "enqueue", OPERATION_TYPE: "send"}
    if all(task.queue == first.queue for task in tasks):
        made[DESTINATION] = first.queue
    if all(task.func == first.func for task in tasks):
        made[FUNC] = made[CODE_FUNCTION] = first.func[:_LONGEST]
    if all(task.priority == first.priority for task in tasks) and first.priority:
        made[PRIORITY] = first.priority
    if first.schedule is not None and all(task.schedule == first.schedule for task in tasks):
        made[SCHEDULE] = first.schedule
        if first.slot is not None and len(tasks) == 1:
            made[SLOT] = first.slot.isoformat()
            made[LATE] = max((datetime.now(UTC) - first.slot).total_seconds() * 1000, 0.0)
    if len(tasks) > 1:
        made[BATCH_COUNT] = len(tasks)
    return made


def of_claim(claim: Claim) -> Attributes:
    """Return what is known of an attempt when it begins."""
    func = claim.func[:_LONGEST]
    made: Attributes = {
        SYSTEM: SCOPE,
        OPERATION_NAME: "process",
        OPERATION_TYPE: "process",
        DESTINATION: claim.queue,
        MESSAGE_ID: claim.id.hex,
        CLIENT_ID: claim.worker.hex,
        FUNC: func,
        CODE_FUNCTION: func,
        ATTEMPT: claim.attempts,
    }
    if claim.group is not None:
        made[GROUP] = claim.group[:_LONGEST]
    if claim.priority:
        made[PRIORITY] = claim.priority
    if claim.crashes:
        made[CRASHES] = claim.crashes
    if claim.schedule is not None:
        made[SCHEDULE] = claim.schedule
    return made
