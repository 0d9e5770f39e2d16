"""Endpoints of tasks: found, shown, waited for, explained, cancelled, run again, enqueued."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections, transaction

from pgq.enqueue import registry
from pgq.enqueue.make import make_task
from pgq.errors import EnqueueError, PgqError, StillReferenced
from pgq.records.options import TaskOptions
from pgq.status import why as status_why
from pgq.store.bounded import reading
from pgq.tasks import control
from pgq.tasks.async_task import submit
from pgq.tasks.reading import afetch
from pgq.urls import access, found, kinds
from pgq.urls.endpoint import PATIENCE, Answer, Call, endpoint
from pgq.urls.problems import Problem, invalid, unknown

#: Seconds that a request for a result may wait.
LONGEST_WAIT = 25
FILTER = {
    "state": kinds.choice(*found.STATES),
    "queue": kinds.text(200),
    "func": kinds.text(500),
    "group": kinds.text(200),
    "exception": kinds.text(500),
    "since": kinds.moment(),
    "until": kinds.moment(),
}
_INCLUDE = {"include": kinds.choice("payload")}


def task_of(call: Call) -> dict[str, Any]:
    """Return the task of a path.

    Raises:
        Problem: 404.
    """
    task = found.one(call.database, call.caller, call.parts["id"])
    if task is None:
        raise unknown("task")
    return task


def _payload(call: Call, state: str) -> dict[str, Any]:
    """Return the values of a task, if they were asked for.

    Raises:
        Problem: 403.
    """
    if "include" not in call.query:
        return {}
    # To see a row in the admin is to see what is in it; a token is told apart.
    call.caller.require("payload")
    return {"payload": found.payload(call.database, call.parts["id"], ended=state in found.ENDED)}


@endpoint(
    "GET",
    "v1/tasks",
    "Find tasks, queued and finished, the newest first",
    scope="read",
    answer="Tasks",
    query={**FILTER, "before": kinds.task_id(), "limit": kinds.whole(1, 200)},
)
def find(call: Call) -> Any:
    """Return a page of tasks."""
    query = dict(call.query)
    before, limit = query.pop("before", None), query.pop("limit", 50)
    page = found.search(call.database, call.caller, found.Filter(**query), before=before, limit=limit)
    following = None
    if page.before is not None:
        given = {name: value for name, value in call.request.GET.items() if name != "before"}
        following = f"{call.request.path}?{urlencode({**given, 'before': page.before.hex})}"
    return {"tasks": [found.as_json(row) for row in page.rows], "next": following}


@endpoint(
    "GET",
    "v1/tasks/{id}",
    "Show a task, queued or finished",
    scope="read",
    answer="Task",
    query=_INCLUDE,
    refusals=(404,),
)
def show(call: Call) -> Any:
    """Return a task."""
    task = task_of(call)
    return {**task, **_payload(call, task["state"])}


@endpoint(
    "GET",
    "v1/tasks/{id}/result",
    "Wait for what became of a task",
    scope="read",
    answer="Task",
    query={**_INCLUDE, "wait": kinds.number(0, LONGEST_WAIT)},
    answers=(202,),
    refusals=(404,),
)
async def result(call: Call) -> Any:
    """Return the finished task: 200; or the task as it is when the time is over: 202."""
    task = await sync_to_async(_seen)(call)
    wait = call.query.get("wait", 0)
    if task["state"] in found.LIVE and wait:
        await sync_to_async(_let_go)()
        await afetch(call.parts["id"], wait=int(wait * 1000), cached=False)
        task = await sync_to_async(_seen)(call)
    return Answer(task, 202 if task["state"] in found.LIVE else 200)


def _let_go() -> None:
    """Close the connections of this thread: a thousand requests that wait shall not hold one each."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def _seen(call: Call) -> dict[str, Any]:
    with reading(call.database, seconds=PATIENCE):
        return show(call)  # type: ignore[no-any-return]


@endpoint(
    "GET",
    "v1/tasks/{id}/why",
    "Say why a task is not running, or what became of it",
    scope="read",
    answer="Verdict",
    refusals=(404,),
)
def why(call: Call) -> Any:
    """Return the verdict on a task."""
    task_of(call)
    return status_why.verdict(call.cursor, call.parts["id"]).as_json()


# ------------------------------------------------------------------------------------------------- actions


