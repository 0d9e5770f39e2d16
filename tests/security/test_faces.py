"""What each face owes against S7 to S14 that no test of its own room holds: the table of docs/explain/security.md."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from pgq import health as health_view
from pgq.admin.dashboard import site
from pgq.conf.tokens import SCOPES
from pgq.models import QueuedTask, Task
from pgq.store import overview
from pgq.tasks import set_limit
from pgq.urls.endpoint import ENDPOINTS
from tests.support.admin import finished, queued, snapshot, sql, url
from tests.support.rest import api

__all__ = ["api"]
pytestmark = pytest.mark.django_db

XSS = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
HOSTILE = ["'; DROP TABLE pgq_queue; --", "%", "_", "\\", '"; --', "x" * 190, "\u202e\x1b[2J", "$1", "{0}", "a\r\nb"]
#: What a terminal or a log would obey.
OBEYED = "no\r\nforged line\x1b[2J\x9b31m\u202e\u2028"


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:pgq_dashboard_{name}", args=args)


# ------------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.fault("S7")
@pytest.mark.parametrize("text", HOSTILE)
def test_a_filter_is_data_on_each_face(admin_client: Client, api: Any, text: str) -> None:
    hit, other = queued(queue=text, group=text, name=text), queued(queue="other", name="other")
    sql("SELECT pgq_resume(%s)", text)
    caller = api()
    for name in ("queue", "group"):
        assert [row["id"] for row in caller.get("v1/tasks", **{name: text})["tasks"]] == [hit], name
    assert caller.get("v1/tasks", func=text)["tasks"] == []
    asked = {"action": "cancel", "filter": {"queue": text}}
    assert caller.post("v1/tasks/bulk", asked)["matches"] == {"count": 1, "exact": True}
    assert caller.post("v1/marks", {"label": text}, 201) == {"label": text}
    for name in ("queue", "q", "group", "function", "o", "p", "e"):
        # 400: Django's refusal of a lookup that is not offered.
        for model in ("queuedtask", "failure", "schedule"):
            assert admin_client.get(url(model), {name: text}).status_code in (200, 302, 400)
    for name in ("tasks", "audit", "schedules", "functions", "errors"):
        for key in ("q", "state", "before", "user", "page", "sort", "range"):
            assert admin_client.get(page(name), {key: text}).status_code == 200, (name, key)
    call_command("pgq_queues", "cancel", "--queue", text)
    assert Task.objects.filter(pk=hit).exists()
    assert QueuedTask.objects.filter(pk=other).exists(), "it was a pattern, or worse"


@pytest.mark.fault("S7", "S19")
def test_no_address_and_no_form_breaks_a_page(admin_client: Client) -> None:
    for part in ("a_00b", "%00", "x" * 5000, "\udcff", "_", "%2e%2e", "\u202e"):
        quoted = quote(part, safe="%", errors="surrogateescape")
        for one in (*site.PAGES, *site.DashboardAdminMixin.acts):
            route = one.route
            for name in ("name", "path", "fingerprint", "id", "group", "scope"):
                route = route.replace(f"<str:{name}>", quoted)
            for method in (admin_client.get, admin_client.post):
                response = method(f"/admin/pgq/dashboard/{route}")
                assert response.status_code in (200, 302, 400, 404, 405), (one.name, part)
    for given in ({"concurrency": "9" * 30}, {"rate": "9" * 30, "period": "1"}, {"rate": "1", "period": "1e300"}):
        form = {"scope": "key", "name": "a\0b", "order": "fifo"}
        assert admin_client.post(page("new_limit"), {**form, **given}).status_code == 302
        assert admin_client.post(page("new_limit"), {**form, "name": "n", **given}).status_code == 302


# ------------------------------------------------------------------------------------------------- what is shown


@pytest.mark.fault("S8")
def test_marks_findings_limits_numbers_and_the_audit_are_escaped(admin_client: Client, admin_user: User) -> None:
    sql("SELECT pgq_mark(%s)", XSS)
    sql("INSERT INTO pgq_finding (\"check\", status, detail, advice) VALUES (%s, 'problem', %s, %s)", XSS, XSS, XSS)
    set_limit(XSS, concurrency=0)
    queued(key=XSS, queue=XSS, name=XSS, group=XSS)
    sql(
        "INSERT INTO pgq_metric (span, at, queue, func, succeeded, failed, run_us_sum, run_us_max, run_from, run_hist)"
        " VALUES (1, date_trunc('minute', now()) - interval '1 minute', %s, %s, 9, 1, 10, 10, 1, '{10}')",
        XSS, XSS,
    )  # fmt: skip
    admin_client.post(page("pause", "a" + XSS.replace("/", "_2F")))
    assert LogEntry.objects.get().object_repr == "a" + XSS
    pages = [page(one.name) for one in site.PAGES if "<" not in one.route]
    seen = 0
    for path in (
        *pages,
        page("new_limit"),
        page("function", XSS.replace("/", "_2F")),
        page("queue", XSS.replace("/", "_2F")),
    ):
        shown = admin_client.get(path).content.decode()
        assert "<script>alert" not in shown, path
        assert "<img src=x" not in shown, path
        seen += "&lt;script&gt;alert" in shown
    assert seen > 7


@pytest.mark.fault("S13")
def test_secrets_within_dataclasses_and_unreadable_json_are_masked(admin_client: Client) -> None:
    """The second has a number that Python refuses to read, so its JSON can be searched only."""
    label = {"$dataclass": ["shop.Login", {"user": "ann", "password": "hunter2"}]}
    big = "9" * 5000
    stored = [
        json.dumps({"login": label}),
        json.dumps({"many": [label, {"$dict": [["api_key", "hunter2"], ["user", "ann"]]}]}),
        f'{{"user": "ann", "password": {{"a": ["hunter2"]}}, "n": {big}}}',
        f'{{"user": "ann", "n": {big}, "token": 227722, "x": [["secret", "hunter2"], "password"]}}',
        f'{{"user": "ann", "a": "\\"", "n": {big}, "x": {{"password": "a\\"hunter2"}}}}',
    ]
    for kwargs in stored:
        for pk, model, field in (
            (queued(kwargs=kwargs), "queuedtask", "kwargs"),
            (finished(result=kwargs), "success", "value"),
        ):
            shown = admin_client.get(url(model, "change", pk)).content.decode()
            shown += admin_client.get(url(model, "value", pk, field)).content.decode()
            shown += admin_client.get(page("task", pk)).content.decode()
            assert "hunter2" not in shown, kwargs[:100]
            assert "227722" not in shown
            assert shown.count("ann") >= 3


@pytest.mark.fault("S19")
def test_masking_what_cannot_be_read_takes_a_time_that_grows_with_it(admin_client: Client) -> None:
    for text in (
        f'["{chr(92)}"' + f'{chr(92)}"' * 300_000 + f'", {"9" * 5000}]',
        "[" + '"a",' * 200_000 + "9" * 5000 + "]",
    ):
        pk, began = queued(args=text), time.monotonic()
        assert admin_client.get(url("queuedtask", "value", pk, "args")).status_code == 200
        assert time.monotonic() - began < 5


# ------------------------------------------------------------------------------------------------- who asks


@pytest.mark.fault("S10", "S12")
def test_a_login_acts_by_rest_on_nothing_that_it_may_not_see() -> None:
    id, done = queued(), finished()
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=["cancel_queuedtask", "retry_task", "run_queuedtask"])
    )
    client = Client()
    client.force_login(User.objects.get())
    before = snapshot()
    for task in (id, done, "0" * 32):
        for action in ("cancel", "retry", "run-now"):
            assert client.post(f"/pgq/v1/tasks/{task}/{action}", content_type="application/json").status_code == 404, (
                task,
                action,
            )
    assert snapshot() == before


@pytest.mark.fault("S12", "S13")
def test_no_cache_keeps_a_page_and_a_stranger_is_told_nothing(admin_client: Client, api: Any, client: Client) -> None:
    pk = queued()
    own = [url("queuedtask"), url("queuedtask", "change", pk), url("queuedtask", "value", pk, "args"), page("tasks")]
    own += [page("task", pk), page("cancel", pk), page("tasks") + "?fragment=1"]
    for path in own:
        kept = admin_client.get(path)["Cache-Control"]
        assert {"private", "no-cache"} <= set(kept.split(", ")), (path, kept)
        assert Client().get(path).status_code == 302
    caller = api()
    for each in ENDPOINTS:
        if each.method == "GET" and "{" not in each.path:
            response = caller.client.get(f"/pgq/{each.path}", headers=caller.headers)
            assert response["Cache-Control"] == "no-store", each.path
            assert response["X-Content-Type-Options"] == "nosniff"


@pytest.mark.fault("S12", "S19")
def test_the_open_view_of_health_tells_a_word_and_waits_for_no_statement(
    rf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(queue="the queue", name="the name")
    assert health_view.health(rf.post("/")).status_code == 405
    response = health_view.health(rf.get("/", headers={"Host": "else.where"}))
    assert json.loads(response.content) in ({"status": "ok"}, {"status": "problem"})
    assert "no-store" in response["Cache-Control"]
    monkeypatch.setattr(health_view, "PATIENCE", 0.1)
    monkeypatch.setattr(overview, "check", lambda cursor, needed: cursor.execute("SELECT pg_sleep(5)"))
    began = time.monotonic()
    response = health_view.health(rf.get("/"))
    assert (response.status_code, json.loads(response.content)) == (503, {"status": "problem"})
    assert time.monotonic() - began < 3


# ------------------------------------------------------------------------------------------------- terminal and log


@pytest.mark.fault("S14")
@pytest.mark.parametrize(
    "command",
    [
        ("pgq_queues",), ("pgq_info",), ("pgq_check",), ("pgq_schedules",), ("pgq_monitor", "--view", "failures"),
        ("pgq_monitor", "--view", "schedules"), ("pgq_monitor", "--view", "queues"), ("pgq_why", "ID"),
        ("pgq_queues", "--json"), ("pgq_schedules", "--json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_terminal_is_told_nothing_that_it_would_obey(capsys: Any, command: tuple[str, ...]) -> None:
    pk = queued(queue=OBEYED, name=OBEYED, func=OBEYED, parked=OBEYED)
    finished(False, func=OBEYED, name=OBEYED, message=OBEYED, exception=OBEYED, queue=OBEYED)
    sql("INSERT INTO pgq_schedule (name, func, schedule_type, error) VALUES (%s, %s, 'H', %s)", OBEYED, OBEYED, OBEYED)
    # (pgq_check ends with 1: there is a problem.)
    with contextlib.suppress(SystemExit):
        call_command(*(pk if part == "ID" else part for part in command))
    printed = capsys.readouterr().out
    assert printed
    assert not any(char in printed for char in "\r\x1b\x9b\u202e\u2028")
    assert "\nforged line" not in printed


@pytest.mark.fault("S14")
def test_what_the_faces_log_is_one_line(
    api: Any, admin_client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the project's own format, which may escape nothing."""
    caller = api(*SCOPES)
    monkeypatch.setattr(logging.getLogger("pgq"), "propagate", True)
    queued(queue=OBEYED)
    with caplog.at_level(logging.INFO, logger="pgq"):
        caller.post("v1/marks", {"label": OBEYED}, 201)
        token = caller.post("v1/tasks/bulk", {"action": "cancel", "filter": {"queue": OBEYED}})["token"]
        caller.post("v1/tasks/bulk", {"token": token})
        monkeypatch.setattr(
            "pgq.status.snapshot.queue_depths", lambda cursor: cursor.execute("SELECT %s::uuid", [OBEYED])
        )
        monkeypatch.setattr(
            "pgq.admin.dashboard.queues.queue_depths",
            lambda cursor: cursor.execute("SELECT %s::integer / 0 FROM x", [1]),
        )
        caller.get("v1/queues", 400)
        admin_client.get(page("queues"))
    told = [record.getMessage() for record in caplog.records if record.name == "pgq"]
    assert len(told) >= 3
    assert [text for text in told if not text.isprintable()] == []
