"""The routes that django-cfg's module for Django-Q2 had, with the shapes of October 2025, for pages that ask for them.

    path("cfg/dashboard/api/django_q2/", include("pgq.urls.django_cfg"))

They only read, and are as closed as all others. Two numbers are right that were not there: a schedule that fires
for ever (repeats -1) is active, and the cluster runs if a pool has been heard of lately, not if a task has run lately.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.http import JsonResponse

from pgq.models import Schedule, Task
from pgq.recurrence import moments
from pgq.status import metrics, values
from pgq.status.pools import Stat
from pgq.store import overview
from pgq.store import pools as store_pools
from pgq.urls import found, kinds
from pgq.urls.endpoint import Call, Endpoint, endpoint, patterns

__all__ = ["app_name", "urlpatterns"]

#: Process-wide because routes are.
ENDPOINTS: list[Endpoint] = []
#: Schedules that are listed, and characters of a result.
_SCHEDULES, _RESULT = 1_000, 1_000


@endpoint(
    "GET",
    "",
    "Show the other three together",
    scope="read",
    permissions=("view_dashboard", "view_schedule"),
    answer="",
    into=ENDPOINTS,
)
def everything(call: Call) -> Any:
    """Return status, schedules and the last ten tasks."""
    return {"status": _status(call), "schedules": _schedules(call), "recent_tasks": _tasks(call, 10)}


@endpoint(
    "GET", "status/", "Tell how things stand", scope="read", permissions=("view_dashboard",), answer="", into=ENDPOINTS
)
def status(call: Call) -> Any:
    """Return counts, those of tasks of the last 24 hours."""
    return _status(call)


@endpoint(
    "GET", "schedules/", "List the schedules", scope="read", permissions=("view_schedule",), answer="", into=ENDPOINTS
)
def schedules(call: Call) -> Any:
    """Return the schedules, the next first."""
    return JsonResponse(_schedules(call), safe=False)


@endpoint(
    "GET",
    "tasks/",
    "List the last finished tasks",
    scope="read",
    answer="",
    query={"limit": kinds.whole(1, 200)},
    into=ENDPOINTS,
)
def tasks(call: Call) -> Any:
    """Return the tasks that were enqueued last, of those that have finished."""
    return JsonResponse(_tasks(call, call.query.get("limit", 20)), safe=False)


def _status(call: Call) -> dict[str, Any]:
    end = moments.now()
    ended = {
        one.key: int(one.total)
        for one in metrics.series(call.cursor, "ended", start=end - timedelta(days=1), end=end, by="outcome")
    }
    total, active, _ = overview.schedule_counts(call.cursor)
    number, succeeded = sum(ended.values()), ended.get("succeeded", 0)
    return {
        "cluster_running": any(Stat.of(pool).is_alive for pool in store_pools.pools(call.cursor)),
        "total_schedules": total,
        "active_schedules": active,
        "recent_tasks": number,
        "successful_tasks": succeeded,
        "failed_tasks": number - succeeded,
    }


def _schedules(call: Call) -> list[dict[str, Any]]:
    rows = Schedule.objects.using(call.database).order_by("next_run", "pk")
    names = ("id", "name", "func", "schedule_type", "repeats", "next_run", "last_slot")
    return [
        {
            **{name: row[name] for name in names[:5]},
            "next_run": found.at(row["next_run"]),
            "last_run": found.at(row["last_slot"]),
        }
        for row in rows.values(*names)[:_SCHEDULES]
    ]


def _tasks(call: Call, limit: int) -> list[dict[str, Any]]:
    allowed = found.finished_for(call.caller)
    if allowed is None:
        return []
    fields = ("id", "name", "func", "started", "stopped", "success", "options", "value", "message")
    rows = Task.objects.using(call.database).filter(allowed).order_by("-pk").only(*fields)[:limit]
    return [
        {
            "id": row.pk,
            "name": row.display_name,
            "func": row.func,
            "started": found.at(row.started),
            "stopped": found.at(row.stopped),
            "success": row.success,
            "result": _result(row) if call.caller.may("payload") else None,
        }
        for row in rows
    ]


def _result(row: Task) -> str | None:
    """Return the start of what a task returned, or of why it failed, as a text; secrets masked."""
    if not row.success:
        return None if row.message is None else row.message[:_RESULT]
    value = values.for_programs(row, "value")
    return None if value is None else (value if isinstance(value, str) else json.dumps(value))[:_RESULT]


#: The namespace of the names of routes: ``reverse("pgq:...")``.
app_name = "pgq_django_cfg"
#: What ``include`` takes.
urlpatterns = patterns(ENDPOINTS)