@endpoint(
    "POST",
    "v1/tasks/{id}/cancel",
    "Cancel a task",
    scope="act",
    permissions=("cancel_queuedtask",),
    answer="Done",
    body={},
    answers=(202,),
    refusals=(404, 409),
)
def cancel(call: Call) -> Any:
    """Cancel a task that has not begun: 200; tell one that runs to stop: 202."""
    id: UUID = call.parts["id"]
    with transaction.atomic(using=call.database):
        if call.caller.scopes is None:
            # A login that may not see it may not act on it, nor learn that it is there.
            task_of(call)
        outcome = control.cancel(id)
    if outcome == "unknown":
        raise unknown("task")
    if outcome == "finished":
        raise Problem(409, "The task has finished.")
    access.log(call.caller, "cancel", f"cancelled task {id.hex}, which was {outcome}", id.hex)
    return Answer(
        {"id": id.hex, "done": "cancelled" if outcome == "queued" else "told to stop"},
        200 if outcome == "queued" else 202,
    )


@endpoint(
    "POST",
    "v1/tasks/{id}/retry",
    "Run a finished task again, under its id",
    scope="act",
    permissions=("retry_task",),
    answer="Done",
    body={},
    refusals=(404, 409),
)
def retry(call: Call) -> Any:
    """Put a finished task back into the queue."""
    return _made_ready(call, found.ENDED, "put back into the queue")


@endpoint(
    "POST",
    "v1/tasks/{id}/run-now",
    "Run a waiting task now, or release a parked one",
    scope="act",
    permissions=("run_queuedtask",),
    answer="Done",
    body={},
    refusals=(404, 409),
)
def run_now(call: Call) -> Any:
    """Make a waiting or parked task ready."""
    return _made_ready(call, (found.WAITING, found.PARKED), "made ready")


def _made_ready(call: Call, states: tuple[str, ...], done: str) -> Any:
    id: UUID = call.parts["id"]
    with transaction.atomic(using=call.database):
        # A token that may act may know of it; a login that may not see it, may not act on it.
        task = task_of(call) if call.caller.scopes is None else found.one(call.database, ANYONE, id)
        if task is None:
            raise unknown("task")
        if task["state"] not in states:
            raise Problem(409, f"The task is {task['state']}, not {' or '.join(states)}.")
        try:
            was_there = control.retry(id)
        except StillReferenced as error:
            raise Problem(409, str(error)) from None
        if not was_there:
            raise Problem(409, "The state of the task has changed.")
    access.log(call.caller, "retry", f"task {id.hex}, which was {task['state']}, {done}", id.hex)
    return {"id": id.hex, "done": done}


#: Sees every task: for the state of one on which a token acts that cannot read.
ANYONE = access.Caller("", frozenset({"read"}))


# ------------------------------------------------------------------------------------------------- enqueue

_CALL = {
    "func": kinds.text(500),
    "args": kinds.array(),
    "kwargs": kinds.mapping(),
    "queue": kinds.text(200),
    "priority": kinds.whole(-100, 100),
    "run_after": kinds.moment(),
    "name": kinds.text(100),
    "group": kinds.text(100),
}


@endpoint(
    "POST",
    "v1/tasks",
    "Enqueue a call of a function that is registered with api=True",
    scope="enqueue",
    permissions=("add_queuedtask",),
    answer="Enqueued",
    body=_CALL,
    required=("func",),
    answers=(201,),
)
def create(call: Call) -> Any:
    """Enqueue a task."""
    options = dict(call.body)
    func = offered(options.pop("func"))
    args, kwargs = options.pop("args", []), options.pop("kwargs", {})
    try:
        # Not by async_task, which would take some of the keyword arguments for options: a hook may be any function.
        task = make_task(func, tuple(args), kwargs, TaskOptions.of(**options))
        with transaction.atomic(using=call.database):
            id = submit(task, False)
    except EnqueueError as error:
        raise invalid(**{error.field: error.reason}) from None
    except PgqError as error:
        raise Problem(400, str(error)) from None
    access.log(call.caller, "enqueue", f"enqueued {func} as task {id}", str(id))
    return Answer({"id": str(id)}, 201)


def offered(func: str) -> str:
    """Return the path of a function that REST may enqueue.

    Raises:
        Problem: 400.
    """
    entry = registry.registered(func)
    if entry is None or not entry.options.api:
        raise invalid(func="is no function that is registered with @task(api=True)")
    return func
