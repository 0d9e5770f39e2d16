"""Endpoints of what is seen at a glance: state, queues, pools, functions, errors, groups, findings."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from django.db import transaction
from django.db.models import Count, Max, Min

from pgq import __version__
from pgq.enqueue import registry
from pgq.errors import EnqueueError
from pgq.models import QueuedTask, Task
from pgq.status import findings, snapshot
from pgq.status.pools import Stat
from pgq.store import overview
from pgq.store import pools as store_pools
from pgq.tasks import control
from pgq.urls import access, found, kinds
from pgq.urls.endpoint import Call, endpoint
from pgq.urls.problems import unknown

#: Pools that are listed, tasks of a group that are counted of each table, failures that errors are made of.
_POOLS, _OF_GROUP, _FAILURES = 500, 10_000, 10_000


# ------------------------------------------------------------------------------------------------- state


@endpoint(
    "GET",
    "v1/status",
    "Tell how things stand",
    scope="read",
    permissions=("view_dashboard",),
    answer="Status",
)
def status(call: Call) -> Any:
    """Return the numbers of everything."""
    queued = snapshot.queued(call.cursor)
    finished = snapshot.finished(call.cursor)
    pools = [Stat.of(pool) for pool in store_pools.pools(call.cursor)]
    alive = [pool for pool in pools if pool.is_alive]
    schedules, active, faulty = overview.schedule_counts(call.cursor)
    return {
        "version": __version__,
        "at": found.at(overview.now(call.cursor)),
        "queued": {state: getattr(queued, state).as_json() for state in found.LIVE},
        "finished": {
            found.SUCCEEDED: finished.successes.as_json(),
            found.FAILED: finished.failures.as_json(),
        },
        "pools": len(alive),
        "workers": sum(len(pool.workers) for pool in alive),
        "schedules": {"all": schedules, "active": active, "faulty": faulty},
    }


@endpoint(
    "GET",
    "v1/doctor",
    "Check what should hold, and say what to do",
    scope="read",
    permissions=("view_dashboard",),
    answer="Findings",
)
def doctor(call: Call) -> Any:
    """Return the findings."""
    checks = findings.findings(call.cursor)
    return {"status": findings.overall(checks), "checks": [dataclasses.asdict(finding) for finding in checks]}


# ------------------------------------------------------------------------------------------------- queues


def _as_json(depth: overview.QueueDepth) -> dict[str, Any]:
    return {
        "queue": depth.queue,
        "ready": {"count": depth.ready, "exact": not depth.more},
        "running": depth.running,
        "oldest_ready_seconds": depth.oldest,
        "paused": depth.paused,
    }


@endpoint(
    "GET",
    "v1/queues",
    "List the queues in use",
    scope="read",
    permissions=("view_dashboard",),
    answer="Queues",
)
def queues(call: Call) -> Any:
    """Return the queues."""
    return {"queues": [_as_json(depth) for depth in snapshot.queue_depths(call.cursor)]}


@endpoint(
    "GET",
    "v1/queues/{queue}",
    "Show a queue",
    scope="read",
    permissions=("view_dashboard",),
    answer="Queue",
    refusals=(404,),
)
def queue(call: Call) -> Any:
    """Return one queue."""
    for depth in snapshot.queue_depths(call.cursor):
        if depth.queue == call.parts["queue"]:
            return _as_json(depth)
    raise unknown("queue")


@endpoint(
    "POST",
    "v1/queues/{queue}/pause",
    "Stop claims from a queue; running tasks finish",
    scope="act",
    permissions=("pause_queue",),
    answer="QueueDone",
    body={},
    refusals=(404,),
)
def pause(call: Call) -> Any:
    """Pause a queue."""
    return _switch(call, control.pause, "paused")


@endpoint(
    "POST",
    "v1/queues/{queue}/resume",
    "Allow claims from a queue again",
    scope="act",
    permissions=("pause_queue",),
    answer="QueueDone",
    body={},
    refusals=(404,),
)
def resume(call: Call) -> Any:
    """Resume a queue."""
    return _switch(call, control.resume, "resumed")


def _switch(call: Call, deed: Any, done: str) -> Any:
    name = call.parts["queue"]
    try:
        with transaction.atomic(using=call.database):
            deed(name)
    except EnqueueError:
        raise unknown("queue") from None
    access.log(call.caller, "pause" if done == "paused" else "resume", f"{done} queue {name!r}", name)
    return {"queue": name, "done": done}


# ------------------------------------------------------------------------------------------------- pools


@endpoint(
    "GET",
    "v1/workers",
    "List the pools and their workers",
    scope="read",
    permissions=("view_workerpool",),
    answer="Pools",
)
def workers(call: Call) -> Any:
    """Return the pools, those that are silent too."""
    return {"pools": [_pool(Stat.of(pool)) for pool in store_pools.pools(call.cursor)[:_POOLS]]}


def _pool(pool: Stat) -> dict[str, Any]:
    return {
        "id": found.id_of(pool.cluster_id).hex,
        "name": pool.name,
        "host": pool.host,
        "pid": pool.pid,
        "version": pool.version,
        "status": pool.status.lower(),
        "alive": pool.is_alive,
        "silent_seconds": pool.silent,
        "uptime_seconds": pool.uptime(),
        "queues": pool.queues,
        "exclude_queues": pool.exclude_queues,
        "workers": [
            {
                "number": each.number,
                "state": each.state,
                "pid": each.pid,
                "task": each.task,
                "seconds": each.seconds,
                "succeeded": each.succeeded,
                "failed": each.failed,
                "restarts": each.restarts,
            }
            for each in pool.processes
        ],
    }


# ------------------------------------------------------------------------------------------------- functions, errors


@endpoint(
    "GET",
    "v1/functions",
    "List the functions that are registered in this process",
    scope="read",
    permissions=("view_dashboard",),
    answer="Functions",
)
def functions(call: Call) -> Any:
    """Return the registered functions."""
    return {"functions": [_function(entry) for entry in registry.all_registered()]}


def _function(entry: registry.Registered) -> dict[str, Any]:
    options = entry.options
    return {
        "func": entry.path,
        "queue": options.queue,
        "priority": options.priority,
        "timeout": options.timeout,
        "max_attempts": options.max_attempts,
        "atomic": bool(options.atomic),
        "api": bool(options.api),
    }


@endpoint(
    "GET",
    "v1/functions/{func}",
    "Show a function that is registered in this process",
    scope="read",
    permissions=("view_dashboard",),
    answer="Function",
    refusals=(404,),
)
def function(call: Call) -> Any:
    """Return one function."""
    entry = registry.registered(call.parts["func"])
    if entry is None:
        raise unknown("function")
    return _function(entry)


@endpoint(
    "GET",
    "v1/errors",
    "Group the newest failures by function and exception",
    scope="read",
    permissions=("view_failure",),
    answer="Errors",
    query={"queue": kinds.text(200), "since": kinds.moment()},
)
def errors(call: Call) -> Any:
    """Return groups of failures, the most frequent first."""
    wanted = found.Filter(state=found.FAILED, queue=call.query.get("queue"), since=call.query.get("since"))
    condition = wanted.of_finished()
    assert condition is not None, "failures are finished"
    rows = Task.objects.using(call.database).filter(success=False).order_by("-pk")
    floor = rows.values_list("pk", flat=True)[_FAILURES : _FAILURES + 1].first()
    newest = rows.filter(condition) if floor is None else rows.filter(condition, pk__gt=floor)
    grouped = newest.order_by().values("func", "exception")
    # The ids are times, so the first and the last id say when.
    ends = grouped.annotate(number=Count("pk"), first=Min("enqueued_at"), last=Max("enqueued_at"))
    return {
        "exact": floor is None,
        "errors": [
            {
                "func": row["func"],
                "exception": row["exception"],
                "count": row["number"],
                "first_enqueued_at": found.at(row["first"]),
                "last_enqueued_at": found.at(row["last"]),
            }
            for row in ends.order_by("-number", "func", "exception")[:200]
        ],
    }


@endpoint(
    "GET",
    "v1/groups/{group}",
    "Count the tasks of a group by state",
    scope="read",
    permissions=("view_queuedtask", "view_success", "view_failure"),
    answer="Group",
    refusals=(404,),
)
def group(call: Call) -> Any:
    """Return how far a group is."""
    name = call.parts["group"]
    live = list(
        QueuedTask.objects.using(call.database)
        .filter(group=name)
        .values("lock", "parked", "run_after", "remaining")[: _OF_GROUP + 1]
    )
    ended = list(
        Task.objects.using(call.database).filter(group=name).values_list("success", flat=True)[: _OF_GROUP + 1]
    )
    if not live and not ended:
        raise unknown("group")
    states = Counter(map(found.state_of, live[:_OF_GROUP]))
    states.update(found.SUCCEEDED if success else found.FAILED for success in ended[:_OF_GROUP])
    return {
        "group": name,
        "exact": max(len(live), len(ended)) <= _OF_GROUP,
        "states": {state: states.get(state, 0) for state in found.STATES},
    }
