"""Events: what Sentry is told of a task that has failed."""

from __future__ import annotations

from typing import Any

import sentry_sdk
from sentry_sdk.scope import Scope, should_send_default_pii
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import event_from_exception, has_data_collection_enabled

from pgq.codec.failures import path_of, users_part
from pgq.errors import TaskCancelled
from pgq.ground.ids import task_name
from pgq.records import Call, Claim, Failure, Report, Retried

#: What a cancelled task has failed with.
CANCELLED = path_of(TaskCancelled)


def describe(scope: Scope, call: Call) -> None:
    """Put what is known of an attempt into a scope; its arguments only if the project sends such data."""
    described = describe_claim(scope, call.claim)
    if _sends_arguments() and not call.options.sensitive:
        args = call.args if call.context is None else call.args[1:]
        # As Sentry shows local variables: made safe and cut by itself.
        scope.set_context("pgq", {**described, "args": list(args), "kwargs": dict(call.kwargs)})


def _sends_arguments() -> bool:
    options = sentry_sdk.get_client().options
    if has_data_collection_enabled(options):
        return bool(options["data_collection"]["queues"])
    return bool(should_send_default_pii())


def describe_claim(scope: Scope, claim: Claim) -> dict[str, Any]:
    """Put what is known of a task into a scope, and return it."""
    func = claim.func[:200]
    described: dict[str, Any] = {
        "id": claim.id.hex,
        "name": claim.name or task_name(claim.id),
        "func": func,
        "queue": claim.queue,
        "attempt": claim.attempts,
        "max_attempts": claim.max_attempts,
    }
    for name in ("group", "schedule", "crashes"):
        if value := getattr(claim, name):
            described[name] = value
    scope.set_transaction_name(func, source="task")
    scope.set_tag("pgq.queue", claim.queue)
    scope.set_context("pgq", described)
    return described


def capture(report: Report, failure: Failure, *, by_function: bool) -> None:
    """Send the event of one failure, in the scope that is current."""
    mechanism = {"type": "pgq", "handled": False}
    event: Event
    hint: Hint | None
    error = report.error
    if error is not None:
        raised = (type(error), error, users_part(error.__traceback__))
        event, hint = event_from_exception(raised, client_options=sentry_sdk.get_client().options, mechanism=mechanism)
        if report.options.sensitive:
            _without_variables(event)
    else:
        # It ended without being run: its worker died too often, say.
        value = {"type": failure.exception, "value": failure.message, "mechanism": mechanism}
        event, hint = {"level": "error", "exception": {"values": [value]}}, None
    if isinstance(report.outcome, Retried):
        event["level"] = "warning"
    if by_function:
        event["fingerprint"] = ["pgq", report.claim.func[:200], failure.exception]
    sentry_sdk.capture_event(event, hint=hint)


def _without_variables(event: Event) -> None:
    """Take the local variables out of the frames, among which are the arguments."""
    for value in event.get("exception", {}).get("values", []):
        for frame in (value.get("stacktrace") or {}).get("frames", []):
            frame.pop("vars", None)
