"""Metrics by OpenTelemetry, as the semantic conventions name them: what was enqueued, what ended, and how long it took.

They are of this process alone; what all processes did together stands in PostgreSQL.
"""

from __future__ import annotations

from opentelemetry.metrics import Meter

from pgq.contrib.otel.attributes import (
    DESTINATION,
    ERROR_TYPE,
    FUNC,
    OPERATION_NAME,
    OUTCOME,
    SCOPE,
    SYSTEM,
    Attributes,
    common,
)
from pgq.records import Enqueued, Failed, Postponed, Report, Retried

#: Seconds. Those that the conventions advise end at 10.
_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600]


class Measuring:
    """Counts and times what this process does."""

    def __init__(self, meter: Meter) -> None:
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Tasks that this process has enqueued."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Attempts that have ended in this process."
        )
        self._duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long attempts have run.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )

    def enqueued(self, written: Enqueued) -> None:
        """Count what was written."""
        known = common(written.tasks)
        self._sent.add(
            written.number, {key: known[key] for key in (SYSTEM, OPERATION_NAME, DESTINATION, FUNC) if key in known}
        )

    def ended(self, report: Report) -> None:
        """Count an attempt, and what it took."""
        claim, outcome = report.claim, report.outcome
        if isinstance(outcome, Postponed):
            return
        attributes: Attributes = {
            SYSTEM: SCOPE,
            OPERATION_NAME: "process",
            DESTINATION: claim.queue,
            FUNC: claim.func[:500],
            OUTCOME: type(outcome).__name__.lower(),
        }
        if isinstance(outcome, Failed | Retried):
            attributes[ERROR_TYPE] = outcome.failure.exception
        self._consumed.add(1, attributes)
        if not isinstance(outcome, Failed) or outcome.ran:
            self._duration.record(max(report.stopped - report.started, 0.0), attributes)
