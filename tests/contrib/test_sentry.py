"""Sentry's own SDK: what it is told of failures, of queues and of schedules, and that nothing is lost at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sentry_sdk
from django.utils import timezone
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from pgq.contrib.sentry import PgqIntegration, integration
from pgq.contrib.sentry.monitors import Monitors, monitor_of, slug_of
from pgq.models import QueuedTask, Schedule
from pgq.tasks import async_task, cancel, enqueue_many, fetch, schedule
from pgq.testing import drain, fire_schedules
from tests.functions import tracing
from tests.support.collector import Collector
from tests.support.pools import wait_for

TASKS = "tests.functions.tracing"


class Kept(Transport):
    """A transport that keeps what it is given."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    def items(self, kind: str) -> list[dict[str, Any]]:
        sentry_sdk.flush()
        return [
            item.payload.json for envelope in self.envelopes for item in envelope.items if item.headers["type"] == kind
        ]

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.items("event")

    @property
    def transactions(self) -> list[dict[str, Any]]:
        return self.items("transaction")


@pytest.fixture
def sentry() -> Iterator[Callable[..., Kept]]:
    def start(*, client: dict[str, Any] | None = None, **options: Any) -> Kept:
        kept = Kept()
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:1/1",
            transport=kept,
            traces_sample_rate=1.0,
            # Those that Sentry adds by itself would stay in this process; a pool below has them all.
            default_integrations=False,
            integrations=[PgqIntegration(**options), LoggingIntegration()],
            **(client or {}),
        )
        # Sentry calls setup_once() only once in a process.
        integration.install()
        return kept

    tracing.seen.clear()
    yield start
    integration.uninstall()
    sentry_sdk.init(default_integrations=False)


@pytest.mark.django_db
class TestErrors:
    def test_a_failure_is_one_event_with_its_traceback_and_one_issue_for_each_function(self, sentry):
        kept = sentry()
        enqueue_many(f"{TASKS}.fails", [("hunter2",), ("hunter3",)], group="nightly")
        drain()
        first, second = kept.events
        assert first["fingerprint"] == second["fingerprint"] == ["pgq", f"{TASKS}.fails", "builtins.ValueError"]
        (value,) = first["exception"]["values"]
        assert (value["type"], value["value"], value["mechanism"]) == (
            "ValueError", "it went wrong", {"type": "pgq", "handled": False},
        )  # fmt: skip
        # The project's frames, and none of pgq.
        assert [frame["function"] for frame in value["stacktrace"]["frames"]] == ["fails"]
        assert (first["transaction"], first["transaction_info"]) == (f"{TASKS}.fails", {"source": "task"})
        known = first["contexts"]["pgq"]
        assert (known["group"], known["attempt"], known["queue"]) == ("nightly", 1, "default")
        assert "args" not in known
        # It belongs to the trace of its transaction.
        assert first["contexts"]["trace"]["trace_id"] == kept.transactions[0]["contexts"]["trace"]["trace_id"]

    def test_what_the_function_noted_goes_with_the_event(self, sentry):
        kept = sentry()
        async_task(f"{TASKS}.notes_and_fails", 1)
        async_task(f"{TASKS}.notes_and_fails", 2)
        drain()
        assert [event["tags"]["order"] for event in kept.events] == ["1", "2"]
        crumbs = [[crumb["message"] for crumb in event["breadcrumbs"]["values"]] for event in kept.events]
        assert [["order 1" in crumb, "order 2" in crumb] for crumb in crumbs] == [[True, False], [False, True]]

    def test_what_is_done_on_purpose_is_no_error_and_a_retry_is_one_if_wanted(self, sentry):
        kept = sentry()
        for name in ("asks_again", "gives_up", "fails_once"):
            async_task(f"{TASKS}.{name}", *((1,) if name == "fails_once" else ()))
        cancel(async_task(f"{TASKS}.fails"))
        drain()
        assert kept.events == []
        assert {one["contexts"]["trace"]["status"] for one in kept.transactions} == {
            "ok", "aborted", "internal_error",
        }  # fmt: skip
        kept = sentry(report_retries=True, group_by_function=False)
        async_task(f"{TASKS}.fails_once", 1)
        drain()
        (event,) = kept.events
        assert (event["level"], event.get("fingerprint")) == ("warning", None)

    def test_a_task_that_was_not_run_is_reported_and_other_lines_of_the_log_as_ever(self, sentry):
        kept = sentry()
        id = async_task(f"{TASKS}.succeeds_on_loop")
        QueuedTask.objects.filter(pk=id).update(attempts=3, crashes=3)
        QueuedTask.objects.create(func="os.getcwd")
        drain()
        dead, parked = kept.events
        assert dead["exception"]["values"][0]["type"] == "pgq.errors.WorkerDied"
        assert dead["contexts"]["pgq"]["id"] == id
        assert "is parked" in parked["logentry"]["message"]

    def test_arguments_are_sent_only_if_that_is_wanted_and_never_of_sensitive_tasks(self, sentry):
        kept = sentry(client={"data_collection": {"queues": True}})
        async_task(f"{TASKS}.fails", "hunter2")
        async_task(f"{TASKS}.fails", "hunter2", q_options={"sensitive": True})
        drain()
        shown, hidden = kept.events
        assert shown["contexts"]["pgq"]["args"] == ["hunter2"]
        assert "hunter2" not in json.dumps(hidden)


