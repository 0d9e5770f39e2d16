"""The shapes of django-cfg's module for Django-Q2."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import include, path

from pgq.ground.ids import new_id
from pgq.tasks import schedule
from tests.support.admin import PLAIN, finished, sql

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]
urlpatterns = [path("cfg/dashboard/api/django_q2/", include("pgq.urls.django_cfg"))]
ROOT = "/cfg/dashboard/api/django_q2/"


def get(caller: Any, where: str = "", **query: str) -> Any:
    response = caller.client.get(ROOT + where, query, headers=caller.headers)
    assert response.status_code == 200, response.content
    return json.loads(response.content)


def test_the_shapes(api: Any) -> None:
    caller = api("read", "payload")
    nightly = schedule(PLAIN, name="nightly", schedule_type="C", cron="0 3 * * *")
    ended = schedule(PLAIN, name="ended", schedule_type="D", repeats=0)
    done = finished(result='{"password": "hunter2", "n": 1}', name="one")
    failed = finished(success=False, message="no good")
    finished(result='"hunter2"', options='{"sensitive": true}')
    sql(
        "INSERT INTO pgq_metric (span, at, queue, func, succeeded, failed, cancelled) "
        "VALUES (10, date_trunc('hour', now()) - interval '1 h', 'q', 'f', 5, 2, 1)"
    )
    status = get(caller, "status/")
    assert status == {
        "cluster_running": False, "total_schedules": 2, "active_schedules": 1, "recent_tasks": 8,
        "successful_tasks": 5, "failed_tasks": 3,
    }  # fmt: skip
    sql("INSERT INTO pgq_worker (id, name, host, pid) VALUES (%s, 'p', 'h', 1)", new_id())
    assert get(caller, "status/")["cluster_running"]
    listed = {row["id"]: row for row in get(caller, "schedules/")}
    assert set(listed) == {nightly.pk, ended.pk}
    row = listed[nightly.pk]
    assert list(row) == ["id", "name", "func", "schedule_type", "repeats", "next_run", "last_run"]
    assert (row["name"], row["schedule_type"], row["repeats"], row["last_run"]) == ("nightly", "C", -1, None)
    tasks = {row["id"]: row for row in get(caller, "tasks/")}
    assert list(tasks[done]) == ["id", "name", "func", "started", "stopped", "success", "result"]
    assert json.loads(tasks[done]["result"]) == {"password": "********", "n": 1}
    assert (tasks[failed]["success"], tasks[failed]["result"]) == (False, "no good")
    assert "hunter2" not in json.dumps(list(tasks.values()))
    assert len(get(caller, "tasks/", limit="1")) == 1
    together = get(caller)
    assert {name: type(value) for name, value in together.items()} == {
        "status": dict, "schedules": list, "recent_tasks": list
    }  # fmt: skip


@pytest.mark.fault("S12")
def test_they_are_closed_and_only_read(api: Any) -> None:
    finished()
    for where in ("", "status/", "schedules/", "tasks/"):
        assert Client().get(ROOT + where).status_code == 401
        caller = api("act", "metrics")
        assert caller.client.get(ROOT + where, headers=caller.headers).status_code == 403
        caller = api("read")
        assert caller.client.post(ROOT + where, headers=caller.headers).status_code == 405
    assert get(api("read"), "tasks/")[0]["result"] is None
    assert caller.client.get(ROOT + "tasks/", {"limit": "201"}, headers=caller.headers).status_code == 400
    user = User.objects.create_user("staff", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get(ROOT + "tasks/").json() == []
    assert client.get(ROOT).status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_success"))
    client.force_login(User.objects.get())
    assert len(client.get(ROOT + "tasks/").json()) == 1
