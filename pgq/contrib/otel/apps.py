"""The app that a project puts into INSTALLED_APPS to have its tasks traced."""

from django.apps import AppConfig


class OtelConfig(AppConfig):
    """Instruments pgq with the defaults of `pgq.contrib.otel.instrument`, in each process that sets Django up."""

    name = "pgq.contrib.otel"
    label = "pgq_otel"

    def ready(self) -> None:
        from pgq.contrib.otel.install import instrument, is_instrumented

        if not is_instrumented():
            # A project that wants other options has called it before, with them.
            instrument()
