"""What is done by REST is told to Django's log of the admin and to the receivers of `operator_action`."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from pgq.signals import operator_action
from pgq.tasks import async_task
from tests.support.admin import REGISTERED

pytestmark = pytest.mark.django_db


def test_what_a_user_does_is_in_djangos_log_and_what_anyone_does_is_signalled(api: Any, admin_user: User) -> None:
    heard: list[tuple[str, Any, str]] = []

    def hear(action: str, user: Any, object: str, **_: Any) -> None:
        heard.append((action, user, object))

    operator_action.connect(hear)
    try:
        client = Client()
        client.force_login(admin_user)
        id = async_task(REGISTERED)
        assert client.post(f"/pgq/v1/tasks/{id}/cancel", content_type="application/json").status_code == 200
        api("act").post("v1/queues/default/pause")
    finally:
        operator_action.disconnect(hear)
    assert heard == [("cancel", admin_user, id), ("pause", None, "default")]
    [entry] = LogEntry.objects.all()
    assert (entry.user, entry.object_id) == (admin_user, id)
    assert entry.get_change_message().startswith("By REST: cancelled task")


def test_a_database_that_is_none_of_pgqs_is_refused(api: Any) -> None:
    caller = api("read")
    assert "database" in caller.get("v1/status", 400, database="nowhere")["errors"]

    assert caller.get("v1/status", database="default")["pools"] == 0
