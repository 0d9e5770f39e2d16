"""The endpoint that treats all tasks that match: first it counts them, then it treats them batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from django.core import signing
from django.db import transaction

from pgq.conf import database_of
from pgq.enqueue.make import check_text
from pgq.errors import EnqueueError
from pgq.store.bounded import reading
from pgq.store.caller import callers_cursor
from pgq.tasks.bulk import REFERENCED, cancel_some, move_some, retry_some
from pgq.urls import access, found, kinds
from pgq.urls.access import Caller
from pgq.urls.endpoint import PATIENCE, Call, endpoint
from pgq.urls.found import Filter
from pgq.urls.problems import Problem, invalid
from pgq.urls.tasks import ANYONE, FILTER

#: Tasks that one request treats, and that a dry run counts.
BATCH, COUNTED = 500, 10_000
#: Seconds that a token of a dry run holds.
_HOLDS = 900
_SALT = "pgq.urls.bulk"

#: Of each action: the states it is for, the permission it needs.
_ACTIONS = {
    "cancel": ((found.READY, found.RUNNING, found.WAITING, found.PARKED), "cancel_queuedtask"),
    "retry": ((found.FAILED,), "retry_task"),
    "run-now": ((found.PARKED, found.WAITING), "run_queuedtask"),
    "move": ((found.READY, found.WAITING, found.PARKED), "change_queuedtask"),
}


@endpoint(
    "POST",
    "v1/tasks/bulk",
    "Treat all tasks that match: without a token count them, with the token of that answer treat up to 500",
    scope="act",
    permissions=("operate_dashboard",),
    answer="Bulk",
    body={
        "action": kinds.choice(*_ACTIONS),
        "filter": kinds.record(**FILTER),
        "to": kinds.text(200),
        "dry_run": kinds.flag(),
        "token": kinds.text(5000),
    },
    refusals=(409,),
)
def bulk(call: Call) -> Any:
    """Count or treat tasks."""
    if "token" in call.body:
        if len(call.body) > 1:
            raise _wrong("has the action and the filter in it; send it alone")
        return _treat(call)
    if "action" not in call.body:
        raise invalid(action="is missing, or a token")
    if not call.body.get("dry_run", True):
        raise invalid(dry_run="must come first: send its token to have the tasks treated")
    return _dry_run(call)


def _dry_run(call: Call) -> dict[str, Any]:
    action, wanted = call.body["action"], Filter(**call.body.get("filter", {}))
    states, permission = _ACTIONS[action]
    call.caller.require("act", permission)
    if ("to" in call.body) != (action == "move"):
        raise invalid(to="is the queue to move to" if action == "move" else "goes with move alone")
    if action == "move":
        _check_queue(call)
    if wanted.state is None and len(states) == 1:
        wanted = replace(wanted, state=states[0])
    if wanted.state is None and action == "run-now":
        raise invalid(**{"filter.state": f"is missing; {' or '.join(states)}"})
    if wanted.state is not None and wanted.state not in states:
        raise invalid(**{"filter.state": f"must be {' or '.join(states)} for {action}"})
    with reading(call.database, seconds=PATIENCE):
        meant = _meant(action, wanted)
        number, exact = found.count(call.database, _seeing(call), meant, live=action != "retry", limit=COUNTED)
    token = _token(call, action, wanted, None, call.body.get("to")) if number or not exact else None
    return {"matches": {"count": number, "exact": exact}, "token": token}


def _treat(call: Call) -> dict[str, Any]:
    try:
        said = signing.loads(call.body["token"], salt=_SALT, max_age=_HOLDS)
    except signing.BadSignature:
        raise _wrong("is none of a dry run, or has expired; make another") from None
    if said["caller"] != call.caller.name:
        raise _wrong("is another caller's")
    action, wanted, before = said["action"], _filter(said["filter"]), said["before"]
    states, permission = _ACTIONS[action]
    call.caller.require("act", permission)
    with reading(call.database, seconds=PATIENCE):
        page = found.search(
            call.database,
            _seeing(call),
            _meant(action, wanted),
            before=before and UUID(before),
            limit=BATCH,
            live=action != "retry",
        )
    treat = _treats(action, said["to"])
    ids = [UUID(row["id"]) for row in page.rows]
    with transaction.atomic(using=call.database), callers_cursor(call.database) as cursor:
        treated = treat(cursor, ids, states if wanted.state is None else (wanted.state,))
    conflicts = treated.count(REFERENCED)
    outcomes = {"done": len(treated) - conflicts, "skipped": len(ids) - len(treated), "conflicts": conflicts}
    following = None if page.before is None else _token(call, action, wanted, page.before, said["to"])
    where = "" if said["to"] is None else f" to queue {said['to']!r}"
    access.log(call.caller, f"{action}_all", f"{action} of {said['filter']}{where}: {outcomes}")
    return {**outcomes, "next": following}


def _check_queue(call: Call) -> None:
    try:
        check_text("queue", call.body["to"])
    except EnqueueError as error:
        raise invalid(to=error.reason) from None
    if database_of(call.body["to"]) != call.database:
        raise invalid(to="is a queue of another database; tasks cannot go there")


def _treats(action: str, queue: str | None) -> Callable[[Any, Sequence[UUID], Sequence[str]], list[str]]:
    if action == "move":
        assert queue is not None, "the dry run has asked for it"
        return functools.partial(move_some, queue=queue)
    return cancel_some if action == "cancel" else retry_some


def _seeing(call: Call) -> Caller:
    """Return as whom tasks are looked for: a token that may act need not be able to read."""
    return call.caller if call.caller.scopes is None else ANYONE


def _token(call: Call, action: str, wanted: Filter, before: UUID | None, to: str | None) -> str:
    stored = {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in asdict(wanted).items()
        if name in FILTER and value is not None
    }
    # What is enqueued after the dry run is not meant.
    first = found.newest_id().hex if before is None else before.hex
    said = {"caller": call.caller.name, "action": action, "filter": stored, "before": first, "to": to}
    return signing.dumps(said, salt=_SALT)


def _meant(action: str, wanted: Filter) -> Filter:
    """Return which tasks are treated: what an operator has cancelled is not run again with what has failed."""
    return replace(wanted, without_cancelled=action == "retry")


def _filter(stored: dict[str, Any]) -> Filter:
    return Filter(**kinds.read_all(stored, FILTER, required=()))


def _wrong(reason: str) -> Problem:
    return Problem(400, f"token {reason}", {"token": reason})
