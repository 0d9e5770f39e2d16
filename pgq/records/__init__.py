"""What passes between the layers: frozen records, no dicts.

A task is a `NewTask` before it is a row, a `Claim` while a worker holds it, an `Outcome` when it has run, and a
`Report` (claim and outcome) on its way back to the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from pgq.records.options import NO_OPTIONS, TaskOptions

__all__ = [
    "Call",
    "Claim",
    "Claimed",
    "Enqueued",
    "Failed",
    "Failure",
    "Fired",
    "NewTask",
    "Parked",
    "Postponed",
    "Report",
    "Rescued",
    "Retried",
    "Settled",
    "Succeeded",
]

PRIORITY_MIN, PRIORITY_MAX = -100, 100


class NewTask(NamedTuple):
    """A task about to be enqueued, column by column (see pgq_queue). Texts are canonical JSON (see `pgq.codec`).

    A tuple for the same reason as `Claim`.
    """

    id: UUID
    func: str
    args: str = "[]"
    kwargs: str = "{}"
    options: str = "{}"
    queue: str = "default"
    priority: int = 0
    #: Name given by the caller; None: derived from the id (see `pgq.ground.ids.task_name`).
    name: str | None = None
    group: str | None = None
    hook: str | None = None
    #: Seconds one attempt may run; None: no limit.
    timeout: float | None = None
    #: Attempts that may fail by an exception; 0: no limit.
    max_attempts: int = 1
    #: Not before this moment (aware); None: at once.
    run_after: datetime | None = None
    #: Waits until so many tasks have settled; None: waits for none.
    remaining: int | None = None
    schedule: int | None = None
    slot: datetime | None = None
    #: Groups tasks for turns and limits; None: it has none.
    key: str | None = None
    #: Ends as failed if it has not started by then (aware); None: never.
    expires_at: datetime | None = None
    #: None: unsigned, so any role that may insert could have written the row.
    signature: bytes | None = None
    #: Last, since it is no column. None: there may be any number of such tasks.
    unique: UniqueCall | None = None


class UniqueCall(NamedTuple):
    """What is unique of a call."""

    key: str
    #: "start", "end", or seconds from when it is enqueued.
    until: str | float
    #: What becomes of the call if another task has the key: see `pgq.config.Unique`; "debounce": that one is put off.
    conflict: str = "skip"
    #: Of a debounced call: seconds, and whose arguments count, those of the "last" or the "first" call.
    quiet: float | None = None
    longest: float | None = None
    args: str | None = None

    def stored(self) -> dict[str, str | float]:
        """Return what is given, by the names of the fields, as JSON has it."""
        return {name: value for name, value in zip(UniqueCall._fields, self, strict=True) if value is not None}


class Claim(NamedTuple):
    """One task under lease, as claim.sql returns it. Texts are JSON as PostgreSQL prints it.

    A tuple, since one is made for each task and a frozen dataclass of so many fields takes ten times as long.
    """

    id: UUID
    priority: int
    position: int
    queue: str
    func: str
    args: str
    kwargs: str
    options: str
    name: str | None
    group: str | None
    hook: str | None
    timeout: float | None
    #: Number of this attempt, from 1.
    attempts: int
    #: How many earlier attempts ended with the death of their worker.
    crashes: int
    max_attempts: int
    schedule: int | None
    enqueued_at: datetime
    signature: bytes | None
    #: The worker settles a cancelled task without running it.
    cancelled: bool
    #: The last entry of its history, as JSON; None: no attempt has failed yet.
    last_error: str | None
    #: Where its row lies unless it was written since, as PostgreSQL prints it: ``(page,line)``.
    ctid: str
    #: The whole of its history, as JSON, if the task of django.tasks was tried before; else None.
    history: str | None
    #: Groups tasks for turns and limits; None: it has none.
    key: str | None
    #: The serial line that runs it; None: no limit counts it. Rows of one strand run one after the other.
    strand: int | None
    #: Whether it was to start before now, and has not started before. None: it may start at any time.
    expired: bool | None
    #: Seconds from ready to claimed, by PostgreSQL's clock, which may have been set back meanwhile.
    waited: float
    #: The receipt of the claim; every write about the task carries it. One object for all tasks of a claim.
    receipt: UUID
    #: The id of the worker that claimed it.
    worker: UUID

    @property
    def failed_attempts(self) -> int:
        """Earlier attempts that ended with an exception or at the timeout."""
        return self.attempts - 1 - self.crashes


class Signed(NamedTuple):
    """What the signature of a live task covers, and the signature. Texts of values are JSON as PostgreSQL prints it."""

    id: UUID
    queue: str
    func: str
    args: str
    kwargs: str
    options: str
    hook: str | None
    group: str | None
    timeout: float | None
    max_attempts: int
    key: str | None
    signature: bytes | None


class TaskState(NamedTuple):
    """What the tables say of a task, live or finished. Texts of values are JSON as PostgreSQL prints it."""

    id: UUID
    func: str
    queue: str
    priority: int
    args: str
    kwargs: str
    options: str
    hook: str | None
    group: str | None
    timeout: float | None
    max_attempts: int
    signature: bytes | None
    history: str
    enqueued_at: datetime
    #: Who runs it, or ran it last.
    worker: UUID | None
    #: When its last attempt began; of a live task, when its lease was granted or last renewed. None: it does not run.
    started: datetime | None
    stopped: datetime | None
    #: None: it has not finished.
    success: bool | None
    result: str | None
    exception: str | None
    message: str | None
    traceback: str | None
    #: Why the row cannot run.
    parked: str | None
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong, made safe to store: no NUL, no lone surrogate, bounded length."""

    #: Dotted path of the exception's class.
    exception: str
    #: Its text.
    message: str
    #: Its traceback, as text.
    traceback: str


