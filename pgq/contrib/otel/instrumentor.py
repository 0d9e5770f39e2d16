"""For ``opentelemetry-instrument``, which finds this by its entry point, and for code that uses instrumentors."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # its module is not typed

from pgq.contrib.otel.install import instrument, uninstrument

__all__ = ["PgqInstrumentor"]


class PgqInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Traces pgq: ``PgqInstrumentor().instrument(links=True)``. It takes what `pgq.contrib.otel.instrument` takes."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what must be installed: pgq itself."""
        return ("django-pgq",)

    def _instrument(self, **options: Any) -> None:
        names = ("tracer_provider", "meter_provider", "links", "baggage")
        instrument(**{name: options[name] for name in names if name in options})

    def _uninstrument(self, **options: Any) -> None:
        uninstrument()
