"""What a running task knows and says: its context. Knows no SQL; `pgq.execution.progress` writes what it says.

The function's thread only notes what the task says, in memory. In a worker the guard writes it, at most once a second;
what is left goes into the transaction that settles the task.

Noting takes no lock, since an interruption may be raised in the function between any two of its steps: each step below
leaves the state whole. One thread, the guard, takes what is noted. It holds `_Writing.lock` from then until PostgreSQL
has it, so the thread that settles a task finds each of its lines either there or here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import numbers
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import Any
from uuid import UUID

from django.utils.functional import Promise

from pgq.codec import clean_text
from pgq.execution.task_log import TaskLog, shown
from pgq.records import LOG_BYTES, LOG_LINES, Call, Claim, Progress
from pgq.recurrence import moments

#: Characters that are kept of the text of a progress.
TEXT_LIMIT = 500


class Context:
    """What a running task knows of itself, and how it says how far it is. One for each attempt.

    The first argument of a function with ``@task(takes_context=True)``; elsewhere `pgq.tasks.current_task` returns it.
    It may be used from any thread, and it ends with the attempt: what is said later is not kept.

    Attributes:
        task_result: Django's ``TaskResult``, for a task of ``django.tasks``; else None.
    """

    # No slots, and no attribute is set after this: a subclass may also be a frozen dataclass with slots (TaskContext).
    task_result: Any = None

    def __init__(self, call: Call) -> None:
        vars(self)["_state"] = _State(call)

    _state: _State

    @property
    def id(self) -> str:
        """The task's id, 32 hex digits."""
        return self._state.claim.id.hex

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._state.claim.attempts

    @property
    def max_attempts(self) -> int:
        """How many attempts may fail by an exception; 0: no limit."""
        return self._state.claim.max_attempts

    @property
    def func(self) -> str:
        """The dotted path of the function."""
        return self._state.claim.func

    @property
    def queue(self) -> str:
        """The queue that the task waited in."""
        return self._state.claim.queue

    @property
    def enqueued_at(self) -> datetime:
        """When the task was enqueued, aware, by the database's clock."""
        return moments.aware(self._state.claim.enqueued_at)

    @property
    def deadline(self) -> datetime | None:
        """When TaskTimeout is raised in the function, aware, by this host's clock; None: it may run for ever."""
        return self._state.deadline

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to cancel the task while it runs.

        A function that waits or computes in Python has TaskCancelled raised in it anyway. Elsewhere, as in a loop that
        catches everything, or in threads of its own, it can look here, from time to time.
        """
        claim = self._state.claim
        return (claim.id, claim.receipt) in _Cancelled.claims

    def progress(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Say how far the task is. Only the last word is kept; to say it takes microseconds, so each step may.

        Args:
            done: How much is done, in units of the task's own, from 0 on. It may be more than `total`, which may be an
                estimate.
            total: How much there is to do; None: not known.
            text: What it does at present, up to 500 characters; of a longer one the middle is cut out.

        Raises:
            TypeError: A number is none, or the text is none.
            ValueError: A number is negative, infinite or NaN.
        """
        if text is not None:
            if not isinstance(text, str | Promise):
                raise TypeError(f"progress: text must be a text or None, got {shown(text)}")
            text = clean_text(str(text), TEXT_LIMIT)
        self._state.say(_number("done", done), None if total is None else _number("total", total), text)

    @property
    def log(self) -> TaskLog:
        """A logger whose lines are kept with the task, the last 200 of all its attempts and 64 kB at most.

        They go to the logger ``pgq.task`` as well. Lines below INFO are kept only if that logger takes them.
        """
        state = self._state
        if state.log is None:
            state.log = TaskLog(state.claim, state.add_line)
        return state.log

    def __repr__(self) -> str:
        return f"<context of task {self.id} ({self.func}), attempt {self.attempt}>"


# What runs, settles and shows tasks asks of a context; no task does, so these are no methods.


def said(context: Context) -> Progress | None:
    """Return what this attempt has said that is not written yet; None: nothing."""
    # What the guard has taken is written, or put back, once it lets go of this.
    with _Writing.lock:
        return context._state.unwritten()


def last_progress(context: Context) -> tuple[float, float | None, str | None] | None:
    """Return the done, total and text that this attempt said last; None: it has said none."""
    return context._state.progress


def messages(context: Context) -> list[str]:
    """Return the messages of the log lines that are kept and not written yet, oldest first."""
    return [message for _at, _level, message in context._state.lines]