@pytest.mark.django_db
class TestTracing:
    def test_a_request_a_task_and_its_retry_are_one_trace(self, sentry):
        kept = sentry()
        with sentry_sdk.start_transaction(op="http.server", name="/order/"):
            id = async_task(f"{TASKS}.fails_once", 7)
        drain()
        request, first, second = kept.transactions
        trace = request["contexts"]["trace"]
        (published,) = request["spans"]
        assert published["op"] == "queue.publish"
        assert published["data"]["messaging.message.id"] == id
        for attempt, transaction in enumerate((first, second)):
            assert transaction["transaction"] == f"{TASKS}.fails_once"
            assert transaction["contexts"]["trace"]["trace_id"] == trace["trace_id"]
            assert transaction["contexts"]["trace"]["parent_span_id"] == published["span_id"]
            assert transaction["contexts"]["trace"]["op"] == "queue.task.pgq"
            (processed,) = transaction["spans"]
            data = processed["data"]
            assert (processed["op"], data["messaging.destination.name"]) == ("queue.process", "default")
            assert (data["messaging.message.id"], data["messaging.message.retry.count"]) == (id, attempt)
            assert data["messaging.message.receive.latency"] >= 0

    def test_without_propagation_a_task_begins_a_trace_of_its_own(self, sentry):
        kept = sentry(propagate_traces=False)
        with sentry_sdk.start_transaction(op="http.server", name="/order/"):
            async_task(f"{TASKS}.succeeds_on_loop")
        assert "trace" not in QueuedTask.objects.get().options
        drain()
        request, task = kept.transactions
        assert request["contexts"]["trace"]["trace_id"] != task["contexts"]["trace"]["trace_id"]

    def test_streamed_spans(self, sentry):
        kept = sentry(client={"trace_lifecycle": "stream"})
        with sentry_sdk.traces.start_span(name="/order/"):
            async_task(f"{TASKS}.succeeds_on_loop")
        async_task(f"{TASKS}.fails")
        drain()
        spans = [span for item in kept.items("span") for span in item["items"]]
        ops = {span["attributes"].get("sentry.op", {}).get("value"): span for span in spans}
        assert {"queue.publish", "queue.task.pgq", "queue.process"} <= ops.keys()
        traces = {
            span["trace_id"] for span in spans if span["name"] == "/order/" or span["name"].endswith("succeeds_on_loop")
        }
        assert len(traces) == 1
        assert len(kept.events) == 1

    def test_without_the_integration_nothing_is_stored_or_sent(self, sentry):
        sentry()
        kept = Kept()
        sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", transport=kept, default_integrations=False)
        async_task(f"{TASKS}.fails")
        assert "trace" not in QueuedTask.objects.get().options
        drain()
        assert kept.envelopes == []