class Succeeded(NamedTuple):
    """The function returned. A tuple, as `Claim` is."""

    #: The value, as canonical JSON.
    result: str
    #: Write a row to pgq_task.
    keep: bool = True
    #: Tasks that are enqueued by its settling.
    follow_ons: tuple[NewTask, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The function raised, and there is no attempt left."""

    #: What went wrong.
    failure: Failure
    #: Tasks that are enqueued by its settling.
    follow_ons: tuple[NewTask, ...] = ()
    #: False: the task was cancelled or had no attempt left; the worker did not run it, so this claim is no attempt.
    ran: bool = True
    #: The function raised `Discard`.
    discarded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The function raised, and the task will be run again."""

    #: What went wrong.
    failure: Failure
    #: Seconds from now.
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """The row cannot be run as it is. It stays, with the reason."""

    #: Why it cannot be run.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """This worker's code lacks what the row names; a worker of another release may have it. The task is given back."""

    #: What is not known here.
    failure: Failure
    #: Seconds from now.
    delay: float
    #: How often it has been postponed in a row, with this time.
    times: int


Outcome: TypeAlias = Succeeded | Failed | Retried | Parked | Postponed


class Report(NamedTuple):
    """A claim, what came of it, and when by the worker's monotonic clock (seconds). A tuple, as `Claim` is."""

    #: The claim.
    claim: Claim
    #: What came of it.
    outcome: Outcome
    #: When the function was called, monotonic seconds.
    started: float
    #: When it had ended, monotonic seconds.
    stopped: float
    #: The value that the function returned, for the result cache; settle writes the outcome's text instead.
    value: Any = None
    #: What the function raised, for a caller in whose process it ran.
    error: BaseException | None = None
    #: The options of the claim.
    options: TaskOptions = NO_OPTIONS
    #: Whether Python signed the claim: its signature was verified.
    trusted: bool = False
    #: True: an atomic task's own commit has written it already.
    settled: bool = False
    #: The context that the function was given (`pgq.execution.context.Context`); None: none was.
    context: Any = None


class Enqueued(NamedTuple):
    """New tasks, written in a transaction of the caller's that may still be rolled back."""

    #: One for each task, or the one model of many calls.
    tasks: tuple[NewTask, ...]
    #: How many rows.
    number: int
    #: Alias in DATABASES.
    using: str


class Claimed(NamedTuple):
    """Tasks that a worker has claimed."""

    #: One for each task.
    claims: tuple[Claim, ...]
    #: Its number in its pool, from 0.
    worker: int


class Settled(NamedTuple):
    """What became of the reports of one commit."""

    #: Those that were written.
    accepted: tuple[Report, ...]
    #: Their lease was lost before: nothing was written of them.
    refused: tuple[Report, ...]


class Rescued(NamedTuple):
    """Tasks that are ready again, since their worker is gone."""

    #: How many.
    number: int
    #: Which tasks, in words.
    why: str


class Fired(NamedTuple):
    """A task that a schedule has enqueued for one slot; the transaction of the tick is still open."""

    #: Id of the schedule.
    schedule: int
    #: Name of the schedule; None: it has none.
    name: str | None
    #: The instant it fired for, aware.
    slot: datetime
    #: What was enqueued.
    task: NewTask


#: Log lines that are kept of a task, the newest of all its attempts; and their bytes at most, as JSON.
LOG_LINES, LOG_BYTES = 200, 65_536


class Progress(NamedTuple):
    """What a task says of itself, on its way to pgq_progress."""

    id: UUID
    receipt: UUID
    #: None: it has not said how far it is since its last word was written.
    done: float | None
    total: float | None
    text: str | None
    #: Its new log lines, as a JSON array of objects.
    log: str


@dataclass(frozen=True, slots=True)
class Blame:
    """What the death of a worker is charged to."""

    #: The task that it ran; None: it ran several, so each that it held is charged.
    task: UUID | None
    #: Whether it is charged with a crash; else with a failed attempt, since it did not stop at its timeout.
    crash: bool
    #: What the task's history says of it, as JSON.
    error: str


class Call(NamedTuple):
    """A claim that is ready to run: options parsed, function found, arguments decoded."""

    #: The claim.
    claim: Claim
    #: Its options, with those of `@task`.
    options: TaskOptions
    #: Whether Python signed the claim: its signature was verified.
    trusted: bool
    #: The function.
    func: Callable[..., Any]
    #: Its positional arguments.
    args: tuple[Any, ...]
    #: Its keyword arguments.
    kwargs: dict[str, Any]
    #: Monotonic seconds.
    started: float
    #: Runs the coroutine that the function returned to its end, in a thread without a loop.
    finish: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run
    #: As in `Report`; it is the first of `args`.
    context: Any = None
    #: The attempt as django.tasks sees it (`pgq.execution.django_tasks.Attempt`); None: the function is no Task of it.
    django: Any = None
