"""What type checkers know of the options and the calls of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypedDict, TypeVar
from uuid import UUID

from pgq.config.unique import Debounce, Unique
from pgq.ground.limits import Rate

A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)
E_contra = TypeVar("E_contra", contravariant=True)

Hook = str | Callable[..., Any] | None
Exceptions = type[BaseException] | str | Iterable[type[BaseException] | str]


Span = float | timedelta | str


class _Shared(TypedDict, total=False):
    """The options that `@task` takes, and each call; `pgq.records.options` says what each one means."""

    queue: str | None
    queue_name: str | None
    priority: int | None
    timeout: float | None
    max_attempts: int | None
    save: bool | None
    keep: float | timedelta | str | bool | None
    cached: Any
    ack_failure: bool | None
    ack: Literal["task", "batch"] | None
    sensitive: bool | None
    retry_backoff: Any
    backoff: Any
    retry_on: Exceptions | None
    no_retry_on: Exceptions | None
    unique: str | Sequence[str] | bool | Callable[..., Any] | Unique | None
    debounce: Span | tuple[Span, Span] | Debounce | Literal[False] | None
    expires: datetime | Span | None


class DecoratorOptions(_Shared, total=False):
    """The options of `@task`, but for takes_context."""

    atomic: bool | None
    api: bool | None
    key: str | Callable[..., Any] | None
    concurrency: int | tuple[str, int] | None
    rate: str | Rate | tuple[str, str | Rate] | None
    order: Literal["fifo", "strict"] | None


class _OfCall(_Shared, total=False):
    key: str | int | UUID | None
    group: str | int | UUID | None
    hook: Hook


class ScheduleOptions(_OfCall, total=False):
    """The options of the tasks of a schedule."""

    task_name: str | int | UUID | None


class CallOptions(_OfCall, total=False):
    """The options of a call, as `using` takes them. None: as the settings say, whatever @task says."""

    name: str | int | UUID | None
    run_after: datetime | timedelta | float | None


class ManyOptions(CallOptions, total=False):
    """What `enqueue_many` takes besides the calls."""

    then: Hook
    chunk: int


# A task of so many arguments: from its `call_of` a type checker infers what tuples `enqueue_many` may be given.


class Takes0(Protocol):
    """A task that can be called without arguments."""

    def call_of(self, /) -> Any: ...


class Takes1(Protocol[A_contra]):
    """A task that can be called with one argument."""

    def call_of(self, a: A_contra, /) -> Any: ...


class Takes2(Protocol[A_contra, B_contra]):
    """A task that can be called with two arguments."""

    def call_of(self, a: A_contra, b: B_contra, /) -> Any: ...


class Takes3(Protocol[A_contra, B_contra, C_contra]):
    """A task that can be called with three arguments."""

    def call_of(self, a: A_contra, b: B_contra, c: C_contra, /) -> Any: ...


class Takes4(Protocol[A_contra, B_contra, C_contra, D_contra]):
    """A task that can be called with four arguments."""

    def call_of(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, /) -> Any: ...


class Takes5(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra]):
    """A task that can be called with five arguments."""

    def call_of(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, e: E_contra, /) -> Any: ...


class TakesMore(Protocol):
    """A task that can be called with six arguments or more, which are not checked among many."""

    def call_of(self, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, /) -> Any: ...
