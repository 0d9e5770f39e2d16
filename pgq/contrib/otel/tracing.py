"""Spans: one for each enqueue, a producer's, and one for each attempt, a consumer's.

The context of the enqueue's span is stored in the task's options and signed with them. Retries keep it, and hooks and
chains get that of the task before them, so all of them belong to the trace in which the first one was enqueued.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from uuid import UUID

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer

from pgq.contrib.otel.attributes import (
    BATCH_COUNT,
    DELAY,
    DESTINATION,
    ERROR_TYPE,
    MESSAGE_ID,
    OUTCOME,
    WAIT,
    common,
    of_claim,
)
from pgq.errors import Control
from pgq.records import Call, Claim, Enqueued, Failed, NewTask, Parked, Postponed, Report, Retried

_BAGGAGE = "baggage"


class Tracing:
    """Makes the spans of this process.

    Args:
        tracer: Of the project's provider.
        links: An attempt begins a trace of its own.
        baggage: It is carried from the enqueue to the attempt.
    """

    def __init__(self, tracer: Tracer, *, links: bool = False, baggage: bool = False) -> None:
        self._tracer, self._links, self._baggage = tracer, links, baggage
        #: Spans of attempts whose function runs, or has run, and whose outcome is not known yet. The outcome ends them:
        #: whether an exception is the end of the task, or the task is tried again, is decided after the function.
        self._open: dict[UUID, Span] = {}

    # --------------------------------------------------------------------------------------------- the caller

    @contextlib.contextmanager
    def enqueueing(self, tasks: tuple[NewTask, ...]) -> Iterator[dict[str, str]]:
        """Surround one writing of tasks with a span; yield what is to be stored with them."""
        attributes = common(tasks)
        queue = attributes.get(DESTINATION)
        with self._tracer.start_as_current_span(
            f"enqueue {queue}" if queue else "enqueue", kind=SpanKind.PRODUCER, attributes=attributes
        ) as span:
            if tasks[0].run_after is not None and span.is_recording():
                span.set_attribute(DELAY, (tasks[0].run_after - datetime.now(UTC)).total_seconds())
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            if not self._baggage:
                carrier.pop(_BAGGAGE, None)
            yield carrier

    def enqueued(self, written: Enqueued) -> None:
        """Note on the span of the enqueue, which is still the current one, what is known only now."""
        span = trace.get_current_span()
        if written.number != len(written.tasks):
            # The one model of many calls; or there was less to write than was asked for.
            span.set_attribute(BATCH_COUNT, written.number)
        elif len(written.tasks) == 1 and written.tasks[0].signature is not None:
            # The model of many calls is not signed, and its id is no row's.
            span.set_attribute(MESSAGE_ID, written.tasks[0].id.hex)

    # --------------------------------------------------------------------------------------------- the worker

    @contextlib.contextmanager
    def running(self, call: Call) -> Iterator[None]:
        """Make the span of an attempt the current one while its function runs."""
        claim = call.claim
        context, span = self._begin(claim, call.options.trace)
        if claim.attempts == 1 and span.is_recording():
            span.set_attribute(WAIT, max((datetime.now(UTC) - claim.enqueued_at).total_seconds() * 1000, 0.0))
        self._open[claim.id] = span
        token = contexts.attach(trace.set_span_in_context(span, context))
        try:
            yield
        finally:
            contexts.detach(token)

    def ended(self, report: Report) -> None:
        """End the span of an attempt, by what came of it. What ended without being run gets a span, too."""
        span = self._open.pop(report.claim.id, None)
        if span is None:
            # A wait for a release that knows the task is none of its attempts.
            if isinstance(report.outcome, Postponed):
                return
            took = max(report.stopped - report.started, 0.0)
            started = time.time_ns() - int(took * 1e9)
            _, span = self._begin(report.claim, report.options.trace, started)
        _conclude(span, report)
        span.end()

    def _begin(
        self, claim: Claim, carrier: Mapping[str, str] | None, started: int | None = None
    ) -> tuple[Context, Span]:
        """Start the span of an attempt; return it, and the context in which its function is to run."""
        # Nothing of what the worker did before is its parent.
        context = propagate.extract(carrier or {}, Context())
        links = []
        if self._links:
            cause = trace.get_current_span(context).get_span_context()
            links = [Link(cause)] if cause.is_valid else []
            context = trace.set_span_in_context(trace.INVALID_SPAN, context)
        span = self._tracer.start_span(
            f"process {claim.queue}",
            context=context,
            kind=SpanKind.CONSUMER,
            attributes=of_claim(claim),
            links=links,
            start_time=started,
        )
        return context, span


def _conclude(span: Span, report: Report) -> None:
    if not span.is_recording():
        return
    outcome = report.outcome
    span.set_attribute(OUTCOME, type(outcome).__name__.lower())
    if isinstance(outcome, Retried):
        span.add_event("retried", {DELAY: outcome.delay})
    if isinstance(outcome, Parked):
        span.set_status(Status(StatusCode.ERROR, outcome.reason[:500]))
    if isinstance(outcome, Failed | Retried) and not isinstance(report.error, Control):
        # A task that asks to be tried again has not gone wrong.
        failure = outcome.failure
        span.set_attribute(ERROR_TYPE, failure.exception)
        if report.error is not None:
            span.add_event(
                "exception",
                {
                    "exception.type": failure.exception,
                    "exception.message": failure.message,
                    "exception.stacktrace": failure.traceback,
                },
            )
        span.set_status(Status(StatusCode.ERROR, failure.message[:500]))
