"""The page of alerts: its rules ask for what `/metrics` serves, and its statements find what is wrong and no more."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from pgq.ground.ids import new_id
from pgq.store.metrics import OUTCOMES
from pgq.tasks import async_task, schedule
from pgq.urls.found import LIVE
from tests.support.admin import PLAIN, sql
from tests.support.blocks import ROOT, texts
from tests.support.rest import api

__all__ = ["api"]

pytestmark = pytest.mark.django_db

PAGE = "docs/operate/alerts.md"
GROUPS = [yaml.safe_load(block)["groups"][0]["rules"] for block in texts(PAGE, "yaml")]
RULES = [rule for rules in GROUPS for rule in rules]
SECTIONS = dict(
    part.split("\n", 1) for part in (ROOT / PAGE).read_text(encoding="utf-8").split("\n## ") if part.startswith("Pgq")
)
#: What takes an hour, a million rows, or a queue of notifications that is full.
LONG = {"PgqVacuumIsHeldUp", "PgqDeadRows", "PgqNotificationQueueFills"}


def statement(alert: str) -> str:
    """The first one of an alert's section: what finds it."""
    return re.findall(r"```sql\n(.*?)```", SECTIONS[alert], re.DOTALL)[0]


def served(api: Any) -> dict[str, list[dict[str, str]]]:
    """The labels of each metric's samples, when there is something of everything."""
    from prometheus_client import parser

    wrong()
    caller = api("metrics")
    text = caller.client.get("/pgq/metrics", headers=caller.headers).content.decode()
    found: dict[str, list[dict[str, str]]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def wrong() -> None:
    """Have everything wrong that can be had at once, and is not `LONG`."""
    for _ in range(2):
        async_task(PLAIN, queue="mail")
    async_task(PLAIN, queue="held")
    sql("UPDATE pgq_queue SET ready_at = now() - interval '1 h', enqueued_at = now() - interval '1 h'")
    sql("UPDATE pgq_queue SET parked = 'no' WHERE id = (SELECT min(id::text)::uuid FROM pgq_queue)")
    sql("SELECT pgq_pause('held')")
    for minutes, ready in ((25, 2000), (3, 4000), (0, 5000)):
        sql(
            "INSERT INTO pgq_gauge (at, queue, ready, running, waiting, parked) "
            "VALUES (date_trunc('minute', now()) - %s * interval '1 min', 'mail', %s, 0, 0, 1)",
            minutes, ready,
        )  # fmt: skip
    sql(
        "INSERT INTO pgq_metric (span, at, queue, func, succeeded, failed, crashed, run_from, run_hist) "
        "VALUES (1, date_trunc('minute', now()), 'mail', 'f', 10, 10, 10, 4, '{20}')"
    )
    sql(
        "INSERT INTO pgq_total (queue, func, succeeded, failed, run_us_sum, run_us_max, wait_us_sum, wait_us_max, "
        "run_from, run_hist, wait_from, wait_hist) VALUES ('mail', 'f', 3, 1, 4, 1, 1, 1, 40, '{1,3}', 14, '{4}')"
    )
    sql("INSERT INTO pgq_finding (\"check\", status, detail, advice) VALUES ('lanes', 'warning', 'd', 'a')")
    sql(
        "INSERT INTO pgq_gauge (at, queue, ready, running, waiting, parked, oldest_ready) "
        "VALUES (now(), '', 5, 1, 2, 0, 9), (now(), 'mail', 5000, 1, 2, 0, 9)"
    )
    for name, at in (("broken", "+ interval '1 h'"), ("late", "- interval '1 h'")):
        schedule(PLAIN, name=name, schedule_type="D")
        sql(f"UPDATE pgq_schedule SET next_run = now() {at} WHERE name = %s", name)
    sql("UPDATE pgq_schedule SET error = 'ValueError: no' WHERE name = 'broken'")
    pool("gone", "1 h", '[{"number": 1, "state": "working", "task": "1"}]')


def pool(name: str, age: str, workers: str) -> None:
    sql(
        "INSERT INTO pgq_worker (id, name, host, pid, status, heartbeat, workers) "
        "VALUES (%s, %s, 'h', 1, 'working', clock_timestamp() - %s::interval, %s)",
        new_id(), name, age, workers,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the rules


def test_rules_ask_for_what_is_served(api: Any) -> None:
    pool("busy", "0 s", '[{"number": 1, "state": "working"}]')
    found = served(api)
    known = {"outcome": {*OUTCOMES}, "state": {*LIVE, "working", "idle"}, "table": {"pgq_queue"}, "queue": {"mail"}}
    asked = 0
    for rule in RULES:
        for name, selector in re.findall(r"(pgq_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            asked += 1
            assert name in found, rule
            for label, value in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', selector):
                assert all(label in labels for labels in found[name]), rule
                assert set(value.split("|")) <= known[label], rule
    assert asked > 20


def test_each_rule_has_a_section_with_what_to_do_and_the_same_in_sql() -> None:
    assert [rule["alert"] for rule in GROUPS[0]] == list(SECTIONS)
    assert all("\nFirst: " in section and "```sql\n" in section for section in SECTIONS.values())
    assert {rule["labels"]["severity"] for rule in GROUPS[0]} == {"page", "ticket"}


# -------------------------------------------------------------------------------------------------- the statements


@pytest.mark.parametrize("alert", [name for name in SECTIONS if name not in LONG])
def test_a_statement_finds_what_is_wrong(alert: str) -> None:
    wrong()
    if alert == "PgqNothingIsLookedAt":
        sql("UPDATE pgq_gauge SET at = at - interval '10 min'")
    if alert == "PgqAllWorkersBusy":
        pool("busy", "0 s", '[{"number": 1, "state": "working", "task": "1"}]')
    assert sql(statement(alert))


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_statement_finds_nothing_where_all_is_well(alert: str) -> None:
    sql("INSERT INTO pgq_gauge (at, queue, ready, running, waiting, parked) VALUES (now(), '', 5, 1, 2, 0)")
    pool("p", "0 s", '[{"number": 1, "state": "idle"}]')
    async_task(PLAIN)
    schedule(PLAIN, name="nightly", schedule_type="D", next_run=None)
    rows = sql(statement(alert))
    # The server of the tests may be anything.
    assert not rows or alert == "PgqWarning", rows
