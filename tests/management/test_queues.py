"""pgq_queues: what it lists, pauses, cancels and retries; and what it leaves alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from pgq.models import Lane, QueuedTask, Task
from pgq.store import bulk as store_bulk
from pgq.tasks import async_task, bulk, cancel, enqueue_many, schedule
from pgq.tasks.bulk import TaskFilter
from pgq.testing import drain
from tests.support.pool_rows import make_pool
from tests.support.pools import connect

MARK, TRUEDIV = "tests.functions.oracle.mark", "operator.truediv"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """xdist sets the width of its workers' output."""
    monkeypatch.delenv("COLUMNS", raising=False)


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("pgq_queues", *arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def states() -> dict[str, str]:
    cancelled = Task.objects.filter(exception="pgq.errors.TaskCancelled")
    return {row.pk: row.state for row in QueuedTask.objects.all()} | {row.pk: "cancelled" for row in cancelled}


def waiting(**options: Any) -> str:
    return async_task(MARK, 1, q_options={"run_after": timezone.now() + timedelta(hours=1), **options})


def hold(id: str) -> None:
    """Let a task be in the hands of a worker."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pgq_queue SET lock = clock_timestamp(), worker = %s, receipt = %s WHERE id = %s",
            [uuid4(), uuid4(), id],
        )


# ------------------------------------------------------------------------------------------------- queues


def test_lists_queues_with_their_pools() -> None:
    assert run().startswith("There are no queues")
    make_pool(queues=["mail"])
    enqueue_many(MARK, [(1,)] * 3, queue="mail")
    async_task(MARK, 1, queue="\x1b[31m[red]")
    run("pause", "mail")
    lines = run().splitlines()
    assert lines[0].split() == ["Queue", "Ready", "Running", "Oldest", "State", "Pools"]
    red, mail = lines[1:]
    assert "no pool serves it" in red
    assert "\\x1b[31m[red]" in red
    assert "paused" in mail
    assert mail.split()[:2] == ["mail", "3"]
    assert "shop" in mail
    (seen,) = run_json("list", "ma*")
    assert (seen["queue"], seen["ready"], seen["paused"], len(seen["pools"])) == ("mail", 3, True, 1)


def test_pauses_and_resumes_by_name_and_pattern() -> None:
    for queue in ("mail.in", "mail.out", "web"):
        async_task(MARK, 1, queue=queue)
    assert run("pause", "mail.*") == "mail.in: paused\nmail.out: paused\n"
    assert run("pause", "mail.in", "web") == "mail.in: was paused before\nweb: paused\n"
    assert set(Lane.objects.filter(paused=True).values_list("queue", flat=True)) == {"mail.in", "mail.out", "web"}
    assert run_json("resume", "--all") == [{"queue": q, "done": "resumed"} for q in ("mail.in", "mail.out", "web")]
    assert not Lane.objects.filter(paused=True).exists()


def test_a_name_that_no_queue_has_is_refused_and_nothing_is_paused() -> None:
    async_task(MARK, 1, queue="mail")
    schedule(MARK, 1, queue="nightly", schedule_type="D")
    for name in ("mial", "x*"):
        with pytest.raises(CommandError, match="There is no queue"):
            run("pause", "mail", name)
    assert not Lane.objects.filter(paused=True).exists()
    # One to which a schedule will enqueue is known.
    assert run("pause", "nightly") == "nightly: paused\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pause"], "name queues, or say --all"), (["pause", "a", "--all"], "name queues, or say --all"),
        (["cancel"], "say which tasks"), (["retry", "--state", "failed"], "say which tasks"),
        (["cancel", "mail"], "say --queue mail"), (["pause", "a", "--func", "x"], "--func goes with"),
        (["list", "--dry-run"], "--dry-run goes with"), (["cancel", "--queue", ""], "queue: must not be empty"),
        (["retry", "--all", "--state", "running"], "--state: retry takes failed"),
        (["cancel", "--all", "--state", "failed"], "--state: cancel takes ready"),
        (["cancel", "--all", "--exception", "x"], "only failed tasks have one"),
        (["cancel", "--since", "soon"], "neither an age"), (["cancel", "--all", "--limit", "0"], "not a whole number"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        run(*arguments)


# ------------------------------------------------------------------------------------------------- cancel


def test_cancels_what_matches_and_a_dry_run_says_how_many() -> None:
    mail = [async_task(MARK, 1, queue="mail") for _ in range(3)]
    later, other = waiting(queue="mail"), async_task(MARK, 1, queue="mai%")
    held = async_task(MARK, 1, queue="mail")
    hold(held)
    before = states()
    assert run("cancel", "--queue", "mail", "--dry-run").startswith("4 tasks would be cancelled")
    assert states() == before
    assert run_json("cancel", "--queue", "mail", "--dry-run", "--limit", "2")["more"] is True
    assert run("cancel", "--queue", "mail", "--state", "ready", "--limit", "2").splitlines()[1] == (
        "There are more: --limit 2 was reached."
    )
    assert run("cancel", "--queue", "mail").startswith("2 tasks matched: 2 cancelled")
    after = states()
    assert [after[id] for id in (*mail, later)] == ["cancelled"] * 4
    # Neither the one that runs, nor one whose queue fits only if % means something.
    assert (after[held], after[other]) == ("running", "ready")
    assert run("cancel", "--queue", "mail", "--state", "running").startswith("1 task matched: 1 told to stop")


def test_by_function_group_and_age() -> None:
    old, new = async_task(MARK, 1, group="g1"), async_task(TRUEDIV, 1, 1, group="g_1")
    QueuedTask.objects.filter(pk=old).update(enqueued_at=timezone.now() - timedelta(hours=3))
    counted = lambda *arguments: run_json("cancel", "--dry-run", *arguments)["matched"]  # noqa: E731
    assert [counted("--func", "tests.*"), counted("--func", "*"), counted("--func", "tests")] == [1, 2, 0]
    assert [counted("--group", "g_1"), counted("--group", "g*1")] == [1, 2]
    assert [counted("--since", "2h"), counted("--until", "2h")] == [1, 1]
    assert run_json("cancel", "--until", "2h")["done"] == {"cancelled": 1}
    assert states() == {old: "cancelled", new: "ready"}


def test_a_task_whose_state_has_changed_meanwhile_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    claimed, ready = async_task(MARK, 1), async_task(MARK, 1)
    look = store_bulk.look_queued

    def look_then_claim(*arguments: Any, **options: Any) -> Any:
        seen = look(*arguments, **options)
        hold(claimed)
        return seen

    monkeypatch.setattr(store_bulk, "look_queued", look_then_claim)
    done = bulk.cancel_matching(TaskFilter(states=("ready",)))
    assert (done.matched, done.skipped, dict(done.done)) == (2, 1, {"cancelled": 1})
    assert states() == {claimed: "running", ready: "cancelled"}


@pytest.fixture
def other_session(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    with connect(autocommit=False) as session:
        yield session


def test_a_row_that_another_transaction_holds_is_not_waited_for(other_session: psycopg.Connection[Any]) -> None:
    first, second = async_task(MARK, 1), async_task(MARK, 1)
    other_session.execute("SELECT FROM pgq_queue WHERE id = %s FOR UPDATE", [first])
    done = bulk.cancel_matching(TaskFilter(states=("ready",)))
    assert (done.matched, done.skipped) == (2, 1)
    assert states() == {first: "ready", second: "cancelled"}


# ------------------------------------------------------------------------------------------------- retry


def test_runs_failures_again_by_their_exception() -> None:
    zero = [async_task(TRUEDIV, 1, 0) for _ in range(3)]
    wrong, cancelled = async_task(TRUEDIV, "x", 1), async_task(TRUEDIV, 1, 0)
    cancel(cancelled)
    drain()
    assert Task.objects.filter(success=False).count() == 5
    assert run("retry", "--exception", "*.ZeroDivisionError", "--dry-run").startswith("3 tasks would be retried")
    # A task that was cancelled is no failure to run again, unless it is named.
    assert run_json("retry", "--all", "--dry-run")["matched"] == 4
    assert run("retry", "--exception", "builtins.ZeroDivisionError").startswith("3 tasks matched: 3 run again")
    assert set(QueuedTask.objects.values_list("pk", flat=True)) == set(zero)
    assert set(Task.objects.values_list("pk", flat=True)) == {wrong, cancelled}
    assert run_json("retry", "--exception", "pgq.errors.TaskCancelled", "--dry-run")["matched"] == 1


def test_releases_what_is_parked_or_waits() -> None:
    parked, later = async_task(MARK, 1), waiting()
    QueuedTask.objects.filter(pk=parked).update(parked="signature")
    assert run_json("retry", "--all")["matched"] == 0
    assert run_json("retry", "--all", "--state", "parked", "--state", "waiting")["done"] == {"made ready": 2}
    assert states() == {parked: "ready", later: "ready"}


def test_goes_over_more_than_one_window_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_bulk, "WINDOW", 7)
    monkeypatch.setattr(bulk, "BATCH", 3)
    enqueue_many(MARK, [(1,)] * 20)
    at = datetime.now(UTC) - timedelta(days=1)
    Task.objects.bulk_create(
        Task(
            id=uuid4(), success=False, started=at, stopped=at, enqueued_at=at, func=MARK, queue="default",
            exception="builtins.ValueError", message="no", traceback="...",
        )
        for _ in range(15)
    )  # fmt: skip
    looked: list[tuple[int, int]] = []
    seen = bulk.count(
        TaskFilter(states=("ready", "failed")), progress=lambda looked_at, matched: looked.append((looked_at, matched))
    )
    assert seen.matched == 35
    assert looked[-1] == (35, 35)
    assert bulk.retry_matching(TaskFilter(states=("failed",)), limit=10).done == {"run again": 10}
    assert bulk.retry_matching(TaskFilter(states=("failed",))).done == {"run again": 5}
    assert bulk.cancel_matching(TaskFilter(states=("ready",))).matched == 35


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"states": ()}, "got none"), ({"states": ("redy",)}, "got redy"),
        ({"states": ("failed",), "func": ""}, "func: must not be empty"),
        ({"states": ("failed",), "since": datetime(2026, 1, 1)}, "since: must be a time with a zone"),
    ],
)  # fmt: skip
def test_a_filter_says_which_field_is_wrong(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TaskFilter(**fields)
    with pytest.raises(ValueError, match="cannot be cancelled"):
        bulk.cancel_matching(TaskFilter(states=("failed",)))
