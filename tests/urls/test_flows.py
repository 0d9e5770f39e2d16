"""Groups as flows, and what operators did, by REST."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from pgq.tasks import async_chain, async_iter, async_task, cancel
from pgq.urls import flows
from tests.support.admin import REGISTERED, finished, queued

pytestmark = pytest.mark.django_db


def test_a_group_is_shown_with_its_collector_and_a_chain_with_what_follows(api: Any) -> None:
    caller = api("read")
    assert caller.get("v1/flows") == {"flows": []}
    collector = async_iter(REGISTERED, [1, 2, 3], q_options={"group": "receipts"})
    async_chain([(REGISTERED, 1), (REGISTERED, 2)], group="chain")
    finished(group="receipts")
    cancelled = async_task(REGISTERED, 4, group="receipts")
    cancel(cancelled)
    listed = {each["group"]: each for each in caller.get("v1/flows")["flows"]}
    assert (listed["receipts"]["succeeded"], listed["receipts"]["failed"]) == (1, 1)
    assert listed["chain"]["live"] == 1
    shown = caller.get("v1/flows/receipts")
    assert shown["exact"]
    states = {task["id"]: task["state"] for task in shown["tasks"]}
    assert states[cancelled] == "cancelled"
    assert [task["id"] for task in shown["tasks"] if task["collects"]] in ([], [str(collector)])
    [link] = caller.get("v1/flows/chain")["tasks"]
    assert link["follow"] == [REGISTERED]
    caller.get("v1/flows/nothing", 404)
    # Options from psql may hold anything.
    queued(group="odd", options='{"chain": {"func": 1}, "collector": 7}')
    assert caller.get("v1/flows/odd")["tasks"][0]["follow"] == []


def test_what_operators_did_is_listed_by_pages(api: Any, admin_user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.force_login(admin_user)
    for _ in range(3):
        client.post("/pgq/v1/queues/mail/pause", content_type="application/json")
    LogEntry.objects.create(user=admin_user, object_repr="of another app", action_flag=1)
    caller = api("read")
    first = caller.get("v1/audit", limit=2)
    assert [entry["deed"] for entry in first["entries"]] == ["By REST: paused queue 'mail'."] * 2
    assert (first["entries"][0]["user"], first["entries"][0]["object"]) == (admin_user.username, "mail")
    second = caller.get(first["next"].removeprefix("/pgq/"))
    assert len(second["entries"]) == 1
    assert second["next"] is None
    assert caller.get("v1/audit", user="nobody")["entries"] == []
    monkeypatch.setattr(flows, "_REACH", 1)
    assert caller.get("v1/audit")["entries"] == [], "the newest is of another app"
    assert "before" in caller.get("v1/audit", 400, before="x")["errors"]


def test_a_project_without_the_admin_has_no_log(api: Any, settings: Any) -> None:
    caller = api("read")
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django.contrib.admin"]
    caller.get("v1/audit", 404)
