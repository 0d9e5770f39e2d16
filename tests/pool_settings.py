"""Settings of the pools that tests start: those of the tests, with PGQ as the test asks for it (see pools.py)."""

import json
import os

from tests.settings import *  # noqa: F403

PGQ = json.loads(os.environ["PGQ_TEST_SETTINGS"])
