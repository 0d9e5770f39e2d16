"""Connections of Django that a worker keeps between tasks: one that has ended meanwhile is no task's trouble."""

from __future__ import annotations

import time

import pytest
from django.db import connection, transaction

from pgq.pool.worker.connections import Connections, _has_news
from pgq.tasks import async_task, fetch
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

#: Function, and the pool that runs it: in the main thread, on the loop, in a thread.
PLACES = [
    ("tests.functions.slots.server_pid", "alone"),
    ("tests.functions.slots.aserver_pid", "alone"),
    ("tests.functions.slots.server_pid", "threads"),
]


def test_the_server_ends_the_sessions_of_an_idle_worker(pool, session):
    env = {"DJANGO_SETTINGS_MODULE": "tests.support.lasting_settings"}
    pool("--queues", "alone", workers=1, env=env)
    pool("--queues", "threads", workers=1, threads=2, env=env)

    def sessions() -> list[int]:
        done = [fetch(async_task(func, queue=queue), wait=20_000) for func, queue in PLACES]
        assert [task.message for task in done if not task.success] == []
        return [task.result for task in done]

    look = session()
    before = sessions()
    assert sessions()[:2] == before[:2], "they are kept"
    ended = look.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", (sorted(set(before)),)).fetchall()
    assert all(done for (done,) in ended)
    wait_for(lambda: not look.execute("SELECT FROM pg_stat_activity WHERE pid = ANY (%s)", (before,)).fetchall())
    # Those of the coroutines' thread are looked at once in a second.
    time.sleep(1.1)
    assert set(sessions()).isdisjoint(before)


@pytest.fixture
def watched():
    """This thread's connection."""
    connection.close()
    connection.ensure_connection()
    return connection.connection


@pytest.fixture
def kept():
    """The connections of a worker whose threads have some."""
    kept = Connections()
    kept.elsewhere = True
    return kept


def test_a_connection_over_its_age_is_closed_before_a_task(watched, kept):
    connection.close_at = time.monotonic() + 60
    kept.refresh_own()
    assert connection.connection is watched
    connection.close_at = time.monotonic()
    kept.refresh_own()
    assert connection.connection is None


def test_a_connection_that_only_has_something_to_say_stays(watched, kept, session):
    connection.close_at = None
    with connection.cursor() as cursor:
        cursor.execute("LISTEN tests_news")
    session().execute("NOTIFY tests_news")
    wait_for(lambda: _has_news(watched))
    kept.refresh_own()
    assert connection.connection is watched
    connection.close()


def test_what_is_in_a_transaction_is_left_alone(watched, kept):
    connection.close_at = time.monotonic()
    with transaction.atomic():
        kept.refresh_own()
        assert connection.connection is watched
