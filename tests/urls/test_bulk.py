"""All tasks that match: counted first, then treated batch by batch, by the token of the count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings

from pgq.models import QueuedTask, Task
from pgq.signals import operator_action
from pgq.store.bounded import reading
from pgq.tasks import async_task
from pgq.testing import drain
from pgq.urls import bulk, found
from tests.support.admin import REGISTERED, finished, queued, snapshot, sql

pytestmark = pytest.mark.django_db


def treat(caller: Any, token: str) -> list[dict[str, Any]]:
    answers = []
    while token is not None:
        answers.append(caller.post("v1/tasks/bulk", {"token": token}))
        token = answers[-1]["next"]
    return answers


def test_what_fails_after_the_count_is_not_meant_and_each_task_is_treated_once(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BATCH", 3)
    caller = api("act")
    meant = [finished(success=False, exception="builtins.KeyError") for _ in range(7)]
    others = [finished(success=False), finished()]
    finished(success=False, exception="pgq.errors.TaskCancelled")
    assert caller.post("v1/tasks/bulk", {"action": "retry"})["matches"]["count"] == 8
    cancelled = {"action": "retry", "filter": {"exception": "pgq.errors.TaskCancelled"}}
    assert caller.post("v1/tasks/bulk", cancelled)["matches"]["count"] == 1
    Task.objects.filter(exception="pgq.errors.TaskCancelled").delete()
    body = {"action": "retry", "filter": {"exception": "builtins.KeyError"}}
    before = snapshot()
    counted = caller.post("v1/tasks/bulk", body)
    assert counted["matches"] == {"count": 7, "exact": True}
    assert snapshot() == before
    late = finished(success=False, exception="builtins.KeyError")
    Task.objects.filter(pk=meant[2]).delete()
    answers = treat(caller, counted["token"])
    assert [answer["done"] for answer in answers] == [3, 3]
    assert {str(row.pk) for row in QueuedTask.objects.all()} == set(meant) - {meant[2]}
    assert {str(row.pk) for row in Task.objects.all()} == {*others, late}


def test_each_action_wants_states_that_it_is_for(api: Any) -> None:
    caller = api("act")
    rows = [async_task(REGISTERED), async_task(REGISTERED, run_after=3600), queued(parked="odd")]
    for body in (
        {"action": "retry", "filter": {"state": "succeeded"}}, {"action": "cancel", "filter": {"state": "failed"}},
        {"action": "run-now"}, {"action": "run-now", "filter": {"state": "ready"}}, {"action": "delete"}, {},
        {"action": "cancel", "dry_run": False}, {"action": "cancel", "filter": {"nonsense": 1}},
        {"action": "cancel", "filter": []}, {"token": "x"}, {"action": "cancel", "token": "x"},
    ):  # fmt: skip
        assert caller.post("v1/tasks/bulk", body, 400)["errors"]
    for state in ("waiting", "parked"):
        token = caller.post("v1/tasks/bulk", {"action": "run-now", "filter": {"state": state}})["token"]
        assert treat(caller, token)[0]["done"] == 1
    assert {row.state for row in QueuedTask.objects.all()} == {"ready"}
    token = caller.post("v1/tasks/bulk", {"action": "cancel"})["token"]
    assert sum(answer["done"] for answer in treat(caller, token)) == 3
    assert QueuedTask.objects.filter(pk__in=rows, cancelled=False).count() == 0
    assert caller.post("v1/tasks/bulk", {"action": "retry"}) == {"matches": {"count": 0, "exact": True}, "token": None}


def test_a_count_is_bounded_and_the_deed_goes_on_beyond(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "COUNTED", 4)
    monkeypatch.setattr(found, "WINDOW", 3)
    caller = api("act")
    for number in range(10):
        queued(queue="a" if number < 6 else "b")
    counted = caller.post("v1/tasks/bulk", {"action": "cancel", "filter": {"queue": "a"}})
    assert not counted["matches"]["exact"]
    assert sum(answer["done"] for answer in treat(caller, counted["token"])) == 6


@pytest.mark.parametrize(
    ("action", "state", "change"),
    [
        ("cancel", "waiting", "UPDATE pgq_queue SET run_after = NULL, lock = now(), worker = id, receipt = id"),
        ("run-now", "waiting", "UPDATE pgq_queue SET parked = 'odd'"),
        ("retry", "failed", "UPDATE pgq_task SET success = true, exception = NULL"),
    ],
)
def test_what_is_in_another_state_by_then_is_left_alone(
    api: Any, monkeypatch: pytest.MonkeyPatch, action: str, state: str, change: str
) -> None:
    caller = api("act")
    if state == "failed":
        finished(success=False)
    else:
        async_task(REGISTERED, run_after=3600)
    token = caller.post("v1/tasks/bulk", {"action": action, "filter": {"state": state}})["token"]

    @contextmanager
    def overtaken(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with reading(*args, **kwargs) as cursor:
            yield cursor
        sql(change)

    monkeypatch.setattr(bulk, "reading", overtaken)
    assert treat(caller, token) == [{"done": 0, "skipped": 1, "conflicts": 0, "next": None}]
    rows = [(row.cancelled, row.parked) for row in QueuedTask.objects.all()]
    expected = {"cancel": [(False, None)], "run-now": [(False, "odd")], "retry": []}
    assert rows == expected[action]


@pytest.mark.fault("S10")
def test_a_token_of_a_count_serves_only_its_caller_and_what_he_may_still_do(api: Any, settings: Any) -> None:
    finished(success=False)
    token = api("act").post("v1/tasks/bulk", {"action": "retry"})["token"]
    assert "caller" in api("act", "read").post("v1/tasks/bulk", {"token": token}, 400)["errors"]["token"]
    api("act").post("v1/tasks/bulk", {"token": token[:-1] + ("a" if token[-1] != "a" else "b")}, 400)
    user = User.objects.create_user("staff", is_staff=True)

    def client(*codenames: str) -> Client:
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        logged_in = Client()
        logged_in.force_login(User.objects.get())
        return logged_in

    def post(logged_in: Client, body: dict[str, Any]) -> Any:
        return logged_in.post("/pgq/v1/tasks/bulk", body, content_type="application/json")

    retry = {"action": "retry"}
    assert post(client("operate_dashboard"), retry).status_code == 403
    assert post(client("retry_task"), retry).status_code == 403
    blind = post(client("operate_dashboard", "retry_task"), retry).json()
    assert blind["matches"]["count"] == 0
    seeing = post(client("operate_dashboard", "retry_task", "view_failure"), retry).json()
    assert seeing["matches"]["count"] == 1
    assert post(client("operate_dashboard", "view_failure"), {"token": seeing["token"]}).status_code == 403
    assert Task.objects.count() == 1


def test_tasks_are_moved_behind_those_of_another_queue_and_run_there(api: Any, oracle: Any) -> None:
    caller = api("act")
    there = async_task(REGISTERED, queue="b")
    first, second = async_task(REGISTERED, 1, queue="a", priority=5), async_task(REGISTERED, 2, queue="a")
    waiting = async_task(REGISTERED, 3, queue="a", run_after=3600)
    keyed = async_task(REGISTERED, 4, queue="a", q_options={"key": "tenant:1"})
    unsigned = queued(queue="a")
    forged = async_task(REGISTERED, 5, queue="a")
    sql("UPDATE pgq_queue SET args = '[6]' WHERE id = %s", forged)
    running = async_task(REGISTERED, 7, queue="a")
    sql("UPDATE pgq_queue SET lock = now(), worker = id, receipt = id WHERE id = %s", running)
    move = {"action": "move", "filter": {"queue": "a"}, "to": "b"}
    for body in (
        {**move, "to": ""}, {**move, "to": "x" * 300}, {"action": "move"}, {"action": "cancel", "to": "b"},
        {**move, "filter": {"state": "running"}}, {**move, "filter": {"state": "failed"}},
    ):  # fmt: skip
        assert caller.post("v1/tasks/bulk", body, 400)["errors"]
    token = caller.post("v1/tasks/bulk", move)["token"]
    [answer] = treat(caller, token)
    # The one that runs, and the one whose signature is not good.
    assert (answer["done"], answer["skipped"]) == (5, 2)
    assert {row.pk: row.queue for row in QueuedTask.objects.all()} == {
        **dict.fromkeys((there, first, second, waiting, keyed, unsigned), "b"), **dict.fromkeys((forged, running), "a"),
    }  # fmt: skip
    assert sql("SELECT priority FROM pgq_lane WHERE queue = 'b' ORDER BY 1") == [(0,), (5,)]
    assert sql("SELECT key FROM pgq_keyed WHERE queue = 'b'") == [("tenant:1",)]
    with override_settings(PGQ={"queues": ["b"]}):
        ran = [report.id for report in drain()]
    assert ran[0] == first
    assert [id for id in ran if id in (there, second, unsigned)] == [there, second, unsigned]
    assert keyed in ran
    assert {row.success for row in Task.objects.all()} == {True}
    assert Task.objects.count() == 5
    # Again, nothing is there to be moved.
    assert caller.post("v1/tasks/bulk", {**move, "filter": {"queue": "a", "state": "waiting"}})["token"] is None


def test_a_move_wants_its_permission_and_is_told(user_with: Any) -> None:
    async_task(REGISTERED, queue="a")
    body = {"action": "move", "filter": {"queue": "a"}, "to": "b"}

    def post(client: Client) -> Any:
        return client.post("/pgq/v1/tasks/bulk", body, content_type="application/json")

    assert post(user_with("operate_dashboard", "view_queuedtask", "run_queuedtask")).status_code == 403
    client = user_with("operate_dashboard", "view_queuedtask", "change_queuedtask")
    token = post(client).json()["token"]
    heard: list[str] = []

    def hear(text: str, **_: Any) -> None:
        heard.append(text)

    operator_action.connect(hear)
    try:
        client.post("/pgq/v1/tasks/bulk", {"token": token}, content_type="application/json")
    finally:
        operator_action.disconnect(hear)
    assert heard == ["move of {'queue': 'a'} to queue 'b': {'done': 1, 'skipped': 0, 'conflicts': 0}"]


def test_a_rare_function_among_many_failures_is_looked_for_in_a_window_of_them(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has all failures; those of one function it does not have apart."""
    monkeypatch.setattr(found, "WINDOW", 10)
    rare = finished(success=False, func="shop.tasks.rare")
    for _ in range(25):
        finished(success=False)
        finished()
    caller = api("act", "read")
    body = {"action": "retry", "filter": {"func": "shop.tasks.rare"}}
    counted = caller.post("v1/tasks/bulk", body)
    assert counted["matches"] == {"count": 0, "exact": False}
    answers = treat(caller, counted["token"])
    assert sum(answer["done"] for answer in answers) == 1
    # Ten failures a window, whatever has succeeded between them.
    assert len(answers) == 3
    assert QueuedTask.objects.get().pk == rare
    wanted = found.Filter(state="failed", func="shop.tasks.rare")
    assert not wanted.is_narrow
    assert found.Filter(state="failed").is_narrow
    assert found.Filter(group="g").is_narrow
    assert not found.Filter(group="g", state="failed").is_narrow
