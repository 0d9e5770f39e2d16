"""Tasks by REST: found by pages, shown without what is secret, acted on, enqueued, waited for."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.db import InternalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from pgq.models import QueuedTask, Task
from pgq.store.bounded import reading
from pgq.tasks import async_task
from pgq.urls import found
from pgq.urls.endpoint import ENDPOINTS
from tests.functions import api as functions
from tests.support.admin import PLAIN, REGISTERED, finished, queued, sql
from tests.support.hand import claim, run_all

pytestmark = pytest.mark.django_db

OFFERED = functions.offered.path


def pages(caller: Any, **query: Any) -> list[dict[str, Any]]:
    """Return the tasks of all pages."""
    found, page = [], caller.get("v1/tasks", **query)
    while True:
        found += page["tasks"]
        if page["next"] is None:
            return found
        page = caller.get(page["next"].removeprefix("/pgq/"))


def test_pages_have_each_task_of_both_tables_once_newest_first(api: Any) -> None:
    caller = api("read")
    made = [queued() if number % 3 else finished(success=number % 2 == 0) for number in range(31)]
    whole = pages(caller, limit="4")
    assert [row["id"] for row in whole] == sorted(made, reverse=True)
    assert all("payload" not in row for row in whole)
    assert [row["id"] for row in pages(caller, state="failed", limit="1")] == sorted(
        (str(pk) for pk in Task.objects.filter(success=False).values_list("pk", flat=True)), reverse=True
    )


def test_a_filter_that_no_index_serves_reads_a_window_and_the_next_page_goes_on(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found, "WINDOW", 10)
    old = [queued(queue="rare"), finished(queue="rare")]
    for number in range(25):
        old += [queued(queue="rare")] if number in (12, 13, 14) else []
        queued()
    for _ in range(7):
        finished()
    caller = api("read")
    assert caller.get("v1/tasks", queue="rare")["tasks"] == []
    assert [row["id"] for row in pages(caller, queue="rare", limit="1")] == sorted(old, reverse=True)


def test_filters(api: Any) -> None:
    caller = api("read")
    now = datetime.now(UTC)
    rows = {
        "ready": queued(queue="a", group="g"),
        "waiting": queued(run_after=now + timedelta(hours=1)),
        "parked": queued(parked="odd"),
        "succeeded": finished(func="some.func"),
        "failed": finished(success=False, exception="builtins.KeyError"),
    }
    for state, id in rows.items():
        assert [row["id"] for row in pages(caller, state=state)] == [id]
        assert caller.get(f"v1/tasks/{id}")["state"] == state
    for name, value, state in (
        ("queue", "a", "ready"), ("group", "g", "ready"), ("func", "some.func", "succeeded"),
        ("exception", "builtins.KeyError", "failed"),
    ):  # fmt: skip
        assert [row["id"] for row in pages(caller, **{name: value})] == [rows[state]]
    old = queued(id=UUID(int=int((now - timedelta(days=2)).timestamp() * 1000) << 80 | 7 << 76 | 2 << 62))
    yesterday = (now - timedelta(days=1)).isoformat()
    assert [row["id"] for row in pages(caller, until=yesterday)] == [old]
    assert len(pages(caller, since=yesterday)) == 5


def test_a_page_takes_few_statements_and_they_write_nothing(api: Any) -> None:
    caller = api("read", "payload", "metrics")
    id = finished()
    queued()
    for each in ENDPOINTS:
        if each.method == "GET":
            path = each.path.replace("{id}", id).replace("{queue}", "default").replace("{group}", "g")
            with CaptureQueriesContext(
                connection,
            ) as made:
                caller.client.get(
                    "/pgq/" + path.replace("{func}", PLAIN).replace("{schedule}", "1"), headers=caller.headers
                )
            assert len(made) <= 20, (each.path, [query["sql"][:200] for query in made])
    before = sql("SHOW statement_timeout")
    with pytest.raises(InternalError, match="read-only"), reading("default", seconds=1):
        QueuedTask.objects.all().delete()
    with reading("default", seconds=1):
        assert sql("SHOW statement_timeout") == [("1s",)]
    assert sql("SHOW statement_timeout") == before
    assert sql("SHOW transaction_read_only") == [("off",)]


def test_a_statement_that_takes_too_long_is_ended_and_said(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgq.urls import endpoint

    monkeypatch.setattr(endpoint, "PATIENCE", 0.05)
    monkeypatch.setattr("pgq.status.snapshot.queued", lambda cursor: cursor.execute("SELECT pg_sleep(5)"))
    caller, began = api("read"), time.monotonic()
    refused = caller.get("v1/status", 503)
    assert "took longer" in refused["detail"]
    assert time.monotonic() - began < 3
    assert caller.get("v1/queues") == {"queues": []}


# ------------------------------------------------------------------------------------------------- secrets


@pytest.mark.fault("S13")
def test_values_are_shown_to_those_who_may_and_secrets_to_none(api: Any) -> None:
    live = async_task(
        REGISTERED, {"user": "x", "password": "hunter2"}, api_key="hunter2", other={"$tag": 1, "token": "hunter2"}
    )
    hidden = async_task(REGISTERED, "hunter2", sensitive=True)
    done = finished(args='["hunter2"]', result='"hunter2"', options='{"sensitive": true}')
    failed = finished(success=False, message="the message", args="[1]", kwargs='{"a": 2}')
    reader, all_of_it = api("read"), api("read", "payload")
    for id in (live, hidden, done, failed):
        assert "hunter2" not in json.dumps(reader.get(f"v1/tasks/{id}"))
        assert "the message" not in json.dumps(reader.get(f"v1/tasks/{id}"))
        reader.get(f"v1/tasks/{id}", 403, include="payload")
        reader.get(f"v1/tasks/{id}/result", 403, include="payload")
        assert "hunter2" not in json.dumps(all_of_it.get(f"v1/tasks/{id}", include="payload"))
    shown = all_of_it.get(f"v1/tasks/{live}", include="payload")["payload"]
    assert shown["args"] == [{"user": "x", "password": "********"}]
    assert shown["kwargs"]["api_key"] == "********"
    assert ["token", "********"] in shown["kwargs"]["other"]["$dict"]
    assert all_of_it.get(f"v1/tasks/{hidden}", include="payload")["payload"]["args"].startswith("<hidden: ")
    shown = all_of_it.get(f"v1/tasks/{failed}/result", include="payload")["payload"]
    assert (shown["args"], shown["kwargs"], shown["message"]) == ([1], {"a": 2}, "the message")


@pytest.mark.fault("S19")
@pytest.mark.parametrize("value", ["[" * 90 + "]" * 90, "[" + "9" * 5000 + "]", '["' + "x" * 1_100_000 + '"]'])
def test_whatever_a_row_holds_its_page_comes(api: Any, value: str) -> None:
    caller = api("read", "payload")
    id = queued(args=value, func="\u2028<script>", name="\x1b[31m")
    shown = caller.get(f"v1/tasks/{id}", include="payload")
    assert len(json.dumps(shown)) < 100_000


@pytest.mark.fault("S10", "S12")
def test_a_login_sees_what_the_admin_shows_it(api: Any) -> None:
    rows = {"queuedtask": queued(), "success": finished(), "failure": finished(success=False)}
    user = User.objects.create_user("staff", is_staff=True)
    for model, id in rows.items():
        user.user_permissions.set(Permission.objects.filter(codename=f"view_{model}"))
        client = Client()
        client.force_login(User.objects.get())
        assert [row["id"] for row in client.get("/pgq/v1/tasks").json()["tasks"]] == [id]
        for other in rows.values():
            for path in (f"v1/tasks/{other}", f"v1/tasks/{other}/result", f"v1/tasks/{other}/why"):
                assert client.get(f"/pgq/{path}").status_code == (
                    404 if other != id else 202 if "result" in path and model == "queuedtask" else 200
                )


# ------------------------------------------------------------------------------------------------- actions


def test_actions_say_what_they_did_and_409_where_they_make_no_sense(api: Any, session: Any, oracle: Any) -> None:
    caller = api("act")
    waiting, ready = async_task(REGISTERED, "w", run_after=3600), async_task(REGISTERED, "r")
    caller.post(f"v1/tasks/{waiting}/retry", status=409)
    caller.post(f"v1/tasks/{ready}/run-now", status=409)
    assert caller.post(f"v1/tasks/{waiting}/run-now") == {"id": waiting, "done": "made ready"}
    assert caller.post(f"v1/tasks/{ready}/cancel") == {"id": ready, "done": "cancelled"}
    run_all(session())
    assert (oracle.ends("w"), oracle.ends("r")) == (1, 0)
    for id in (waiting, ready):
        caller.post(f"v1/tasks/{id}/cancel", status=409)
        assert caller.post(f"v1/tasks/{id}/retry")["done"] == "put back into the queue"
        caller.post(f"v1/tasks/{id}/retry", status=409)
    for action in ("cancel", "retry", "run-now"):
        caller.post(f"v1/tasks/{'0' * 32}/{action}", status=404)
    assert claim(session())
    assert caller.post(f"v1/tasks/{ready}/cancel", status=202)["done"] == "told to stop"


def test_a_queue_is_paused_and_resumed(api: Any, session: Any) -> None:
    caller = api("act", "read")
    async_task(REGISTERED, cluster="mail/out")
    assert caller.post("v1/queues/mail/out/pause") == {"queue": "mail/out", "done": "paused"}
    assert caller.get("v1/queues/mail/out")["paused"]
    assert claim(session()) == []
    caller.post("v1/queues/mail/out/resume")
    assert len(claim(session())) == 1


# ------------------------------------------------------------------------------------------------- enqueue


@pytest.mark.fault("S11", "S4")
def test_only_what_is_offered_is_enqueued_and_nothing_of_a_call_becomes_an_option(
    api: Any, session: Any, oracle: Any
) -> None:
    caller = api("enqueue")
    for func in ("os.system", REGISTERED, "tests.functions.api.__builtins__", "no.such"):
        assert "func" in caller.post("v1/tasks", {"func": func}, 400)["errors"]
    body = {
        "func": OFFERED,
        "args": [1],
        "kwargs": {"hook": "os.system", "sync": True, "q_options": {"hook": "os.system"}},
    }
    id = caller.post("v1/tasks", body, 201)["id"]
    row = QueuedTask.objects.get(pk=id)
    assert (row.hook, row.kwargs["hook"], row.args) == (None, "os.system", (1,))
    tagged = {"func": OFFERED, "args": [{"$callable": "os.system"}], "kwargs": {}}
    row = QueuedTask.objects.get(pk=caller.post("v1/tasks", tagged, 201)["id"])
    assert row.args == ({"$callable": "os.system"},)
    at = datetime.now(UTC) + timedelta(hours=1)
    options = {"queue": "q", "priority": 5, "name": "n", "group": "g", "run_after": at.isoformat()}
    row = QueuedTask.objects.get(pk=caller.post("v1/tasks", {"func": OFFERED, **options}, 201)["id"])
    assert (row.queue, row.priority, row.name, row.group, row.run_after) == ("q", 5, "n", "g", at)
    for wrong in ({"hook": "os.system"}, {"timeout": 1}, {"kwargs": []}, {"args": {}}, {"priority": 101}, {}):
        caller.post("v1/tasks", {"func": OFFERED, **wrong} if wrong else {}, 400)
    assert "kwargs" in str(caller.post("v1/tasks", {"func": "tests.functions.api.strict", "kwargs": {"b": 1}}, 400))
    run_all(session())
    assert Task.objects.get(pk=id).success


# ------------------------------------------------------------------------------------------------- waiting


@pytest.mark.django_db(transaction=True)
def test_a_result_is_waited_for(api: Any, session: Any, oracle: Any) -> None:
    caller = api("read", "payload")
    id = async_task(REGISTERED, "v")
    assert caller.get(f"v1/tasks/{id}/result", 202)["state"] == "ready"
    began = time.monotonic()
    assert caller.get(f"v1/tasks/{id}/result", 202, wait="0.2")["state"] == "ready"
    assert 0.2 <= time.monotonic() - began < 5
    pid, held = sql("SELECT pg_backend_pid()")[0][0], []

    def settle() -> None:
        own = session()
        held.extend(own.execute("SELECT pid FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall())
        run_all(own)

    settling = threading.Timer(0.5, settle)
    settling.start()
    shown = caller.get(f"v1/tasks/{id}/result", wait="20", include="payload")
    settling.join()
    assert (shown["state"], shown["payload"]["result"]) == ("succeeded", "v")
    assert held == [], "who waits holds a connection"
    assert time.monotonic() - began < 10
    caller.get(f"v1/tasks/{'0' * 32}/result", 404, wait="20")
