"""What tasks say of themselves, in the admin."""

from __future__ import annotations

import json
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from pgq.ground import ids
from tests.support.admin import finished, queued, sql, url

pytestmark = pytest.mark.django_db

XSS = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>'"
LOG = [
    {"at": "2026-11-25T10:00:00.123+00:00", "level": "INFO", "attempt": 1, "message": "first & foremost"},
    {"at": "2026-11-25T10:00:01.123+00:00", "level": "WARNING", "attempt": 2, "message": "second\nline"},
]


def running(**columns: object) -> str:
    return queued(lock="2026-11-25 10:00Z", worker=ids.new_id(), receipt=ids.new_id(), **columns)


def say(id: str, done: float | None, total: float | None = None, text: str | None = None, log: object = "[]") -> None:
    row = (id, done, total, text, log if isinstance(log, str) else json.dumps(log))
    sql("INSERT INTO pgq_progress (task, done, total, text, log) VALUES (%s, %s, %s, %s, %s)", *row)


def page_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_the_pages_of_a_queued_and_of_a_finished_task(admin_client: Client) -> None:
    for model, id in (("queuedtask", running()), ("success", finished()), ("failure", finished(False))):
        assert "Progress" not in page_of(admin_client, url(model, "change", id))
        say(id, 250, 1000, "pages & more", LOG)
        page = page_of(admin_client, url(model, "change", id))
        assert '<progress max="1" value="0.2500" aria-label="250 / 1,000"></progress>' in page
        assert "25 %" in page
        assert "pages &amp; more" in page
        # The last one first, as in the history.
        assert " WARNING (2) second\nline\n2026-11-25 10:00:00.123 INFO (1) first &amp; foremost</pre>" in page
        whole = page_of(admin_client, url(model, "value", id, "log"))
        assert whole.startswith("2026-11-25 10:00:01.123 WARNING (2) second")


def test_the_list_shows_the_running_ones_by_one_statement(admin_client: Client) -> None:
    ids = [running() for _ in range(10)]
    say(queued(), 77)
    for number, id in enumerate(ids[:8]):
        say(id, number, 8, XSS, [XSS])
    say(ids[8], 1234567.5)
    say(ids[9], 3, 0)
    with CaptureQueriesContext(connection) as queries:
        page = page_of(admin_client, url("queuedtask"))
    assert sum("pgq_progress" in query["sql"] for query in queries) == 1
    cells = re.findall(r'field-progress_cell">(.*?)</td>', page)
    words = sorted(" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in cells)
    bars = [f"{round(100 * number / 8)} % ({number} / 8)" for number in range(8)]
    assert words == sorted(["-", "1,234,567.5", "3 / 0", *bars])
    # With none that runs it is not asked.
    with CaptureQueriesContext(connection) as queries:
        page_of(admin_client, url("queuedtask", query="?state=ready"))
    assert not any("pgq_progress" in query["sql"] for query in queries)


@pytest.mark.parametrize(
    ("done", "total"), [("NaN", "NaN"), ("Infinity", "Infinity"), ("-1", "5"), ("1", "-Infinity"), ("1e308", "1e-308")]
)
def test_whatever_the_row_holds_the_pages_open_and_nothing_is_markup(
    admin_client: Client, done: str, total: str
) -> None:
    lines = ["x", None, 1, {"message": XSS, "at": [XSS], "level": {XSS: 1}}, [[XSS]]]
    log = json.dumps(lines)[:-1] + ", " + "9" * 5000 + "]"
    for model, id in (("queuedtask", running()), ("success", finished())):
        say(id, float(done), float(total), XSS, log)
        for address in (url(model), url(model, "change", id), url(model, "value", id, "log")):
            page = page_of(admin_client, address)
            assert "<img src=x" not in page or address.endswith("/log/")
            assert "<script>alert" not in page or address.endswith("/log/")
    response = admin_client.get(url("success", "value", id, "log"))
    assert response.headers["Content-Type"].startswith("text/plain")


def test_of_a_sensitive_task_the_words_are_hidden(admin_client: Client) -> None:
    options = '{"sensitive": true}'
    for model, id in (("queuedtask", running(options=options)), ("success", finished(options=options))):
        say(id, 1, 2, "the secret word", [{"message": "the secret line"}])
        for address in (url(model), url(model, "change", id), url(model, "value", id, "log")):
            assert "secret" not in page_of(admin_client, address)
        page = page_of(admin_client, url(model, "change", id))
        assert "hidden: 15 characters, digest" in page
        assert "50 %" in page
