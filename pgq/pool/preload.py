"""Imported by the fork server, so that a new worker starts with Django and pgq already loaded.

Nothing here may connect to anything: the children inherit it.

The fork server is the workers' parent, and they die with it. So it has to outlive a signal to all processes of the pool
(systemd stops a service like that), but not the supervisor.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import traceback

from pgq.pool import boot
from pgq.pool.orphans import die_with_parent
from pgq.pool.protocol import Kind

for _number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_IGN)
die_with_parent()
try:
    # Else each child is given its settings.
    if boot.can_boot():
        boot.boot()
        for kind in Kind:
            importlib.import_module(kind.value)
except BaseException:
    # Django cannot be set up again in a process where that has failed, nor in a fork of it: the next child is asked
    # of a new fork server, so that what is mended meanwhile is seen.
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
# What is loaded here stays for good. Each worker's garbage collector would walk over it again and again, and so copy
# the pages that all of them share.
gc.collect()
gc.freeze()
