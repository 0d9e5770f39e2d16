"""Tracing of queues, in both of the ways that Sentry's SDK has: transactions, and streamed spans."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sentry_sdk
from sentry_sdk import traces as streamed
from sentry_sdk.consts import OP, SPANDATA
from sentry_sdk.tracing import TransactionSource
from sentry_sdk.tracing_utils import has_span_streaming_enabled

from pgq.records import Claim, NewTask

ORIGIN = "auto.queue.pgq"
#: The operation of an attempt as a whole; inside of it is the one that Sentry's page of queues shows.
TASK = "queue.task.pgq"
#: A row from psql may name what it likes, at any length.
_LONGEST = 200


def is_streaming() -> bool:
    """Whether the project has chosen streamed spans: ``sentry_sdk.init(trace_lifecycle="stream")``."""
    return bool(has_span_streaming_enabled(sentry_sdk.get_client().options))


@contextlib.contextmanager
def publishing(tasks: Sequence[NewTask]) -> Iterator[dict[str, str]]:
    """Surround one writing of tasks with a span; yield the headers that are to be stored with them.

    Outside of a trace there is no span; the headers still tie the attempts to what else this process reports.
    """
    first = tasks[0]
    data: dict[str, Any] = {
        SPANDATA.MESSAGING_SYSTEM: "pgq",
        SPANDATA.MESSAGING_DESTINATION_NAME: first.queue,
        "messaging.message.body.size": sum(len(task.args) + len(task.kwargs) for task in tasks),
    }
    if len(tasks) > 1:
        data["messaging.batch.message_count"] = len(tasks)
    elif first.signature is not None:
        # The model of many calls is not signed, and its id is no row's.
        data[SPANDATA.MESSAGING_MESSAGE_ID] = first.id.hex
    scope = sentry_sdk.get_current_scope()
    with contextlib.ExitStack() as stack:
        if is_streaming():
            if scope.streamed_span is not None:
                attributes = {"sentry.op": OP.QUEUE_PUBLISH, "sentry.origin": ORIGIN, **data}
                stack.enter_context(streamed.start_span(name=first.func[:_LONGEST], attributes=attributes))
        elif scope.span is not None:
            span = stack.enter_context(
                sentry_sdk.start_span(op=OP.QUEUE_PUBLISH, name=first.func[:_LONGEST], origin=ORIGIN)
            )
            span.update_data(data)
        yield dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers())


@contextlib.contextmanager
def processing(claim: Claim, headers: Mapping[str, str]) -> Iterator[Callable[[str], None]]:
    """Surround the function of a task with its transaction; yield what sets its status, if no exception does.

    Streamed spans know ok and error only: what leaves their block as no exception is ok.
    """
    name = claim.func[:_LONGEST]
    if is_streaming():
        streamed.continue_trace(dict(headers))
        attributes: dict[str, Any] = {"sentry.op": TASK, "sentry.origin": ORIGIN, "sentry.segment.name.source": "task"}
        with (
            streamed.start_span(name=name, attributes=attributes, parent_span=None),
            streamed.start_span(name=name, attributes={"sentry.op": OP.QUEUE_PROCESS, **_data(claim)}),
        ):
            yield lambda status: None
        return
    transaction = sentry_sdk.continue_trace(
        dict(headers), op=TASK, name=name, source=TransactionSource.TASK, origin=ORIGIN
    )
    sampling = {"pgq_task": {"id": claim.id.hex, "func": claim.func, "queue": claim.queue, "attempt": claim.attempts}}
    with (
        sentry_sdk.start_transaction(transaction, custom_sampling_context=sampling),
        sentry_sdk.start_span(op=OP.QUEUE_PROCESS, name=name, origin=ORIGIN) as span,
    ):
        span.update_data(_data(claim))

        def conclude(status: str) -> None:
            for one in (transaction, span):
                one.set_status(status)

        yield conclude


def _data(claim: Claim) -> dict[str, Any]:
    return {
        SPANDATA.MESSAGING_SYSTEM: "pgq",
        SPANDATA.MESSAGING_MESSAGE_ID: claim.id.hex,
        SPANDATA.MESSAGING_DESTINATION_NAME: claim.queue,
        SPANDATA.MESSAGING_MESSAGE_RETRY_COUNT: claim.attempts - 1,
        SPANDATA.MESSAGING_MESSAGE_RECEIVE_LATENCY: max(
            (datetime.now(UTC) - claim.enqueued_at).total_seconds() * 1000, 0.0
        ),
        "messaging.message.body.size": len(claim.args) + len(claim.kwargs),
    }
