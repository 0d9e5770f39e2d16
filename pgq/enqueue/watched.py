"""Writing of new tasks while hooks or listeners of `pgq.ground.events` are there; without any it costs a comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sized
from dataclasses import dataclass

from pgq.codec.signing import signed
from pgq.ground import events
from pgq.records import Enqueued, NewTask
from pgq.records.options import TaskOptions


@dataclass(slots=True)
class Writing:
    """What is about to be written."""

    #: Those given, or with ``trace`` in their options.
    tasks: tuple[NewTask, ...]
    #: How many rows were written, if not one for each of the tasks.
    count: int | None = None


def is_watched() -> bool:
    """Whether there is any hook around an enqueue, or a listener."""
    return bool(events.around_enqueue.hooks or events.enqueue.listeners)


@contextlib.contextmanager
def watched(tasks: tuple[NewTask, ...], using: str, rows: Sized | None = None) -> Iterator[Writing]:
    """Enter the hooks around an enqueue, and tell the listeners once the caller has written what is yielded.

    Args:
        tasks: One for each row, or the one model of many.
        using: Alias in DATABASES.
        rows: Has as many items as rows were written, at the end; None: `Writing.count`, or one for each of the tasks.
    """
    if not is_watched():
        yield Writing(tasks)
        return
    with events.around_enqueue.entered(tasks) as given:
        trace = events.trace_of(given)
        writing = Writing(tuple(_traced(task, trace) for task in tasks) if trace else tasks)
        yield writing
        # Inside of the hooks: the span of the enqueue is to show how many rows it has written.
        if events.enqueue.listeners:
            count = len(rows) if rows is not None else len(tasks) if writing.count is None else writing.count
            events.enqueue.tell(Enqueued(writing.tasks, count, using))


def _traced(task: NewTask, trace: dict[str, str]) -> NewTask:
    """Return the task with the trace in its options. One that Python signed is signed anew; others stay unsigned."""
    task = task._replace(options=TaskOptions.parse(task.options).but(trace=trace).text())
    return task if task.signature is None else signed(task)
