"""The benchmark harness itself, on pgq and the floor, with a handful of tasks."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import goals, measure, report, systems
from bench.lab import SHOWN
from bench.report import Report, Spread
from tests.support.bench import invented, run_module

#: What the tests share takes long to make.
pytestmark = pytest.mark.xdist_group("bench")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, pg_dsn: str) -> Path:
    """The folder with what one tiny run wrote."""
    folder = tmp_path_factory.mktemp("bench")
    done = run_module("bench", pg_dsn, "--tiny", "--only", "pgq,floor", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def found(results: dict[str, Any], **where: Any) -> list[dict[str, Any]]:
    return [one for one in results["measured"] if where.items() <= one.items()]


def test_every_cell_is_measured_and_nothing_fails(results: dict[str, Any]) -> None:
    assert [one for one in results["measured"] if "error" in one] == []
    assert all("skipped" not in about for about in results["systems"].values())
    cells = {(one["system"], one["cell"]) for one in results["measured"]}
    assert cells == {
        ("pgq", "enqueue"),
        ("pgq", "side by side"),
        ("pgq", "drain"),
        ("pgq", "idle"),
        ("pgq", "pick-up"),
        ("pgq", "kill"),
        ("floor", "enqueue"),
        ("floor", "notify"),
        ("floor", "drain"),
    }


def test_machine_and_server_are_named(results: dict[str, Any]) -> None:
    machine = results["machine"]
    assert machine["processors"] >= 1
    assert int(machine["postgresql"].split(".")[0]) >= 14
    assert list(machine["settings"]) == list(SHOWN)


def test_a_drain_does_all_its_tasks_and_tells_their_cost(results: dict[str, Any]) -> None:
    for name in ("pgq", "floor"):
        (drain,) = found(results, system=name, cell="drain")
        assert drain["done"] == drain["count"] >= 20
        assert drain["rate"] > 0
        assert drain["pss_bytes"] > 2**20
        # The row leaves one table (claimed and deleted: two dead tuples) and enters another.
        assert drain["dead_tuples"] == pytest.approx(2, abs=0.5)
        assert drain["wal_bytes"] > 100
        assert drain["wal_bytes_enqueue"] > 100
        assert 0 <= drain["transactions"] < 1


def test_enqueues_are_counted(results: dict[str, Any]) -> None:
    for name, ways in (("pgq", {"one", "many"}), ("floor", {"one", "copy"})):
        assert {one["way"] for one in found(results, system=name, cell="enqueue")} == ways
        for one in found(results, system=name, cell="enqueue"):
            assert one["rate"] == pytest.approx(one["count"] / one["seconds"], rel=0.01)
            assert one["wal_bytes"] > 100


def test_enqueues_are_compared_with_the_bare_statements_in_turns(results: dict[str, Any], out: Path) -> None:
    one, many = found(results, system="pgq", cell="side by side")
    assert (one["way"], many["way"]) == ("one", "many")
    for beside in (one, many):
        assert beside["share"] == pytest.approx(beside["rate"] / beside["bare"], rel=0.01)
        assert 0.01 < beside["share"] < 10
    text = (out / "benchmarks.md").read_text()
    assert f"one by one {one['share']:.0%} ({one['share']:.0%} to {one['share']:.0%}), many {many['share']:.0%}" in text


def test_pick_ups_are_timed_idle_and_under_load(results: dict[str, Any]) -> None:
    idle, busy = sorted(found(results, system="pgq", cell="pick-up"), key=lambda one: one["load"])
    assert idle["load"] == 0 < busy["load"]
    for one in (idle, busy):
        assert one["missing"] == 0
        assert len(one["samples"]) == one["count"]
        assert 0 <= one["milliseconds"]["p50"] <= one["milliseconds"]["p99"] <= one["milliseconds"]["p99.9"]
        # From the beginning of the call is longer than from its end.
        assert one["milliseconds_from_call"]["p50"] >= one["milliseconds"]["p50"]


def test_the_report_names_the_numbers_and_its_plots_are_xml(out: Path, results: dict[str, Any]) -> None:
    text = (out / "benchmarks.md").read_text()
    (drain,) = found(results, system="pgq", cell="drain")
    assert f"| pgq | {drain['rate']:,.0f} |" in text
    assert "against a bare INSERT" in text
    images = sorted((out / "images").glob("*.svg"))
    assert [image.name for image in images] == [
        "bench-cpu.svg", "bench-drain.svg", "bench-enqueue.svg", "bench-pick-up.svg"
    ]  # fmt: skip
    for image in images:
        assert f"](images/{image.name})" in text
        assert ElementTree.parse(image).getroot().tag.endswith("svg")


def test_the_report_can_be_written_again(out: Path, tmp_path: Path, results: dict[str, Any]) -> None:
    report.write(results, report.places(tmp_path))
    for name in ("benchmarks.md", "results.json", "images/bench-drain.svg"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_killed_tasks_start_again_once(results: dict[str, Any], out: Path) -> None:
    (kill,) = found(results, system="pgq", cell="kill")
    assert kill["count"] == len(kill["samples"]) == 2
    assert all(0 < sample < 30_000 for sample in kill["samples"])
    assert (kill["lost"], kill["doubled"]) == (0, 0)
    assert "of 2; 0 lost, 0 twice |" in (out / "benchmarks.md").read_text()


def judged(results: dict[str, Any]) -> str:
    return goals.section(goals.of_systems(Report(results)))


def test_the_goals_are_judged() -> None:
    text = judged(invented(django=1000, floor=30_000, pgq=19_000))
    assert "| 20,000/s | 19,000/s | MISSED |" in text
    assert "| 20 x | 19.0 x | MISSED |" in text
    assert "| 60% | 63% | met |" in text
    assert "by processor time" not in text
    text = judged(invented(django=1000, floor=30_000, pgq=20_000))
    assert "| 20,000/s | 20,000/s | met |" in text
    assert "| 20 x | 20.0 x | met |" in text


def test_the_goals_are_judged_by_processor_time() -> None:
    results = invented(django=1000, floor=30_000, pgq=19_000)
    costs = {"pgq": (30.0, 30.0), "floor": (5.0, 28.0), "django-q2": (500.0, 500.0)}
    for one in results["measured"]:
        one["client_us"], one["server_us"] = costs[one["system"]]
    assert "| 60% | 55% | MISSED |" in judged(results)


def limited(**rates: float) -> dict[str, Any]:
    """The results of a run of drains under limits: `SYSTEM_KIND`."""
    results = invented(django=1000, floor=30_000, pgq=20_000)
    results["plan"] |= {"kinds": [], "limited": ["one-key", "keys", "rated"]}
    rates = {"pgq_noop": 18_000.0} | rates
    for name, rate in rates.items():
        system, kind = name.split("_", 1)
        workers = 1 if kind == "noop" else 2
        numbers = {"system": system, "round": 1, "cell": "drain", "kind": kind.replace("_", "-"), "workers": workers}
        results["measured"].append(numbers | {"rate": rate})
    return results


def test_limits_are_judged_by_their_own_run(tmp_path: Path) -> None:
    results = invented(django=1000, floor=30_000, pgq=50_000)
    of_limits = limited(pgq_one_key=11_000.0, pgq_keys=9_000.0, **{"django-q2_one_key": 500.0})
    text = judged(results | {"limited": of_limits})
    assert "one key, 1 at a time, against one worker's drain without a limit | 50% | 61% | met |" in text
    assert "10,000 keys, 2 at a time of each, against the drain without a limit | 50% | 45% | MISSED |" in text
    assert "against the fastest of the others: django-q2 | > 1 x | 22.0 x | met |" in text
    assert "| 20,000/s | 50,000/s | met |" in text
    report.write(results | {"limited": of_limits}, report.places(tmp_path))
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| pgq | 11,000 | 9,000 |  | 1.00 x |" in page
    assert "Without a limit pgq drained 20,000 in the same run, one worker 18,000." in page
    assert (tmp_path / "images" / "bench-limited.svg").exists()


def test_drains_under_limits_go_beside_what_was_measured_before(tmp_path: Path, out: Path, pg_dsn: str) -> None:
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    done = run_module("bench", pg_dsn, "--tiny", "--limited", "--only", "pgq,floor", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results, before = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, out))
    assert results["measured"] == before["measured"]
    cells = {(one["system"], one["kind"]) for one in results["limited"]["measured"] if "rate" in one}
    assert cells == {("pgq", kind) for kind in ("noop", "one-key", "keys", "rated")}


@pytest.mark.parametrize(
    ("kill", "said"),
    [
        ({"samples": [100.0, 900.0]}, "0.90 s of 2; 0 lost, 0 twice | met |"),
        ({"samples": [100.0, 1100.0]}, "1.10 s of 2; 0 lost, 0 twice | MISSED |"),
        ({"samples": [100.0], "lost": 1}, "0.10 s of 1; 1 lost, 0 twice | MISSED |"),
        ({"samples": [100.0], "doubled": 1}, "0.10 s of 1; 0 lost, 1 twice | MISSED |"),
        ({"samples": [], "lost": 1}, "inf s of 0; 1 lost, 0 twice | MISSED |"),
    ],
)
def test_kills_are_judged(kill: dict[str, Any], said: str) -> None:
    results = invented(django=1000, floor=30_000, pgq=19_000)
    results["measured"].append({"system": "pgq", "round": 1, "cell": "kill", "lost": 0, "doubled": 0, **kill})
    assert said in judged(results)


def test_standing_costs_are_judged() -> None:
    results = invented(django=1000, floor=30_000, pgq=19_000)
    results["plan"]["workers"] = [2, 4]
    drain = found(results, system="pgq", cell="drain")[0]
    drain["pss_bytes"] = 100 * 2**20
    results["measured"].append({**drain, "workers": 4, "pss_bytes": 131 * 2**20})
    idle = {"system": "pgq", "round": 1, "cell": "idle", "transactions": 3.0, "client_cpu": 0.004, "server_cpu": 0.005}
    results["measured"].append(idle)
    text = judged(results)
    assert "| 15 MiB | 15.5 MiB | MISSED |" in text
    assert "| < 5, < 1% | 3.0, 0.9% | met |" in text
    idle["client_cpu"] = 0.005
    assert "| < 5, < 1% | 3.0, 1.0% | MISSED |" in judged(results)


def test_the_report_says_what_was_skipped_and_what_failed() -> None:
    results = invented(django=1000, floor=30_000, pgq=19_000)
    results["systems"]["awa-pg"] = {"settings": "", "keeps": "", "skipped": "no wheel | for this"}
    results["measured"].append({"system": "django-q2", "round": 1, "cell": "pick-up", "error": "it ended"})
    text = Report(results).text()
    assert "**skipped**: no wheel \\| for this" in text
    assert "* django-q2: pick-up (round 1): `it ended`" in text


def test_all_systems_say_how_they_run() -> None:
    for name in systems.NAMES:
        system = systems.get(name)
        assert system.name == name
        assert system.settings
        # A version that floats would measure something else tomorrow.
        assert all("==" in one for one in system.requirements or ())
        assert system.worker_commands(sys.executable, 2)


def test_medians_and_quantiles() -> None:
    assert Spread.of([3.0, None, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert Spread.of([None]) is None
    ordered = [float(n) for n in range(1, 1001)]
    assert [measure.quantile(ordered, share) for share in (0.5, 0.99, 0.999)] == [500, 990, 999]


def test_a_family_has_grandchildren_and_no_strangers() -> None:
    everybody = [
        measure.Process(10, 1, 10, 1.0),
        measure.Process(11, 10, 10, 2.0),
        measure.Process(12, 11, 12, 4.0),
        # Its parent is dead, but it is in the session still.
        measure.Process(13, 1, 10, 8.0),
        measure.Process(20, 1, 20, 16.0),
    ]
    assert measure.cpu_seconds([10], everybody) == 15.0
