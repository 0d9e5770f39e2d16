"""@task(atomic=True): the function's rows, its result and its receipt are one commit, or nothing."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test import override_settings

from pgq.conf import get_settings
from pgq.errors import EnqueueError
from pgq.execution.atomic import Atomic
from pgq.models import Failure, QueuedTask, Task
from pgq.tasks import async_task, current_task, task
from pgq.testing import drain
from tests.app.models import Note
from tests.support.hand import Hand

pytestmark = pytest.mark.django_db(transaction=True)


@task(atomic=True)
def write(text: str) -> str:
    Note.objects.create(text=text)
    return text


@task(atomic=True)
def write_transaction() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        Note.objects.create(text=cursor.fetchone()[0])
    return Note.objects.get().text


@task(atomic=True)
def write_and_fail(text: str) -> None:
    Note.objects.create(text=text)
    raise ValueError("on purpose")


@task(atomic=True)
def write_in_lost_lease(text: str) -> None:
    """As if the worker had been frozen and the task rescued meanwhile, by another session."""
    Note.objects.create(text=text)
    from tests.support.pools import connect

    with connect() as other:
        other.execute("UPDATE pgq_queue SET receipt = gen_random_uuid() WHERE id = %s", (current_task().id,))


@task(atomic=True)
def break_at_commit() -> None:
    Note.objects.create(text="deferred")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP")
        cursor.execute("INSERT INTO t VALUES (1), (1)")


@task(atomic=True)
def swallow_an_error() -> None:
    Note.objects.create(text="before")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")
    except Exception:
        return


@task(atomic=True)
def with_on_commit(text: str) -> str:
    def fail() -> None:
        raise RuntimeError("after the commit")

    Note.objects.create(text=text)
    transaction.on_commit(fail)
    return text


@task(atomic=True)
def end_the_transaction() -> None:
    Note.objects.create(text="ended")
    with connection.cursor() as cursor:
        cursor.execute("COMMIT")


@task(atomic=True)
def close_the_connection() -> None:
    Note.objects.create(text="closed")
    connection.close()


@task(atomic=True)
def enqueue_another(fails: bool) -> None:
    write.enqueue("from a task")
    if fails:
        raise ValueError("on purpose")


@pytest.fixture
def hand():
    hand = Hand()
    yield hand
    hand.close()


def notes() -> list[str]:
    return list(Note.objects.order_by("id").values_list("text", flat=True))


def test_rows_result_and_receipt_are_one_transaction(hand):
    with connection.cursor() as cursor:
        # Says by which transaction a row leaves the queue.
        cursor.execute(
            "CREATE FUNCTION pg_temp.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO app_note (text, created) VALUES (pg_current_xact_id()::text, now()); RETURN NULL; END $$;"
            " CREATE TRIGGER noted AFTER DELETE ON pgq_queue FOR EACH ROW EXECUTE FUNCTION pg_temp.note()"
        )
    try:
        id = write_transaction.enqueue()
        hand.work()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER noted ON pgq_queue")
    mine, settled = notes()
    assert mine == settled == Task.objects.get(pk=id).result
    assert not QueuedTask.objects.exists()


def test_a_failure_leaves_no_row_behind(hand):
    write_and_fail.enqueue("a")
    hand.work()
    assert notes() == []
    assert Failure.objects.get().exception == "builtins.ValueError"


def test_a_failure_is_retried_as_any_other(hand):
    write_and_fail.using(max_attempts=2).enqueue("a")
    hand.work()
    assert notes() == []
    assert QueuedTask.objects.get().attempts == 1
    assert not Task.objects.exists()


def test_a_run_whose_lease_was_lost_writes_nothing(hand, caplog):
    id = write_in_lost_lease.enqueue("a")
    hand.work()
    assert notes() == []
    assert not Task.objects.exists()
    assert QueuedTask.objects.filter(pk=id).exists()
    assert "its lease was lost" in caplog.text


def test_what_the_commit_refuses_is_a_failure_without_rows(hand):
    break_at_commit.enqueue()
    hand.work()
    assert notes() == []
    failure = Failure.objects.get()
    assert failure.exception == f"{IntegrityError.__module__}.IntegrityError"


def test_a_swallowed_error_of_the_database_is_a_failure(hand):
    """PostgreSQL would turn the commit into a rollback without a word."""
    swallow_an_error.enqueue()
    hand.work()
    assert notes() == []
    assert Failure.objects.count() == 1


def test_a_function_of_on_commit_that_fails_does_not_undo_the_success(hand, caplog):
    id = with_on_commit.enqueue("a")
    hand.work()
    assert notes() == ["a"]
    assert Task.objects.get(pk=id).success
    assert "on_commit" in caplog.text


def test_a_task_that_ends_the_transaction_itself_is_told_so(hand):
    end_the_transaction.enqueue()
    hand.work()
    assert "the task ended its transaction" in Failure.objects.get().message


def test_a_task_that_closes_the_connection_has_failed_and_wrote_nothing(hand):
    close_the_connection.enqueue()
    write.enqueue("next")
    hand.work()
    assert notes() == ["next"]
    assert Failure.objects.count() == 1


@pytest.mark.parametrize("fails", [False, True])
def test_what_it_enqueues_is_part_of_it(hand, fails):
    enqueue_another.enqueue(fails)
    hand.work()
    assert notes() == ([] if fails else ["from a task"])


@task(atomic=True)
def write_elsewhere(text: str) -> str:
    Note.objects.using("default").create(text=text)
    return text


def test_a_task_that_writes_to_another_database_only_succeeds(hand):
    """PGQ["database"] is another one, whose transaction has no statement but ours."""
    connections["queue"] = connection.copy("queue")
    # Connected here, since Django's test case lets nobody else connect to an alias that it does not know.
    connections["queue"].connect()
    try:
        hand.atomic = Atomic("queue", "tests", get_settings())
        id = write_elsewhere.enqueue("a")
        hand.work()
        with override_settings(PGQ={"database": "queue"}):
            also = write_elsewhere.enqueue("b")
            [ran] = drain()
        assert (ran.id, ran.state) == (also, "succeeded")
    finally:
        connections["queue"].close()
        del connections["queue"]
    assert notes() == ["a", "b"]
    assert Task.objects.get(pk=id).result == "a"


def test_hooks_follow_in_the_same_commit(hand):
    async_task(write, "a", hook="tests.execution.test_atomic.hook")
    hand.work()
    assert notes() == ["a", "hook"]


def hook(task: Task) -> None:
    Note.objects.create(text="hook")


def test_a_row_from_psql_is_atomic_too(hand):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgq_queue (func, args) VALUES ('tests.execution.test_atomic.write_and_fail', '[\"psql\"]')"
        )
    hand.work()
    assert notes() == []
    assert Failure.objects.count() == 1


def test_an_async_function_cannot_be_atomic():
    with pytest.raises(EnqueueError, match="atomic:"):

        @task(atomic=True)
        async def never() -> None: ...


def test_other_tasks_have_no_transaction(hand):
    async_task("tests.execution.test_atomic.in_a_transaction")
    hand.work()
    assert Task.objects.get().result is False


def in_a_transaction() -> bool:
    return connection.in_atomic_block
