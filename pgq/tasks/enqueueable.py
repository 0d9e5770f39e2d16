"""What can be done with a task, with options of its own or without: enqueue it, now or on a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from asgiref.sync import sync_to_async

from pgq.conf import get_settings
from pgq.enqueue.calls import TaskCall
from pgq.enqueue.make import make_task
from pgq.enqueue.registry import Decorated
from pgq.enqueue.signature import check_call
from pgq.models import Schedule
from pgq.records.options import TaskOptions
from pgq.schedules import define
from pgq.tasks.async_task import submit, write_rows
from pgq.tasks.handle import TaskId
from pgq.tasks.many import Many
from pgq.tasks.scheduling import new_row
from pgq.tasks.typed import CallOptions, ScheduleOptions

if TYPE_CHECKING:
    from django.db.models import Manager, QuerySet

P = ParamSpec("P")
#: What calling the function returns, and what its task results in: of an ``async def``, a coroutine and its result.
C = TypeVar("C")
R = TypeVar("R")


class Enqueueable(Many[P, R], Generic[P, C, R]):
    """A task, with options of its own or without.

    Django's names for what it is (`name`, `module_path`, `priority`, `queue_name`, `run_after`, `takes_context`) are
    here too: code that reads a task of django.tasks reads this one.
    """

    # --------------------------------------------------------------------------------------------- what it is

    @property
    def name(self) -> str:
        """The function's name."""
        return self._task.func.__name__

    @property
    def module_path(self) -> str:
        """The function's dotted path."""
        return self._task.path

    @property
    def priority(self) -> int:
        """-100 to 100, larger is sooner."""
        return self._chosen().priority or 0

    @property
    def queue_name(self) -> str:
        """Where its tasks wait."""
        return self._chosen().queue or get_settings().default_queue

    @property
    def run_after(self) -> datetime | timedelta | float | None:
        """When its tasks may run: a moment, or a delay (seconds); None: at once."""
        return self._given.run_after

    @property
    def takes_context(self) -> bool:
        """Whether the function gets its context as the first argument."""
        return bool(self._task.options.takes_context)

    def _chosen(self) -> TaskOptions:
        return self._given.over(self._task.options)

    # --------------------------------------------------------------------------------------------- calls

    def using(self, **options: Unpack[CallOptions]) -> BoundTask[P, C, R]:
        """Return this task with other options: ``report.using(priority=5).enqueue(1)``.

        Args:
            options: By the names of `TaskOptions`; `backoff` and `queue_name` as Django names them. None takes an
                option away, also one of `@task`: what the settings say holds then.

        Raises:
            UnknownOption: There is no such option; the message names the nearest, and all of them.
            EnqueueError: An option has a wrong value.
        """
        return BoundTask(self._task, self._given.changed(**options))

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskId[R]:
        """Enqueue a call in the caller's transaction, or run it at once if PGQ["sync"] says so; return the task's id.

        Raises:
            WrongCall: The function cannot be called with these arguments.
            EnqueueError: Something else is wrong; the message names it. Nothing was written.
        """
        return submit(make_task(self._task, args, kwargs, self._given), get_settings().sync)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskId[R]:
        """Do what `enqueue` does, on the connection and in the transaction that ``sync_to_async`` code has here."""
        return await sync_to_async(self.enqueue)(*args, **kwargs)

    #: The name that users of Celery know.
    delay = enqueue

    def call_of(self, *args: P.args, **kwargs: P.kwargs) -> TaskCall[P, R]:
        """Return a call with these arguments and this task's options, for `enqueue_many` or `async_chain`.

        Raises:
            WrongCall: The function cannot be called with these arguments.
        """
        check_call(self._task.path, len(args), kwargs)
        return TaskCall(self._task, args, kwargs, self._given)

    def enqueue_from(self, queryset: QuerySet[Any] | Manager[Any], *args: str, **options: Unpack[CallOptions]) -> int:
        """Enqueue one call for each row of a query; see `pgq.tasks.enqueue_from`.

        Args:
            args: Names of the query's columns or annotations, in the order of the function's arguments.
            options: As for `using`.

        Returns:
            The number of tasks.
        """
        return write_rows(self._task, queryset, args, self._given.changed(**options) if options else self._given)

    # --------------------------------------------------------------------------------------------- again and again

    def schedule(
        self,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        schedule_type: str | None = None,
        minutes: int | None = None,
        seconds: float | None = None,
        cron: str | None = None,
        repeats: int = -1,
        next_run: datetime | None = None,
        time_zone: str | None = None,
        catch_up: bool | None = None,
        overlap: str = "allow",
        jitter: float = 0,
        paused: bool = False,
        intended_date_kwarg: str | None = None,
        update: bool = False,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Enqueue a call again and again, or once at a time: ``report.schedule(cron="0 3 * * *", name="report")``.

        What `@task` and `using` say of its tasks is written into the schedule.

        Args:
            args, kwargs: The function's.
            name: The schedule's, unique.
            options: As for `using`, but that the name of its tasks is `task_name`.
            others: As for `pgq.tasks.schedule`.

        Raises:
            IntegrityError: There is one of that name, and `update` is not set.
            ValidationError: A field is wrong; the message names it.
            WrongCall: The function cannot be called with these arguments.
            EnqueueError: An argument or an option is wrong.
        """
        given: dict[str, Any] = dict(options)
        if "task_name" in given:
            given["name"] = given.pop("task_name")
        own = self._given.changed(**given)
        chosen = own.over(self._task.options).but(reset=own.reset)
        new = new_row(
            name=name,
            schedule_type=schedule_type,
            minutes=minutes,
            seconds=seconds,
            cron=cron,
            repeats=repeats,
            next_run=next_run,
            time_zone=time_zone,
            catch_up=catch_up,
            overlap=overlap,
            jitter=jitter,
            paused=paused,
            intended_date_kwarg=intended_date_kwarg,
        )
        return define.define(new, self._task, tuple(args), kwargs or {}, chosen, update=update)


class BoundTask(Enqueueable[P, C, R]):
    """A task with options of its own, made by `using`."""

    def __init__(self, task: Decorated, given: TaskOptions) -> None:
        self._task, self._given = task, given

    def __repr__(self) -> str:
        return f"<task {self._task.path} using {', '.join(sorted(vars(self._given)))}>"
