"""Sentry: an issue for each function that fails, tracing of queues, and monitors of schedules::

    import sentry_sdk
    from pgq.contrib.sentry import PgqIntegration

    sentry_sdk.init(dsn="https://...", traces_sample_rate=0.1, integrations=[PgqIntegration()])

That belongs into the settings module, so that the processes of pools do it, too. It needs ``pip install
"django-pgq[sentry]"``.
"""

try:
    from pgq.contrib.sentry.integration import PgqIntegration
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sentry_sdk":
        raise
    raise ModuleNotFoundError(
        f'pgq.contrib.sentry needs Sentry\'s SDK, and there is no {error.name}: pip install "django-pgq[sentry]"',
        name=error.name,
    ) from error

__all__ = ["PgqIntegration"]
