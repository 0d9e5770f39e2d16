"""What is done by a command is told as what is done elsewhere: in the log and by `operator_action`, and by whom."""

from __future__ import annotations

import getpass
import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from pgq.models import QueuedTask, Task
from pgq.signals import operator_action
from pgq.tasks import async_task, schedule
from tests.support.admin import REGISTERED, finished

pytestmark = pytest.mark.django_db


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []

    def hear(**given: Any) -> None:
        found.append({name: given[name] for name in ("action", "user", "object", "text", "facts")})

    operator_action.connect(hear)
    yield found
    operator_action.disconnect(hear)


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def test_each_deed_of_a_command_is_told(heard: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    async_task(REGISTERED, 1, queue="mail")
    finished(success=False, exception="builtins.KeyError")
    schedule(REGISTERED, 1, name="nightly", schedule_type="D")
    with caplog.at_level(logging.INFO, logger="pgq"):
        run("pgq_queues")
        run("pgq_queues", "cancel", "--queue", "mail", "--dry-run")
        run("pgq_schedules")
        run("pgq_clean", "--keep", "1000", "--dry-run")
        assert heard == []
        run("pgq_queues", "pause", "mail")
        run("pgq_queues", "pause", "mail")
        run("pgq_queues", "resume", "mail")
        run("pgq_queues", "move", "--queue", "mail", "--to", "bulk")
        run("pgq_queues", "cancel", "--queue", "bulk")
        run("pgq_queues", "retry", "--exception", "builtins.KeyError")
        run("pgq_schedules", "pause", "nightly")
        run("pgq_clean", "--keep", "1000")
    actions = [one["action"] for one in heard]
    assert actions == ["pause", "resume", "move_all", "cancel_all", "retry_all", "pause_schedule", "clean"]
    assert [one["object"] for one in heard] == ["mail", "mail", "", "", "", "nightly", ""]
    assert {one["facts"]["by"].partition(" at ")[0] for one in heard} == {getpass.getuser()}
    assert heard[2]["facts"]["filter"] == {"queue": "mail", "to": "bulk"}
    assert heard[2]["facts"]["done"]["moved"] == 1
    assert heard[3]["facts"]["done"]["cancelled"] == 1
    assert f"{getpass.getuser()} at " in caplog.text
    assert "by command: paused queue 'mail'" in caplog.text


def test_move_says_where_and_only_move_does() -> None:
    task = async_task(REGISTERED, 1, queue="mail")
    for wrong in (
        ("move", "--queue", "mail"), ("cancel", "--queue", "mail", "--to", "x"), ("list", "--to", "x"),
        ("move", "--queue", "mail", "--to", ""), ("move", "--to", "x"),
        ("move", "--queue", "mail", "--to", "x", "--state", "failed"),
    ):  # fmt: skip
        with pytest.raises(CommandError) as raised:
            run("pgq_queues", *wrong)
        assert raised.value.returncode == 2
    assert "1 task would be moved" in run("pgq_queues", "move", "--queue", "mail", "--to", "x", "--dry-run")
    assert QueuedTask.objects.get(pk=task).queue == "mail"
    assert "1 task matched: 1 moved" in run("pgq_queues", "move", "--queue", "mail", "--to", "x")
    assert QueuedTask.objects.get(pk=task).queue == "x"
    assert Task.objects.count() == 0