@pytest.mark.django_db(transaction=True)
class TestMonitors:
    def test_a_schedule_is_checked_in_at_its_start_and_by_its_final_outcome(self, sentry):
        kept = sentry(monitor_schedules=True, exclude=["not this one"])
        for name, func in (("Nightly Bill", "fails_once"), ("fails", "fails"), ("not this one", "fails")):
            args, options = ((1,), {"max_attempts": 2, "retry_backoff": 0}) if func == "fails_once" else ((), {})
            schedule(f"{TASKS}.{func}", *args, name=name, schedule_type="C", cron="0 3 * * *", q_options=options)
        Schedule.objects.update(next_run=timezone.now() - timedelta(minutes=1))
        fire_schedules()
        drain()
        said = [(one["monitor_slug"], one["status"]) for one in kept.items("check_in")]
        assert sorted(said) == [
            ("fails", "error"), ("fails", "in_progress"), ("nightly-bill", "in_progress"), ("nightly-bill", "ok"),
        ]  # fmt: skip
        of_one = [one for one in kept.items("check_in") if one["monitor_slug"] == "nightly-bill"]
        # Both of its attempts are one check-in.
        assert len({one["check_in_id"] for one in of_one}) == 1
        assert of_one[0]["monitor_config"] == {
            "schedule": {"type": "crontab", "value": "0 3 * * *"},
            "timezone": "UTC",
        }

    @pytest.mark.parametrize(
        ("values", "rule"),
        [
            ({"schedule_type": "I", "minutes": 5}, {"type": "interval", "value": 5, "unit": "minute"}),
            ({"schedule_type": "Q"}, {"type": "interval", "value": 3, "unit": "month"}),
            ({"schedule_type": "C", "cron": "H 3 * * *"}, None), ({"schedule_type": "C", "cron": "0 0 L * *"}, None),
            ({"schedule_type": "S", "seconds": 5}, None), ({"schedule_type": "O"}, None),
        ],
    )  # fmt: skip
    def test_the_rule_of_a_monitor(self, values, rule):
        made = monitor_of(Schedule(name="x", **values), "Europe/Zurich", 90)
        assert (made and made.config) == (rule and {"schedule": rule, "timezone": "Europe/Zurich", "max_runtime": 2})

    @pytest.mark.parametrize(
        ("name", "slug"), [("Zürich, täglich!", "zurich-taglich"), ("東京", "schedule"), ("x" * 99, "x" * 50)]
    )
    def test_a_slug(self, name, slug):
        assert slug_of(name) == slug

    def test_a_schedule_that_is_gone_has_none(self):
        monitors = Monitors(frozenset())
        found: list[Any] = []
        monitors._read(4711, None, found)
        assert found == [None]


@pytest.mark.django_db(transaction=True)
def test_a_pool_sends_all_events_before_its_workers_end(pool, oracle):
    with Collector() as collector:
        pool(
            workers=1,
            recycle=2,
            env={"DJANGO_SETTINGS_MODULE": "tests.support.sentry_settings", "SENTRY_PORT": str(collector.port)},
        )
        for _ in range(4):
            assert not fetch(async_task(f"{TASKS}.fails"), wait=30_000).success

        def kinds() -> list[str]:
            lines = [line for _, body in list(collector.posted) for line in body.splitlines()]
            headers = [json.loads(line) for line in lines if line.startswith(b'{"type"')]
            return [header["type"] for header in headers]

        wait_for(lambda: kinds().count("event") >= 4 and kinds().count("transaction") >= 4)
        # Each failure once, though it was logged as well.
        assert kinds().count("event") == 4
