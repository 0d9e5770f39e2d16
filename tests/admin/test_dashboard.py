"""The dashboard: every page within its bounds, who may see and do what, what is told of what was done."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from pgq import signals
from pgq.admin.dashboard import alike, look, numbers
from pgq.admin.dashboard.tasks import parse
from pgq.ground import ids
from pgq.models import Limit, QueuedTask, Task
from pgq.tasks import async_chain, async_iter, async_task, cancel, pause, schedule, set_limit
from tests.support.admin import PLAIN, REGISTERED, finished, queued, sql
from tests.support.pool_rows import ID, WORKERS, make_pool

pytestmark = pytest.mark.django_db
PAGES = (
    "changelist", "queues", "limits", "functions", "marks", "flows", "errors", "tasks", "workers", "schedules",
    "doctor", "audit",
)  # fmt: skip
#: Statements of one page; the session, the user and the rights of the user included.
MOST = 20


def address(page: str, *args: Any, query: str = "") -> str:
    return reverse(f"admin:pgq_dashboard_{page}", args=args) + query


def text_of(client: Client, page: str, *args: Any, query: str = "") -> str:
    response = client.get(address(page, *args, query=query))
    assert response.status_code == 200
    return response.content.decode().replace("<wbr>", "")


def something_of_each() -> dict[str, str]:
    make_pool(workers=WORKERS)
    done, failed = finished(), finished(False)
    schedule(REGISTERED, 1, name="nightly", schedule_type="C", cron="0 3 * * *")
    waiting = async_task(REGISTERED, 1, run_after=3600)
    ready = async_task(REGISTERED, 2, queue="mail")
    return {"done": done, "failed": failed, "waiting": waiting, "ready": ready}


def fingerprint() -> str:
    return str(sql("SELECT pgq_fingerprint(func, exception, message) FROM pgq_task WHERE NOT success LIMIT 1")[0][0])


@pytest.mark.parametrize("use_tz", [True, False])
def test_every_page_opens_within_twenty_statements(admin_client: Client, settings: Any, use_tz: bool) -> None:
    settings.USE_TZ = use_tz
    tasks = something_of_each()
    pool = str(sql("SELECT id FROM pgq_worker")[0][0])
    every = [(page, ()) for page in PAGES] + [("task", (id,)) for id in tasks.values()]
    every += [
        ("function", (PLAIN,)),
        ("queue", ("mail",)),
        ("error", (fingerprint(),)),
        ("pool", (pool,)),
        ("task", (ids.new_id().hex,)),
    ]
    for page, args in every:
        with CaptureQueriesContext(connection) as statements:
            shown = text_of(admin_client, page, *args)
        assert "pgq-fault" not in shown, (page, shown.split("pgq-fault")[1][:300])
        assert len(statements) <= MOST, (page, len(statements))
        assert "style=" not in shown.split('<div class="pgq-dash">')[1], "a strict policy forbids it"


def test_it_is_in_the_index_of_the_admin(user_with: Any) -> None:
    client = user_with("view_dashboard")
    assert address("changelist") in client.get(reverse("admin:index")).content.decode()
    assert client.get(address("changelist")).status_code == 200


def test_who_may_not_see_it_sees_nothing_of_it(user_with: Any, client: Client) -> None:
    tasks = something_of_each()
    everything = [address(page) for page in PAGES]
    everything += [address("task", tasks["done"]), address("queue", "mail"), address("pause", "mail")]
    for path in everything:
        assert client.get(path).status_code == 302, "to the login"
    other = user_with("view_queuedtask", "retry_task", "pause_queue")
    assert address("changelist") not in other.get(reverse("admin:index")).content.decode()
    for path in everything:
        assert other.get(path).status_code == 403, path
        assert other.post(path).status_code == 403, path


def test_each_act_needs_its_permission_also_when_its_post_is_forged(user_with: Any) -> None:
    tasks = something_of_each()
    acts = {
        ("pause_queue",): address("pause", "mail"),
        ("retry_task",): address("retry", tasks["failed"]),
        ("cancel_queuedtask",): address("cancel", tasks["ready"]),
        ("run_queuedtask",): address("run_now", tasks["waiting"]),
        ("operate_dashboard", "retry_task"): address("retry_alike", fingerprint()),
    }
    before = (list(QueuedTask.objects.values()), list(Task.objects.values()))
    client = user_with("view_dashboard", "view_queuedtask", "view_failure")
    for path in acts.values():
        assert client.get(path).status_code == 403
        assert client.post(path).status_code == 403
    shown = "".join(text_of(client, "task", id) for id in tasks.values()) + text_of(client, "queue", "mail")
    assert not any(path in shown for path in acts.values()), "no link either"
    assert (list(QueuedTask.objects.values()), list(Task.objects.values())) == before
    # One permission opens one act.
    for needs, path in acts.items():
        allowed = user_with("view_dashboard", *needs)
        assert allowed.get(path).status_code == 200
        others = [other for more, other in acts.items() if not set(more) <= set(needs)]
        assert [allowed.post(other).status_code for other in others] == [403] * len(others)
    client = user_with("view_dashboard", "operate_dashboard")
    assert client.post(address("retry_alike", fingerprint())).status_code == 403, "it takes both"
    assert not LogEntry.objects.exists()


def test_a_post_needs_the_token(admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    async_task(REGISTERED, 1, queue="mail")
    assert client.post(address("pause", "mail")).status_code == 403
    assert client.get(address("pause", "mail")).status_code == 200
    assert not sql("SELECT FROM pgq_lane WHERE paused")


def test_a_queue_is_paused_and_resumed(user_with: Any) -> None:
    async_task(REGISTERED, 1, queue="a/b c")
    client = user_with("view_dashboard", "pause_queue")
    heard: list[dict[str, Any]] = []

    def receiver(sender: Any, signal: Any, **arguments: Any) -> None:
        heard.append(arguments)

    signals.operator_action.connect(receiver)
    try:
        quoted = address("pause", "a_2Fb c")
        assert quoted in text_of(client, "queue", "a_2Fb c")
        assert "Pause the queue a/b c?" in client.get(quoted).content.decode()
        assert not sql("SELECT FROM pgq_lane WHERE paused"), "GET only asks"
        assert "Queue a/b c is paused." in client.post(quoted, follow=True).content.decode()
        assert sql("SELECT queue FROM pgq_lane WHERE paused") == [("a/b c",)]
        assert "Paused: no worker claims from it." in text_of(client, "queue", "a_2Fb c")
        client.post(address("resume", "a_2Fb c"))
    finally:
        signals.operator_action.disconnect(receiver)
    assert not sql("SELECT FROM pgq_lane WHERE paused")
    assert [(entry.object_repr, entry.change_message) for entry in LogEntry.objects.order_by("pk")] == [
        ("a/b c", "Queue a/b c is paused."),
        ("a/b c", "Queue a/b c is resumed."),
    ]
    assert [one["action"] for one in heard] == ["pause", "resume"]
    assert heard[0]["facts"] == {"queue": "a/b c"}
    assert "Queue a/b c is resumed." in text_of(client, "audit")


def test_limits_are_shown_set_and_dropped(user_with: Any) -> None:
    set_limit("stripe", concurrency=2, pin=False)
    sql("SELECT pgq_set_limit('mail', 0, rate => 100, period => 60, smooth => true, scope => 'queue')")
    for number in range(3):
        queued(key="stripe:<7>", args=json.dumps([number]))
    queued(queue="mail")
    reader = user_with("view_dashboard")
    shown = text_of(reader, "limits")
    assert "holds all" in shown
    assert "100 in 60 s, smooth" in shown
    assert "Set…" not in shown
    for page, args in (("new_limit", ()), ("set_limit", ("key", "stripe")), ("drop_limit", ("key", "stripe"))):
        assert reader.post(address(page, *args)).status_code == 403

    client = user_with("view_dashboard", "change_limit", "delete_limit")
    form = text_of(client, "set_limit", "queue", "mail")
    assert 'name="concurrency" min="0" step="1" value="0"' in form
    told: list[Any] = []
    signals.operator_action.connect(lambda **given: told.append(given), weak=False, dispatch_uid="limits")
    given = {"concurrency": "5", "rate": "10", "period": "0.5", "order": "strict"}
    assert client.post(address("set_limit", "key", "stripe"), given).status_code == 302
    row = "SELECT concurrency, rate, period, smooth, strict, pinned FROM pgq_limit WHERE name = "
    assert sql(row + "'stripe'") == [(5, 10, 0.5, False, True, True)]
    client.post(address("new_limit"), {"scope": "queue", "name": "slow", "concurrency": "1", "order": "fifo"})
    assert sql(row + "'slow'") == [(1, None, None, False, False, True)]
    # All digits stand in the form: what is posted as it was shown changes nothing.
    set_limit("many", concurrency=1_234_567, rate="2000001/3s")
    form = text_of(client, "set_limit", "key", "many")
    assert [f'value="{number}"' in form for number in (1_234_567, 2_000_001, 3)] == [True] * 3
    client.post(address("drop_limit", "queue", "mail"))
    assert sql(row + "'mail'") == []
    signals.operator_action.disconnect(dispatch_uid="limits")
    assert [one["action"] for one in told] == ["set_limit", "new_limit", "drop_limit"]
    assert [entry.object_repr for entry in LogEntry.objects.order_by("pk")] == ["stripe", "slow", "mail"]

    # What cannot be is said, and sets nothing.
    for wrong in ({"concurrency": "-1"}, {"concurrency": "x"}, {"rate": "5"}, {"rate": "5", "period": "nan"}):
        shown = client.post(address("set_limit", "key", "stripe"), wrong, follow=True).content.decode()
        assert "must be" in shown or "a rate is" in shown, wrong
    assert sql(row + "'stripe'")[0][0] == 5
    assert client.get(address("set_limit", "nonsense", "x")).status_code == 404
    assert LogEntry.objects.count() == 3


def test_a_task_is_run_again_and_cancelled_once(admin_client: Client) -> None:
    failed, live = finished(False), async_task(REGISTERED, 1)
    shown = text_of(admin_client, "task", failed)
    for words in ("no good", "Traceback (most recent call last)", "ValueError", "Run again…", "failed"):
        assert words in shown
    answer = admin_client.post(address("retry", failed), follow=True).content.decode()
    assert "It is in the queue, and runs as soon as a worker is free." in answer
    assert QueuedTask.objects.filter(pk=failed).exists()
    assert "Nothing was done" in admin_client.post(address("retry", failed), follow=True).content.decode()
    assert "Nothing was done" in admin_client.post(address("retry", live), follow=True).content.decode()
    # Nor does "run now", which is another permission, run a finished task again.
    done = finished()
    assert "Nothing was done" in admin_client.post(address("run_now", done), follow=True).content.decode()
    assert Task.objects.filter(pk=done).exists()
    admin_client.post(address("cancel", live))
    assert Task.objects.get(pk=live).exception == "pgq.errors.TaskCancelled"
    assert LogEntry.objects.count() == 2


def test_all_failures_of_one_kind_are_run_again(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "BATCH", 2)
    make_pool(workers=WORKERS)
    same = [finished(False, message=f"order {n} has no row 0x{n:x}f") for n in range(5)]
    other = finished(False, message="order 1 is late")
    shown = text_of(admin_client, "errors")
    assert shown.count("order 4 has no row") == 1
    kind = str(sql("SELECT pgq_fingerprint(func, exception, message) FROM pgq_task WHERE id = %s", same[0])[0][0])
    question = admin_client.get(address("retry_alike", kind)).content.decode()
    for words in ("Run again all 5 tasks", "5 tasks", "10 s, with 1 workers"):
        assert words in question
    answer = admin_client.post(address("retry_alike", kind), follow=True).content.decode()
    assert "5 tasks of ValueError in tests.app.tasks.add are in the queue again." in answer
    assert set(QueuedTask.objects.values_list("pk", flat=True)) == set(same)
    assert [task.pk for task in Task.objects.all()] == [other]
    assert LogEntry.objects.get().object_id == kind
    # What time does not allow is left, and told.
    sql("DELETE FROM pgq_queue")
    monkeypatch.setattr(alike, "SECONDS", -1)
    answer = admin_client.post(address("retry_alike", fingerprint()), follow=True).content.decode()
    assert "1 task left, for want of time" in answer
    assert Task.objects.filter(pk=other).exists()


def test_failures_that_another_was_faster_with_are_told(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, kept = finished(False, message="x 1"), finished(False, message="x 2")
    rows = alike.store.alike

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        found = rows(*args, **kwargs)
        sql("SELECT pgq_retry(%s)", gone)
        return found

    monkeypatch.setattr(alike.store, "alike", meanwhile)
    answer = admin_client.post(address("retry_alike", fingerprint()), follow=True).content.decode()
    assert "1 task of ValueError" in answer
    assert "1 task skipped: they are no failed tasks any more." in answer
    assert QueuedTask.objects.filter(pk=kept).exists()


def test_a_part_that_is_too_slow_says_so_and_the_page_still_comes(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    something_of_each()
    monkeypatch.setattr(look, "STATEMENT_SECONDS", 0.8)
    sql("ALTER TABLE pgq_task RENAME TO pgq_task_moved")
    sql("CREATE VIEW pgq_task AS SELECT t.* FROM pgq_task_moved t, LATERAL (SELECT pg_sleep(1)) s")
    shown = text_of(admin_client, "changelist")
    assert shown.count("Left out: it took longer than 0 s.") == 2, "the errors, and the last task of the schedule"
    assert "mail" in shown, "the others are there"
    # And nothing of it lasts: neither the timeout nor that nothing may be written.
    assert sql("SHOW statement_timeout") != [("200ms",)]
    sql("UPDATE pgq_lane SET low = 0")


def test_a_page_writes_nothing(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async_task(REGISTERED, 1)
    monkeypatch.setattr(
        "pgq.admin.dashboard.queues.queue_depths", lambda cursor: cursor.execute("DELETE FROM pgq_queue")
    )
    assert "read-only transaction" in text_of(admin_client, "queues")
    assert QueuedTask.objects.exists()


def test_a_fragment_is_the_part_that_changes(admin_client: Client) -> None:
    async_task(REGISTERED, 1, queue="mail")
    response = admin_client.get(address("errors", query="?fragment=1"))
    assert b"<html" not in response.content
    assert b"No task has failed." in response.content
    again = admin_client.get(address("errors", query="?fragment=1"), headers={"If-None-Match": response["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    finished(False)
    changed = admin_client.get(address("errors", query="?fragment=1"), headers={"If-None-Match": response["ETag"]})
    assert changed.status_code == 200
    with override_settings(DEBUG=True):
        assert 'part0;desc="Errors";dur=' in admin_client.get(address("errors"))["Server-Timing"]
    assert "Server-Timing" not in admin_client.get(address("errors"))


def test_a_page_says_how_often_it_is_read_anew(admin_client: Client) -> None:
    assert 'data-on="refreshes by itself every 5 s"' in text_of(admin_client, "queues")
    assert 'data-on="refreshes by itself every 30 s"' in text_of(admin_client, "doctor")


def test_the_doctor_finds_what_the_command_finds(admin_client: Client) -> None:
    Limit.objects.create(scope="key", name="left behind", concurrency=1)
    printed = StringIO()
    with contextlib.suppress(SystemExit):  # No pool runs, which is a problem.
        call_command("pgq_check", json=True, stdout=printed)
    found = {check["check"]: check["status"] for check in json.loads(printed.getvalue())["checks"]}
    assert (found["limits"], found["code"]) == ("warning", "ok")
    shown = text_of(admin_client, "doctor")
    rows = re.findall(
        r'data-label="check" class="">(\w+)</td><td data-label="status" class=""><span [^>]*>(\w+)<', shown
    )
    assert dict(rows) == found


def test_values_are_for_those_who_may_view_the_tasks(user_with: Any) -> None:
    failed = finished(False, args=json.dumps(["the argument"]), traceback="Traceback: the trace")
    done = finished(result=json.dumps("the result"))
    held = queued(args=json.dumps(["the argument"]))
    client = user_with("view_dashboard")
    for id in (failed, done, held):
        shown = text_of(client, "task", id)
        assert "shown to users who may view" in shown
        assert not any(words in shown for words in ("the argument", "the trace", "the result"))
    client = user_with("view_dashboard", "view_failure")
    assert "the trace" in text_of(client, "task", failed)
    assert "the result" not in text_of(client, "task", done)
    assert "the argument" not in text_of(client, "task", held)
    client = user_with("view_dashboard", "view_queuedtask", "view_success")
    assert "the result" in text_of(client, "task", done)
    assert "the argument" in text_of(client, "task", held)


def test_what_is_sensitive_or_a_secret_is_hidden(admin_client: Client) -> None:
    secret = queued(kwargs=json.dumps({"password": "hunter2", "user": "ann"}))
    shown = text_of(admin_client, "task", secret)
    assert "hunter2" not in shown
    assert "ann" in shown
    hidden = finished(False, args=json.dumps(["hunter2"]), options=json.dumps({"sensitive": True}))
    sql("INSERT INTO pgq_progress (task, text, log) VALUES (%s, 'hunter2', '[{\"message\": \"hunter2\"}]')", hidden)
    shown = text_of(admin_client, "task", hidden)
    assert "hunter2" not in shown
    assert "hidden" in shown


def test_hostile_rows_are_escaped_and_no_page_breaks(admin_client: Client) -> None:
    evil = "<script>alert(1)</script>'\"" + "x" * 300
    make_pool(
        name=evil, host=evil, queues=[evil], workers=[{"number": 0, "state": evil, "task": "?", "seconds": "x"}, 7]
    )
    failed = finished(
        False, name=evil, func=evil, queue=evil, exception=evil, message=evil, traceback=evil, group=evil, cluster=evil,
        history=json.dumps([7, None, {"attempt": [1], "exception": evil, "at": 9, "traceback": {"a": evil}}]),
        options=json.dumps({"chain": "no", "collector": 7, "collects": evil}),
    )  # fmt: skip
    live = queued(name=evil, func=evil, queue=evil, parked=evil, args="[1e400]", history='[{"postponed": 1e999}]')
    sql(
        "INSERT INTO pgq_progress (task, done, total, text, log) VALUES (%s, 'NaN', 0, %s, '[1, {\"at\": 1}]')",
        live,
        evil,
    )
    sql("INSERT INTO pgq_schedule (name, func, cron, schedule_type, error) VALUES (%s, %s, '61 * * * *', 'C', %s)",
        evil[:200], evil, evil)  # fmt: skip
    pool = str(sql("SELECT id FROM pgq_worker")[0][0])
    pages = [(page, ()) for page in PAGES] + [("task", (failed,)), ("task", (live,)), ("pool", (pool,))]
    pages.append(("error", (fingerprint(),)))
    for page, args in pages:
        shown = text_of(admin_client, page, *args)
        assert "<script>alert" not in shown, page
    for path in (address("task", "no-id"), address("pool", "no-id"), address("error", "x"), address("queue", "none")):
        assert admin_client.get(path).status_code == 404, path
    queries = (
        "?q=%00",
        "?before=x&state=y",
        "?q=since:9x",
        "?q=since:9999w",
        "?q=state:ready",
        "?q=func:%25_",
        "?page=-1",
    )
    for query in queries:
        text_of(admin_client, "tasks", query=query)
        text_of(admin_client, "schedules", query=query)
        text_of(admin_client, "audit", query=query)


def test_the_search_finds_tasks_in_either_table(admin_client: Client) -> None:
    failed = finished(False, func="shop.tasks.charge", queue="mail", message="card 7 refused", name="charge 7")
    done = finished(func="shop.tasks.send", queue="mail", group="g1")
    stopped = finished(False, exception="pgq.errors.TaskCancelled")
    ready = async_task(REGISTERED, 1, queue="mail")
    parked = queued(parked="no key")
    cancel(async_task(REGISTERED, 2, run_after=3600))

    def found(q: str = "", state: str = "") -> set[str]:
        response = admin_client.get(address("tasks"), {"q": q, "state": state})
        shown = response.content.decode()
        return {id for id in (failed, done, stopped, ready, parked) if address("task", id) in shown}

    assert found() == {failed, done, stopped, ready, parked}
    assert found("queue:mail") == {failed, done, ready}
    assert found("queue:mail", "failed") == {failed}
    assert found("", "cancelled") == {stopped}
    assert found("", "parked") == {parked}
    assert found("", "ready") == {ready}
    assert found("state:succeeded") == {done}
    assert found("func:shop") == {failed, done}
    assert found("message:refused") == {failed}
    assert found("exception:Cancelled since:1h") == {stopped}
    assert found("group:g1") == found("g1") == {done}
    assert found("charge 7") == {failed}
    assert found(ready) == {ready}
    assert found("shop.tasks.send") == {done}
    assert found("nothing like it") == set()
    assert parse("since:x a:b c").doubts != ()
    assert parse("since:x a:b c").term == "a:b c"


def test_pages_of_tasks_go_on_behind_the_last_one(admin_client: Client) -> None:
    every = [finished(name=f"number {n}") for n in range(60)] + [queued(name=f"number {n}") for n in range(60, 130)]
    seen: list[str] = []
    query = ""
    for _page in range(4):
        shown = text_of(admin_client, "tasks", query=query)
        seen += [id for id in every if address("task", id) in shown]
        if 'rel="next"' not in shown:
            break
        query = shown.split('rel="next" href="')[1].split('"')[0].partition("?")[2].replace("&amp;", "&")
        query = f"?{query}"
    assert sorted(seen) == sorted(every)
    assert len(seen) == 130


def test_what_is_read_is_bounded(admin_client: Client) -> None:
    """Of many ready tasks and results no page reads more than it shows, or than it says."""
    sql(
        "INSERT INTO pgq_queue (func, queue, priority)"
        " SELECT 'by.hand', 'q' || n % 20, n % 5 FROM generate_series(1, 30000) n"
    )
    sql(
        "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue, exception, message)"
        " SELECT pgq_uuid7(now() - n * interval '1 second'), n % 2 = 0, now(), now(), now(), 'f' || n % 50, 'q',"
        " CASE WHEN n % 2 = 1 THEN 'E' END, 'message ' || n FROM generate_series(1, 25000) n"
    )
    sql("ANALYZE pgq_queue")
    sql("ANALYZE pgq_task")
    for page, args, query, most in [
        ("queue", ("q1",), "", 5_000),
        ("errors", (), "", 10_500),
        ("tasks", (), "", 500),
        ("tasks", (), "?state=failed", 500),
        ("tasks", (), "?state=running", 500),
    ]:
        before = read_rows()
        shown = text_of(admin_client, page, *args, query=query)
        assert "pgq-fault" not in shown, page
        assert read_rows() - before < most, (page, query)


def read_rows() -> int:
    """How many rows this session's scans have returned, by index or not, of pgq's tables and indexes."""
    return int(
        sql(
            "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables"
            " WHERE relname LIKE 'pgq%'"
        )[0][0]
    )


def test_paused_queues_and_silent_pools_are_seen_at_once(admin_client: Client) -> None:
    async_task(REGISTERED, 1, queue="mail")
    pause("mail")
    make_pool(silent=90)
    shown = text_of(admin_client, "changelist")
    assert "Something is wrong." in shown
    assert "silent for 90 s" in shown or "silent for 2 min" in shown
    assert "paused" in shown
    assert PLAIN not in shown


def test_a_pool_that_serves_a_queue_by_a_pattern_is_among_its_pools(admin_client: Client) -> None:
    make_pool(queues=["ma*"])
    for queue in ("mail", "sms"):
        async_task(REGISTERED, 1, queue=queue)
    assert address("pool", ID) in text_of(admin_client, "queue", "mail")
    assert address("pool", ID) not in text_of(admin_client, "queue", "sms")


def test_a_queue_whose_tasks_all_have_keys_has_its_page(admin_client: Client) -> None:
    queued(queue="payments", key="stripe:7", priority=5)
    assert not sql("SELECT FROM pgq_lane WHERE queue = 'payments'")
    shown = text_of(admin_client, "queue", "payments")
    assert (
        '<td data-label="priority" class="pgq-number">5</td><td data-label="ready" class="pgq-number">0</td>' in shown
    )
    assert '<td data-label="with a key" class="pgq-number">1</td>' in shown
    assert address("queue", "payments") in text_of(admin_client, "queues")
    admin_client.post(address("pause", "payments"))
    assert "Paused: no worker claims from it." in text_of(admin_client, "queue", "payments")


def test_the_last_point_of_a_chart_counts_the_time_that_is_over(admin_client: Client) -> None:
    now = timezone.now().replace(second=0, microsecond=0) + timedelta(seconds=50)
    found = numbers.Numbers(
        numbers.Range("1h", now - timedelta(hours=1), now),
        [now - timedelta(seconds=50 + 60 * n) for n in (1, 0)],
        [120.0, 10.0], [0.0, 0.0], [0.0, 0.0], [], [], [], [], [],
    )  # fmt: skip
    assert numbers.rate(found, found.ended) == [2.0, None], "of its 50 seconds 20 are counted"
    later = replace(found, range=replace(found.range, end=now + timedelta(seconds=20)))
    assert numbers.rate(later, [120.0, 110.0]) == [2.0, None], "up to 70 seconds' worth would be taken for that of 40"
    assert numbers.rate(replace(later, range=replace(later.range, end=now + timedelta(seconds=40))), [120.0, 110.0])[1]
    days = replace(
        found, range=numbers.Range("3d", now - timedelta(days=3), now), moments=[now - timedelta(seconds=430)]
    )
    assert days.range.step == 3600
    assert numbers.rate(days, [800.0]) == [None]


def test_the_oldest_of_a_queue_is_as_old_on_its_page_as_on_the_page_of_all(admin_client: Client) -> None:
    queued(queue="mail")
    sql("UPDATE pgq_queue SET enqueued_at = now() - interval '5 hours', ready_at = now() - interval '30 seconds'")
    for page, args in (("queues", ()), ("queue", ("mail",))):
        assert re.search('<td data-label="oldest" class="pgq-number">3[0-9] s<', text_of(admin_client, page, *args))


def test_numbers_come_from_what_workers_have_counted(admin_client: Client) -> None:
    """Nothing of it is in the tables of tasks: as after `save_limit` has deleted the results."""
    sql(
        "INSERT INTO pgq_metric (span, at, queue, func, succeeded, failed, run_us_sum, run_us_max, run_from, run_hist)"
        " SELECT 1, date_trunc('minute', now()) - n * interval '1 minute', 'mail', 'shop.tasks.send', 90, 10,"
        " 100 * 1000000, 1000000, 40, '{50,50}' FROM generate_series(1, 30) n"
    )
    sql("SELECT pgq_mark('v1.2')")
    shown = text_of(admin_client, "functions")
    for words in ("shop.tasks.send", "3,000", "300 (10.0 %)", "100 %"):
        assert words in shown
    shown = text_of(admin_client, "changelist")
    assert "of 3,000, in 1h" in shown
    assert "v1.2" in shown
    assert '<polyline class="pgq-line pgq-line-bad"' in shown
    shown = text_of(admin_client, "function", "shop.tasks.send")
    assert "1.67" in shown, "tasks a second, in the table beside the chart"
    assert "not that this process knows" in shown
    assert "v1.2" in text_of(admin_client, "marks")
    for name in ("8h", "3d", "14d", "1y", "x"):
        for page, args in (("changelist", ()), ("functions", ()), ("function", ("f",))):
            assert "pgq-fault" not in text_of(admin_client, page, *args, query=f"?range={name}&sort=p95")


def test_groups_and_chains_are_drawn(admin_client: Client) -> None:
    whole = async_iter(REGISTERED, [1, 2, 3])
    finished(group="a/chain")
    group = async_chain([(REGISTERED, (1,)), (PLAIN, (1, 2)), (PLAIN, (3, 4))], group="a/chain")
    shown = text_of(admin_client, "flows")
    assert address("flow", "a_2Fchain") in shown
    assert "0 / 3" in shown
    shown = text_of(admin_client, "flow", whole)
    assert shown.count('<rect class="pgq-node ') == 4
    assert shown.count('class="pgq-node pgq-node-waiting"') == 1, "the collector"
    assert address("task", whole) in shown
    shown = text_of(admin_client, "flow", "a_2Fchain")
    assert group == "a/chain"
    assert shown.count('<rect class="pgq-node ') == 4, "two that are there, two that are to come"
    assert f"{PLAIN}: to come" in shown
    # A layer of many is one box for each state; a group that is gone says so.
    sql("INSERT INTO pgq_queue (func, \"group\") SELECT 'by.hand', 'many' FROM generate_series(1, 250)")
    shown = text_of(admin_client, "flow", "many")
    assert shown.count('<rect class="pgq-node ') == 1
    assert "250 ready" in shown
    assert "None of its tasks is there any more." in text_of(admin_client, "flow", "none")
    # Whatever stands there.
    evil = json.dumps({"collector": "x", "chain": [{"func": "<script>alert"}, 7], "collects": 3})
    queued(group="evil", options=evil, name="<script>alert")
    assert "<script>alert" not in text_of(admin_client, "flow", "evil")
