"""What Prometheus scrapes, read by its own parsers; and numbers over time."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import parser
from prometheus_client.openmetrics import parser as open_parser

from pgq.ground.ids import new_id
from pgq.tasks import schedule
from pgq.urls import exposition
from pgq.urls.exposition import COUNTER, GAUGE, HISTOGRAM, Family, render
from tests.support.admin import PLAIN, sql

pytestmark = pytest.mark.django_db

ODD = 'a "quoted"\\ queue\nof two lines \u2028 \U0001f409'
NEW = "application/openmetrics-text; version=1.0.0; charset=utf-8; q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"


def scraped(api: Any, accept: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return the samples by their names and labels, as Prometheus's own parser reads them."""
    caller = api("metrics")
    response = caller.client.get("/pgq/metrics", headers={**caller.headers, "Accept": accept})
    assert response.status_code == 200, response.content
    text = response.content.decode()
    is_open = accept == NEW
    assert response["Content-Type"] == (exposition.OPEN if is_open else exposition.PLAIN)
    assert text.endswith("# EOF\n") == is_open
    read = open_parser if is_open else parser
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in read.text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


def fill() -> None:
    """Write what upkeep writes."""
    sql(
        "INSERT INTO pgq_total (queue, func, succeeded, failed, run_us_sum, run_us_max, wait_us_sum, wait_us_max, "
        "run_from, run_hist, wait_from, wait_hist) VALUES "
        "(%s, 'f', 3, 1, 4000000, 1000000, 100, 100, 40, '{1,3}', 14, '{4}'), "
        "(%s, 'g', 2, 0, 2, 1, 0, 0, 2, '{2}', 0, '{2}')",
        ODD, ODD,
    )  # fmt: skip
    sql(
        "INSERT INTO pgq_gauge (at, queue, ready, running, waiting, parked, oldest_ready, workers, busy, paused, "
        "exact) VALUES (now() - interval '7 s', '', 5, 1, 2, 0, 3.5, 2, 1, false, true), "
        "(now() - interval '7 s', %s, 5, 1, 2, 0, 3.5, 2, 1, true, false)",
        ODD,
    )
    sql(
        "INSERT INTO pgq_finding (\"check\", status, detail, advice) VALUES ('lanes', 'warning', 'd', 'a'), "
        "('pools', 'ok', '', '')"
    )


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", NEW])
def test_both_formats_are_read_by_prometheus_and_say_the_same(api: Any, accept: str) -> None:
    fill()
    schedule(PLAIN, name="nightly", schedule_type="C", cron="0 3 * * *")
    found = scraped(api, accept)
    tasks = found["pgq_tasks_total"]
    assert tasks[(("func", "f"), ("outcome", "succeeded"), ("queue", ODD))] == 3
    assert tasks[(("func", "f"), ("outcome", "failed"), ("queue", ODD))] == 1
    assert sum(tasks.values()) == 6
    assert found["pgq_task_run_seconds_count"] == {(("queue", ODD),): 6}
    assert found["pgq_task_run_seconds_sum"] == {(("queue", ODD),): pytest.approx(4.000002)}
    buckets = {float(dict(labels)["le"]): number for labels, number in found["pgq_task_run_seconds_bucket"].items()}
    assert list(buckets.values()) == sorted(buckets.values())
    assert (buckets[0.000512], buckets[math.inf]) == (2, 6)
    assert found["pgq_queue_tasks"][(("queue", ODD), ("state", "ready"))] == 5
    assert found["pgq_queue_paused"] == {(("queue", ODD),): 1}
    assert found["pgq_queue_exact"] == {(("queue", ODD),): 0}
    assert found["pgq_queue_oldest_ready_seconds"] == {(("queue", ODD),): 3.5}
    assert 7 <= found["pgq_scrape_stale_seconds"][()] < 60
    assert found["pgq_check_status"] == {(("check", "lanes"),): 1, (("check", "pools"),): 0}
    assert found["pgq_schedule_next_run_timestamp_seconds"][(("schedule", "nightly"),)] > datetime.now(UTC).timestamp()
    assert found["pgq_schedule_errors"] == {(): 0}
    assert found["pgq_table_bytes"][(("table", "pgq_queue"),)] > 0
    assert found["pgq_rows_inserted_total"].keys() >= {(("table", "pgq_task"),)}
    assert 0 <= found["pgq_notification_queue_usage_ratio"][()] < 1
    assert list(found["pgq_build_info"].values()) == [1]


def test_with_nothing_to_tell_it_is_read_as_well(api: Any) -> None:
    for accept in ("", NEW):
        assert sum(scraped(api, accept)["pgq_pools"].values()) == 0


def test_when_a_queue_is_empty_is_told_by_how_it_got_shorter(api: Any) -> None:
    for queue, then, now in (("a", 300, 100), ("b", 100, 300), ("c", 100, 0), ("new", None, 5)):
        for minutes, ready in ((4, then), (0, now)):
            if ready is not None:
                sql(
                    "INSERT INTO pgq_gauge (at, queue, ready, running, waiting, parked) "
                    "VALUES (date_trunc('minute', now()) - %s * interval '1 min', %s, %s, 0, 0, 0)",
                    minutes, queue, ready,
                )  # fmt: skip
    drains = scraped(api, "")["pgq_queue_drain_seconds"]
    assert drains == {(("queue", "a"),): 120, (("queue", "b"),): math.inf, (("queue", "c"),): 0}


