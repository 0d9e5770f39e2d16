"""Settings of a project whose processes, but for the supervisor, die while they start, for as long as a file exists.

PGQ_TEST_BREAKS: only the one with that name does (with "spawn", or the fork server would have no name to go by).
"""

import multiprocessing
import os

from tests.support.pool_settings import *  # noqa: F403

# The supervisor leads the session that the test has made for it.
if (
    os.path.exists(os.environ["PGQ_TEST_BROKEN"])
    and os.getsid(0) != os.getpid()
    and os.environ.get("PGQ_TEST_BREAKS", "") in ("", multiprocessing.current_process().name)
):
    os._exit(3)
