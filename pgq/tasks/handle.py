"""`TaskId`: what enqueuing returns. It is the task's id as text, with what can be done to the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from pgq.models import Task
from pgq.tasks import control, reading

#: What the task's function returns.
R = TypeVar("R", covariant=True)


class TaskId(str, Generic[R]):
    """The id of a task, 32 hex digits, as Django-Q returns it; and what its caller may want of the task.

    It is a text wherever a text is wanted: as an argument of another task, in JSON, in a query, for ``UUID()``.

    Attributes:
        created: Whether the call that returned this id wrote the task's row. False: another call had, with the same
            unique key.
    """

    __slots__ = ()
    created = True

    @classmethod
    def of(cls, id: UUID, *, created: bool = True) -> TaskId[Any]:
        """Return the id as text.

        Args:
            created: Whether the call that returns it wrote the task's row.
        """
        return cls(id.hex) if created else _Found(id.hex)

    def result(self, wait: int = 0, *, raise_error: bool = False) -> R | None:
        """Return what the task returned, or the text of its failure; None also if it has not finished in time.

        To a type checker it is what the function returns: ask `fetch` whether the task has failed.

        Args:
            wait: Milliseconds; 0: read once; -1: for ever.
            raise_error: Raise the failure, or that the task has not finished: see `pgq.tasks.result`.

        Raises:
            NotCommitted: A wait would be in vain: this transaction has enqueued the task, and has not ended.
        """
        return cast("R | None", reading.result(self, wait, raise_error=raise_error))

    async def aresult(self, wait: int = 0, *, raise_error: bool = False) -> R | None:
        """Do the same as `result` in a coroutine; see `pgq.tasks.afetch`."""
        return cast("R | None", await reading.aresult(self, wait, raise_error=raise_error))

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


def task_ids(ids: Sequence[str]) -> list[TaskId[Any]]:
    """Return the ids that `pgq.enqueue.write.enqueue_calls` has returned, each with whether its call was written."""
    # A list of a million is made in one go: a call for each would be seen.
    return [TaskId(id) if type(id) is str else _Found(id) for id in ids]


class _Found(TaskId[R]):
    """The id of a task that another call has written."""

    __slots__ = ()
    created = False
