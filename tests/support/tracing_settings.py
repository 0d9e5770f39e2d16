"""Settings of a project that is traced: by the SDK of OpenTelemetry, to a collector whose address the test gives."""

from tests.support.pool_settings import *  # noqa: F403
from tests.support.pool_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "pgq.contrib.otel", "tests.support.tracing_app"]
