"""Django signals of pgq. Sender and arguments as in Django-Q; an error in a receiver is logged and stops nothing.

=======================  ==================  ==========================================================
signal                   arguments           sent
=======================  ==================  ==========================================================
pre_enqueue              task                in the caller, before the row is written; `task` is a dict
post_spawn               proc_name           in a new worker, before its first task
pre_execute              func, task          in the worker, before the function runs
post_execute_in_worker   func, task          in the worker, after the function ran
post_execute             task                in the worker, after the result was committed
pre_exit                 proc_name           in a worker or upkeep that ends by itself; 5 s later it is killed
=======================  ==================  ==========================================================
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

SENDER = "pgq"

pre_enqueue = Signal()
post_spawn = Signal()
pre_execute = Signal()
post_execute_in_worker = Signal()
post_execute = Signal()
pre_exit = Signal()

logger = logging.getLogger("pgq")


def send(signal: Signal, **arguments: Any) -> None:
    """Send a signal; log what its receivers raise."""
    for receiver, answer in signal.send_robust(sender=SENDER, **arguments):
        if isinstance(answer, Exception):
            logger.error("a receiver of a pgq signal raised: %r", receiver, exc_info=answer)