def test_pools_are_told_by_name(api: Any) -> None:
    for age in (1, 3):
        sql(
            "INSERT INTO pgq_worker (id, name, host, pid, status, heartbeat, workers) VALUES "
            "(%s, 'p', 'h', 1, 'working', clock_timestamp() - %s * interval '1 s', "
            """'[{"number": 1, "state": "idle"}, {"number": 2, "state": "working"}]')""",
            new_id(), age,
        )  # fmt: skip
    sql(
        "INSERT INTO pgq_worker (id, name, host, pid, heartbeat) VALUES (%s, 'gone', 'h', 1, now() - interval '1 h')",
        new_id(),
    )
    found = scraped(api, "")
    assert found["pgq_pools"] == {(("pool", "p"),): 2, (("pool", "gone"),): 0}
    assert found["pgq_workers"] == {(("pool", "p"), ("state", "idle")): 2, (("pool", "p"), ("state", "working")): 2}
    assert 3 <= found["pgq_pool_heartbeat_age_seconds"][(("pool", "p"),)] < 60
    assert found["pgq_pool_heartbeat_age_seconds"][(("pool", "gone"),)] >= 3600


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("", False), ("*/*", False), ("text/plain", False), (NEW, True), ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0.1,text/plain", False), ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", True), (";;,,", False),
    ],
)  # fmt: skip
def test_which_format_is_wanted(accept: str, wants: bool) -> None:
    assert exposition.wants_open(accept) == wants


def test_each_kind_of_value_is_written_as_it_is_read() -> None:
    gauge = Family("some_value", GAUGE, 'A help with "quotes", a \\ and\na second line.')
    for index, value in enumerate((0, 10**20, 1e-9, 1e300, float("inf"), float("-inf"), float("nan"))):
        gauge.add(value, n=str(index))
    counter, histogram = Family("some_things", COUNTER, "Help."), Family("some_seconds", HISTOGRAM, "Help.")
    counter.add(3)
    histogram.add_histogram([(0.5, 1), (1.0, 2)], 3, 7.5, queue="q")
    for is_open, read in ((False, parser), (True, open_parser)):
        families = list(read.text_string_to_metric_families(render([gauge, counter, histogram], is_open=is_open)))
        assert [family.type for family in families] == ["gauge", "counter", "histogram"]
        values = [sample.value for sample in families[0].samples]
        assert values[:6] == [0, 1e20, 1e-9, 1e300, math.inf, -math.inf]
        assert math.isnan(values[6])
        assert families[0].documentation == gauge.help
        assert [sample.name for sample in families[1].samples] == ["some_things_total"]


# ------------------------------------------------------------------------------------------------- over time


def test_series_marks_and_findings(api: Any) -> None:
    fill()
    caller = api("read")
    assert [one["check"] for one in caller.get("v1/findings")["checks"]] == ["lanes", "pools"]
    assert api("act").post("v1/marks", {"label": "v2"}, 201) == {"label": "v2"}
    [mark] = caller.get("v1/marks")["marks"]
    assert (mark["label"], mark["author"], mark["at"][-1]) == ("v2", "token test.act", "Z")
    end = datetime.now(UTC)
    query = {"metric": "ready", "by": "queue", "from": (end - timedelta(minutes=5)).isoformat()}
    [series] = [one for one in caller.get("v1/series", **query)["series"] if one["key"] == ODD]
    assert 5 in [point["value"] for point in series["points"]]
    for wrong, name in (
        ({}, "metric"), ({"metric": "nonsense"}, "metric"), ({"metric": "ready", "by": "outcome"}, "metric"),
        ({"metric": "ready", "step": "61"}, "step"), ({"metric": "ready", "from": "2999-01-01T00:00:00Z"}, "from"),
        ({"metric": "ready", "from": "1990-01-01T00:00:00Z"}, "from"),
    ):  # fmt: skip
        assert name in caller.get("v1/series", 400, **wrong)["errors"]


def test_the_page_names_each_metric(api: Any) -> None:
    fill()
    schedule(PLAIN, name="nightly", schedule_type="C", cron="0 3 * * *")
    workers = '[{"number": 1, "state": "idle"}]'
    sql("INSERT INTO pgq_worker (id, name, host, pid, workers) VALUES (%s, 'p', 'h', 1, %s)", new_id(), workers)
    sql(
        "INSERT INTO pgq_gauge (at, queue, ready, running, waiting, parked) "
        "VALUES (now() - interval '3 min', %s, 9, 0, 0, 0)",
        ODD,
    )
    served = {re.sub("_(bucket|sum|count)$", "", name) for name in scraped(api, "")}
    reference = Path(__file__).parents[2] / "docs/reference"
    rows = re.findall(r"^\| `(pgq_\w+)`", (reference / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == served
    section = (reference / "rest.md").read_text(encoding="utf-8").partition("## Prometheus")[2].partition("\n## ")[0]
    [scrape] = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL))
    assert scrape["scrape_configs"][0]["metrics_path"] == "/pgq/metrics"
