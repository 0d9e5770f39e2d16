"""`enqueue_many` of a task, for which type checkers infer from the function what calls there may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from asgiref.sync import sync_to_async

from pgq.conf import get_settings
from pgq.enqueue.calls import TaskCall
from pgq.enqueue.registry import Decorated
from pgq.enqueue.write import CHUNK
from pgq.records.options import NO_OPTIONS, TaskOptions
from pgq.tasks import typed
from pgq.tasks.async_task import write_calls
from pgq.tasks.handle import TaskId
from pgq.tasks.typed import ManyOptions

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
#: A tuple of six or more is looked at only when it is enqueued.
Long = tuple[Any, Any, Any, Any, Any, Any, *tuple[Any, ...]]


class Many(Generic[P, R]):
    """A task, with options of its own or without: what enqueues many calls of it."""

    #: What `@task` made, and the options that `using` gave.
    _task: Decorated
    _given: TaskOptions = NO_OPTIONS

    @overload
    def enqueue_many(self, calls: Iterable[TaskCall[P, R]], **options: Unpack[ManyOptions]) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(self, calls: Iterable[Mapping[str, Any]], **options: Unpack[ManyOptions]) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(
        self: typed.Takes0, calls: Iterable[tuple[()]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(
        self: typed.Takes1[A], calls: Iterable[tuple[A]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(
        self: typed.Takes2[A, B], calls: Iterable[tuple[A, B]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(
        self: typed.Takes3[A, B, C], calls: Iterable[tuple[A, B, C]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(
        self: typed.Takes4[A, B, C, D], calls: Iterable[tuple[A, B, C, D]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(
        self: typed.Takes5[A, B, C, D, E], calls: Iterable[tuple[A, B, C, D, E]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(
        self: typed.TakesMore, calls: Iterable[Long], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    def enqueue_many(self: typed.Takes1[A], calls: Iterable[A], **options: Unpack[ManyOptions]) -> list[TaskId[R]]: ...
    def enqueue_many(self, calls: Iterable[Any], **options: Unpack[ManyOptions]) -> list[TaskId[Any]]:
        """Enqueue many calls in one transaction, thousands of them in one statement; see `pgq.tasks.enqueue_many`.

        Args:
            calls: Each a tuple of arguments, a dict of keyword arguments, a call made by `call_of`, or one single
                argument. May be a generator of any length. Type checkers look at tuples of up to five, at single
                arguments and at calls.
            options: As for `using`, the same for all. Besides, ``then``: called with the name of the group once all
                have settled; ``chunk``: how many go into one statement.

        Returns:
            The ids, in the order of the calls.

        Raises:
            WrongCall: The function cannot be called with the arguments of one of them. Nothing was written.
            EnqueueError: Something else is wrong; the message names it. Nothing was written.
        """
        then, chunk = options.pop("then", None), options.pop("chunk", CHUNK)
        chosen = self._given.changed(**options) if options else self._given
        return write_calls(self._task, calls, chosen, sync=get_settings().sync, then=then, chunk=chunk)

    @overload
    async def aenqueue_many(
        self, calls: Iterable[TaskCall[P, R]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self, calls: Iterable[Mapping[str, Any]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.Takes0, calls: Iterable[tuple[()]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.Takes1[A], calls: Iterable[tuple[A]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.Takes2[A, B], calls: Iterable[tuple[A, B]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.Takes3[A, B, C], calls: Iterable[tuple[A, B, C]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.Takes4[A, B, C, D], calls: Iterable[tuple[A, B, C, D]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.Takes5[A, B, C, D, E], calls: Iterable[tuple[A, B, C, D, E]], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.TakesMore, calls: Iterable[Long], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    @overload
    async def aenqueue_many(
        self: typed.Takes1[A], calls: Iterable[A], **options: Unpack[ManyOptions]
    ) -> list[TaskId[R]]: ...
    async def aenqueue_many(self, calls: Iterable[Any], **options: Unpack[ManyOptions]) -> list[TaskId[Any]]:
        """Do what `enqueue_many` does, on the connection that ``sync_to_async`` code has here, in its transaction."""
        many: Any = self.enqueue_many
        ids: list[TaskId[Any]] = await sync_to_async(many)(calls, **options)
        return ids
