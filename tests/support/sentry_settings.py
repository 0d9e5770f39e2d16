"""Settings of a project that sends its errors to Sentry, or to what the test runs in its place."""

import os

import sentry_sdk

from pgq.contrib.sentry import PgqIntegration
from tests.support.pool_settings import *  # noqa: F403

# With all that Sentry switches on by itself, as in a project. The errors of a task that was tried before are noticed by
# the breadcrumbs that it has left.
sentry_sdk.init(
    dsn=f"http://key@127.0.0.1:{os.environ['SENTRY_PORT']}/1",
    traces_sample_rate=1.0,
    integrations=[PgqIntegration(monitor_schedules=True)],
)
