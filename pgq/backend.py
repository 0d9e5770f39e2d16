"""`PgqBackend`: the backend of django.tasks that puts tasks into pgq's tables::

    TASKS = {"default": {"BACKEND": "pgq.backend.PgqBackend"}}

Any ``pgq_worker`` runs them. docs/guide/django-tasks.md says what differs from other backends, and what pgq adds.

Raises:
    ImportError: This Django has no tasks of its own, and the package django-tasks is not installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core import checks
from django.db import connections, transaction
from django.utils import timezone

from pgq.conf import at, database_of, get_settings, places, problems
from pgq.conf.queues import are_named, is_pattern
from pgq.enqueue import django_tasks, write
from pgq.enqueue.calls import all_arguments, several
from pgq.enqueue.django_api import BaseTaskBackend, InvalidTask, TaskResultDoesNotExist, task_enqueued
from pgq.enqueue.make import make_task
from pgq.enqueue.unique import Existing
from pgq.errors import EnqueueError, UnknownFunction
from pgq.execution import django_results
from pgq.ground import ids
from pgq.records.options import By, TaskOptions, unknown_option
from pgq.recurrence import moments
from pgq.store import queue as store_queue
from pgq.store import results as store_results
from pgq.store.caller import callers_cursor

__all__ = ["TASK_OPTIONS", "WITHOUT_MEANING", "PgqBackend"]

if TYPE_CHECKING:
    from typing import TypeAlias

    from django.tasks import base

    from pgq.records import NewTask, TaskState

    Task: TypeAlias = base.Task[..., Any]
    TaskResult: TypeAlias = base.TaskResult[..., Any]

#: What OPTIONS may hold besides the database: options of each task of the backend.
TASK_OPTIONS = ("timeout", "max_attempts", "backoff", "keep", "key", "unique", "debounce", "expires")
_KNOWN = ("database", *TASK_OPTIONS)
#: Options of django-tasks-db that mean nothing here, and why: so its users may change the line of the BACKEND alone.
WITHOUT_MEANING = {"id_function": "ids are UUIDv7, ordered by time"}


class _Names(set[str]):
    """The names of QUEUES; a pattern holds each queue that it matches, as in PGQ["queues"]: ``mail.*``."""

    def __contains__(self, queue: object) -> bool:
        return super().__contains__(queue) or are_named(str(queue), self)


class PgqBackend(BaseTaskBackend):
    """A backend of django.tasks that writes each task as a row of pgq, in the caller's transaction.

    An instance is made for each thread, and often before the apps are ready: it reads no setting and opens no
    connection until a task is enqueued or a result is asked for.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        # Django looks here whether a task's queue is one of QUEUES.
        self.queues = _Names(self.queues)

    @property
    def database(self) -> str:
        """Alias in DATABASES of the tables: OPTIONS["database"], or else PGQ["database"].

        With PGQ["databases"] a task lies in the database of its queue; OPTIONS["database"] must then name that one.
        """
        return self.options.get("database") or get_settings().database

    def _database_of(self, queue: str) -> str:
        """Return the alias of the database for the tasks of a queue.

        Raises:
            EnqueueError: PGQ["databases"] says another one than OPTIONS["database"].
        """
        own: str | None = self.options.get("database")
        if own is None:
            return database_of(queue)
        if get_settings().databases and database_of(queue) != own:
            reason = (
                f"the queue {queue!r} lies in {database_of(queue)!r} by PGQ['databases'], and "
                f"TASKS[{self.alias!r}]['OPTIONS'] names the database {own!r}; leave it out there"
            )
            raise EnqueueError("database", reason)
        return own

    @cached_property
    def _task_options(self) -> TaskOptions:
        """The options that each task of this backend has.

        Raises:
            UnknownOption, EnqueueError: OPTIONS has an unknown key, or a wrong value.
        """
        given = {name: value for name, value in self.options.items() if name not in WITHOUT_MEANING}
        for name in given:
            if name not in _KNOWN:
                raise unknown_option(name, _KNOWN, of=f"TASKS[{self.alias!r}]['OPTIONS']")
        given.pop("database", None)
        # "key" means what it means to `@task`: an argument's name, or a function of the arguments.
        return TaskOptions.of(By.TASK, **given)

    # --------------------------------------------------------------------------------------------- tasks

    def validate_task(self, task: Task) -> None:
        """Make sure that this backend can run a task, and register its function, so that rows from psql may name it.

        A ``run_after`` that is a timedelta becomes the moment so long from now.

        Raises:
            InvalidTask: It cannot be run; the message says why.
        """
        run_after: Any = task.run_after
        if isinstance(run_after, timedelta):
            object.__setattr__(task, "run_after", timezone.now() + run_after)
        super().validate_task(task)
        try:
            django_tasks.define(task)
        except UnknownFunction as error:
            raise InvalidTask(str(error)) from error

    def _new_task(self, task: Task, result: TaskResult) -> NewTask:
        """Return the row of a task.

        Raises:
            EnqueueError: Something is wrong; the message names it. Nothing was written.
        """
        return make_task(
            task.module_path, result.args, result.kwargs, self._options_of(task), id=ids.parse_id(result.id)
        )

    def _options_of(self, task: Task) -> TaskOptions:
        return self._task_options.but(
            queue=task.queue_name,
            priority=int(task.priority),
            run_after=task.run_after,
            django=django_results.stored_of(task, self.alias),
        )

    def _new_result(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any], id: str) -> TaskResult:
        result: TaskResult = django_results.new_result(task, id, args, kwargs, self.alias)
        return result

    # --------------------------------------------------------------------------------------------- enqueuing

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Write a call of a task in the caller's transaction; return its result, which is READY.

        Under PGQ["sync"] the task runs here and now instead, as Django's ImmediateBackend does it.

        Raises:
            InvalidTask: See `validate_task`.
            TypeError: An argument is none that JSON has.
            EnqueueError: Anything else is wrong; the message names it. Nothing was written.
        """
        self.validate_task(task)
        result = self._new_result(task, args, kwargs, ids.new_id().hex)
        new = self._new_task(task, result)
        if get_settings().sync:
            return self._run(result, new)
        alias = self._database_of(new.queue)
        if new.unique is None:
            self._was_enqueued(result, write.enqueue_dated(new, using=alias))
            return result
        id = write.enqueue(new, using=alias)
        if id != new.id:
            found: TaskResult = self.get_result(id.hex)
            return found
        with callers_cursor(alias) as cursor:
            self._was_enqueued(result, store_queue.enqueued_at(cursor, [id.hex])[id.hex])
        return result

    def enqueue_many(self, task: Task, calls: Iterable[Any]) -> list[TaskResult]:
        """Write many calls of one task in one statement, all in one transaction; return their results in order.

        Args:
            calls: What to call it with: each a tuple of arguments, a dict of keyword arguments, or one single argument.

        Raises:
            InvalidTask, TypeError, EnqueueError: As for `enqueue`. Nothing was written.
        """
        self.validate_task(task)
        given = list(all_arguments(task.module_path, several("calls", calls)))
        if get_settings().sync:
            return [self.enqueue(task, args, kwargs) for args, kwargs in given]
        results = [self._new_result(task, args, kwargs, "") for args, kwargs in given]
        if not results:
            return []
        options = self._options_of(task)
        alias = self._database_of(task.queue_name)
        with transaction.atomic(using=alias):
            rows = [(result.args, result.kwargs) for result in results]
            new = write.enqueue_calls(task.module_path, rows, options, chunk=len(rows), using=alias)
            with callers_cursor(alias) as cursor:
                times = store_queue.enqueued_at(cursor, new)
        for place, (result, id) in enumerate(zip(results, new, strict=True)):
            if isinstance(id, Existing):
                results[place] = self.get_result(id)
            else:
                django_results.change(result, id=id)
                self._was_enqueued(result, times[id])
        return results

    async def aenqueue_many(self, task: Task, calls: Iterable[Any]) -> list[TaskResult]:
        """Do the same in a coroutine."""
        return await sync_to_async(self.enqueue_many, thread_sensitive=True)(task, calls)

    def _was_enqueued(self, result: TaskResult, when: Any) -> None:
        django_results.change(result, enqueued_at=moments.as_project(when))
        task_enqueued.send(type(self), task_result=result)

    def _run(self, result: TaskResult, new: NewTask) -> TaskResult:
        """Run a task here and now; return its result.

        Raises:
            KeyboardInterrupt: The user wants to end the process.
        """
        # Not at the top: it needs the models, and backends are made before these are there.
        from pgq.execution import inline

        own, given = database_of(new.queue), self._database_of(new.queue)
        if given != own:
            reason = f"PGQ['sync'] runs tasks in {own!r}, and TASKS[{self.alias!r}] has {given!r}"
            raise EnqueueError("database", reason)
        found = inline.taken(new)
        if found is not None:
            there: TaskResult = self.get_result(found.hex)
            return there
        self._was_enqueued(result, moments.now())
        inline.run_settled(new, lambda error: isinstance(error, KeyboardInterrupt))
        result.refresh()
        return result

    # --------------------------------------------------------------------------------------------- results

    def get_result(self, result_id: str) -> TaskResult:
        """Return the result of a task as it is now.

        Raises:
            TaskResultDoesNotExist: There is no such task, or its result is not kept any more, or that is no id.
            ImportError: The function of the task is gone.
            SuspiciousOperation: Its row names something that is no task, or was not signed and names what nothing has
                registered. Nothing is imported for it.
        """
        id = ids.parse_id(result_id)
        if id is None:
            raise TaskResultDoesNotExist(result_id)

        def here() -> TaskState | None:
            with callers_cursor(get_settings().database) as cursor:
                return store_results.task_state(cursor, id)

        if self.options.get("database"):
            with at(self.database):
                row = here()
        else:
            row = places.first(here)
        if row is None:
            raise TaskResultDoesNotExist(result_id)
        result: TaskResult = django_results.result_of_row(row, self.alias)
        return result

    # --------------------------------------------------------------------------------------------- checks

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Name what is wrong with the entry of TASKS. It asks no database."""
        name, found = f"TASKS[{self.alias!r}]['OPTIONS']", list[checks.CheckMessage]()
        for key in self.options:
            if key in WITHOUT_MEANING:
                message = f"{name}: {key} has no effect: {WITHOUT_MEANING[key]}."
                found.append(checks.Warning(message, hint="Take it away.", id="pgq.W023"))
            elif key not in _KNOWN:
                error = unknown_option(key, _KNOWN, of=name)
                found.append(checks.Error(str(error), hint="Correct the key, or take it away.", id="pgq.E020"))
            elif key != "database":
                try:
                    options = TaskOptions.of(By.TASK, **{key: self.options[key]})
                    if key != "key":  # It is about the arguments of each task.
                        make_task("pgq.ground.ids.new_id", options=options)
                except EnqueueError as error:
                    found.append(checks.Error(f"{name}: {error}", hint="Correct the value.", id="pgq.E021"))
        alias = self.options.get("database")
        if alias is not None and alias not in connections:
            message = f"{name}: database is {alias!r}, which is not in DATABASES."
            found.append(checks.Error(message, hint="Name an alias that is, or take it away.", id="pgq.E022"))
        elif alias is not None and connections[alias].vendor != "postgresql":
            message = f"{name}: database is {alias!r}, which is no PostgreSQL."
            found.append(checks.Error(message, hint="Name one that is, or take it away.", id="pgq.E022"))
        found += self._check_queues(name)
        return found

    def _check_queues(self, name: str) -> list[checks.CheckMessage]:
        """Name each queue that PGQ["databases"] puts into another database than OPTIONS["database"]."""
        if any(problem.serious for problem in problems()):
            return []
        found: list[checks.CheckMessage] = []
        for queue in sorted(name for name in self.queues if not is_pattern(name)):
            try:
                self._database_of(queue)
            except EnqueueError as error:
                hint = "Leave the database out there: PGQ['databases'] says where each queue lies."
                found.append(checks.Error(f"{name}: {error}", hint=hint, id="pgq.E023"))
        return found
