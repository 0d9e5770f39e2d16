"""`@task`: registers a function with its options. Call it and it runs here; enqueue it and a worker runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, Unpack, overload

from pgq.enqueue import keys, registry
from pgq.enqueue.options import with_path
from pgq.errors import EnqueueError
from pgq.records.options import By, TaskOptions
from pgq.schedules import declared
from pgq.tasks.enqueueable import Enqueueable
from pgq.tasks.typed import DecoratorOptions

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")
Scheduled: TypeAlias = "declared.Declared | Sequence[declared.Declared] | None"


class _Task(Enqueueable[P, C, R], registry.Decorated):
    """A function registered as a task."""

    func: Callable[..., C]

    def __init__(self, func: Callable[..., C], options: TaskOptions) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.options = options
        self.path = registry.register(func, options).path
        self._task = self

    def __reduce__(self) -> str:
        # Pickled and copied by its name, as functions are.
        return self.path.removeprefix(f"{self.func.__module__}.")

    def __repr__(self) -> str:
        return f"<task {self.path}>"


class TaskFunction(_Task[P, C, R]):
    """A function registered as a task. Call it and it runs here; `enqueue` it and a worker runs it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        return self.func(*args, **kwargs)


class ContextTaskFunction(_Task[P, C, R]):
    """A function with ``takes_context=True``: who calls it gives the context; who enqueues it does not."""

    def __call__(self, context: Any, *args: P.args, **kwargs: P.kwargs) -> C:
        return self.func(context, *args, **kwargs)


class Decorator(Protocol):
    """What ``@task(...)`` returns."""

    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, func: Callable[P, R], /) -> TaskFunction[P, R, R]: ...


class ContextDecorator(Protocol):
    """What ``@task(takes_context=True)`` returns."""

    @overload
    def __call__(
        self, func: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> ContextTaskFunction[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, func: Callable[Concatenate[Any, P], R], /) -> ContextTaskFunction[P, R, R]: ...


@overload
def task(func: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, Coroutine[Any, Any, R], R]: ...
@overload
def task(func: Callable[P, R], /) -> TaskFunction[P, R, R]: ...
@overload
def task(
    *, takes_context: Literal[True], schedule: Scheduled = None, **options: Unpack[DecoratorOptions]
) -> ContextDecorator: ...
@overload
def task(
    *, takes_context: Literal[False] = False, schedule: Scheduled = None, **options: Unpack[DecoratorOptions]
) -> Decorator: ...
def task(
    func: Callable[..., Any] | None = None,
    /,
    *,
    takes_context: bool = False,
    schedule: Scheduled = None,
    **options: Unpack[DecoratorOptions],
) -> Any:
    """Register a function as a task: ``@task`` or ``@task(queue="mail", max_attempts=5)``.

    What is given here holds for each call that has no other value. Only a registered function may be named by rows
    that psql, the ORM or the admin wrote.

    Args:
        func: A function at the top of a module; None where options are given.
        takes_context: The function's first argument, named ``context``, is what pgq tells it of its task. Who enqueues
            it does not give it.
        schedule: When to enqueue it by itself: a cron expression, `pgq.config.cron(...)`, ``Every(...)`` or a
            ``ScheduleConfig``, or a list of them; see docs/guide/schedules.md. It is checked by ``manage.py check``.
        options: queue, priority, timeout, max_attempts, retry_backoff and the other options of `TaskOptions`, `backoff`
            and `queue_name` as Django names them; ``key``, ``concurrency``, ``rate`` and ``order``, see
            docs/guide/limits.md; and ``atomic``: What the function writes to pgq's database, its
            result and its receipt are one commit: exactly-once effects on that database. The function runs in a
            transaction, so it must not end it. And ``api``: It may be enqueued by REST.

    Raises:
        UnknownOption: There is no such option; the message names the nearest, and all of them.
        EnqueueError: An option is wrong, or the function stands where no worker can find it.
    """
    given: dict[str, Any] = {**options, "takes_context": takes_context or None}
    given |= {name: options.get(name) or None for name in ("atomic", "api")}
    chosen = TaskOptions.of(By.TASK, **given)

    def decorate(func: Callable[..., Any]) -> _Task[..., Any, Any]:
        if chosen.atomic and registry.is_async(func):
            raise EnqueueError("atomic", "an async function cannot be atomic, since Django has no async transactions")
        keys.require_argument(func, chosen.key)
        keys.limit_of(chosen, "")
        kind: type[_Task[..., Any, Any]] = ContextTaskFunction if takes_context else TaskFunction
        decorated = kind(func, with_path(chosen))
        declared.declare(decorated.path, schedule)
        return decorated

    return decorate if func is None else decorate(func)
