"""Schedules by REST."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgq.codec import signing
from pgq.models import QueuedTask, Schedule
from pgq.tasks import schedule
from tests.functions import api as functions
from tests.support.admin import PLAIN

pytestmark = pytest.mark.django_db
OFFERED = functions.offered.path


def test_a_schedule_is_made_changed_fired_paused_and_deleted(api: Any) -> None:
    caller = api("act", "read", "enqueue")
    made = caller.post("v1/schedules", {"name": "n", "func": OFFERED, "args": [1], "cron": "0 3 * * *"}, 201)
    row = Schedule.objects.get()
    assert (made["id"], row.args, signing.verify_schedule_row(row)) == (row.pk, (1,), True)
    assert caller.get(f"v1/schedules/{row.pk}") == made
    assert caller.get("v1/schedules")["schedules"] == [made]
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    body = {"cron": "0 4 * * *", "queue": "q", "next_run": at.isoformat()}
    changed = caller.post(f"v1/schedules/{row.pk}", body, method="patch")
    assert (changed["cron"], changed["queue"], changed["next_run"]) == ("0 4 * * *", "q", f"{at:%Y-%m-%dT%H:%M:%S}Z")
    id = caller.post(f"v1/schedules/{row.pk}/run", status=201)["id"]
    assert QueuedTask.objects.get(pk=id).signature is not None
    assert caller.post(f"v1/schedules/{row.pk}/pause")["done"] == "paused"
    assert caller.get(f"v1/schedules/{row.pk}")["paused"]
    assert caller.post(f"v1/schedules/{row.pk}/resume", {"skip_missed": True})["done"] == "resumed"
    assert caller.post(f"v1/schedules/{row.pk}", method="delete")["done"] == "deleted"
    for path, method in (("", "get"), ("", "patch"), ("", "delete"), ("/run", "post"), ("/pause", "post")):
        if method == "get":
            caller.get(f"v1/schedules/{row.pk}", 404)
        else:
            caller.post(f"v1/schedules/{row.pk}{path}", status=404, method=method)


@pytest.mark.fault("S11")
def test_what_is_wrong_is_refused_by_its_name(api: Any) -> None:
    caller = api("act", "enqueue")
    for body, name in (
        ({"func": PLAIN, "cron": "0 3 * * *"}, "func"), ({"func": OFFERED, "cron": "nonsense"}, "cron"),
        ({"func": OFFERED, "schedule_type": "I"}, "minutes"), ({"func": OFFERED, "time_zone": "Mars"}, "time_zone"),
        ({"func": OFFERED, "hook": PLAIN}, "hook"), ({"func": functions.strict.path, "schedule_type": "D"}, "args"),
        ({"cron": "0 3 * * *"}, "func"),
    ):  # fmt: skip
        assert name in caller.post("v1/schedules", body, 400)["errors"]
    assert Schedule.objects.count() == 0
    row = schedule(PLAIN, name="n", schedule_type="D")
    caller.post("v1/schedules", {"func": OFFERED, "name": "n", "schedule_type": "D"}, 409)
    for body in ({"func": OFFERED}, {"cron": "nonsense", "schedule_type": "C"}, {"paused": True}):
        caller.post(f"v1/schedules/{row.pk}", body, 400, "patch")


def test_what_stands_in_code_is_changed_there(api: Any) -> None:
    row = schedule(PLAIN, name="n", schedule_type="D")
    Schedule.objects.filter(pk=row.pk).update(source="code")
    caller = api("act")
    for method in ("patch", "delete"):
        assert "code" in caller.post(f"v1/schedules/{row.pk}", {} if method == "patch" else None, 409, method)["detail"]
    caller.post(f"v1/schedules/{row.pk}/pause")
    assert Schedule.objects.get().paused


def test_pages(api: Any) -> None:
    rows = [schedule(PLAIN, name=f"n{number}", schedule_type="D").pk for number in range(5)]
    caller = api("read")
    seen, path = [], "v1/schedules?limit=2"
    while path is not None:
        page = caller.get(path)
        seen += [each["id"] for each in page["schedules"]]
        path = page["next"] and page["next"].removeprefix("/pgq/")
    assert seen == rows
