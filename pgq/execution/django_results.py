"""`TaskResult` of django.tasks, made of what pgq knows of a task: its row, or its claim while it runs.

Only the function that a row names may be imported for it, and only if the row is signed or the function is registered:
who can write a row must not make its readers import modules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.core.exceptions import SuspiciousOperation
from django.utils.connection import ConnectionDoesNotExist

from pgq import codec
from pgq.codec import signing
from pgq.codec.reading import read_args, read_value
from pgq.enqueue import django_tasks, registry
from pgq.enqueue.django_api import (
    InvalidTaskBackend,
    Task,
    TaskError,
    TaskResult,
    TaskResultStatus,
    task_backends,
)
from pgq.errors import UnknownFunction
from pgq.records import Claim, TaskState
from pgq.records.options import TaskOptions
from pgq.recurrence import moments

#: Fields of Task that a row has columns for, or that its function fixes.
_FIXED = {"func", "priority", "queue_name", "backend", "run_after"}


# ------------------------------------------------------------------------------------------------- the task


def stored_of(task: Any, alias: str) -> dict[str, Any]:
    """Return what the options of a row keep of a Task object, under ``django``, so that it can be made again.

    Raises:
        NotStorable: One of its own fields has no stored form; the message names it.
    """
    stored: dict[str, Any] = {"backend": alias}
    if task.run_after is not None:
        # The column is cleared once the time has come.
        stored["run_after"] = task.run_after.isoformat()
    base = django_tasks.defined(task.module_path)
    if base is not task:
        own = {field.name: field for field in fields(task) if field.name not in _FIXED}
        changed = {
            name: value for name in own if not _same(value := getattr(task, name), _given(base, task, own[name]))
        }
        if changed:
            stored["fields"] = codec.encode(changed, where=f"fields of {type(task).__name__}")
    return stored


def _given(base: Any, task: Any, field: Any) -> Any:
    """Return what a field of a Task object is unless the row says more: as where the task was defined."""
    return getattr(base, field.name) if type(base) is type(task) else _default(field)


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))


def find_task(path: str, *, trusted: bool) -> Any:
    """Return the Task object whose function has that path; of pgq's own @task, or of a plain registered function, one
    that is made for it.

    Args:
        trusted: Whether the row was signed, so that the module it names may be imported.

    Raises:
        ImportError: The function is gone.
        SuspiciousOperation: What is there is no task, or an unsigned row names it and nothing has registered it.
    """
    task = django_tasks.defined(path)
    if task is not None:
        return task
    if not trusted and not registry.may_be_named(path):
        raise SuspiciousOperation(f"the row is not signed, and {path[:200]!r} is not registered: nothing is imported")
    try:
        found: Any = registry.look_up(path)
    except UnknownFunction as error:
        raise ImportError(str(error)) from error
    if registry.is_django_task(found):
        # Its import may have defined it.
        return django_tasks.defined(path) or found
    entry = registry.registered(path)
    if entry is None and not isinstance(found, registry.Decorated):
        raise SuspiciousOperation(f"{path[:200]!r} is not a task: it is a {type(found).__name__}")
    func = entry.func if entry is not None else found.func
    given = {"priority": 0, "queue_name": "default", "backend": "", "run_after": None}
    return _unchecked(Task, func=func, takes_context=registry.takes_context(path), **given)


def _unchecked(kind: Any, **given: Any) -> Any:
    """Return a Task object without asking its backend whether it is valid: it has been enqueued, so it was."""
    task = object.__new__(kind)
    for field in fields(kind):
        object.__setattr__(task, field.name, given[field.name] if field.name in given else _default(field))
    return task


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _task_of(row: Claim | TaskState, options: TaskOptions, base: Any, alias: str, *, trusted: bool) -> Any:
    """Return the Task object that was enqueued: the one of the function, with what the row says."""
    # What is not signed may be anything.
    kept: Mapping[str, Any] = options.django if trusted and isinstance(options.django, Mapping) else {}
    kind = type(base) if alias == base.backend else _class_of(alias) or type(base)
    given = {field.name: getattr(base, field.name) for field in fields(base)} if kind is type(base) else {}
    given["func"] = base.func
    if "fields" in kept:
        given |= codec.decode(kept["fields"], trusted=True)
    given |= {"priority": row.priority, "queue_name": row.queue, "backend": alias, "run_after": None}
    if "run_after" in kept:
        given["run_after"] = datetime.fromisoformat(kept["run_after"])
    return _unchecked(kind, **given)


def _class_of(alias: str) -> Any:
    """Return the class of the tasks of a backend; None: it is not in the settings of this process."""
    try:
        return task_backends[alias].task_class
    except (InvalidTaskBackend, ConnectionDoesNotExist):
        return None


def alias_of(options: TaskOptions, default: str) -> str:
    """Return the alias of the backend that a task was enqueued with; `default`: it was enqueued without one."""
    kept = options.django
    alias = kept.get("backend") if isinstance(kept, Mapping) else None
    return alias if isinstance(alias, str) else default


# ------------------------------------------------------------------------------------------------- earlier attempts


class Attempts(NamedTuple):
    """What is known of the attempts of a task that have ended, but for the last one of a finished task."""

    errors: list[Any]
    workers: list[str]
    #: When the first and the latest of them began; None: there was none.
    first: datetime | None
    latest: datetime | None


def attempts_of(history: str) -> Attempts:
    """Read the history of a task, as JSON. What psql may have written into it is left out."""
    errors, workers, times = [], [], []
    for entry in json.loads(history):
        try:
            if "postponed" in entry or entry["exception"] == "pgq.errors.NotAllowed":
                # The task was given back, or a stranger's row had its id: no attempt began.
                continue
            worker, began = UUID(entry["worker"]).hex, datetime.fromisoformat(entry.get("started") or entry["at"])
            errors.append(_error(entry["exception"], entry["message"], entry.get("traceback")))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        workers.append(worker)
        times.append(began)
    return Attempts(errors, workers, min(times, default=None), max(times, default=None))


def _error(exception: str | None, message: str | None, traceback: str | None) -> Any:
    path = exception or "pgq.errors.PgqError"
    return TaskError(exception_class_path=path, traceback=traceback or f"{path}: {message}\n")


# ------------------------------------------------------------------------------------------------- results


def new_result(task: Any, id: str, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str) -> Any:
    """Return the result of a task that is about to be enqueued.

    Raises:
        TypeError: An argument is none that JSON has.
    """
    return TaskResult(
        task=task,
        id=id,
        status=TaskResultStatus.READY,
        enqueued_at=None,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=args,  # type: ignore[arg-type]  # it makes a list of them
        kwargs=kwargs,  # type: ignore[arg-type]
        backend=backend,
        errors=[],
        worker_ids=[],
    )


def change(result: Any, **changes: Any) -> None:
    """Change a TaskResult, which is frozen for its users."""
    for name, value in changes.items():
        object.__setattr__(result, name, value)


def _made(task: Any, id: UUID, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str) -> Any:
    result = new_result(task, id.hex, (), {}, backend)
    # As they were stored, also if a task of pgq's own was given more than JSON has.
    change(result, args=list(args), kwargs=dict(kwargs))
    return result


def _project(moment: datetime | None) -> datetime | None:
    return None if moment is None else moments.as_project(moment)


def result_of_row(row: TaskState, alias: str) -> Any:
    """Return the result of a task from its row.

    Args:
        alias: The backend that a task is said to be of which was enqueued without one, as from psql.

    Raises:
        ImportError, SuspiciousOperation: See `find_task`.
    """
    trusted = row.signature is not None and signing.verify_claim(row)
    options = TaskOptions.parse(row.options)
    base = find_task(row.func, trusted=trusted)
    alias = alias_of(options, alias)
    args, kwargs = read_args(row.args, row.kwargs, trusted=trusted)
    result = _made(_task_of(row, options, base, alias, trusted=trusted), row.id, args, kwargs, alias)
    past = attempts_of(row.history)
    if row.success is None:
        _describe_live(result, row, past)
    else:
        _describe_finished(result, row, past)
    return result


def _describe_live(result: Any, row: TaskState, past: Attempts) -> None:
    running = row.started is not None
    change(
        result,
        status=TaskResultStatus.RUNNING if running else TaskResultStatus.READY,
        errors=past.errors + ([_error(None, row.parked, None)] if row.parked is not None else []),
        worker_ids=past.workers + ([row.worker.hex] if running and row.worker is not None else []),
        enqueued_at=_project(row.enqueued_at),
        started_at=_project(past.first or row.started),
        last_attempted_at=_project(row.started or past.latest),
    )


def _describe_finished(result: Any, row: TaskState, past: Attempts) -> None:
    # A task that was cancelled, or had no attempt left, was settled without being run: it has no traceback of its own.
    ran = bool(row.success or row.traceback)
    started = row.started if ran else past.latest
    errors = list(past.errors)
    if not row.success:
        error = _error(row.exception, row.message, row.traceback)
        if ran or error not in errors[-1:]:
            errors.append(error)
    first = past.first or started
    change(
        result,
        status=TaskResultStatus.SUCCESSFUL if row.success else TaskResultStatus.FAILED,
        errors=errors,
        worker_ids=past.workers + ([row.worker.hex] if ran and row.worker is not None else []),
        # A task that ran in its caller's process was written when it had run.
        enqueued_at=_project(row.enqueued_at if first is None else min(row.enqueued_at, first)),
        started_at=_project(first),
        last_attempted_at=_project(started),
        finished_at=_project(row.stopped),
    )
    if row.success and row.result is not None:
        text, trusted = signing.unseal(row.id, row.result)
        change(result, _return_value=read_value(text, trusted=trusted))


def result_of_claim(
    claim: Claim,
    options: TaskOptions,
    base: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    trusted: bool,
    runs: bool = True,
) -> Any:
    """Return the result of a task that begins to run now: by this host's clock, until the tables say when it ran.

    Args:
        runs: False: the task ends without being run.
    """
    alias = alias_of(options, base.backend)
    result = _made(_task_of(claim, options, base, alias, trusted=trusted), claim.id, args, kwargs, alias)
    past = attempts_of(claim.history or (f"[{claim.last_error}]" if claim.last_error is not None else "[]"))
    now = max(moments.now(), claim.enqueued_at) if runs else None
    change(
        result,
        status=TaskResultStatus.RUNNING if runs else TaskResultStatus.READY,
        errors=past.errors,
        worker_ids=[*past.workers, claim.worker.hex] if runs else past.workers,
        enqueued_at=_project(claim.enqueued_at),
        started_at=_project(past.first or now),
        last_attempted_at=_project(now or past.latest),
    )
    return result
