"""Settings of the pools that tests start: those of the tests, with PGQ as the test asks for it (see pools.py)."""

import json
import os

from tests.settings import *  # noqa: F403

# Without the admin and what comes with it: two processes of each pool import it, and tests start hundreds of pools.
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "pgq",
    "tests.app",
]
PGQ = json.loads(os.environ["PGQ_TEST_SETTINGS"])
