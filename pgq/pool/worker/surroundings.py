"""What a task may leave in its worker: found after each task, and put back, or else the worker is replaced."""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import resource
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pgq.ground.private import environment, getsignal
from pgq.pool.worker import process_state
from pgq.records import Claim

logger = logging.getLogger("pgq")

#: A check, and a close one, take less than a twentieth of a task that ran for so many seconds.
_LONG, _LONGER = 0.005, 0.010
#: So many first runs of a function are each followed by a close check.
_FIRST_RUNS = 20


class Surroundings:
    """What a worker's process is like before its first task, and ought to be like before each.

    Args:
        files: Descriptors that the worker lives by, besides the standard ones.
        threads: Threads that it will start itself to run tasks in, each of which may have connections.

    Attributes:
        spoiled: Why the process is of no more use, or None.
    """

    def __init__(self, files: Iterable[int] = (), threads: int = 0) -> None:
        self.spoiled: str | None = None
        self.files = {number: process_state.identity(number) for number in (0, 1, 2, *files)}
        self.lasting = {name: read() for name, read in process_state.LASTING.items()}
        self.counts = self._count()
        self.counts["threads"] += threads
        self.counts["open files"] += 2 * threads
        self.runs: defaultdict[str, int] = defaultdict(int)
        self.complained: set[tuple[str, str]] = set()
        self._remember({trait: trait.read() for trait in process_state.TRAITS})

    def clean_up(self, claim: Claim, seconds: float) -> None:
        """Undo what a task did that has just run for so many seconds. Called after each task: so it must cost little.

        Not called while other tasks run in this process: they may have made the change, or rely on it.
        """
        func = claim.func
        self.runs[func] += 1
        if seconds > _LONGER or self.runs[func] <= _FIRST_RUNS:
            self.check_closely(claim)
        elif seconds > _LONG or self._is_different_at_a_glance():
            self.check(claim)

    def check(self, claim: Claim) -> None:
        """Compare everything with what it was, and put it back."""
        self.adopt()
        for trait, before in self.states.items():
            if process_state.read(trait) == before:
                continue
            with contextlib.suppress(Exception):
                trait.put_back(before)
            if process_state.read(trait) != before:
                self.spoiled = f"{trait.name} cannot be put back"
            # The next runs of this function are followed by a close check as well.
            self.runs[claim.func] = 0
            if not trait.is_common:
                self._complain(claim, f"changed {trait.name}")
        self._remember(self.states)
        # A seed that the task has set cannot be seen, and would fix the random numbers of the next tasks.
        random.seed()
        for number, file in self.files.items():
            if process_state.identity(number) != file:
                self.spoiled = f"file descriptor {number} is not what it was"
        self.spoiled = self.spoiled or self._find_lasting()
        if self.spoiled:
            self._complain(claim, f"spoiled its worker, which is replaced: {self.spoiled}")

    def check_closely(self, claim: Claim) -> None:
        """Check also what costs too much after each task. Called between two claims as well."""
        self.check(claim)
        if self.spoiled is None:
            self.spoiled = self._find_leaks()
            if self.spoiled:
                # Any of the worker's tasks may have left them, or all of them together.
                logger.warning("a worker is replaced: its tasks have left %s", self.spoiled)

    def _find_lasting(self) -> str | None:
        for name, read in process_state.LASTING.items():
            if read() != self.lasting[name]:
                return f"{name} changed"
        return None

    def _find_leaks(self) -> str | None:
        for name, count in self._count().items():
            if count > self.counts[name] + process_state.SPARE[name]:
                return f"{count} {name}"
        return None

    @staticmethod
    def _count() -> dict[str, int]:
        try:
            return process_state.counts()
        except OSError as error:
            # This is not Linux; or this process cannot open one more file.
            full = error.errno in (errno.EMFILE, errno.ENFILE)
            return {
                **dict.fromkeys(process_state.SPARE, 0),
                "open files": resource.getrlimit(resource.RLIMIT_NOFILE)[0] * full,
            }

    def adopt(self) -> None:
        """Let what modules did at their import stay: they do it once, and tasks that import them later rely on it."""
        if len(sys.modules) > self.modules:
            states = {
                trait: trait.adopt(before, trait.read()) if trait.adopt is not None else before
                for trait, before in self.states.items()
            }
            self._remember(states)

    def _complain(self, claim: Claim, what: str) -> None:
        if (claim.func, what) not in self.complained:
            self.complained.add((claim.func, what))
            logger.warning("task %s (%s) %s", claim.id.hex, claim.func, what)

    def _remember(self, states: dict[process_state.Trait, Any]) -> None:
        self.states, self.modules = states, len(sys.modules)
        by_name = {trait.name: value for trait, value in states.items()}
        self.environment, self.path = by_name["environment variables"], by_name["sys.path"]
        self.stdout, self.on_cancel = sys.stdout, getsignal(signal.SIGUSR2)
        self.on_child = getsignal(signal.SIGCHLD)

    def _is_different_at_a_glance(self) -> bool:
        return (
            sys.stdout is not self.stdout
            or getsignal(_SIGUSR2) is not self.on_cancel
            or getsignal(_SIGCHLD) is not self.on_child
            or sys.path != self.path
            or environment() != self.environment
        )


#: As plain ints, which C takes faster than members of an enum.
_SIGUSR2, _SIGCHLD = int(signal.SIGUSR2), int(signal.SIGCHLD)
