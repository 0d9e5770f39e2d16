"""The check for django-health-check, by its own view."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.urls import path
from health_check.views import HealthCheckView

from pgq.tasks import async_task, pause
from tests.support.pool_rows import WORKERS, make_pool

pytestmark = pytest.mark.django_db(transaction=True)

CHECK = "pgq.contrib.health_check.PgqHealthCheck"
urlpatterns: list[Any] = []


def answer(**options: Any) -> tuple[int, dict[str, str]]:
    """Return the status of the page, and what it says of each check."""
    view = HealthCheckView.as_view(checks=[(CHECK, options)])
    urlpatterns[:] = [path("health/", view)]
    with override_settings(ROOT_URLCONF=__name__):
        response = Client().get("/health/", headers={"accept": "application/json"})
    return response.status_code, json.loads(response.content)


def said(**options: Any) -> str:
    return " ".join(answer(**options)[1].values())


def test_it_is_well_while_a_pool_runs() -> None:
    make_pool(workers=WORKERS)
    status, checks = answer()
    assert (status, set(checks.values())) == (200, {"OK"})


def test_without_a_pool_it_is_unavailable_unless_none_is_needed() -> None:
    assert answer()[0] == 500
    assert "problems: pools" in said()
    assert answer(need_pool=False)[0] == 200


def test_a_task_that_waits_too_long() -> None:
    make_pool(workers=[*WORKERS, {"number": 2, "state": "idle", "pid": 1, "id": "c" * 32}])
    async_task("tests.functions.oracle.mark", 1, queue="secret-queue")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pgq_queue SET enqueued_at = enqueued_at - interval '5 minutes'")
    assert answer()[0] == answer(max_oldest_ready=600)[0] == 200
    assert re.search(r"ready for 3\d\d s, more than 60 s", said(max_oldest_ready=60))
    assert "secret-queue" not in said(max_oldest_ready=60)
    assert answer(max_oldest_ready=60, queues=("other",))[0] == 200
    async_task("tests.functions.oracle.mark", 1, queue="web")
    pause("secret-queue")
    assert answer(max_oldest_ready=60)[0] == 200


def test_a_warning_counts_only_if_that_is_wanted() -> None:
    make_pool(workers=WORKERS)
    async_task("tests.functions.oracle.mark", 1, queue="mail")
    async_task("tests.functions.oracle.mark", 1, queue="web")
    pause("mail")
    assert answer()[0] == 200
    assert "warnings: paused" in said(warnings=True)


def test_without_tables_it_says_no_more_than_that() -> None:
    make_pool(workers=WORKERS)
    with connection.cursor() as cursor:
        cursor.execute("ALTER FUNCTION pgq_check(interval, integer) RENAME TO gone")
    try:
        assert "the tables of pgq are missing" in said()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER FUNCTION gone(interval, integer) RENAME TO pgq_check")
