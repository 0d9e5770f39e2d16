"""Who may use the routes: a login with permissions, a token with scopes, and no other."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client

from pgq.conf import get_settings
from pgq.conf.tokens import SCOPES, digest
from pgq.tasks import async_task
from pgq.urls.endpoint import ENDPOINTS, LARGEST_BODY, Endpoint
from tests.support.admin import REGISTERED, snapshot

pytestmark = pytest.mark.django_db
EACH = pytest.mark.parametrize("each", ENDPOINTS, ids=lambda each: f"{each.method} {each.path}")


def address(each: Endpoint) -> str:
    path = each.path.replace("{id}", "0" * 32).replace("{schedule}", "1")
    return "/pgq/" + path.replace("{queue}", "default").replace("{func}", REGISTERED).replace("{group}", "some")


def ask(client: Client, each: Endpoint, **headers: str) -> Any:
    call = getattr(client, each.method.lower())
    given = {"content_type": "application/json", "data": "{}"} if each.body is not None else {}
    return call(address(each), headers=headers, **given)


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "no-store"
    found: dict[str, Any] = json.loads(response.content)
    assert found["status"] == status
    assert found["type"].startswith("urn:pgq:problem:")
    return found


@pytest.mark.fault("S12")
@EACH
def test_each_route_is_closed(each: Endpoint, api: Any, settings: Any) -> None:
    """To a stranger, a wrong token, a token of all other scopes, a user, staff without the permission."""
    async_task(REGISTERED)
    before = snapshot()
    client = Client(enforce_csrf_checks=True)
    assert problem(ask(client, each), 401)
    assert ask(client, each)["WWW-Authenticate"].startswith("Bearer")
    for wrong in ("Bearer", "Bearer ", "Bearer pgq_wrong", "Basic dGVzdDp0ZXN0", "pgq_read", "Bearer \u2603"):
        problem(ask(client, each, Authorization=wrong), 401)
    others = api(*(scope for scope in SCOPES if scope != each.scope))
    problem(ask(others.client, each, **others.headers), 403)
    client.force_login(User.objects.create_user("user", is_superuser=True))
    problem(ask(client, each), 403)
    if each.permissions or each.method != "GET":
        client.force_login(User.objects.create_user("staff", is_staff=True))
        problem(ask(client, each), 403)
    # Not in the address, whatever its name.
    secret = api(each.scope).headers["Authorization"].removeprefix("Bearer ")
    for name in ("token", "access_token", "api_key", "Authorization"):
        assert Client().get(address(each), {name: secret}).status_code in (401, 405)
    assert snapshot() == before


@pytest.mark.fault("S12", "S10")
@EACH
def test_a_login_needs_all_permissions_of_a_route_and_a_program_its_scope(each: Endpoint, api: Any) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    needed = Permission.objects.filter(content_type__app_label="pgq", codename__in=each.permissions)
    assert needed.count() == len(each.permissions)
    for missing in each.permissions:
        user.user_permissions.set(needed.exclude(codename=missing))
        client = Client()
        client.force_login(User.objects.get())
        problem(ask(client, each), 403)
    user.user_permissions.set(needed)
    client = Client()
    client.force_login(User.objects.get())
    assert ask(client, each).status_code not in (401, 403, 500)
    program = api(each.scope)
    assert ask(program.client, each, **program.headers).status_code not in (401, 403, 500)


@pytest.mark.fault("S9")
@pytest.mark.parametrize(
    "each", [each for each in ENDPOINTS if each.method != "GET"], ids=lambda each: f"{each.method} {each.path}"
)
def test_what_a_browser_writes_must_carry_the_csrf_token(each: Endpoint, admin_user: User) -> None:
    before = snapshot()
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert "CSRF" in problem(ask(client, each), 403)["detail"]
    client.get("/admin/pgq/queuedtask/add/")
    secret = client.cookies["csrftoken"].value
    assert "CSRF" in problem(ask(client, each, **{"X-CSRFToken": secret[:-1] + "?"}), 403)["detail"]
    assert snapshot() == before
    assert ask(client, each, **{"X-CSRFToken": secret}).status_code != 403
    # A form of another site cannot send JSON without being asked for first, and no header allows it.
    assert "Access-Control-Allow-Origin" not in client.options(address(each), headers={"Origin": "https://else"})


@pytest.mark.fault("S12")
@EACH
def test_other_methods_and_wrong_input_are_refused(each: Endpoint, api: Any) -> None:
    caller = api()
    there = {other.method for other in ENDPOINTS if other.path == each.path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - there:
        response = caller.client.generic(method, address(each), headers=caller.headers)
        problem(response, 405)
        assert set(response["Allow"].split(", ")) - {"HEAD"} == there
    wrong = caller.client.generic(each.method, address(each) + "?nonsense=1", headers=caller.headers)
    assert "nonsense" in problem(wrong, 400)["errors"]
    if "limit" in each.query:
        for value in ("0", "201", "1.5", "x", "", "１"):
            assert (
                "limit"
                in problem(caller.client.get(address(each), {"limit": value}, headers=caller.headers), 400)["errors"]
            )
        problem(caller.client.get(address(each), {"limit": ["1", "2"]}, headers=caller.headers), 400)
    if each.body is None:
        return

    def send(content: Any, kind: str = "application/json") -> Any:
        return caller.client.generic(each.method, address(each), content, content_type=kind, headers=caller.headers)

    problem(send(b" " * (LARGEST_BODY + 1)), 413)
    problem(send(b"a=1", "application/x-www-form-urlencoded"), 415)
    for content in (b"[]", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b'"text"'):
        problem(send(content), 400)
    assert "nonsense" in problem(send(b'{"nonsense": 1}'), 400)["errors"]


def test_a_parameter_is_refused_by_its_name(api: Any) -> None:
    caller = api()
    for name, value in (
        ("state", "gone"), ("queue", ""), ("queue", "a\0b"), ("func", "x" * 501), ("since", "yesterday"),
        ("since", "2030-01-31T12:00:00"), ("before", "1"), ("group", "x" * 201),
    ):  # fmt: skip
        assert name in caller.get("v1/tasks", 400, **{name: value})["errors"]
    assert "wait" in caller.get(f"v1/tasks/{'0' * 32}/result", 400, wait="26")["errors"]
    assert caller.get("v1/tasks/nothing", 404)["detail"] == caller.get(f"v1/tasks/{'0' * 32}", 404)["detail"].replace(
        "task", "thing"
    )


# ------------------------------------------------------------------------------------------------- tokens


def test_pgq_token_prints_a_secret_once_and_what_the_settings_hold(settings: Any, client: Client) -> None:
    out = io.StringIO()
    call_command("pgq_token", "grafana", "--scope", "metrics", "--scope", "read", "--json", stdout=out)
    made = json.loads(out.getvalue())
    assert made["secret"] not in json.dumps(made["setting"])
    settings.PGQ = {"api_tokens": {made["name"]: made["setting"]}}
    headers = {"Authorization": f"Bearer {made['secret']}"}
    assert client.get("/pgq/v1/status", headers=headers).status_code == 200
    assert client.post("/pgq/v1/queues/default/pause", headers=headers).status_code == 403
    settings.PGQ = {}
    assert client.get("/pgq/v1/status", headers=headers).status_code == 401
    out = io.StringIO()
    call_command("pgq_token", "grafana", "--scope", "metrics", stdout=out)
    secret, line = out.getvalue().splitlines()[1].strip(), out.getvalue().splitlines()[3].strip()
    name, entry = next(iter(eval("{" + line + "}").items()))
    assert (name, entry) == ("grafana", {"sha256": digest(secret), "scopes": ["metrics"]})
    with pytest.raises(CommandError, match="NAME"):
        call_command("pgq_token", "two\nlines", "--scope", "read")


@pytest.mark.parametrize(
    "value",
    [
        [], {"a": {}}, {"a": {"sha256": "00", "scopes": ["read"]}}, {"a": {"sha256": "0" * 64, "scopes": []}},
        {"a": {"sha256": "0" * 64, "scopes": ["all"]}}, {"": {"sha256": "0" * 64, "scopes": ["read"]}},
        {"a": {"sha256": "0" * 64, "scopes": "read"}}, {"a": "secret"},
    ],
)  # fmt: skip
def test_a_wrong_setting_opens_nothing(settings: Any, value: Any) -> None:
    settings.PGQ = {"api_tokens": value}
    with pytest.raises(ImproperlyConfigured, match="api_tokens"):
        get_settings()


@pytest.mark.fault("S13")
def test_what_is_done_is_logged_by_name_and_no_secret_with_it(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    caller = api()
    id = async_task(REGISTERED, "hunter2")
    with caplog.at_level(logging.INFO, logger="pgq"):
        assert caller.post(f"v1/tasks/{id}/cancel")["done"] == "cancelled"
        caller.post("v1/queues/default/pause")
    assert f"token test.{'.'.join(SCOPES)}, by REST: cancelled task {id}, which was queued" in caplog.text
    assert "paused queue 'default'" in caplog.text
    assert "pgq_read" not in caplog.text
    assert "hunter2" not in caplog.text
