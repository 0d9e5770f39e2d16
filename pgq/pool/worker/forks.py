"""Forks that a task makes of its worker, and what the kernel gives up first when memory runs out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection


class Forks:
    """Distinguishes the worker from its forks.

    A fork shares the worker's connection to PostgreSQL and its pipe to the supervisor. It must never use them, and it
    must not keep the session open when the worker is dead: so both are closed in the fork.

    Args:
        lifelines: Returns the descriptors to close. Called in the fork.
    """

    def __init__(self, lifelines: Callable[[], Collection[int]]) -> None:
        self._lifelines = lifelines
        self._is_fork = False

    def watch(self) -> None:
        """Begin to watch. Called once in each worker. The hook is process-wide, because Python can take none back."""
        os.register_at_fork(after_in_child=self._after_fork)

    def leave(self) -> None:
        """End here if this is a fork that returned from the task. The worker, its parent, settles the task."""
        if self._is_fork:
            os._exit(0)

    def _after_fork(self) -> None:
        self._is_fork = True
        for number in self._lifelines():
            with contextlib.suppress(OSError):
                os.close(number)


#: How much more willingly the kernel kills a worker than its supervisor when memory runs out (of 1,000).
_MORE_WILLINGLY = 200


def offer_to_oom_killer() -> None:
    """Ask the kernel to kill this process, not the supervisor, when memory runs out. What tasks start inherits it."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = min(1000, int(file.read()) + _MORE_WILLINGLY)
        file.seek(0)
        file.write(str(score))
