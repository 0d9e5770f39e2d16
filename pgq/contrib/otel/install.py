"""Puts tracing and metrics upon the events of pgq, and takes them off again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from opentelemetry import metrics, trace

from pgq import __version__
from pgq.contrib.otel.attributes import SCHEMA, SCOPE
from pgq.contrib.otel.measuring import Measuring
from pgq.contrib.otel.tracing import Tracing
from pgq.ground import events

#: Milliseconds that each provider may take to send what it holds before a process of a pool ends. All functions at its
#: end together have `pgq.ground.events.EXIT_SECONDS`.
FLUSH_MILLISECONDS = 1_500

#: What takes it off again. Process-wide, as the hooks that it put on are.
_installed: list[Callable[[], None]] = []


def is_instrumented() -> bool:
    """Whether `instrument` was called in this process."""
    return bool(_installed)


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    links: bool = False,
    baggage: bool = False,
) -> None:
    """Trace and measure enqueues and attempts in this process. A second call changes nothing.

    Args:
        tracer_provider: None: the global one, also if that is set later.
        meter_provider: The same.
        links: An attempt begins a trace of its own, with a link to the enqueue. Else it belongs to the trace in which
            its task was enqueued, so that one trace shows the request, the task and its retries.
        baggage: Store the baggage of the caller with the task, and give it to the task. It stands in the table, where
            all can read it who can read tasks.
    """
    if _installed:
        return
    tracing = Tracing(trace.get_tracer(SCOPE, __version__, tracer_provider, SCHEMA), links=links, baggage=baggage)
    measuring = Measuring(metrics.get_meter(SCOPE, __version__, meter_provider, SCHEMA))
    events.around_enqueue.add(tracing.enqueueing)
    events.around_run.add(tracing.running)
    events.enqueue.listen(tracing.enqueued)
    events.end.listen(tracing.ended)
    events.enqueue.listen(measuring.enqueued)
    events.end.listen(measuring.ended)

    def flush() -> None:
        """Send what the providers hold."""
        for provider in (
            tracer_provider or trace.get_tracer_provider(),
            meter_provider or metrics.get_meter_provider(),
            _logger_provider(),
        ):
            send: Callable[[int], Any] | None = getattr(provider, "force_flush", None)
            if send is not None:
                send(FLUSH_MILLISECONDS)

    events.before_exit(flush)

    def take_off() -> None:
        events.around_enqueue.remove(tracing.enqueueing)
        events.around_run.remove(tracing.running)
        events.enqueue.forget(tracing.enqueued)
        events.enqueue.forget(measuring.enqueued)
        events.end.forget(tracing.ended)
        events.end.forget(measuring.ended)

    _installed.append(take_off)


def uninstrument() -> None:
    """Take tracing and metrics off again, in this process."""
    while _installed:
        _installed.pop()()


def _logger_provider() -> object | None:
    """Return the provider of logs, which the API still calls private."""
    with contextlib.suppress(ImportError):
        from opentelemetry import _logs

        return _logs.get_logger_provider()
    return None
