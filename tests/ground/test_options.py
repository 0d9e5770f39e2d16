"""What may be said of a task: one record, from which every list of options is derived."""

from __future__ import annotations

import json
from datetime import timedelta
from unittest import mock

import pytest

from pgq.codec import signing
from pgq.enqueue.make import make_task
from pgq.errors import EnqueueError, UnknownOption
from pgq.execution.inline import _claim_of
from pgq.records import Failed, Parked, Succeeded
from pgq.records.options import CALL_OPTIONS, NO_OPTIONS, TASK_OPTIONS, By, TaskOptions
from tests.support.hand import MARK, run


def test_nothing_said_is_one_object():
    """Who asks whether a task has options compares, and does no more."""
    for options in (
        TaskOptions.parse("{}"), TaskOptions.of(), TaskOptions.of(queue=None, save=None), TaskOptions.of(queue=""),
        NO_OPTIONS.over(NO_OPTIONS), TaskOptions.of(queue="q").of_columns().over(NO_OPTIONS).but(queue=None).over(
            NO_OPTIONS).of_columns(),
    ):  # fmt: skip
        assert options is NO_OPTIONS
    assert (NO_OPTIONS.text(), NO_OPTIONS.save, NO_OPTIONS) == ("{}", None, TaskOptions())


@pytest.mark.parametrize(
    "text",
    [
        '{"save": false}',
        '{"ack": ["task"], "cached": "for ever", "retry_on": 5, "collector": {}, "hook_of": 1.5, "chain": "x"}',
        # Of another release, of an import, and what would be a column.
        '{"django_q_id": "7", "queue": "q", "save": 0, "unique_for": {"$timedelta": [0, 1, 0]}}',
    ],
)
def test_a_row_may_hold_anything_and_keeps_it(text):
    options = TaskOptions.parse(text)
    assert json.loads(options.text()) == json.loads(text)
    assert options.queue is None
    assert json.loads(options.but(save=True).text()) == {**json.loads(text), "save": True}


def test_what_is_said_here_stands_over_what_is_fixed():
    fixed = TaskOptions.of(By.TASK, queue="fixed", priority=3, save=False, retry_on=[OSError])
    both = TaskOptions.of(queue="called", retry_on=[]).over(fixed)
    assert (both.queue, both.priority) == ("called", 3)
    assert both.stored() == {"save": False, "retry_on": []}
    assert both.of_columns().stored() == {}


def test_a_backoff_of_a_tuple_is_stored_as_a_list():
    """With the codec's tag of a tuple no backoff was found in it, and the task was not retried."""
    assert TaskOptions.of(retry_backoff=(1, 2)).stored() == {"backoff": [1, 2]}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (60, {"keep": 60}), (0.5, {"keep": 0.5}), (timedelta(minutes=2), {"keep": 120}), ("7d", {"keep": 604_800}),
        ("12h", {"keep": 43_200}), (" 1.5 m ", {"keep": 90}), ("30s", {"keep": 30}), ("2w", {"keep": 1_209_600}),
        (False, {"keep": False}), (True, {}), (None, {}),
    ],
)  # fmt: skip
def test_keep_is_stored_as_seconds(given, stored):
    for by in (By.CALL, By.TASK):
        assert TaskOptions.of(by, keep=given).stored() == stored


@pytest.mark.parametrize(
    "wrong", [0, -1, "", "7", "d", "7 days", "-1d", "1e3s", "٣d", [7], float("nan"), float("inf"), 10**12, timedelta(0)]
)
def test_a_keep_that_is_no_time_is_refused(wrong):
    with pytest.raises(EnqueueError, match=r"keep: must be a number of seconds .* a text such as '7d'"):
        TaskOptions.of(keep=wrong)


def test_inner_options_are_said_by_no_user():
    inner = TaskOptions.__dataclass_fields__.keys() - {*TASK_OPTIONS, *CALL_OPTIONS, "other"}
    assert {"chain", "collector", "hook_of"} <= inner
    for name in inner:
        for by in (By.TASK, By.CALL):
            with pytest.raises(UnknownOption, match=f"^{name}: there is no such option"):
                TaskOptions.of(by, **{name: "x"})
    with pytest.raises(UnknownOption, match=r"^atomic: "):
        TaskOptions.of(atomic=True)
    with pytest.raises(UnknownOption, match=r"^group: "):
        TaskOptions.of(By.TASK, group="g")
    with pytest.raises(EnqueueError, match=r"^ack: must be 'task' or 'batch', got 'x'"):
        TaskOptions.of(ack="x")


# ------------------------------------------------------------------------------------------------- read once


@pytest.mark.parametrize(
    ("func", "changes", "outcome", "trusted"),
    [
        ("math.sqrt", {}, Succeeded, True),
        ("math.sqrt", {"args": "[-1]"}, Parked, False),
        ("math.sqrt", {"cancelled": True}, Failed, True),
        ("math.sqrt", {"cancelled": True, "args": "[-1]"}, Failed, False),
        ("math.sqrt", {"cancelled": True, "signature": None}, Failed, False),
        ("math.gcd", {"attempts": 1}, Succeeded, True),
        ("math.factorial", {}, Failed, True),
    ],
)
def test_options_are_parsed_and_the_signature_is_verified_once(func, changes, outcome, trusted):
    """All that follows is told by the report: its hook, its retries, its collector and its place in the cache."""
    options = TaskOptions(hook=MARK, collector="0" * 32, save=True, cached=5, max_attempts=1)
    args = (-2,) if func == "math.factorial" else (4,)
    claim = _claim_of(make_task(func, args, options=options))._replace(**changes)
    with (
        mock.patch.object(signing, "verify_claim", wraps=signing.verify_claim) as verify,
        mock.patch.object(TaskOptions, "parse", wraps=TaskOptions.parse) as parse,
    ):
        report = run(claim)
    assert (type(report.outcome), report.trusted) == (outcome, trusted)
    assert (report.options.collector, report.options.cached) == ("0" * 32, 5)
    assert (verify.call_count, parse.call_count) == (claim.signature is not None, 1)
    for follower in getattr(report.outcome, "follow_ons", ()):
        assert (follower.signature is not None) == trusted


def test_options_that_python_cannot_read_fail_their_task():
    claim = _claim_of(make_task("math.sqrt", (4,)))._replace(options=f'{{"index": {"9" * 5000}}}')
    report = run(claim)
    assert isinstance(report.outcome, Failed)
    assert report.options is NO_OPTIONS


def test_short_options_are_parsed_once_for_all_rows_that_have_them():
    short, long = '{"save": false, "retry_on": ["a.B"]}', f'{{"chain": [{{"args": "{"x" * 200}"}}]}}'
    assert TaskOptions.parse(short) is TaskOptions.parse(short)
    assert TaskOptions.parse(long) is not TaskOptions.parse(long)
    assert TaskOptions.parse(long) == TaskOptions.parse(long)
