"""Tracing and metrics by OpenTelemetry's own SDK: one trace from the request to the retry, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client, override_settings
from opentelemetry import baggage, context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: F401  # pools use it
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pgq.contrib import otel
from pgq.contrib.otel.instrumentor import PgqInstrumentor
from pgq.ground import events
from pgq.models import QueuedTask
from pgq.tasks import async_chain, async_task, cancel, enqueue_many, fetch, schedule
from pgq.testing import drain, fire_schedules
from tests.functions import tracing
from tests.support.collector import Collector
from tests.support.environment import environment
from tests.support.pools import ROOT, wait_for

TASKS = "tests.functions.tracing"


class Traced:
    """What was exported in this process."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def spans(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        """Return the spans that have ended, in the order of their beginnings."""
        done = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)
        return [span for span in done if kind in (None, span.kind)]

    def metrics(self) -> dict[str, list[Any]]:
        """Return the points of each metric."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def traced() -> Iterator[Callable[..., Traced]]:
    def start(**options: Any) -> Traced:
        made = Traced()
        otel.instrument(tracer_provider=made.provider, meter_provider=made.meters, **options)
        return made

    tracing.seen.clear()
    yield start
    otel.uninstrument()


@pytest.mark.django_db
class TestTrace:
    @override_settings(ROOT_URLCONF=TASKS)
    def test_a_trace_that_begins_in_a_request_shows_the_task_its_retry_and_its_hook(self, traced):
        made = traced()
        DjangoInstrumentor().instrument(tracer_provider=made.provider)
        try:
            id = Client().get("/order/").content.decode()
        finally:
            DjangoInstrumentor().uninstrument()
        drain()
        request, enqueue, first, second, hook = made.spans()
        assert {span.context.trace_id for span in made.spans()} == {request.context.trace_id}
        assert (request.kind, enqueue.kind) == (SpanKind.SERVER, SpanKind.PRODUCER)
        assert [span.name for span in (enqueue, first, second, hook)] == ["enqueue default", *["process default"] * 3]
        assert enqueue.parent.span_id == request.context.span_id
        # Each attempt, and what follows it, is caused by the enqueue.
        assert {span.parent.span_id for span in (first, second, hook)} == {enqueue.context.span_id}
        assert [span.attributes["messaging.message.id"] for span in (enqueue, first, second)] == [id] * 3
        assert [span.attributes["pgq.task.attempt"] for span in (first, second)] == [1, 2]
        assert hook.attributes["pgq.task.func"] == f"{TASKS}.after"
        assert first.attributes["error.type"] == "builtins.LookupError"
        assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
        assert [event.name for event in first.events] == ["retried", "exception"]
        assert "fails_once" in first.events[1].attributes["exception.stacktrace"]
        # The function runs inside of the span of its attempt.
        assert [seen.span_id for seen, _ in tracing.seen] == [first.context.span_id, second.context.span_id]
        # Nothing of the arguments is there.
        assert "7" not in [str(value) for span in made.spans() for value in span.attributes.values()]

    def test_names_are_those_of_the_conventions(self, traced):
        made = traced()
        async_task(f"{TASKS}.succeeds_on_loop", group="g", q_options={"priority": 3, "queue": "mail"})
        drain()
        enqueue, process = made.spans()
        assert dict(enqueue.attributes) | {"messaging.message.id": ""} == {
            "messaging.system": "pgq", "messaging.operation.name": "enqueue", "messaging.operation.type": "send",
            "messaging.destination.name": "mail", "messaging.message.id": "", "pgq.task.priority": 3,
            "pgq.task.func": f"{TASKS}.succeeds_on_loop", "code.function.name": f"{TASKS}.succeeds_on_loop",
        }  # fmt: skip
        given = process.attributes
        assert (given["messaging.operation.type"], given["pgq.task.group"], given["pgq.task.outcome"]) == (
            "process",
            "g",
            "succeeded",
        )
        assert given["pgq.task.wait_ms"] >= 0
        assert process.kind is SpanKind.CONSUMER

    def test_with_links_an_attempt_begins_a_trace_of_its_own(self, traced):
        made = traced(links=True)
        async_task(f"{TASKS}.fails_once", 1)
        drain()
        enqueue, first, second = made.spans()
        assert len({span.context.trace_id for span in made.spans()}) == 3
        assert [[link.context.span_id for link in span.links] for span in (first, second)] == [
            [enqueue.context.span_id]
        ] * 2

    @pytest.mark.parametrize(("carried", "found"), [(True, "acme"), (False, None)])
    def test_baggage_is_carried_only_if_that_is_wanted(self, traced, carried, found):
        traced(baggage=carried)
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            async_task(f"{TASKS}.fails_once", 1)
        finally:
            context.detach(token)
        assert ("acme" in str(QueuedTask.objects.get().options)) == carried
        drain()
        assert [tenant for _, tenant in tracing.seen] == [found] * 2

    def test_many_tasks_are_one_enqueue_and_chains_and_schedules_are_traces(self, traced):
        made = traced()
        enqueue_many(f"{TASKS}.fails", [("a",), ("b",)])
        (many,) = made.spans()
        assert many.attributes["messaging.batch.message_count"] == 2
        assert "messaging.message.id" not in many.attributes
        enqueue_many(f"{TASKS}.fails", [])
        assert made.spans()[-1].attributes["messaging.batch.message_count"] == 0
        drain()
        made.exporter.clear()
        async_chain([(f"{TASKS}.succeeds_on_loop",), (f"{TASKS}.succeeds_on_loop",)])
        drain()
        assert [len(made.spans()), len({span.context.trace_id for span in made.spans()})] == [3, 1]
        made.exporter.clear()
        row = schedule(f"{TASKS}.succeeds_on_loop", name="nightly", schedule_type="O")
        fire_schedules()
        drain()
        fired, process = made.spans()
        assert fired.attributes["pgq.schedule.id"] == process.attributes["pgq.schedule.id"] == row.pk
        assert fired.attributes["pgq.schedule.late_ms"] >= 0
        assert process.parent.span_id == fired.context.span_id

    def test_what_came_of_it(self, traced, django_capture_on_commit_callbacks):
        made = traced()
        for name in ("asks_again", "gives_up", "fails"):
            async_task(f"{TASKS}.{name}")
        never = async_task(f"{TASKS}.fails", "never")
        # A task that no worker holds ends in the transaction of the one who cancels it.
        with django_capture_on_commit_callbacks(execute=True):
            cancel(never)
        drain()
        came = {
            (
                span.attributes["pgq.task.func"].rpartition(".")[2],
                span.attributes["pgq.task.outcome"],
                span.attributes.get("error.type"),
                span.status.status_code is StatusCode.ERROR,
            )
            for span in made.spans(SpanKind.CONSUMER)
        }
        assert came == {
            # To ask for another attempt, or to give up on purpose, is no error.
            ("asks_again", "retried", None, False), ("asks_again", "succeeded", None, False),
            ("gives_up", "failed", None, False), ("fails", "failed", "builtins.ValueError", True),
            # It never ran, and its trace has an end.
            ("fails", "failed", "pgq.errors.TaskCancelled", True),
        }  # fmt: skip

    def test_metrics(self, traced):
        made = traced()
        enqueue_many(f"{TASKS}.fails", [("a",), ("b",)])
        drain()
        points = made.metrics()
        (sent,) = points["messaging.client.sent.messages"]
        assert (sent.value, sent.attributes["messaging.destination.name"]) == (2, "default")
        (consumed,) = points["messaging.client.consumed.messages"]
        assert (consumed.value, consumed.attributes["error.type"]) == (2, "builtins.ValueError")
        (took,) = points["messaging.process.duration"]
        assert took.count == 2

    def test_a_trace_that_psql_wrote_does_no_harm(self, traced):
        made = traced()
        QueuedTask.objects.create(func=f"{TASKS}.succeeds_on_loop", options={"trace": {"traceparent": "\x1b[31m"}})
        QueuedTask.objects.create(func=f"{TASKS}.succeeds_on_loop", options={"trace": [1]})
        drain()
        assert [span.parent for span in made.spans()] == [None] * len(made.spans())

    def test_the_instrumentor_puts_it_on_and_takes_it_off(self, traced):
        made = traced()
        otel.uninstrument()
        assert not events.around_enqueue.hooks
        PgqInstrumentor().instrument(tracer_provider=made.provider, links=True)
        async_task(f"{TASKS}.succeeds_on_loop")
        PgqInstrumentor().uninstrument()
        drain()
        assert [span.name for span in made.spans()] == ["enqueue default"]
        assert not events.around_run.hooks


