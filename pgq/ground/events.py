"""Events: what tracing, error trackers and the tally listen to. An event without listeners costs one comparison.

    from pgq.ground import events

    events.settle.listen(note)             # note(Settled) is called after each settling commit
    events.around_run.add(span)            # with span(call): the function of the task runs
    events.before_exit(provider.shutdown)  # called before a process of a pool ends

A listener is called in the process and the thread in which the event takes place, with one record of `pgq.records`. The
records are tuples: nothing that a listener does changes a task. What a listener raises is logged, and the task goes on.
Listeners belong to the process: `AppConfig.ready` registers them in each process of a pool, too.

Where an event may take place often, its caller asks first, so that the record is made only for a listener::

    if events.claim.listeners:
        events.claim.tell(Claimed(...))
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

__all__ = [
    "EXIT_SECONDS",
    "Around",
    "Event",
    "around_enqueue",
    "around_run",
    "before_exit",
    "claim",
    "end",
    "enqueue",
    "fire",
    "rescue",
    "settle",
    "start",
    "wake",
]

logger = logging.getLogger("pgq")

#: Seconds that all functions given to `before_exit` may take together.
EXIT_SECONDS = 2.0


class Event:
    """Something that takes place. `listeners` is a tuple, so that a caller which reads it needs no lock."""

    __slots__ = ("listeners", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: tuple[Callable[[Any], object], ...] = ()

    def listen(self, listener: Callable[[Any], object]) -> None:
        """Call the listener from now on with each record. A second time changes nothing."""
        if listener not in self.listeners:
            self.listeners = (*self.listeners, listener)

    def forget(self, listener: Callable[[Any], object]) -> None:
        """Do not call that listener any more."""
        self.listeners = tuple(other for other in self.listeners if other != listener)

    def tell(self, record: Any) -> None:
        """Call each listener with the record; log what one raises."""
        for listener in self.listeners:
            try:
                listener(record)
            except Exception:
                logger.exception("a listener of the event %s raised: %r", self.name, listener)


class Around:
    """Context managers that are entered around something, in the order in which they were added.

    A hook is called with what is about to happen and returns a context manager. What that raises is logged, and what it
    surrounds goes on. It sees an exception that leaves the block, and cannot swallow it.
    """

    __slots__ = ("hooks", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hooks: tuple[Callable[[Any], AbstractContextManager[Any]], ...] = ()

    def add(self, hook: Callable[[Any], AbstractContextManager[Any]]) -> None:
        """Enter what the hook returns from now on. A second time changes nothing."""
        if hook not in self.hooks:
            self.hooks = (*self.hooks, hook)

    def remove(self, hook: Callable[[Any], AbstractContextManager[Any]]) -> None:
        """Do not call that hook any more."""
        self.hooks = tuple(other for other in self.hooks if other != hook)

    @contextlib.contextmanager
    def entered(self, what: Any) -> Iterator[list[Any]]:
        """Enter all of them; yield what each one's ``__enter__`` returned, but None."""
        given = []
        with contextlib.ExitStack() as stack:
            for hook in self.hooks:
                value = stack.enter_context(_Guarded(self.name, hook, what))
                if value is not None:
                    given.append(value)
            yield given


class _Guarded:
    """The context manager of one hook. The block runs, and its exception goes on, whatever the hook does."""

    __slots__ = ("hook", "manager", "name", "what")

    def __init__(self, name: str, hook: Callable[[Any], AbstractContextManager[Any]], what: Any) -> None:
        self.name, self.hook, self.what = name, hook, what
        self.manager: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Any:
        try:
            manager = self.hook(self.what)
            value = manager.__enter__()
        except Exception:
            logger.exception("a hook around %s raised: %r", self.name, self.hook)
            return None
        self.manager = manager
        return value

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self.manager is None:
            return
        try:
            self.manager.__exit__(kind, error, traceback)
        except Exception as raised:
            # One that was made of a generator raises what was thrown into it.
            if raised is not error:
                logger.exception("a hook around %s raised: %r", self.name, self.hook)


#: Rows were written, in the caller's transaction, which may still be rolled back: `pgq.records.Enqueued`.
enqueue = Event("enqueue")
#: A worker has claimed tasks, committed: `pgq.records.Claimed`.
claim = Event("claim")
#: The function of a task is about to be called, in its thread or on its loop: `pgq.records.Call`.
start = Event("start")
#: A task has ended in its worker, run or not, and is not settled yet: `pgq.records.Report`, still with its exception.
#: One that is cancelled or expires while no worker holds it: after the commit, in the caller's process or in upkeep.
end = Event("end")
#: Reports were written, after the commit: `pgq.records.Settled`.
settle = Event("settle")
#: Tasks whose worker is gone are ready again, in a supervisor or in upkeep: `pgq.records.Rescued`.
rescue = Event("rescue")
#: A schedule has enqueued a task for one slot, in upkeep's transaction: `pgq.records.Fired`.
fire = Event("fire")
#: A worker that slept was told that there may be work: the worker's number in its pool, from 0.
wake = Event("wake")

#: Around one writing of new tasks: called with a tuple of `pgq.records.NewTask`, one for each, or the one model of many
#: calls. A mapping of texts that it yields is put into the tasks' options as ``trace``, and signed with them.
around_enqueue = Around("enqueue")
#: Around the function of a task, in its thread or on its loop: called with a `pgq.records.Call`. The options' ``trace``
#: is there. What the function raises passes through.
around_run = Around("run")


def trace_of(given: list[Any]) -> dict[str, str]:
    """Return what the hooks around an enqueue have yielded, as one mapping of texts."""
    joined: dict[str, str] = {}
    for mapping in given:
        if isinstance(mapping, Mapping):
            joined.update({str(key): str(value) for key, value in mapping.items()})
    return joined


_before_exit: list[Callable[[], object]] = []


def before_exit(function: Callable[[], object]) -> None:
    """Have a function called once before a worker or upkeep ends, as at each recycle: to send what is in a buffer.

    Such a process ends by `os._exit`, as a process of multiprocessing does. The functions are called one after the
    other, in a thread of their own; what has not returned after `EXIT_SECONDS` is left behind.
    """
    if function not in _before_exit:
        _before_exit.append(function)


def run_before_exit() -> None:
    """Call what was given to `before_exit`, for `EXIT_SECONDS` at most."""
    if not _before_exit:
        return
    functions = list(_before_exit)
    _before_exit.clear()
    thread = threading.Thread(target=_call_all, args=(functions,), name="pgq before exit", daemon=True)
    thread.start()
    thread.join(EXIT_SECONDS)
    if thread.is_alive():
        logger.warning("what was to run before the exit of this process takes longer than %g s", EXIT_SECONDS)


def _call_all(functions: list[Callable[[], object]]) -> None:
    for function in functions:
        try:
            function()
        except BaseException:
            logger.exception("before the exit of this process %r raised", function)
