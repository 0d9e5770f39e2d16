"""Settling: good for one write, and only with the receipt of the claim; and what becomes of a task that fails."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.test import override_settings

from pgq.enqueue.make import make_task
from pgq.enqueue.write import enqueue
from pgq.execution import settle as settling
from pgq.models import Failure, QueuedTask, Success, Task
from pgq.records import Blame, Failed, Parked, Report, Retried, Succeeded
from pgq.records import Failure as FailureRecord
from pgq.store import connection as store_connection
from pgq.store import lanes, leases, statement
from pgq.tasks import async_task, fetch, retry
from tests.support.hand import (
    MARK,
    WORKER,
    Hand,
    claim,
    expire,
    fill,
    in_background,
    run,
    run_all,
    settle,
    value,
    wait_until_it_waits,
)

pytestmark = pytest.mark.django_db(transaction=True)

TASKS = "tests.functions.oracle"
FAIL = f"{TASKS}.fail"


@pytest.fixture
def hand():
    hand = Hand()
    yield hand
    hand.close()


def due_now(session: psycopg.Connection[Any]) -> None:
    session.execute("UPDATE pgq_queue SET run_after = now() WHERE run_after IS NOT NULL")
    lanes.due(session.cursor(), limit=100)


# ------------------------------------------------------------------------------------------------- fencing


def outcomes() -> list[Any]:
    failure = FailureRecord(exception="a.B", message="m", traceback="t")
    return [
        Succeeded(result="1"),
        Succeeded(result="1", keep=False),
        Failed(failure=failure),
        Retried(failure=failure, delay=5),
        Parked(reason="r"),
    ]


@pytest.mark.parametrize("outcome", outcomes(), ids=lambda outcome: type(outcome).__name__)
def test_wrong_receipt_writes_nothing(outcome, session, caplog):
    own = session()
    fill(2)
    good, bad = claim(own)
    stale = bad._replace(receipt=uuid4())
    now = time.monotonic()
    before = own.execute("SELECT * FROM pgq_queue WHERE id = %s", (bad.id,)).fetchone()
    with own.transaction():
        reports = [Report(task, outcome, now, now) for task in (good, stale)]
        assert settling.write(own.cursor(), reports, "tests") == {good.id}
    assert own.execute("SELECT * FROM pgq_queue WHERE id = %s", (bad.id,)).fetchone() == before
    assert not Task.objects.filter(pk=bad.id.hex).exists()


@pytest.mark.parametrize("outcome", outcomes(), ids=lambda outcome: type(outcome).__name__)
def test_receipt_is_good_for_one_write(outcome, session):
    own = session()
    fill(1)
    (claimed,) = claim(own)
    report = Report(claimed, outcome, time.monotonic(), time.monotonic())
    assert settling.write(own.cursor(), [report], "tests") == {claimed.id}
    assert settling.write(own.cursor(), [report], "tests") == set()


@pytest.mark.parametrize("lost", ["rescue", "release", "delete", "other claim"])
def test_outcome_of_a_lost_lease_is_not_written(lost, session, caplog, oracle):
    """Frozen, rescued elsewhere, thawed: the first attempt comes too late."""
    slow, other = session(), session()
    (id,) = fill(1)
    (claimed,) = claim(slow)
    late = run(claimed)
    if lost == "delete":
        other.execute("DELETE FROM pgq_queue")
    elif lost == "release":
        leases.release(other.cursor(), [claimed])
    else:
        assert expire(other, since=claimed.enqueued_at) == [id]
    if lost == "other claim":
        (again,) = claim(other)
        settle(other, run(again))
    tasks = list(Task.objects.values())
    settle(slow, late)
    assert list(Task.objects.values()) == tasks
    assert QueuedTask.objects.count() == (1 if lost in ("rescue", "release") else 0)
    assert "lease was lost" in caplog.text


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_rows_that_were_written_since_the_claim_are_settled_too(moved, session, oracle):
    own = session()
    fill(3)
    claims = claim(own)
    reports = [run(claimed) for claimed in claims]
    own.execute("UPDATE pgq_queue SET lock = clock_timestamp() WHERE id = ANY (%s)", ([c.id for c in claims[:moved]],))
    settle(own, *reports)
    assert {success.id for success in Success.objects.all()} == {claimed.id.hex for claimed in claims}
    assert value(own, "SELECT count(*) FROM pgq_queue") == 0


def test_whose_row_lies_there_now_is_left_alone(session):
    own = session()
    fill(2)
    mine, other = claim(own)
    now = time.monotonic()
    moved = mine._replace(ctid=other.ctid)
    assert settling.write(own.cursor(), [Report(moved, Succeeded(result="1"), now, now)], "tests") == {mine.id}
    assert value(own, "SELECT id FROM pgq_queue") == other.id
    assert settling.write(own.cursor(), [Report(moved, Succeeded(result="1"), now, now)], "tests") == set()
    assert value(own, "SELECT id FROM pgq_queue") == other.id


def test_settle_waits_for_a_rescue_that_is_being_committed(session, oracle):
    """Both want the row; who comes second finds that the receipt is no longer good."""
    slow, other = session(), session()
    fill(1)
    (claimed,) = claim(slow)
    report = run(claimed)
    with slow.transaction():
        assert settling.write(slow.cursor(), [report], "tests") == {claimed.id}
        # It skips what is being settled.
        assert expire(other, since=claimed.enqueued_at) == []
    assert QueuedTask.objects.count() == 0
    assert Task.objects.count() == 1


def test_settle_waits_for_a_renewal_that_is_being_committed(session, oracle):
    """The row moves while the settlement waits for it, and its receipt stays good."""
    own, guard = session(), session(autocommit=False)
    fill(3)
    claims = claim(own)
    reports = [run(claimed) for claimed in claims]
    guard.execute("UPDATE pgq_queue SET lock = clock_timestamp() WHERE id = %s", (claims[1].id,))
    settling_them = in_background(lambda: settle(own, *reports))
    try:
        wait_until_it_waits(session(), own.info.backend_pid)
    finally:
        guard.commit()
        settling_them.join(30)
    assert Success.objects.count() == 3
    assert QueuedTask.objects.count() == 0


# ------------------------------------------------------------------------------------------------- results


def test_result_is_stored_with_all_that_was_known(session, oracle):
    own = session()
    id = async_task(MARK, {"deep": [1, 2]}, queue="q", priority=4, group="g", task_name="n", timeout=9, max_attempts=3)
    (report,) = run_all(own)
    row = Success.objects.get()
    assert row.id == id == report.claim.id.hex
    assert row.result == {"deep": [1, 2]}
    assert (row.queue, row.priority, row.group, row.name, row.timeout, row.max_attempts) == ("q", 4, "g", "n", 9.0, 3)
    assert (row.func, row.args, row.attempt_count, row.cluster) == (MARK, ({"deep": [1, 2]},), 1, "tests")
    assert row.enqueued_at <= row.started <= row.stopped
    assert row.exception is None
    assert QueuedTask.objects.count() == 0


def test_a_row_under_the_id_of_a_finished_task_changes_no_result(session, oracle):
    """Only pgq_retry replaces a result: it takes the finished row away. That somebody tried stands in the history."""
    own = session()
    id = async_task(FAIL, "x")
    run_all(own)
    before = fetch(id)
    enqueue(make_task(MARK, ("again",), id=UUID(id)))
    run_all(own)
    task = Task.objects.get()
    assert (task.id, task.success, task.value, task.exception, task.traceback, task.stopped) == (
        id, False, None, before.exception, before.traceback, before.stopped,
    )  # fmt: skip
    assert [entry["message"] for entry in task.history] == [
        "a row with the id of this finished task was run; its outcome is not kept"
    ]
    assert retry(id)
    run_all(own)
    assert Task.objects.get().stopped > before.stopped


def test_save_false_keeps_nothing_of_a_success_and_all_of_a_failure(session, oracle):
    own = session()
    async_task(MARK, 1, save=False)
    failed = async_task(FAIL, 2, save=False)
    run_all(own)
    assert list(Task.objects.values_list("id", flat=True)) == [failed]
    assert QueuedTask.objects.count() == 0


def test_save_limit_below_zero_keeps_only_failures_and_what_is_asked_for(session, oracle):
    own = session()
    with override_settings(PGQ={"save_limit": -1}):
        async_task(MARK, 1)
        kept = {async_task(FAIL, 2), async_task(MARK, 3, save=True)}
        run_all(own)
    assert set(Task.objects.values_list("id", flat=True)) == kept


@pytest.mark.parametrize(
    "refused",
    [
        Succeeded(result='"\\u0000"'),
        Succeeded(result="{not json"),
        Failed(failure=FailureRecord(exception="a.B", message="nul \x00", traceback="")),
        Failed(failure=FailureRecord(exception="a.B", message="\ud800", traceback="")),
        Retried(failure=FailureRecord(exception="a.B", message="m", traceback="t"), delay=float("inf")),
        Retried(failure=FailureRecord(exception="a.B", message="m", traceback="t"), delay=float("nan")),
        Retried(failure=FailureRecord(exception="a.B", message="m", traceback="t"), delay=1e300),
        Parked(reason="nul \x00"),
    ],
    ids=lambda outcome: f"{type(outcome).__name__}-{outcome!r:.30}",
)
def test_what_postgresql_refuses_is_settled_without_running_again(refused, session, hand, oracle):
    """And it takes nothing of its batch with it."""
    ids = fill(3)
    hand._exchange()
    hand._exchange()
    hand._exchange()
    assert len(hand.exchange.waiting) == 3
    reports = [run(task) for task in hand.exchange.waiting]
    hand.exchange.waiting.clear()
    reports[1] = reports[1]._replace(outcome=refused)
    hand.exchange.finished.extend(reports)
    hand.exchange.settle(insist=True)
    assert not hand.exchange.finished
    for id in (ids[0], ids[2]):
        assert fetch(id).success
    assert QueuedTask.objects.exclude(pk=ids[1].hex).count() == 0
    row = QueuedTask.objects.filter(pk=ids[1].hex).first()
    if row is None:
        task = Task.objects.get(pk=ids[1].hex)
        assert task.success is isinstance(refused, Succeeded)
        if task.success:
            assert "PostgreSQL refused it" in str(task.result)
    else:
        assert row.lock is None
        assert row.parked
    hand.work()
    assert oracle.starts(1) == 1


def test_row_that_no_table_takes_is_parked_after_its_run(session, hand, oracle):
    """Say, its group fits the index of the one table and not that of the other."""
    own = session()
    own.execute("ALTER TABLE pgq_task ADD CONSTRAINT pgq_test_never CHECK (\"group\" <> 'never')")
    try:
        id = async_task(MARK, "parked", group="never")
        other = async_task(MARK, "other")
        hand.work()
        row = QueuedTask.objects.get(pk=id)
        assert "it ran" in row.parked
        assert row.lock is None
        assert fetch(other).success
        assert oracle.starts("parked") == 1
    finally:
        own.execute("ALTER TABLE pgq_task DROP CONSTRAINT pgq_test_never")


# ------------------------------------------------------------------------------------------------- retries


def test_failure_is_recorded(session, oracle):
    own = session()
    id = async_task(FAIL, "x", "the message")
    run_all(own)
    task = Failure.objects.get()
    assert (task.id, task.exception, task.message) == (id, "builtins.ValueError", "the message")
    assert "in fail\n" in task.traceback
    assert "execute.py" not in task.traceback
    assert "the message" in task.result


def test_attempts_are_counted_and_bounded(session, oracle):
    own = session()
    id = async_task(FAIL, "x", max_attempts=3, retry_backoff=60)
    for attempt in (1, 2):
        (report,) = run_all(own)
        assert isinstance(report.outcome, Retried)
        row = QueuedTask.objects.get(pk=id)
        assert (row.state, row.attempts, len(row.history)) == ("waiting", attempt, attempt)
        assert (row.history[-1]["exception"], row.history[-1]["attempt"]) == ("builtins.ValueError", attempt)
        assert value(own, "SELECT run_after - clock_timestamp() BETWEEN '50 s' AND '60 s' FROM pgq_queue")
        assert claim(own) == []
        due_now(own)
    run_all(own)
    task = Task.objects.get(pk=id)
    assert (task.success, task.attempt_count, len(task.history)) == (False, 3, 2)
    assert oracle.starts("x") == 3


def test_success_after_failures_keeps_their_history(session, oracle):
    own = session()
    id = async_task(f"{TASKS}.fail_until", "x", 3, max_attempts=0, retry_backoff=0)
    for _ in range(3):
        run_all(own)
        due_now(own)
    task = Task.objects.get(pk=id)
    assert (task.success, task.result, task.attempt_count) == (True, 3, 3)
    assert [entry["message"] for entry in task.history] == ["attempt 1", "attempt 2"]


@pytest.mark.parametrize(
    ("func", "args", "options", "kind"),
    [
        ("fail", (), {"max_attempts": 2}, Retried),
        ("fail", (), {"max_attempts": 1}, Failed),
        ("fail", (), {"max_attempts": 0}, Retried),
        ("fail", (), {"max_attempts": 5, "retry_on": [ValueError]}, Retried),
        # A base class will do.
        ("fail", (), {"max_attempts": 5, "retry_on": ["builtins.Exception"]}, Retried),
        ("fail", (), {"max_attempts": 5, "retry_on": [KeyError]}, Failed),
        ("fail", (), {"max_attempts": 5, "no_retry_on": [ValueError]}, Failed),
        ("fail", (), {"max_attempts": 5, "no_retry_on": Exception}, Failed),
        ("fail", (), {"max_attempts": 5, "no_retry_on": [KeyError]}, Retried),
        ("fail", (), {"max_attempts": 5, "retry_on": [Exception], "no_retry_on": [ValueError]}, Failed),
        ("fail", (), {"max_attempts": 5, "ack_failure": True}, Failed),
        ("discard", (), {"max_attempts": 5}, Failed),
        ("discard", (), {"max_attempts": 0, "retry_on": [Exception]}, Failed),
        ("ask_for_retry", (7,), {"max_attempts": 5}, Retried),
        ("ask_for_retry", (None,), {"max_attempts": 5, "no_retry_on": [Exception]}, Retried),
        ("ask_for_retry", (7,), {"max_attempts": 1}, Failed),
        ("leave", (0,), {"max_attempts": 5}, Retried),
        ("leave", (0,), {}, Failed),
    ],
)
def test_retry_policy(func, args, options, kind, session, oracle):
    own = session()
    id = async_task(f"{TASKS}.{func}", "x", *args, **options)
    (report,) = run_all(own)
    assert type(report.outcome) is kind
    assert QueuedTask.objects.filter(pk=id).exists() is (kind is Retried)
    assert Failure.objects.filter(pk=id).exists() is (kind is Failed)


def test_delay_asked_for_by_the_task(session, oracle):
    own = session()
    async_task(f"{TASKS}.ask_for_retry", "x", 500, max_attempts=5, retry_backoff=1)
    run_all(own)
    assert value(own, "SELECT run_after - clock_timestamp() BETWEEN '490 s' AND '500 s' FROM pgq_queue")


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (3, [3, 3, 3]),
        ([1, 20], [1, 20, 20]),
        ({"kind": "linear", "base": 10}, [10, 20, 30]),
        ({"kind": "exponential", "base": 10, "max": 35}, [10, 20, 35]),
    ],
)
def test_backoff(backoff, delays, session, oracle):
    own = session()
    async_task(FAIL, "x", max_attempts=0, retry_backoff=backoff)
    for delay in delays:
        (report,) = run_all(own)
        assert report.outcome.delay == delay
        due_now(own)


def test_crashes_are_charged_apart_from_failures(session, oracle):
    """A lease that ran out counts as a crash; it takes none of the attempts that may fail."""
    own = session()
    id = async_task(FAIL, "x", max_attempts=2, retry_backoff=0)
    for _ in range(2):
        (claimed,) = claim(own)
        assert expire(own, since=claimed.enqueued_at) == [claimed.id]
    row = QueuedTask.objects.get(pk=id)
    assert (row.attempts, row.crashes, len(row.history)) == (2, 2, 2)
    (report,) = run_all(own)
    assert isinstance(report.outcome, Retried)
    due_now(own)
    (report,) = run_all(own)
    assert isinstance(report.outcome, Failed)
    assert oracle.starts("x") == 2


@pytest.mark.parametrize("blamed", ["one of them", "all of them", "none of them"])
def test_a_dead_worker_is_charged_to_what_it_ran(blamed, session):
    own, others = session(), uuid4()
    first, second, theirs = fill(3)
    (since, *_) = [claimed.enqueued_at for claimed in claim(own, 2)]
    assert [claimed.id for claimed in claim(own, worker=others)] == [theirs]
    if blamed == "none of them":
        assert set(leases.release_uncharged(own.cursor(), [WORKER, uuid4()], since=since)) == {first, second}
    else:
        blame = Blame(first if blamed == "one of them" else None, True, '{"message": "it died"}')
        charged = leases.release_worker(own.cursor(), WORKER, blame, since=since)
        assert {one.id: one.charged for one in charged} == {first: True, second: blame.task is None}
    rows = {row.id: (row.attempts, row.crashes, len(row.history)) for row in QueuedTask.objects.all()}
    charged, not_charged = (1, 1, 1), (0, 0, 0)
    assert rows == {
        first.hex: not_charged if blamed == "none of them" else charged,
        second.hex: charged if blamed == "all of them" else not_charged,
        theirs.hex: (1, 0, 0),
    }


def test_renewed_lease_is_not_rescued(session):
    own = session()
    fill(2)
    claimed = claim(own)
    own.execute("UPDATE pgq_queue SET lock = lock - interval '1 hour'")
    since = claimed[0].enqueued_at.replace(year=2000)
    assert leases.renew(own.cursor(), [uuid4()], since=since, age=10).cancelled == []
    worker = QueuedTask.objects.first().worker
    own.execute("UPDATE pgq_queue SET cancelled = true WHERE id = %s", (claimed[1].id,))
    renewal = leases.renew(own.cursor(), [UUID(worker)], since=since, age=10)
    assert [task for task, _ in renewal.cancelled] == [claimed[1].id]
    tomorrow = claimed[0].enqueued_at + timedelta(days=1)
    assert leases.rescue_expired(own.cursor(), since=since, before=tomorrow, age=60, error="{}") == []


# ------------------------------------------------------------------------------------------------- how it is sent

AWKWARD = ["", "NULL", "a,b", "{}", '"', "\\", '\\"', "ü\n", " "]


@pytest.mark.parametrize("texts", [AWKWARD, [*AWKWARD, None], ["one"], [""]], ids=["all", "and NULL", "one", "empty"])
def test_texts_arrive_as_they_are(texts, session):
    assert session().execute("SELECT %s::text[]", (statement.text_array(texts),)).fetchone()[0] == texts


@pytest.mark.parametrize("texts", [["a\0b", "c"], ["a\0b", None], ["\0"]])
def test_nul_is_refused_not_taken_for_two_elements(texts, session):
    with pytest.raises(psycopg.DataError):
        session().execute("SELECT %s::text[]", (statement.text_array(texts),))


def test_successes_and_failures_settled_together(session, oracle):
    """Columns without any value are sent empty; here each has one."""
    own = session()
    fill(3)
    claims, now = claim(own), time.monotonic()
    failure = FailureRecord(exception="a.B", message='"m"', traceback="t\\")
    outcomes = [Succeeded(result='"1"'), Failed(failure=failure), Succeeded(result="[2]")]
    reports = [Report(*pair, now - 2.5, now - 0.5) for pair in zip(claims, outcomes, strict=True)]
    with settling.transaction(own, reports, "c"):
        pass
    one, two, three = (Task.objects.get(pk=claimed.id.hex) for claimed in claims)
    assert [(task.success, task.exception, task.message, task.traceback) for task in (one, two, three)] == [
        (True, None, None, None), (False, "a.B", '"m"', "t\\"), (True, None, None, None),
    ]  # fmt: skip
    assert (one.result, three.result) == ("1", [2])
    assert (one.stopped - one.started).total_seconds() == pytest.approx(2, abs=1e-5)


def test_a_worker_does_not_leave_while_its_guard_settles(hand, oracle, session, monkeypatch):
    """What the guard has in hand is in no list. Nobody rescues what a worker holds that has left well."""
    fill(1)
    assert hand._exchange()
    hand._run_waiting()
    locked, goes_on = threading.Event(), threading.Event()
    connected = hand.exchange.session.connected

    def slow() -> store_connection.Connection:
        # Called with the reports in hand.
        locked.set()
        assert goes_on.wait(20)
        return connected()

    monkeypatch.setattr(hand.exchange.session, "connected", slow)
    guard = threading.Thread(target=hand.exchange.settle, kwargs={"insist": False})
    guard.start()
    assert locked.wait(20)
    main = threading.Thread(target=hand._finish)
    main.start()
    main.join(0.3)
    assert main.is_alive(), "it left"
    goes_on.set()
    main.join(20)
    guard.join(20)
    assert value(session(), "SELECT count(*) FROM pgq_task WHERE success") == 1
