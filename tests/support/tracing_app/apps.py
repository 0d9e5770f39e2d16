from __future__ import annotations

from django.apps import AppConfig


class TracingConfig(AppConfig):
    name = "tests.support.tracing_app"

    def ready(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        # Nothing is sent before a minute is over, unless the process flushes at its end.
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=60_000))
        trace.set_tracer_provider(provider)
