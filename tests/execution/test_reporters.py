"""Error reporters."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from importlib.metadata import EntryPoint

import pytest
from django.test import override_settings

from pgq.execution import reporters as execution_reporters
from pgq.tasks import async_task, cancel, fetch
from pgq.testing import drain
from tests.functions import common as functions
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db

HERE = "tests.execution.test_reporters."


class Collecting:
    """As the reporters of Django-Q's users are: made with keyword arguments, told without any."""

    made = 0
    reports: list = []

    def __init__(self, **kwargs):
        type(self).made += 1
        self.kwargs = kwargs

    def report(self):
        kind, error, trace = sys.exc_info()
        self.reports.append((self.kwargs, kind, str(error), [frame.name for frame in traceback.extract_tb(trace)]))


class Raising:
    def __init__(self, **kwargs):
        pass

    def report(self):
        raise KeyError("the reporter is broken")


class Unmakeable:
    def __init__(self, **kwargs):
        raise ValueError("no such project")


class Hanging:
    release = threading.Event()
    told = 0

    def report(self):
        Hanging.told += 1
        self.release.wait(20)


@pytest.fixture(autouse=True)
def _fresh():
    Collecting.made, Collecting.reports = 0, []
    yield
    Hanging.release.set()


def configured(**reporters):
    return override_settings(PGQ={"error_reporter": reporters})


def test_is_told_of_each_failed_attempt_inside_an_except_block():
    with configured(**{HERE + "Collecting": {"dsn": "x"}}):
        async_task(functions.fail, "loudly", max_attempts=2)
        drain(due=True)
    [first, second] = Collecting.reports
    assert first[:3] == ({"dsn": "x"}, functions.TaskError, "loudly")
    assert first[3][-1] == "fail"
    assert "_run" not in first[3]
    assert second == first
    assert Collecting.made == 1


def test_is_not_told_of_successes_and_of_what_was_on_purpose():
    with configured(**{HERE + "Collecting": {}}):
        async_task(functions.nothing)
        async_task(functions.ask_again, 0, max_attempts=2)
        async_task(functions.discard)
        cancel(async_task(functions.nothing))
        drain(due=True)
    assert Collecting.reports == []


def test_the_failure_is_written_as_without_a_reporter():
    id = async_task(functions.fail)
    drain()
    with configured(**{HERE + "Collecting": {}}):
        reported = async_task(functions.fail)
        drain()
    assert fetch(id).traceback == fetch(reported).traceback


@pytest.mark.parametrize("group", ["pgq.errorreporters", "djangoq.errorreporters"])
def test_entry_points(group, monkeypatch):
    def entry_points(**wanted):
        entry = EntryPoint(name="sentry", group=group, value="tests.execution.test_reporters:Collecting")
        return [entry] if entry.matches(**wanted) else []

    monkeypatch.setattr(execution_reporters, "entry_points", entry_points)
    with configured(sentry={"dsn": "y"}):
        async_task(functions.fail)
        drain()
    assert Collecting.reports[0][0] == {"dsn": "y"}


@pytest.mark.parametrize("broken", [HERE + "Raising", HERE + "Unmakeable", HERE + "Nowhere", "unknown"])
def test_broken_reporter_harms_nobody(broken, caplog):
    with configured(**{broken: {}, HERE + "Collecting": {}}):
        id = async_task(functions.fail)
        other = async_task(functions.multiply, 2, 3)
        drain()
    assert fetch(id).message == "on purpose"
    assert fetch(other).result == 6
    assert len(Collecting.reports) == 1
    assert f"error reporter {broken!r}" in caplog.text


def test_hanging_reporter_is_not_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(execution_reporters, "WAIT_FOR_REPORTER_SECONDS", 0.1)
    Hanging.release.clear()
    with configured(**{HERE + "Hanging": {}}):
        began = time.monotonic()
        ids = [async_task(functions.fail) for _ in range(3)]
        drain()
        assert time.monotonic() - began < 5
    assert all(fetch(id).success is False for id in ids)
    assert Hanging.told == 1
    assert "hangs: it is not waited for" in caplog.text
    assert "still hangs" in caplog.text


def test_settings_are_read_at_use():
    with configured():
        async_task(functions.fail)
        drain()
    assert Collecting.made == 0


class ToFile:
    """Tells in which process it was called, with what."""

    def __init__(self, path):
        self.path = path

    def report(self):
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()} {sys.exc_info()[1]}\n")


@pytest.mark.django_db(transaction=True)
def test_in_a_real_pool(pool, tmp_path):
    file = tmp_path / "reports"
    running = pool(workers=1, error_reporter={HERE + "ToFile": {"path": str(file)}})
    async_task(functions.fail, "loudly")
    wait_for(lambda: file.exists() and file.read_text())
    assert file.read_text() == f"{running.worker_pids()[0]} loudly\n"