def end(context: Context) -> None:
    """Keep nothing that is said from now on: the attempt is over."""
    state = context._state
    state.over = True
    if _Writing.states is not None:
        _Writing.states.pop(state, None)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | Decimal):
        raise TypeError(f"progress: {name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except (OverflowError, ValueError):  # an int or a Decimal that is too large, a Decimal that is a signalling NaN
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(f"progress: {name} must be from 0 on and finite, got {shown(value)}")
    return number


# ------------------------------------------------------------------------------------------------- the state


class _State:
    """What one attempt has said and what of it is not written yet.

    Attributes:
        progress: The last word.
        changed: It is not written yet.
        lines: The log lines that are not written yet: time (seconds since 1970), level, text.
        over: The attempt has ended.
    """

    __slots__ = ("changed", "claim", "deadline", "lines", "log", "over", "progress")

    def __init__(self, call: Call) -> None:
        self.claim: Claim = call.claim
        self.progress: tuple[float, float | None, str | None] | None = None
        self.lines: deque[tuple[float, int, str]] = deque(maxlen=LOG_LINES)
        self.log: TaskLog | None = None
        self.changed = self.over = False
        timeout = call.claim.timeout
        self.deadline = None if timeout is None else _moment(call.started + timeout)

    def say(self, done: float, total: float | None, text: str | None) -> None:
        if self.over:
            return
        # In this order, the reverse of `take`: what comes between its two steps is written once more, not lost.
        self.progress = done, total, text
        self.changed = True
        self._register()

    def add_line(self, level: int, text: str) -> None:
        if not self.over:
            self.lines.append((time.time(), level, text))
            self._register()

    def _register(self) -> None:
        states = _Writing.states
        if states is not None and self not in states:
            states[self] = None

    def unwritten(self) -> Progress | None:
        if not self.changed and not self.lines:
            return None
        return self._record(self.changed, list(self.lines))

    def take(self) -> tuple[Progress, bool, list[tuple[float, int, str]]] | None:
        """Take what is not written; None: nothing."""
        changed, self.changed = self.changed, False
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self.lines.popleft())
        return (self._record(changed, lines), changed, lines) if changed or lines else None

    def put_back(self, changed: bool, lines: list[tuple[float, int, str]]) -> None:
        self.changed = self.changed or changed
        # A full deque would drop its newest line for an old one.
        room = LOG_LINES - len(self.lines)
        self.lines.extendleft(reversed(lines[-room:] if room else []))

    def _record(self, changed: bool, lines: Sequence[tuple[float, int, str]]) -> Progress:
        claim = self.claim
        done, total, text = self.progress if changed and self.progress is not None else (None, None, None)
        return Progress(claim.id, claim.receipt, done, total, text, _as_json(lines, claim.attempts))


def _moment(monotonic: float) -> datetime | None:
    """Return a time of the monotonic clock by the wall's, None if it is beyond the calendar."""
    try:
        return datetime.now(UTC) + timedelta(seconds=monotonic - time.monotonic())
    except OverflowError:
        return None


def _as_json(lines: Sequence[tuple[float, int, str]], attempt: int) -> str:
    """Return lines as a JSON array, without the oldest ones if it would be too long."""
    kept: deque[str] = deque()
    size = 2
    for at, level, text in reversed(lines):
        moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        line = {"at": moment, "level": logging.getLevelName(level), "attempt": attempt, "message": text}
        written = json.dumps(line, ensure_ascii=False)
        size += len(written.encode()) + 2
        if size > LOG_BYTES:
            break
        kept.appendleft(written)
    return f"[{', '.join(kept)}]"


# ------------------------------------------------------------------------------------------------- this process


class _Writing:
    """What the guard is to write. Process-wide because tasks say it without knowing the worker they run in.

    Attributes:
        states: Those with something unwritten (the keys); None: no guard writes here.
        lock: Held from taking what is unwritten until PostgreSQL has it.
    """

    states: dict[_State, None] | None = None
    lock = Lock()


class _Cancelled:
    """The claims whose tasks were asked to stop while they ran. Process-wide for the same reason."""

    claims: dict[tuple[UUID, UUID], None] = {}
    #: The oldest are dropped then. Each is of a task that runs, or of one that has ended.
    most = 1000


def note_cancelled(claim: Claim) -> None:
    """Note that it was asked to stop this task, which runs here. Called by the guard."""
    claims = _Cancelled.claims
    claims[claim.id, claim.receipt] = None
    while len(claims) > _Cancelled.most:
        del claims[next(iter(claims))]


def begin_writing() -> None:
    """Have contexts note what is to be written: a guard writes it. Called once in a worker."""
    _Writing.states = {}


def is_anything_unwritten() -> bool:
    """Whether a running task has said something since the last `taken`."""
    return bool(_Writing.states)


@contextlib.contextmanager
def taken() -> Iterator[tuple[list[Progress], set[UUID]]]:
    """Take what running tasks have said; the caller writes it, and adds the ids that were written to the set.

    What was not written is put back, so it is in the next `taken`, or is written when its task is settled.
    """
    with _Writing.lock:
        states = _Writing.states if _Writing.states is not None else {}
        parts = []
        for state in list(states):
            states.pop(state, None)
            if not state.over and (part := state.take()) is not None:
                parts.append((state, part))
        written: set[UUID] = set()
        try:
            yield [record for _, (record, _, _) in parts], written
        except BaseException:
            # To be written the next time, whether or not the task says more.
            states.update((state, None) for state, _ in parts)
            raise
        finally:
            for state, (record, changed, lines) in parts:
                if record.id not in written:
                    state.put_back(changed, lines)


def make(call: Call) -> Context:
    """Return a new context for a call; of a task of django.tasks, one that is django.tasks' as well."""
    return Context(call) if call.django is None else call.django.context(call)
