"""The panel of django-debug-toolbar, in a request that goes through its middleware."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path

from pgq.contrib import debug_toolbar
from pgq.ground import events
from pgq.tasks import aenqueue, async_task, enqueue_many

MARK = "tests.functions.oracle.mark"
TRUEDIV = "operator.truediv"
CALLS = "tests.functions.tracing.calls_outside"

pytestmark = pytest.mark.django_db(transaction=True)


def view(request: HttpRequest) -> HttpResponse:
    which = request.GET["which"]
    if which == "one":
        given = ["<b>", {"password": "hunter2"}]
        async_task(CALLS, given, api_token="hunter2", q_options={"queue": "mail", "priority": 3})
    elif which == "sensitive":
        async_task(MARK, "hunter2", q_options={"sensitive": True})
    elif which == "many":
        enqueue_many(TRUEDIV, [(1, 1)] * 3)
        enqueue_many(TRUEDIV, [])
    elif which == "one by one":
        for number in range(debug_toolbar.MANY):
            async_task(TRUEDIV, number, 1)
    elif which == "rolled back":
        with transaction.atomic():
            async_task(MARK, 1)
        with transaction.atomic():
            async_task(MARK, 2)
            transaction.set_rollback(True)
    return HttpResponse("<html><body>done</body></html>")


async def view_on_loop(request: HttpRequest) -> HttpResponse:
    await asyncio.gather(*(aenqueue(MARK, number) for number in range(2)))
    return HttpResponse("<html><body>done</body></html>")


urlpatterns: list[Any] = [
    path("view/", view),
    path("loop/", view_on_loop),
    path("admin/", admin.site.urls),
]


def toolbar_class() -> Any:
    # Its models want to be installed before they are imported.
    from debug_toolbar.toolbar import DebugToolbar

    return DebugToolbar


@pytest.fixture(autouse=True)
def toolbar() -> Iterator[None]:
    with override_settings(
        DEBUG=True,
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "debug_toolbar"],
        MIDDLEWARE=["debug_toolbar.middleware.DebugToolbarMiddleware", *settings.MIDDLEWARE],
        DEBUG_TOOLBAR_PANELS=["pgq.contrib.debug_toolbar.PgqPanel"],
        DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True, "IS_RUNNING_TESTS": False},
    ):
        toolbar_class()._panel_classes = None
        urlpatterns[3:] = [path("__debug__/", include("debug_toolbar.urls"))]
        yield
        toolbar_class()._panel_classes = None
    events.around_enqueue.remove(debug_toolbar._enqueueing)
    events.enqueue.forget(debug_toolbar._enqueued)


def panel_of(response: Any) -> tuple[dict[str, Any], str]:
    """Return what the panel of that request has kept, and its text for people."""
    id = re.search(r'data-request-id="([^"]+)"', response.content.decode())[1]
    shown = Client().get("/__debug__/render_panel/", {"request_id": id, "panel_id": "PgqPanel"}).json()["content"]
    kept = toolbar_class().fetch(id, "PgqPanel").get_panel_by_id("PgqPanel").get_stats()
    return kept, shown


def seen(which: str) -> tuple[dict[str, Any], str]:
    return panel_of(Client().get("/view/", {"which": which}))


def test_a_task_is_shown_with_its_line_and_without_secrets() -> None:
    kept, shown = seen("one")
    (one,) = kept["enqueues"]
    assert (one["func"], one["queue"], one["priority"], one["arrived"]) == (CALLS, "mail", 3, "yes")
    file, _, line = one["line"].rpartition(":")
    assert Path(file) == Path(__file__)
    assert "api_token" in Path(file).read_text().splitlines()[int(line) - 1]
    assert '["<b>", {"password": "********"}], api_token="********"' in unescape(shown)
    assert "<b>" not in shown
    assert f"/admin/pgq/queuedtask/{one['id']}/change/" in shown
    assert "hunter2" not in shown + seen("sensitive")[1]


def test_many_tasks_are_one_line_and_one_by_one_is_warned_about() -> None:
    kept, shown = seen("many")
    assert [(one["number"], one["id"], one["arguments"]) for one in kept["enqueues"]] == [(3, "", ""), (0, "", "")]
    assert [one["arrived"] for one in kept["enqueues"]] == ["yes", "nothing"]
    assert "nothing to write" in shown
    assert kept["warnings"] == []
    kept, shown = seen("one by one")
    assert kept["number"] == debug_toolbar.MANY
    assert f"{TRUEDIV} was enqueued 10 times, one by one" in shown


def test_what_was_rolled_back_never_arrived() -> None:
    kept, shown = seen("rolled back")
    assert [(one["when"], one["arrived"]) for one in kept["enqueues"]] == [("commit", "yes"), ("commit", "rolled back")]
    assert "1 task was rolled back with its transaction" in shown


def test_a_request_without_tasks_and_the_next_one() -> None:
    assert "has enqueued no tasks" in seen("none")[1]
    async_task(MARK, 1)
    assert seen("none")[0]["number"] == 0


def test_on_the_loop() -> None:
    # By this thread: it is where the connections are, which the test closes.
    response = async_to_sync(AsyncClient().get)("/loop/")
    kept, _ = panel_of(response)
    assert kept["number"] == 2
