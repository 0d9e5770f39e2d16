"""The seats of a pool, each with the child that has it, as the supervisor sees them."""

from __future__ import annotations

import contextlib
import enum
import math
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

from pgq.pool.activity import ActivityCell
from pgq.pool.protocol import Kind

#: A child that has lived so many seconds did start.
_GROWN_UP_SECONDS = 10.0
#: Why a child is killed that did not end, and one whose task did not stop at its timeout.
AT_ITS_END, AT_TIMEOUT = "it did not end", "timeout"


class State(enum.Enum):
    """Of a child."""

    STARTING = "starting"
    AWAKE = "working"
    ASLEEP = "idle"
    LEAVING = "leaving"


@dataclass(eq=False)
class Child:
    """A process of the pool, as the supervisor sees it."""

    number: int
    id: UUID
    process: BaseProcess
    pipe: Connection
    #: Where it shows what it runs; None: upkeep, which runs no tasks.
    cell: ActivityCell | None
    state: State = State.STARTING
    started: float = field(default_factory=time.monotonic)
    #: Upkeep has done its chores once.
    ticked: bool = False
    #: Why the supervisor killed it; None: it did not.
    killed: str | None = None
    #: When it is killed, once it has sent ENDING (monotonic).
    ends_by: float = math.inf

    def post(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(message)

    @property
    def left_well(self) -> bool:
        """Whether it has ended, and held no task any more."""
        return self.state is State.LEAVING and (self.process.exitcode == 0 or self.killed == AT_ITS_END)

    @property
    def was_of_use(self) -> bool:
        """Whether it got as far as to do what it is for. If so, the next one starts at once.

        That cannot go on for ever, since a task takes down `max_crashes` workers and no more.
        """
        if self.state is State.STARTING:
            return False
        if time.monotonic() - self.started > _GROWN_UP_SECONDS or self.killed is not None or self.ticked:
            return True
        seen = self.cell.read() if self.cell is not None else None
        return seen is not None and (seen.task is not None or seen.succeeded + seen.failed > 0)

    @property
    def cause(self) -> str:
        """What it died of, for the log."""
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"by {signal.Signals(-code).name}"
        return f"with exit code {code}"


@dataclass
class Seat:
    """A position in the pool: the child that has it, and when the next one may be started."""

    number: int
    kind: Kind
    child: Child | None = None
    not_before: float = 0.0
    #: Children in a row that could not be started, or were of no use; and what became of the last one.
    failures: int = 0
    trouble: str = ""
    #: How many children have been started here.
    starts: int = 0

    @property
    def name(self) -> str:
        return "upkeep" if self.kind is Kind.UPKEEP else f"worker {self.number}"

    @property
    def is_vacant(self) -> bool:
        """Whether it has no child, or only one that has not started yet."""
        return self.child is None or self.child.state is State.STARTING

    def report(self, now: float) -> dict[str, Any]:
        """Return what its worker does, for the table of pools."""
        child = self.child
        if child is None or child.cell is None:
            return {"number": self.number, "state": "restarting", "restarts": self.starts}
        seen = child.cell.read()
        return {
            "number": child.number,
            "id": child.id.hex,
            "pid": child.process.pid,
            "state": (State.AWAKE if child.state is State.ASLEEP and seen.count else child.state).value,
            "task": seen.task.hex if seen.task else None,
            "running": seen.count,
            "seconds": round(now - seen.started, 1) if seen.task else None,
            "succeeded": seen.succeeded,
            "failed": seen.failed,
            "restarts": self.starts - 1,
        }
