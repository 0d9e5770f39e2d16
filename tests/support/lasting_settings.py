"""Settings of a project whose connections are kept for as long as they last."""

from tests.support.pool_settings import *  # noqa: F403
from tests.support.pool_settings import DATABASES

DATABASES["default"]["CONN_MAX_AGE"] = None
