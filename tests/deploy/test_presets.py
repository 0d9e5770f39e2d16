"""The dicts of docs/operate/sizing.md, each measured in its own pool; `make deploy-test ARGS=-rP` prints numbers."""

from __future__ import annotations

import ast
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from django.test import override_settings

from bench.measure import cpu_seconds, family, pss_bytes, stats
from pgq.management import checks
from tests.support.deploy import DEPLOY, FULL, running
from tests.support.pools import wait_for
from tests.support.projects import Project

PAGE = (DEPLOY.parent / "docs" / "operate" / "sizing.md").read_text()
PRESETS: dict[str, dict[str, Any]] = {
    name: ast.literal_eval(text) for name, text in re.findall(r"^([A-Z_]+) = ({.*?^})", PAGE, re.MULTILINE | re.DOTALL)
}
TASKS = {"shop": {"tasks.py": "from pgq.tasks import task\n\n@task\ndef nothing(): pass\n"}}
#: One task at a time, at no even pace; then some that are delayed, one after the other.
ONE_BY_ONE = """
import random, time
from shop.tasks import nothing

for _ in range(150):
    time.sleep(random.uniform(0.02, 0.1))
    nothing.using(group="one", keep="1h", name="0").enqueue()
for number in range(40):
    delay = 1 + number / 13
    nothing.using(group="delayed", keep="1h", run_after=delay, name=str(delay)).enqueue()
"""
MANY = "from shop.tasks import nothing; nothing.enqueue_many([()] * 30_000)"
#: Milliseconds: how long tasks of a group waited, in the middle and at most but for one in a hundred.
WAITED = """
SELECT percentile_cont(ARRAY[0.5, 0.99])
       WITHIN GROUP (ORDER BY 1000 * (extract(epoch FROM started - enqueued_at)::float8 - name::float8))
  FROM pgq_task WHERE "group" = %s
"""


def test_each_is_accepted() -> None:
    assert PRESETS.keys() == {"LOW_LATENCY", "HIGH_VOLUME", "TINY"}
    for preset in PRESETS.values():
        with override_settings(PGQ=preset):
            assert checks.check_settings(None) == []


def measured(shop: Project, preset: dict[str, Any], log: Path) -> dict[str, float]:
    shop.configure({"PGQ": {**preset, "name": "x"}})
    shop.sql("TRUNCATE pgq_queue, pgq_task")
    found: dict[str, float] = {}
    command = [sys.executable, "manage.py", "pgq_worker"]
    with running(*command, folder=shop.folder, log=log) as pool:
        wait_for(lambda: "workers on" in log.read_text())
        shop.python(ONE_BY_ONE)
        wait_for(lambda: shop.sql("SELECT count(*) FROM pgq_task") == [(190,)])
        for group in ("one", "delayed"):
            [[(found[f"{group} p50 ms"], found[f"{group} p99 ms"])]] = shop.sql(WAITED, group)
        time.sleep(3)
        before, cpu = stats(shop.dsn), cpu_seconds([pool.pid])
        time.sleep(10)
        found["idle transactions a second"] = (stats(shop.dsn).since(before).transactions - 3) / 10
        found["idle % of a processor"] = (cpu_seconds([pool.pid]) - cpu) * 10
        found["MB"] = pss_bytes([pool.pid]) / 1e6
        found["processes"] = len(family([pool.pid]))
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(30) == 0
    shop.python(MANY)
    with running(*command, folder=shop.folder, log=log) as pool:
        began = seen(shop, "SELECT EXISTS (SELECT FROM pgq_queue WHERE lock IS NOT NULL)")
        before, cpu = stats(shop.dsn), cpu_seconds([pool.pid])
        ended = seen(shop, "SELECT NOT EXISTS (SELECT FROM pgq_queue)")
        found["tasks a second"] = 30_000 / (ended - began)
        found["µs of processors a task"] = (cpu_seconds([pool.pid]) - cpu) / 30_000 * 1e6
        found["bytes of WAL a task"] = stats(shop.dsn).since(before).wal_bytes / 30_000
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(30) == 0
    return found


def seen(shop: Project, question: str) -> float:
    """Return when the answer is yes (CLOCK_MONOTONIC)."""
    with psycopg.connect(shop.dsn, autocommit=True) as session:
        wait_for(lambda: session.execute(question).fetchone() == (True,), timeout=120, pause=0.005)
    return time.monotonic()


@FULL
def test_each_is_measured(project: Callable[..., Project], tmp_path: Path) -> None:
    shop = project(apps=TASKS)
    numbers = {name: measured(shop, preset, tmp_path / name) for name, preset in {"default": {}, **PRESETS}.items()}
    for name, found in numbers.items():
        print(name, {key: round(value, 1) for key, value in found.items()})  # noqa: T201
    assert numbers["LOW_LATENCY"]["delayed p50 ms"] < numbers["default"]["delayed p50 ms"] / 2
    assert numbers["HIGH_VOLUME"]["bytes of WAL a task"] < numbers["default"]["bytes of WAL a task"]
    assert numbers["TINY"]["MB"] < numbers["LOW_LATENCY"]["MB"]
    assert numbers["TINY"]["idle transactions a second"] < numbers["default"]["idle transactions a second"]
