"""Endpoints of what belongs together, and of what was done: groups with their chains and collectors, and the audit."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.apps import apps

from pgq.store import flows as store
from pgq.urls import found, kinds
from pgq.urls.endpoint import Call, endpoint
from pgq.urls.problems import unknown

#: Newest tasks that groups are looked for among, groups that are listed; tasks of one group, of each table.
_WINDOW, _LISTED, _TASKS = 10_000, 100, 1_000
#: Entries of Django's log that are looked at.
_REACH = 1_000


@endpoint(
    "GET",
    "v1/flows",
    "List the groups among the newest tasks, the one with the newest task first",
    scope="read",
    permissions=("view_dashboard",),
    answer="Flows",
)
def flows(call: Call) -> Any:
    """Return the groups."""
    groups = store.recent_groups(call.cursor, limit=_WINDOW, most=_LISTED)
    return {
        "flows": [
            {
                "group": one.group,
                "tasks": one.tasks,
                "live": one.live,
                "succeeded": one.succeeded,
                "failed": one.failed,
                "last_enqueued_at": found.at(one.last),
            }
            for one in groups
        ]
    }


@endpoint(
    "GET",
    "v1/flows/{group}",
    "Show the tasks of a group, their collectors, and the links that follow in their chains",
    scope="read",
    permissions=("view_dashboard",),
    answer="Flow",
    refusals=(404,),
)
def flow(call: Call) -> Any:
    """Return one group."""
    tasks = store.flow(call.cursor, call.parts["group"], limit=_TASKS)
    if not tasks:
        raise unknown("group")
    return {
        "group": call.parts["group"],
        "exact": len(tasks) < _TASKS,
        "tasks": [
            {
                "id": task.id.hex,
                "name": task.name,
                "func": task.func,
                "state": task.state,
                "collects": task.collects,
                "follow": _links(task.chain),
            }
            for task in tasks
        ],
    }


def _links(chain: str | None) -> list[str]:
    try:
        links = json.loads(chain or "[]")
    except ValueError:
        # Options of a row from psql may hold anything.
        return []
    return [str(func)[:500] for func in links[:_LISTED]]


@endpoint(
    "GET",
    "v1/audit",
    "List what operators did, by Django's log: the newest first",
    scope="read",
    permissions=("view_dashboard",),
    answer="Audit",
    query={"user": kinds.text(150), "before": kinds.whole(1, 2**31 - 1), "limit": kinds.whole(1, 200)},
    refusals=(404,),
    reads=False,
)
def audit(call: Call) -> Any:
    """Return entries of the log, which is in the project's own database: of the newest thousand those about pgq."""
    if not apps.is_installed("django.contrib.admin"):
        raise unknown("log: the project has no admin")
    from django.contrib.admin.models import LogEntry
    from django.contrib.auth import get_user_model
    from django.contrib.contenttypes.models import ContentType

    limit = call.query.get("limit", 50)
    rows = LogEntry.objects.order_by("-pk")
    floor = rows.values_list("pk", flat=True)[_REACH : _REACH + 1].first() or 0
    own = list(ContentType.objects.filter(app_label="pgq").values_list("pk", flat=True))
    rows = rows.filter(pk__gt=floor, content_type__in=own)
    if "before" in call.query:
        rows = rows.filter(pk__lt=call.query["before"])
    if "user" in call.query:
        rows = rows.filter(**{f"user__{get_user_model().USERNAME_FIELD}": call.query["user"]})
    entries = list(rows.select_related("user", "content_type")[: limit + 1])
    following = None
    if len(entries) > limit:
        given = {name: value for name, value in call.request.GET.items() if name != "before"}
        following = f"{call.request.path}?{urlencode({**given, 'before': entries[limit - 1].pk})}"
    return {
        "entries": [
            {
                "id": entry.pk,
                "at": found.at(entry.action_time),
                "user": entry.user.get_username(),
                "kind": entry.content_type.model if entry.content_type else None,
                "object": entry.object_id,
                "name": entry.object_repr,
                "deed": str(entry.get_change_message() or entry.get_action_flag_display()),
            }
            for entry in entries[:limit]
        ],
        "next": following,
    }
