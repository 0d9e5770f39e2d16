"""Every exception pgq raises.

::

    PgqError
    ├── EnqueueError (ValueError)     wrong input, seen before anything is written
    │   ├── UnknownFunction           the path leads to nothing that can be imported and called
    │   ├── UnknownOption             no such option
    │   ├── WrongCall (TypeError)     the function cannot be called with these arguments
    │   └── NotStorable (TypeError)   an argument or result has no stored form
    ├── StillReferenced (ValueError)  a finished task cannot leave its table, since another one refers to it
    ├── NotAllowed                    an unsigned row names a function that is not registered
    ├── TaskTimeout                   raised inside a task that outlasts its timeout
    ├── NotUnique                     raised for a caller whose task would be a second one with its unique key
    ├── Expired                       what a task ends with that has not started in time
    ├── TaskCancelled                 what a cancelled task ends with
    ├── WorkerDied                    what a task ends with that killed its worker too often
    ├── NotCommitted                  raised for a caller who waits for a task that waits for the caller's commit
    ├── NotFinished (TimeoutError)    raised for a caller who wants a result or an error, of a task that has neither
    ├── TaskFailed                    raised for such a caller if what the task raised cannot be raised again
    └── Control                       raised by a task on purpose, to choose how its attempt ends
        ├── Retry                     run again, after a delay
        └── Discard                   end as failed now, whatever attempts are left
"""

from __future__ import annotations

from typing import Self
from uuid import UUID

__all__ = [
    "Control",
    "Discard",
    "EnqueueError",
    "Expired",
    "NotAllowed",
    "NotCommitted",
    "NotFinished",
    "NotStorable",
    "NotUnique",
    "PgqError",
    "Retry",
    "StillReferenced",
    "TaskCancelled",
    "TaskFailed",
    "TaskTimeout",
    "UnknownFunction",
    "UnknownOption",
    "WorkerDied",
    "WrongCall",
]


class PgqError(Exception):
    """Base of all exceptions of pgq."""


class EnqueueError(PgqError, ValueError):
    """The task cannot be enqueued with these arguments; nothing was written. The text is ``field: reason``.

    Args:
        field: The argument, option or column that is wrong.
        reason: What is wrong with it, and what to do.
    """

    def __init__(self, field: str, reason: str) -> None:
        # Unchanged: pickle makes the copy in another process from `args`.
        super().__init__(field, reason)
        self.field, self.reason = field, reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"

    def of(self, field: str) -> Self:
        """Return the same error with another field: the name by which the caller knows the value."""
        return type(self)(field, self.reason)


class UnknownFunction(EnqueueError):
    """The name does not lead to anything that can be imported and called."""


class UnknownOption(EnqueueError):
    """There is no such option."""


class WrongCall(EnqueueError, TypeError):
    """The function cannot be called with these arguments. The field is ``args`` or ``kwargs``, or names a function."""


class NotStorable(EnqueueError, TypeError):
    """The value has no stored form. The reason is a whole sentence, which begins with the place: ``args[0] ...``."""

    def __str__(self) -> str:
        return self.reason


class NotAllowed(PgqError):
    """An unsigned or wrongly signed row asks for a function that is not registered."""


class StillReferenced(PgqError, ValueError):
    """A foreign key of another table refers to the finished task, so it stays where it is; nothing was changed."""


class NotUnique(PgqError):
    """Another task has the unique key of a call that was to be refused then. Nothing was written.

    Attributes:
        key: The key, as it is stored.
        task_id: The id of the task that has it, 32 hex digits; None: it is not known.
    """

    def __init__(self, key: str, id: UUID | None) -> None:
        self.key, self.task_id = key, None if id is None else id.hex
        which = "another task" if id is None else f"task {id.hex}"
        super().__init__(f"unique: {which} has the key {key!r}")


class Expired(PgqError):
    """The task had not started when the time of its option `expires` was over."""


class TaskTimeout(PgqError):
    """The task ran longer than its timeout."""


class TaskCancelled(PgqError):
    """The task was cancelled."""


class WorkerDied(PgqError):
    """The worker process died while it ran the task."""


class NotCommitted(PgqError):
    """The caller waits for a task that its own open transaction has enqueued: it cannot run before the commit."""


class NotFinished(PgqError, TimeoutError):
    """The task has not finished in time, and the caller wants its result or its error: ``raise_error=True``."""


class TaskFailed(PgqError):
    """The task failed: raised by ``raise_error=True`` if no exception of the class it raised can be made here.

    If one can, that one is raised, and this is its ``__cause__``.

    Args:
        task: The task's id.
        exception: The path of the class that the task raised, such as "builtins.ValueError".
        message: Its text.
        traceback: The text of its traceback, in the worker.
    """

    def __init__(self, task: str, exception: str, message: str, traceback: str = "") -> None:
        # Unchanged: pickle makes the copy in another process from `args`.
        super().__init__(task, exception, message, traceback)
        self.task, self.exception, self.message, self.traceback = task, exception, message, traceback

    def __str__(self) -> str:
        return f"task {self.task}: {self.exception}: {self.message}"


class Control(PgqError):
    """Base of what a task may raise to choose how its attempt ends."""


class Retry(Control):
    """Run this task again.

    Args:
        delay: Seconds to wait first; None leaves it to the task's backoff.

    It counts as an attempt: after ``max_attempts`` of them the task has failed.
    """

    def __init__(self, delay: float | None = None, reason: str = "the task asked to be retried") -> None:
        if delay is not None and delay < 0:
            raise ValueError(f"Retry: delay must not be negative, got {delay!r} seconds")
        super().__init__(reason)
        self.delay = delay


class Discard(Control):
    """Fail this task now, whatever attempts are left."""

    def __init__(self, reason: str = "the task asked to be discarded") -> None:
        super().__init__(reason)


def invalid(field: str, reason: str) -> ValueError:
    """Return a plain ValueError that carries field and reason as an EnqueueError does, for values outside a task."""
    error = ValueError(f"{field}: {reason}")
    error.field, error.reason = field, reason  # type: ignore[attr-defined]
    return error


def field_of(error: ValueError) -> str | None:
    """Return the field that an EnqueueError or an `invalid` value is about; None for any other error."""
    return getattr(error, "field", None)


def reason_of(error: ValueError) -> str:
    """Return what is wrong, without the field if the error carries it apart: for a form, which shows it there."""
    return getattr(error, "reason", str(error))
