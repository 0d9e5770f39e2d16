"""The adapter for the public harness, held to that harness's documented contract."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bench.adapter.histogram import Rolling
from bench.systems.base import ROOT

REQUIRED = {"claim_p50_ms", "claim_p95_ms", "claim_p99_ms", "enqueue_rate", "completion_rate", "queue_depth"}
MANIFEST = json.loads((ROOT / "bench" / "adapter" / "adapter.json").read_text())


@contextmanager
def new_database(pg_dsn: str, purpose: str) -> Iterator[str]:
    """A database as the harness makes it: empty, with the declared extensions."""
    name = f"{MANIFEST['db_name']}_{purpose}_{os.getpid()}"
    with psycopg.connect(pg_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_conninfo(pg_dsn, dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


#: What the tests share takes long to make.
pytestmark = pytest.mark.xdist_group("adapter")


@pytest.fixture(scope="module")
def database(pg_dsn: str) -> Iterator[str]:
    with new_database(pg_dsn, "fixed") as dsn:
        yield dsn


def environment(database: str, **more: str) -> dict[str, str]:
    asked = {"SCENARIO": "long_horizon", "PRODUCER_MODE": "fixed", "PRODUCER_RATE": "40", "WORKER_COUNT": "2"}
    return os.environ | asked | {"DATABASE_URL": database, "SAMPLE_EVERY_S": "1", "JOB_WORK_MS": "1"} | more


class Seen:
    """What one run of the adapter printed, and how it ended."""

    def __init__(self, database: str, log: Path, *, until: int, **more: str) -> None:
        command = [sys.executable, "-m", "bench.adapter"]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(database, **more), stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert process.stdout is not None
        try:
            self.records: list[dict[str, Any]] = []
            #: Ticks with tasks that were done.
            busy = 0
            for line in process.stdout:
                record = json.loads(line)
                self.records.append(record)
                busy += record.get("metric") == "completion_rate" and record["value"] > 0
                if busy == until:
                    break
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            # By the same stream: it may hold lines already that are no longer in the pipe.
            self.records += [json.loads(line) for line in process.stdout]
            self.exit = process.wait(60)
            self.seconds_to_end = time.monotonic() - began
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
        self.log = log.read_text()

    def values(self, metric: str) -> list[float]:
        return [record["value"] for record in self.records if record.get("metric") == metric]


@pytest.fixture(scope="module")
def seen(database: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(database, tmp_path_factory.mktemp("adapter") / "log", until=3)


def test_the_first_line_is_the_descriptor_and_covers_the_manifest(seen: Seen) -> None:
    descriptor = seen.records[0]
    assert descriptor["kind"] == "descriptor"
    assert descriptor["system"] == MANIFEST["system"]
    for key in ("event_tables", "extensions"):
        assert set(descriptor[key]) >= set(MANIFEST[key])
    assert {"version", "schema_version", "db_name", "started_at"} <= descriptor.keys()


def test_the_tables_and_indexes_exist(seen: Seen, database: str) -> None:
    with psycopg.connect(database) as connection:
        for name in (*MANIFEST["event_tables"], *MANIFEST["event_indexes"]):
            assert connection.execute("SELECT to_regclass(%s)", [name]).fetchone() != (None,), name


def test_each_tick_has_every_required_metric(seen: Seen) -> None:
    ticks: dict[str, list[dict[str, Any]]] = {}
    for record in seen.records[1:]:
        assert record["kind"] == record["subject_kind"] == "adapter"
        assert record["subject"] == ""
        assert isinstance(record["value"], float)
        assert record["instance_id"] == 0
        ticks.setdefault(record["t"], []).append(record)
    assert len(ticks) >= 3
    for records in ticks.values():
        assert {record["metric"] for record in records} >= REQUIRED
    windows = {record["metric"]: record["window_s"] for record in seen.records[1:]}
    assert (windows["claim_p99_ms"], windows["enqueue_rate"], windows["queue_depth"]) == (30, 1, 0)


def test_what_is_produced_is_consumed_and_timed(seen: Seen) -> None:
    # Not the mean: the first tick may be a short one.
    assert statistics.median(seen.values("enqueue_rate")) == pytest.approx(40, rel=0.8)
    p50, p95, p99 = (seen.values(f"claim_{name}_ms")[-1] for name in ("p50", "p95", "p99"))
    assert 0 < p50 <= p95 <= p99


def test_sigterm_ends_it_in_time(seen: Seen) -> None:
    assert seen.exit == 0, seen.log
    assert seen.seconds_to_end < 5


def test_a_target_depth_is_held(pg_dsn: str, tmp_path: Path) -> None:
    asked = {"PRODUCER_MODE": "depth-target", "TARGET_DEPTH": "50", "PRODUCER_BATCH_MAX": "20"}
    with new_database(pg_dsn, "depth") as dsn:
        seen = Seen(dsn, tmp_path / "log", until=2, **asked)
    # A look that comes just before a batch is committed does not see it, and another one follows.
    assert 0 < max(seen.values("queue_depth")) <= 2 * 50
    assert seen.exit == 0, seen.log


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRODUCER_MODE", "often"),
        ("WORKER_COUNT", "0"),
        ("SCENARIO", "chaos"),
        ("PRODUCER_RATE", "x"),
        ("DATABASE_URL", ""),
    ],
)
def test_what_is_wrong_is_named(database: str, name: str, value: str) -> None:
    command = [sys.executable, "-m", "bench.adapter"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(database, **{name: value}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert name in done.stderr


def test_quantiles_are_right_to_three_figures_in_bounded_memory() -> None:
    rolling, noise = Rolling(), random.Random(1)
    values = [noise.lognormvariate(1, 2) for _ in range(50_000)]
    for index, value in enumerate(values):
        rolling.add(value, index / 5000)
    values.sort()
    for share, found in zip((0.5, 0.95, 0.99), rolling.quantiles((0.5, 0.95, 0.99), 10), strict=True):
        assert found == pytest.approx(values[int(share * len(values)) - 1], rel=0.002)
    assert sum(len(counts) for _, counts in rolling.seconds) < 10 * 24_000


def test_quantiles_forget_what_is_older_than_the_window() -> None:
    rolling = Rolling(window=30)
    rolling.add(1000, 100)
    rolling.add(1, 120)
    assert rolling.quantiles((1.0,), 125) == [pytest.approx(1000, rel=0.001)]
    assert rolling.quantiles((1.0,), 131) == [pytest.approx(1, rel=0.001)]
    assert rolling.quantiles((0.5,), 200) == [0]
