"""Pruning: what nobody wants kept goes, and no row can stop it."""

from __future__ import annotations

import pytest
from django.db import connection

from pgq.models import Task
from pgq.store import results

pytestmark = pytest.mark.django_db


def finished(count: int, options: str = "{}", success: bool = True) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue, options, exception)
            SELECT pgq_uuid7(), %s, now(), now(), now(), 'tests.app.tasks.noop', 'default', %s, %s
              FROM generate_series(1, %s)
            """,
            [success, options, None if success else "builtins.ValueError", count],
        )


def prune(keep: int) -> int:
    with connection.cursor() as cursor:
        return results.prune(cursor, keep=keep, limit=1000).count


def test_oldest_successes_beyond_the_limit_go_and_failures_stay():
    finished(3, success=False)
    finished(10)
    newest = list(Task.objects.filter(success=True).order_by("-id").values_list("id", flat=True)[:4])
    assert prune(4) == 6
    assert list(Task.objects.filter(success=True).order_by("-id").values_list("id", flat=True)) == newest
    assert Task.objects.filter(success=False).count() == 3


@pytest.mark.parametrize("collector", ["x", "", "0" * 32, "not-a-uuid"])
def test_an_option_that_is_no_id_stops_nothing(collector):
    finished(5, options=f'{{"collector": "{collector}"}}')
    assert prune(0) == 5


def test_parts_stay_until_their_collector_has_read_them():
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO pgq_queue (func, remaining) VALUES ('tests.app.tasks.noop', 9) RETURNING id")
        collector = cursor.fetchone()[0].hex
    finished(5, options=f'{{"collector": "{collector}"}}')
    assert prune(0) == 0
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM pgq_queue")
    assert prune(0) == 5
