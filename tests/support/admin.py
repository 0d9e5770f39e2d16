"""Rows for the admin's pages, its users and its actions."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from pgq.ground import ids

REGISTERED = "tests.functions.oracle.registered"
PLAIN = "tests.app.tasks.add"


@pytest.fixture
def user_with(client: Client) -> Any:
    """Log a staff user in who has just these permissions."""
    numbers = itertools.count()

    def log_in(*codenames: str) -> Client:
        user = User.objects.create_user(f"user{next(numbers)}", password="x", is_staff=True)
        found = Permission.objects.filter(content_type__app_label="pgq", codename__in=codenames)
        assert {permission.codename for permission in found} == set(codenames)
        user.user_permissions.set(found)
        client.force_login(user)
        return client

    return log_in


def url(model: str, view: str = "changelist", *args: Any, query: str = "") -> str:
    return reverse(f"admin:pgq_{model}_{view}", args=args) + query


def sql(statement: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else None


def finished(success: bool = True, **columns: Any) -> str:
    """Write a finished task as write access to the table allows."""
    now = timezone.now()
    row = {
        "id": ids.new_id(),
        "success": success,
        "started": now - timedelta(seconds=2),
        "stopped": now,
        "enqueued_at": now,
        "func": PLAIN,
        "queue": "default",
        "result": "3" if success else None,
        "exception": None if success else "builtins.ValueError",
        "message": None if success else "no good",
        "traceback": None if success else "Traceback (most recent call last):\n  File x\nValueError: no good",
        **columns,
    }
    names = ", ".join(f'"{name}"' for name in row)
    sql(f"INSERT INTO pgq_task ({names}) VALUES ({', '.join(['%s'] * len(row))})", *row.values())
    return row["id"].hex if hasattr(row["id"], "hex") else row["id"]


def queued(**columns: Any) -> str:
    row = {"id": ids.new_id(), "func": REGISTERED, **columns}
    names = ", ".join(f'"{name}"' for name in row)
    sql(f"INSERT INTO pgq_queue ({names}) VALUES ({', '.join(['%s'] * len(row))})", *row.values())
    return row["id"].hex


def post_action(client: Client, model: str, action: str, *pks: Any, **more: Any) -> Any:
    return client.post(url(model), {"action": action, "_selected_action": list(pks), **more})


def schedule_data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "nightly",
        "func": REGISTERED,
        "arguments": "1, 'two'",
        "keywords": "",
        "schedule_type": "C",
        "cron": "30 3 * * *",
        "time_zone": "Europe/Berlin",
        "repeats": "-1",
        "overlap": "skip",
        "jitter": "0",
        "priority": "0",
        **changes,
    }


def snapshot() -> list[Any]:
    tables = ("pgq_queue", "pgq_task", "pgq_schedule")
    return [sorted(map(repr, sql(f"SELECT * FROM {table}"))) for table in tables] + [LogEntry.objects.count()]
