"""OpenTelemetry: spans from the request through the enqueue to each attempt, and metrics of both.

Put ``"pgq.contrib.otel"`` into INSTALLED_APPS, or call `instrument` once in each process, in an ``AppConfig.ready`` for
instance. It needs OpenTelemetry's API, ``pip install "django-pgq[otel]"``; which SDK and exporters there are is the
project's own business. Names are those of the semantic conventions for messaging.
"""

try:
    from pgq.contrib.otel.install import instrument, uninstrument
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("opentelemetry"):
        raise
    raise ModuleNotFoundError(
        f'pgq.contrib.otel needs OpenTelemetry\'s API, and there is no {error.name}: pip install "django-pgq[otel]"',
        name=error.name,
    ) from error

__all__ = ["instrument", "uninstrument"]
