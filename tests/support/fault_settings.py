"""Settings of the pools of the fault suite: those of other pools, and what else a test sets of Django."""

import json
import os

from tests.support.pool_settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults"]  # noqa: F405
globals().update(json.loads(os.environ.get("PGQ_TEST_DJANGO", "{}")))
