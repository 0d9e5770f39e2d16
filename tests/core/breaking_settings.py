"""Settings of a project whose processes, but for the supervisor, die while they start, for as long as a file exists."""

import os

from tests.pool_settings import *  # noqa: F403

# The supervisor leads the session that the test has made for it.
if os.path.exists(os.environ["PGQ_TEST_BROKEN"]) and os.getsid(0) != os.getpid():
    os._exit(3)
