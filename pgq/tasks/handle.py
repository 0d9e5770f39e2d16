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

    def result(self, wait: int = 0, *, raise_error: bool = False) -> Any:
        """Return what the task returned, or the text of its failure; None also if it has not finished in time.

        Args:
            wait: Milliseconds; 0: read once; -1: for ever.
            raise_error: Raise the failure, or that the task has not finished: see `pgq.tasks.result`.

        Raises:
            NotCommitted: A wait would be in vain: this transaction has enqueued the task, and has not ended.
        """
        return reading.result(self, wait, raise_error=raise_error)

    async def aresult(self, wait: int = 0, *, raise_error: bool = False) -> Any:
        """Do the same as `result` in a coroutine; see `pgq.tasks.afetch`."""
        return await reading.aresult(self, wait, raise_error=raise_error)

    def fetch(self, wait: int = 0) -> Task | None:
        """Return the finished `Task`, or None if it has not finished in time. Arguments as for `result`."""
        return reading.fetch(self, wait)

    async def afetch(self, wait: int = 0) -> Task | None:
        """Do the same as `fetch` in a coroutine; see `pgq.tasks.afetch`."""
        return await reading.afetch(self, wait)

    def cancel(self) -> str:
        """Cancel the task; see `pgq.tasks.cancel`."""
        return control.cancel(self)

    async def acancel(self) -> str:
        """Do the same as `cancel` in a coroutine."""
        return await control.acancel(self)
