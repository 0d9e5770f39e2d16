"""Settings of a project whose workers die while they start, for as long as a file exists."""

import os
import sys

from tests.pool_settings import *  # noqa: F403

if os.path.exists(os.environ["PGQ_TEST_BROKEN"]) and "pgq_worker" not in sys.argv:
    os._exit(3)
