"""Enqueueing again and again over one of Django's connections: prepared where that is safe, else as Django would."""

from __future__ import annotations

import threading

import pytest
from django.db import DatabaseError, DataError, InterfaceError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from pgq.models import QueuedTask
from pgq.store import caller
from pgq.tasks import async_task
from tests.support.hand import MARK

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh():
    """A new session for each test, and nothing prepared left for the next."""
    connection.close()
    yield
    connection.close()


def prepared() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def enqueue(count: int) -> None:
    for number in range(count):
        async_task(MARK, number)


def queued() -> list[int]:
    return [task.args[0] for task in QueuedTask.objects.order_by("position")]


def make_busy() -> None:
    enqueue(10)
    assert len(prepared()) == 1
    QueuedTask.objects.all().delete()


def test_a_busy_connection_prepares_the_insert_and_nothing_else():
    enqueue(3)
    assert prepared() == []
    enqueue(10)
    (statement,) = prepared()
    assert statement.startswith("INSERT INTO pgq_queue")
    for _ in range(10):
        QueuedTask.objects.filter(pk="00000000000000000000000000000000").exists()
    assert prepared() == [statement]
    assert connection.connection.prepare_threshold is None


def test_each_connection_counts_for_itself():
    make_busy()
    connection.close()
    enqueue(3)
    assert prepared() == []


def test_what_a_rollback_takes_back_is_not_there():
    make_busy()
    with transaction.atomic():
        enqueue(2)
        with transaction.atomic():
            enqueue(1)
            transaction.set_rollback(True)
    with transaction.atomic():
        enqueue(1)
        transaction.set_rollback(True)
    enqueue(1)
    assert queued() == [0, 1, 0]


@pytest.mark.parametrize("statement", ["DISCARD ALL", "DEALLOCATE ALL"])
def test_what_was_prepared_may_be_taken_away(statement):
    make_busy()
    with connection.cursor() as cursor:
        cursor.execute(statement)
    with transaction.atomic():
        enqueue(1)
    enqueue(2)
    assert queued() == [0, 0, 1]
    assert connection.connection.prepare_threshold is None


def test_a_name_that_is_taken_already():
    with connection.cursor() as cursor:
        cursor.execute("PREPARE _pg3_0 AS SELECT 1")
    enqueue(10)
    assert queued() == [*range(10)]


def test_a_pooler_is_never_asked_to_prepare(monkeypatch):
    """Its clients see other pids than the server's sessions have (with PgBouncer: tests/faults/test_pooler.py)."""
    monkeypatch.setattr(caller, "server_pid", lambda connection: connection.info.backend_pid + 1)
    enqueue(20)
    assert prepared() == []
    assert queued() == [*range(20)]


def test_who_listens_to_djangos_cursors_hears_each_statement():
    make_busy()
    with CaptureQueriesContext(connection) as queries:
        enqueue(2)
    assert [query["sql"].split()[:3] for query in queries] == [["INSERT", "INTO", "pgq_queue"]] * 2
    heard = []

    def wrapper(execute, sql, params, many, context):
        heard.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        enqueue(1)
    assert len(heard) == 1


def test_errors_are_djangos():
    make_busy()
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match="read-only"):
        enqueue(1)
    with connection.cursor() as cursor:
        cursor.execute("RESET default_transaction_read_only")
    with transaction.atomic():
        with pytest.raises(DataError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 'x'::int")
        enqueue(1)
    with transaction.atomic():
        with pytest.raises(DataError), connection.cursor() as cursor:
            cursor.execute("SELECT 'x'::int")
        with pytest.raises(DatabaseError, match="current transaction is aborted"):
            enqueue(1)
        transaction.set_rollback(True)
    assert queued() == [0]


def test_a_connection_that_is_gone_is_an_error_and_the_next_one_is_new(session):
    make_busy()
    pid = connection.connection.info.backend_pid
    session().execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with pytest.raises((InterfaceError, DatabaseError)):
        enqueue(1)
    connection.close()
    enqueue(1)
    assert queued() == [0]


def test_another_thread_may_not_use_it():
    make_busy()
    errors = []
    ours = connections["default"]

    def use() -> None:
        connections["default"] = ours
        try:
            enqueue(1)
        except DatabaseError as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(errors) == 1


def test_a_threshold_of_the_users_own_stays():
    connection.ensure_connection()
    connection.connection.prepare_threshold = 3
    enqueue(10)
    assert connection.connection.prepare_threshold == 3
    assert [statement for statement in prepared() if statement.startswith("INSERT INTO pgq_queue")]
