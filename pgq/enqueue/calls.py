"""`TaskCall`: a call of a task that is not enqueued yet; and the forms in which one of many calls is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

from pgq.enqueue.options import path
from pgq.enqueue.registry import Decorated
from pgq.errors import EnqueueError
from pgq.records.options import NO_OPTIONS, TaskOptions

P = ParamSpec("P")
R = TypeVar("R")

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class TaskCall(Generic[P, R]):
    """A call of a task that is not enqueued yet, made by `call_of`. `enqueue_many` and `async_chain` take it."""

    #: What `@task` made.
    task: Decorated
    #: The function's positional arguments, which were found to fit it.
    args: tuple[Any, ...] = ()
    #: Its keyword arguments.
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: Those of `using`.
    options: TaskOptions = NO_OPTIONS


def several(argument: str, calls: Iterable[Any]) -> Iterable[Any]:
    """Return the calls as they were given, having made sure that there are several, not one or none.

    Raises:
        EnqueueError: They are a number, a text or a dict; the message names the argument.
    """
    if isinstance(calls, str | bytes | Mapping) or not isinstance(calls, Iterable):
        reason = f"must be a list (or another iterable) of calls, got {calls!r}"
        raise EnqueueError(argument, reason[: 298 - len(argument)])
    return calls


def all_arguments(func: str | Callable[..., Any], calls: Iterable[Any]) -> Iterator[Arguments]:
    """Yield the arguments and keyword arguments of each call of a function.

    Args:
        calls: Each is a tuple of arguments, a dict of keyword arguments, a `TaskCall`, or one single argument.

    Raises:
        EnqueueError: A `TaskCall` is of another task, or has options of its own.
    """
    for call in calls:
        if isinstance(call, tuple):
            yield call, {}
        elif isinstance(call, dict | Mapping):  # dict first: to ask an abstract class takes ten times as long
            yield (), call
        elif isinstance(call, TaskCall):
            yield _arguments_of(func, call)
        else:
            yield (call,), {}


def _arguments_of(func: str | Callable[..., Any], call: TaskCall[..., Any]) -> Arguments:
    if call.task.path != path("func", func):
        raise EnqueueError("calls", f"holds a call of {call.task.path}, which is another function")
    if call.options is not NO_OPTIONS:
        raise EnqueueError("calls", "holds a call with options of its own; all have the same: give them besides")
    return call.args, call.kwargs
