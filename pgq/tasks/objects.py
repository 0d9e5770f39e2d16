"""`AsyncTask`, `Iter` and `Chain`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.db.models import QuerySet

from pgq.enqueue.calls import several
from pgq.errors import EnqueueError
from pgq.models import Task
from pgq.tasks.async_task import async_task
from pgq.tasks.handle import TaskId
from pgq.tasks.iter_chain import async_chain, async_iter
from pgq.tasks.reading import count_group, delete_group, fetch, fetch_group, result, result_group


class Iter:
    """An `async_iter` that is put together piece by piece."""

    def __init__(
        self,
        func: str | Callable[..., Any] | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        cached: Any = None,
        sync: bool | None = None,
        broker: Any = None,
    ) -> None:
        self.func, self.args, self.kwargs = func, list(several("args", args or ())), dict(kwargs or {})
        self.cached, self.sync, self.broker = cached, sync, broker
        self.id = ""
        self.started = False

    def append(self, *args: Any) -> int:
        """Add a call; return how many there are."""
        self.args.append(args)
        self.started = False
        return self.length()

    def run(self) -> TaskId[list[Any]]:
        """Enqueue the calls; return the id of the whole."""
        if self.func is None:
            raise EnqueueError("func", "an Iter needs a function")
        options = {key: value for key, value in (("cached", self.cached), ("sync", self.sync)) if value is not None}
        self.id = id = async_iter(self.func, self.args, **{**self.kwargs, **options})
        self.started = True
        return id

    def result(self, wait: int = 0) -> Any:
        """Return the list of results; None if not all have finished within `wait` milliseconds."""
        return result(self.id, wait, self.cached) if self.started else None

    def fetch(self, wait: int = 0) -> Task | None:
        """Return the task that holds the results."""
        return fetch(self.id, wait, self.cached) if self.started else None

    def length(self) -> int:
        """Return how many calls there are."""
        return len(self.args)


class Chain:
    """An `async_chain` that is put together link by link."""

    def __init__(
        self,
        chain: Sequence[Any] | None = None,
        group: str | None = None,
        cached: Any = None,
        sync: bool | None = None,
        broker: Any = None,
        *,
        pass_results: bool = False,
        continue_on_failure: bool = False,
    ) -> None:
        self.chain, self.group = list(several("chain", chain or ())), group or ""
        self.cached, self.sync, self.broker = cached, sync, broker
        self.pass_results, self.continue_on_failure = pass_results, continue_on_failure
        self.started = False

    def append(self, func: str | Callable[..., Any], *args: Any, **kwargs: Any) -> int:
        """Add a link; return how many there are."""
        self.chain.append((func, args, kwargs))
        if self.started:
            delete_group(self.group, cached=self.cached)
            self.started = False
        return self.length()

    def run(self) -> str:
        """Enqueue the first link; return the group."""
        self.group = async_chain(
            self.chain,
            group=self.group or None,
            cached=self.cached,
            sync=self.sync,
            broker=self.broker,
            pass_results=self.pass_results,
            continue_on_failure=self.continue_on_failure,
        )
        self.started = True
        return self.group

    def result(self, wait: int = 0) -> list[Any] | None:
        """Return the results of all links, newest first; None if none has finished in time."""
        if not self.started:
            return None
        return result_group(self.group, wait=wait, count=self.length() if wait else None, cached=self.cached)

    def fetch(self, failures: bool = True, wait: int = 0) -> QuerySet[Task] | list[Task] | None:
        """Return the tasks of all links, newest first."""
        if not self.started:
            return None
        return fetch_group(
            self.group, failures=failures, wait=wait, count=self.length() if wait else None, cached=self.cached
        )

    def current(self) -> int | None:
        """Return the number of links that have finished."""
        return count_group(self.group, cached=self.cached) if self.started else None

    def length(self) -> int:
        """Return how many links there are."""
        return len(self.chain)


def _option(name: str, default: Any = None) -> Any:
    """Make a property of AsyncTask that is an option of its call. Setting it means that the task has not started."""

    def read(self: AsyncTask) -> Any:
        options = self.kwargs.get("q_options") or {}
        return options.get(name, self.kwargs.get(name, default))

    def write(self: AsyncTask, value: Any) -> None:
        options = self.kwargs.get("q_options")
        (options or self.kwargs)[name] = value
        self.started = False

    return property(read, write, doc=f"The option `{name}`: what was given, or what is set now.")


class AsyncTask:
    """A call that can be read and changed before it is enqueued."""

    def __init__(self, func: str | Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.id = ""
        self.started = False
        self.func, self.args, self.kwargs = func, args, kwargs

    broker, sync, save, hook, group, cached = (
        _option(name) for name in ("broker", "sync", "save", "hook", "group", "cached")
    )
    timeout, cluster, ack_failure, task_name, priority, run_after = (
        _option(name) for name in ("timeout", "cluster", "ack_failure", "task_name", "priority", "run_after")
    )

    def run(self) -> TaskId[Any]:
        """Enqueue the call; return its id."""
        self.id = id = async_task(self.func, *self.args, **self.kwargs)
        self.started = True
        return id

    def result(self, wait: int = 0) -> Any:
        """Return the result, if it was enqueued and has finished within `wait` milliseconds."""
        return result(self.id, wait, self.cached) if self.started else None

    def fetch(self, wait: int = 0) -> Task | None:
        """Return the finished task."""
        return fetch(self.id, wait, self.cached) if self.started else None

    def result_group(self, failures: bool = False, wait: int = 0, count: int | None = None) -> list[Any] | None:
        """Return the results of this task's group."""
        if not (self.started and self.group):
            return None
        return result_group(self.group, failures, wait, count, self.cached)

    def fetch_group(
        self, failures: bool = True, wait: int = 0, count: int | None = None
    ) -> QuerySet[Task] | list[Task] | None:
        """Return the finished tasks of this task's group."""
        if not (self.started and self.group):
            return None
        return fetch_group(self.group, failures, wait, count, self.cached)
