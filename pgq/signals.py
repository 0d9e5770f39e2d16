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

#: Sent in the caller before the row is written, once for each task that Python makes. Arguments: `task`, a dict with
#: `id` (32 hex digits), `name`, `func` (its path), `args`, `kwargs` (as JSON), `options` (a dict), `group`, `hook`,
#: `queue` and `started` (a datetime). What is changed in it is not kept.
pre_enqueue = Signal()
#: Sent in a new worker before its first task. Arguments: `proc_name`, such as "pgq worker 0".
post_spawn = Signal()
#: Sent in the worker before the function runs, in its thread. Arguments: `func` (the function itself), and `task`, a
#: dict with `id`, `name`, `func` (its path), `args`, `kwargs`, `group`, `hook`, `started` (when it was enqueued) and
#: `attempt` (from 1).
pre_execute = Signal()
#: Sent in the worker after the function ran, before anything is written. Arguments: as of `pre_execute`, the same dict,
#: which has besides `success` and `result`: the value, or the text of the exception.
post_execute_in_worker = Signal()
#: Sent in the worker after the result was committed. Arguments: `task`, a dict as of `pre_execute` with `stopped` (a
#: datetime), `success` and `result` besides: the value, or of a failure what `Task.result` gives, a text.
post_execute = Signal()
#: Sent in a worker or upkeep that ends by itself; 5 s later that is killed. Arguments: `proc_name`, such as "pgq worker
#: 0" or "pgq upkeep".
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
