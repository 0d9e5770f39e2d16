"""Names of OpenTelemetry's semantic conventions for messaging (1.44, still "development"), and pgq's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pgq.records import Claim, NewTask

SCOPE = "pgq"
#: The release of the conventions whose names these are.
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM = "messaging.system"
OPERATION_NAME, OPERATION_TYPE = "messaging.operation.name", "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID, BATCH_COUNT, CLIENT_ID = "messaging.message.id", "messaging.batch.message_count", "messaging.client.id"
ERROR_TYPE, CODE_FUNCTION = "error.type", "code.function.name"

FUNC, ATTEMPT, OUTCOME = "pgq.task.func", "pgq.task.attempt", "pgq.task.outcome"
GROUP, PRIORITY, CRASHES = "pgq.task.group", "pgq.task.priority", "pgq.task.crashes"
WAIT, DELAY = "pgq.task.wait_ms", "pgq.task.delay_s"
SCHEDULE, SLOT, LATE = "pgq.schedule.id", "pgq.schedule.slot", "pgq.schedule.late_ms"

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
