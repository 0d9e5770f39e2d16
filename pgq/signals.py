"""Django signals of pgq. Sender and arguments as in Django-Q; an error in a receiver is logged and stops nothing."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

__all__ = [
    "SENDER",
    "operator_action",
    "post_execute",
    "post_execute_in_worker",
    "post_spawn",
    "pre_enqueue",
    "pre_execute",
    "pre_exit",
]

#: The sender of all of them.
SENDER = "pgq"

#: Sent in the caller before the row is written. Arguments: `task`, a dict.
pre_enqueue = Signal()
#: Sent in a new worker before its first task. Arguments: `proc_name`.
post_spawn = Signal()
#: Sent in the worker before the function runs. Arguments: `func`, `task`.
pre_execute = Signal()
#: Sent in the worker after the function ran. Arguments: `func`, `task`, which has `success` and `result`.
post_execute_in_worker = Signal()
#: Sent in the worker after the result was committed. Arguments: `task`.
post_execute = Signal()
#: Sent in a worker or upkeep that ends by itself; 5 s later that is killed. Arguments: `proc_name`.
pre_exit = Signal()
#: Sent after an operator did something: in the dashboard, by REST or by a command. Arguments: `action` (its name),
#: `user` (of Django; None: by a token or a command, and `facts["by"]` says whose), `object` (what it was done to),
#: `text` (as in Django's log), `facts` (a dict: how many, which filter).
operator_action = Signal()

logger = logging.getLogger("pgq")


def send(signal: Signal, **arguments: Any) -> None:
    """Send a signal; log what its receivers raise."""
    for receiver, answer in signal.send_robust(sender=SENDER, **arguments):
        if isinstance(answer, Exception):
            logger.error("a receiver of a pgq signal raised: %r", receiver, exc_info=answer)
