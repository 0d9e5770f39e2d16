"""`@task`: registers a function with its options. Call it and it runs here; enqueue it and a worker runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from pgq.conf import get_settings
from pgq.enqueue import registry
from pgq.enqueue.make import make_task
from pgq.enqueue.options import with_path
from pgq.enqueue.write import enqueue, enqueue_from
from pgq.errors import EnqueueError
from pgq.execution import inline
from pgq.options import By, TaskOptions
from pgq.records import NewTask
from pgq.tasks.handle import TaskId

if TYPE_CHECKING:
    from django.db.models import Manager, QuerySet


P = ParamSpec("P")
R = TypeVar("R")


def submit(task: NewTask) -> TaskId:
    """Write one task, or run it at once if PGQ["sync"] says so; return its id."""
    return TaskId.of(inline.run(task) if get_settings().sync else enqueue(task))


class TaskFunction(registry.Decorated, Generic[P, R]):
    """A function registered as a task. Call it and it runs here; `enqueue` it and a worker runs it."""

    func: Callable[P, R]

    def __init__(self, func: Callable[P, R], options: TaskOptions) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.options = options
        self.path = registry.register(func, options).path

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.func(*args, **kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskId:
        """Enqueue a call of this function in the caller's transaction; return the task's id, 32 hex digits."""
        return submit(make_task(self, args, kwargs))

    def using(self, **options: Any) -> BoundTask[P, R]:
        """Return this task with other options for the next call: ``report.using(priority=5).enqueue(1)``.

        Raises:
            UnknownOption: There is no such option; the message names the nearest, and all of them.
            EnqueueError: An option has a wrong value.
        """
        return BoundTask(self, TaskOptions.of(**options))

    def enqueue_from(self, queryset: QuerySet[Any] | Manager[Any], *args: str, **options: Any) -> int:
        """Enqueue one call for each row of a query; see `enqueue_from`."""
        return enqueue_from(self, queryset, args, **options)

    def __repr__(self) -> str:
        return f"<task {self.path}>"


class BoundTask(Generic[P, R]):
    """A task with options for one call."""

    def __init__(self, task: TaskFunction[P, R], options: TaskOptions) -> None:
        self.task, self.options = task, options

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskId:
        """Enqueue a call with these options; return the task's id."""
        return submit(make_task(self.task, args, kwargs, self.options))


@overload
def task(func: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *,
    queue: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    max_attempts: int | None = None,
    retry_backoff: Any = None,
    retry_on: Iterable[type[BaseException] | str] | None = None,
    no_retry_on: Iterable[type[BaseException] | str] | None = None,
    atomic: bool = False,
    **extra: Any,
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...
def task(
    func: Callable[P, R] | None = None,
    /,
    *,
    queue: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    max_attempts: int | None = None,
    retry_backoff: Any = None,
    retry_on: Iterable[type[BaseException] | str] | None = None,
    no_retry_on: Iterable[type[BaseException] | str] | None = None,
    atomic: bool = False,
    **extra: Any,
) -> TaskFunction[P, R] | Callable[[Callable[P, R]], TaskFunction[P, R]]:
    """Register a function as a task: ``@task`` or ``@task(queue="mail", max_attempts=5)``.

    What is given here holds for each call that has no other value. Only a registered function may be named by rows
    that psql, the ORM or the admin wrote.

    Args:
        atomic: What the function writes to pgq's database, its result and its receipt are one commit: exactly-once
            effects on that database. The function runs in a transaction, so it must not end it.

    Raises:
        EnqueueError: An option is wrong, or the function stands where no worker can find it.
    """
    options = TaskOptions.of(
        By.TASK,
        queue=queue,
        priority=priority,
        timeout=timeout,
        max_attempts=max_attempts,
        retry_backoff=retry_backoff,
        retry_on=retry_on,
        no_retry_on=no_retry_on,
        atomic=atomic or None,
        **extra,
    )

    def decorate(func: Callable[P, R]) -> TaskFunction[P, R]:
        if atomic and registry.is_async(func):
            raise EnqueueError("atomic", "an async function cannot be atomic, since Django has no async transactions")
        return TaskFunction(func, with_path(options))

    return decorate if func is None else decorate(func)
