"""Imported by the fork server, so that a new worker starts with Django and pgq already loaded.

Nothing here may connect to anything: the children inherit it.

The fork server is the workers' parent, and they die with it. So it has to outlive a signal to all processes of the pool
(systemd stops a service like that), but not the supervisor.
"""

from __future__ import annotations

import gc
import logging
import signal

import django

from pgq.child import die_with_parent

for _number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_IGN)
die_with_parent()
try:
    django.setup()
    import pgq.upkeep
    import pgq.worker  # noqa: F401
except Exception:
    # The child meets the same error and says it where somebody can see it.
    logging.getLogger("pgq").debug("preloading failed", exc_info=True)
# What is loaded here stays for good. Each worker's garbage collector would walk over it again and again, and so copy
# the pages that all of them share.
gc.collect()
gc.freeze()