def spans_of(collector: Collector) -> list[Any]:
    """Return all spans that the collector has got, in the order of their beginnings."""
    requests = [ExportTraceServiceRequest.FromString(body) for _, body in list(collector.posted)]
    spans = [s for one in requests for found in one.resource_spans for scope in found.scope_spans for s in scope.spans]
    return sorted(spans, key=lambda span: span.start_time_unix_nano)


def attribute(span: Any, name: str) -> str:
    return next((pair.value.string_value for pair in span.attributes if pair.key == name), "")


@pytest.mark.django_db(transaction=True)
def test_a_pool_sends_all_spans_before_its_workers_end(pool, oracle):
    with Collector() as collector:
        running = pool(
            workers=1,
            recycle=3,
            threads=3,
            env={
                "DJANGO_SETTINGS_MODULE": "tests.support.tracing_settings",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            },
        )
        made = Traced()
        otel.instrument(tracer_provider=made.provider)
        try:
            # At the same time in threads and on a loop, and one by itself in a transaction.
            ids = [async_task(f"{TASKS}.fails_once", number) for number in range(3)]
            ids += [async_task(f"{TASKS}.{name}") for name in ("succeeds_on_loop", "succeeds_in_a_transaction")]
        finally:
            otel.uninstrument()
        for id in ids:
            assert fetch(id, wait=30_000).success
        # What the first worker held was sent when it was replaced; the rest when the pool stopped.
        wait_for(lambda: len(spans_of(collector)) >= 3)
        running.stop()
        wait_for(lambda: len(spans_of(collector)) >= 8)
        spans = spans_of(collector)
    enqueued = {span.attributes["messaging.message.id"]: span.context for span in made.spans()}
    attempts = Counter(attribute(span, "messaging.message.id") for span in spans)
    assert attempts == {id: 2 if id in ids[:3] else 1 for id in ids}
    for span in spans:
        cause = enqueued[attribute(span, "messaging.message.id")]
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (f"{cause.trace_id:032x}", f"{cause.span_id:016x}")


def test_a_project_without_it_imports_nothing_of_opentelemetry():
    code = (
        "import sys, django; django.setup()\n"
        "import pgq.tasks, pgq.pool.worker.loop, pgq.upkeep.chores, pgq.admin\n"
        "sys.exit(any(name.partition('.')[0] in ('opentelemetry', 'sentry_sdk', 'debug_toolbar', 'health_check')"
        " for name in sys.modules))"
    )
    env = environment(DJANGO_SETTINGS_MODULE="tests.settings")
    assert subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=False).returncode == 0
