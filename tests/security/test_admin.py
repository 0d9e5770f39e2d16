"""What the admin and its users could do to us. Thin: each page and action is tried in tests/admin/test_admin.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings
from django.urls import URLPattern, URLResolver, get_resolver

from pgq.models import QueuedTask
from pgq.tasks import async_iter, async_task, schedule
from tests.support.admin import REGISTERED, finished, post_action, queued, schedule_data, snapshot, url
from tests.support.hand import MARK, run_all

pytestmark = pytest.mark.django_db

XSS = '<script>alert(1)</script>"><img src=x onerror=alert(2)></script>'


@pytest.fixture
def staff(client: Client) -> Any:
    """Log a staff user in who has just these permissions."""

    def log_in(*codenames: str) -> Client:
        user = User.objects.create_user("-".join(codenames) or "nobody", password="x", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(content_type__app_label="pgq", codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


# ------------------------------------------------------------------------------------------------- pages and routes


@pytest.mark.fault("S8")
@pytest.mark.parametrize("field", ["func", "name", "queue", "group", "hook", "args", "options", "parked", "history"])
def test_nothing_in_a_row_becomes_markup(admin_client: Client, field: str) -> None:
    value = json.dumps([{XSS: XSS}] if field in ("args", "history") else {XSS: XSS}) if field in (
        "args", "options", "history",
    ) else XSS  # fmt: skip
    pk = queued(**{field: value})
    for address in (url("queuedtask"), url("queuedtask", "change", pk), url("queuedtask", query="?q=" + XSS)):
        page = admin_client.get(address).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    whole = admin_client.get(url("queuedtask", "value", pk, "args"))
    assert whole["Content-Type"].startswith("text/plain")
    assert whole["X-Content-Type-Options"] == "nosniff"


@pytest.mark.fault("S9")
def test_a_get_and_a_forged_post_change_nothing(admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    pk = queued(parked="odd")
    before = snapshot()
    for action in ("cancel_task", "run_now", "release_parked", "delete_selected"):
        query = f"?action={action}&_selected_action={pk}&confirmed=1"
        assert client.get(url("queuedtask", query=query)).status_code in (200, 302, 400)
        assert post_action(client, "queuedtask", action, pk, confirmed="1").status_code == 403
    assert snapshot() == before


@pytest.mark.fault("S9")
def test_pages_cannot_be_framed_where_djangos_middleware_is_on(admin_client: Client, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.clickjacking.XFrameOptionsMiddleware"]
    pk = queued()
    for address in (url("queuedtask"), url("queuedtask", "change", pk), url("queuedtask", "value", pk, "args")):
        assert admin_client.get(address)["X-Frame-Options"] == "DENY"


@pytest.mark.fault("S12")
def test_the_admins_routes_want_a_login(client: Client) -> None:
    """(Those of REST: tests/urls/test_access.py.)"""

    def views(patterns: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                yield from views(pattern.url_patterns, prefix + str(pattern.pattern))
            elif isinstance(pattern, URLPattern):
                yield prefix + str(pattern.pattern), pattern.callback

    there = [(route, view) for route, view in views(get_resolver().url_patterns) if "pgq" in route]
    ours = [(route, view) for route, view in there if not hasattr(view, "endpoints")]
    assert len(ours) > 20
    assert all(route.startswith(("admin/pgq/", "admin/^")) for route, _ in ours)
    for route, _ in ours:
        address = (
            "/admin/pgq/"
            if "^" in route
            else "/"
            + route.replace("<path:object_id>", "1").replace("<str:object_id>", "1").replace("<str:field>", "args")
        )
        for method in (client.get, client.post):
            response = method(address)
            assert response.status_code == 302, address
            assert response["Location"].startswith("/admin/login/"), address


# ------------------------------------------------------------------------------------------------- who may do what


@pytest.mark.fault("S6", "S10")
def test_parked_tasks_are_seen_and_released_with_the_permission_only(staff: Any, session: Any, oracle: Any) -> None:
    with override_settings(SECRET_KEY="the key of another world, which nobody here knows"):
        ids = [async_task(MARK, n) for n in range(3)]
    run_all(session())
    assert QueuedTask.objects.filter(parked__contains="signed with a key not known here").count() == 3
    others = ("view_queuedtask", "change_queuedtask", "add_queuedtask", "delete_queuedtask", "cancel_queuedtask")
    client = staff(*others)
    page = client.get(url("queuedtask", query="?state=parked")).content.decode()
    assert page.count("signed with a key not known here") == 3
    assert "release_parked" not in page
    for more in ({}, {"confirmed": "1"}, {"select_across": "1", "confirmed": "1"}):
        assert post_action(client, "queuedtask", "release_parked", *ids, **more).status_code == 403
    client = staff("view_queuedtask", "release_queuedtask")
    asked = post_action(client, "queuedtask", "release_parked", *ids)
    assert b"Workers look at them again" in asked.content
    assert QueuedTask.objects.filter(parked=None).count() == 0
    assert post_action(client, "queuedtask", "release_parked", *ids, confirmed="1").status_code == 302
    assert LogEntry.objects.count() == 3
    # Under the wrong key they are refused once more, and with the right one as a fallback they run.
    run_all(session())
    assert QueuedTask.objects.exclude(parked=None).count() == 3
    assert post_action(client, "queuedtask", "release_parked", *ids, confirmed="1").status_code == 302
    with override_settings(SECRET_KEY_FALLBACKS=["the key of another world, which nobody here knows"]):
        run_all(session())
    assert sorted(oracle.count("end")) == ["0", "1", "2"]
    assert QueuedTask.objects.count() == 0


@pytest.mark.fault("S10")
def test_release_leaves_what_is_not_parked(staff: Any) -> None:
    waiting = async_task(MARK, run_after=3600)
    client = staff("view_queuedtask", "release_queuedtask")
    assert post_action(client, "queuedtask", "release_parked", waiting, confirmed="1").status_code == 302
    assert QueuedTask.objects.get().run_after is not None
    assert LogEntry.objects.count() == 0


@pytest.mark.fault("S11")
@pytest.mark.parametrize("func", ["os.system", "subprocess.call", "builtins.eval", MARK, f"{REGISTERED}.__globals__"])
def test_staff_can_name_only_what_is_registered(staff: Any, func: str) -> None:
    client = staff("add_schedule", "change_schedule", "view_schedule", "add_queuedtask", "view_queuedtask")
    made = client.post(url("schedule", "add"), schedule_data(func=func))
    assert made.status_code == 200
    assert "func" in made.context["adminform"].form.errors
    assert client.post(url("schedule", "add"), schedule_data(hook=func)).status_code == 200
    task = {"func": func, "arguments": "'id'", "keywords": "", "queue": "default", "priority": "0"}
    assert client.post(url("queuedtask", "add"), task).status_code == 200
    row = schedule(MARK, name="made in code", schedule_type="H")
    assert client.post(url("schedule", "change", row.pk), schedule_data(func=func, hook=func)).status_code == 200
    row.refresh_from_db()
    assert (row.func, row.hook) == (MARK, None)
    assert QueuedTask.objects.count() == 0


# ------------------------------------------------------------------------------------------------- secrets


@pytest.mark.fault("S13")
def test_a_sensitive_tasks_values_are_shown_as_digests(admin_client: Client, session: Any, oracle: Any) -> None:
    hidden = '{"sensitive": true}'
    live = async_task(MARK, "hunter2", sensitive=True)
    twin = async_task(MARK, "hunter2", q_options={"sensitive": True})
    done = finished(args='["hunter2"]', result='"hunter2"', options=hidden)
    digests = []
    for model, pk, fields in (
        ("queuedtask", live, ("args", "options")),
        ("queuedtask", twin, ("args",)),
        ("success", done, ("args", "value")),
    ):
        page = admin_client.get(url(model, "change", pk)).content.decode()
        page += admin_client.get(url(model)).content.decode()
        for field in fields:
            whole = admin_client.get(url(model, "value", pk, field)).content.decode()
            page += whole
            assert whole.startswith("<hidden: ")
            digests.append(whole.rpartition("digest ")[2])
        assert "hunter2" not in page
    # Equal arguments can be told, and not tried out: the digest has a key.
    assert digests[0] == digests[2] == digests[3]
    with override_settings(SECRET_KEY="the key of another world, which nobody here knows"):
        again = admin_client.get(url("success", "value", done, "args"))
        if again.status_code == 200:  # (the session may be signed, too)
            assert digests[3] not in again.content.decode()
    run_all(session())
    assert oracle.ends("hunter2") == 2


@pytest.mark.fault("S13")
def test_the_collector_of_sensitive_tasks_is_sensitive(session: Any, oracle: Any) -> None:
    async_iter(MARK, ["a", "b"], sensitive=True)
    assert all(row.options["sensitive"] for row in QueuedTask.objects.all())
    assert QueuedTask.objects.count() == 3


@pytest.mark.fault("S19")
def test_lists_search_and_filters_read_a_bounded_part(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    """(Of a million rows: see tests/admin/test_admin.py.) No pattern of the user's reaches a regular expression."""
    for _ in range(3):
        queued()
    with django_assert_max_num_queries(60) as made:
        for term in ("(a+)+$", "%" * 100, "\\", "a" * 5000, "'; DROP TABLE pgq_queue; --"):
            assert admin_client.get(url("queuedtask"), {"q": term}).status_code == 200
    assert not any(" ~ " in query["sql"] for query in made.captured_queries)
    assert QueuedTask.objects.count() == 3
