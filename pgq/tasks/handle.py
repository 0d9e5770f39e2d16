"""`TaskId`: what enqueuing returns. It is the task's id as text, with what can be done to the task."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pgq.models import Task
from pgq.tasks import control, reading


class TaskId(str):
    """The id of a task, 32 hex digits, as Django-Q returns it; and what its caller may want of the task.

    Attributes:
        created: Whether the call that returned this id wrote the task's row.
    """

    __slots__ = ()
    created = True

    @classmethod
    def of(cls, id: UUID) -> TaskId:
        """Return the id as text."""
        return cls(id.hex)

    def result(self, wait: int = 0) -> Any:
        """Return what the task returned, or the text of its failure; None also if it has not finished in time.

        Args:
            wait: Milliseconds; 0: read once; -1: for ever.

        Raises:
            NotCommitted: A wait would be in vain: this transaction has enqueued the task, and has not ended.
        """
        return reading.result(self, wait)

    def fetch(self, wait: int = 0) -> Task | None:
        """Return the finished `Task`, or None if it has not finished in time. Arguments as for `result`."""
        return reading.fetch(self, wait)

    def cancel(self) -> str:
        """Cancel the task; see `pgq.tasks.cancel`."""
        return control.cancel(self)
