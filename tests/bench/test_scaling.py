"""The benchmark of growth itself, at tiny sizes; its section and the rest of the report leave each other alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import goals, report, scaling
from bench.growth import Growth
from tests.support.bench import invented, run_module

#: What the tests share takes long to make.
pytestmark = pytest.mark.xdist_group("bench_scaling")
AXES = {
    "backlog": [1000, 2000],
    "history": [1000, 2000],
    "queues": [1, 10],
    "mixed": [1, 10],
    "payload": [100, 100_000],
    "pools": [1, 10],
    # "behind" and "idle" are drained in the same way.
    "keys": [1, 10],
    "workers": [1, 2],
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, pg_dsn: str) -> Path:
    """The folder with what one tiny run wrote."""
    folder = tmp_path_factory.mktemp("scaling")
    done = run_module("bench.scaling", pg_dsn, "--tiny", "--only", ",".join(AXES), "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "scaling.json").read_text())


def test_every_size_of_every_axis_is_measured(results: dict[str, Any]) -> None:
    seen: dict[str, list[int]] = {}
    for one in results["measured"]:
        assert "error" not in one
        seen.setdefault(one["axis"], []).append(one["size"])
    assert seen == AXES


def test_a_cell_tells_time_processor_pages_and_wal(results: dict[str, Any]) -> None:
    for one in results["measured"]:
        if one["axis"] in ("pools", "keys", "workers"):
            assert one["rate"] > 0
            continue
        for what in ("claim", "settle"):
            numbers = one[what]
            assert numbers["milliseconds"] > 0
            # On a server that is elsewhere, nobody knows the processor time.
            assert 0 < numbers.get("server_us", 1) < 1e5
            # A claimed row is written to a table and indexes; a settled one leaves a table and enters another.
            assert 4 < numbers["buffers"] < 1000, one
            assert numbers["wal_bytes"] > 150, one


def test_the_section_has_the_numbers_and_its_plots_are_xml(out: Path, results: dict[str, Any]) -> None:
    text = (out / "benchmarks.md").read_text()
    assert text.startswith("# Benchmarks\n")
    assert text.index("## Goals\n") < text.index("## As it grows\n")
    (cell,) = (one for one in results["measured"] if (one["axis"], one["size"]) == ("backlog", 2000))
    assert f"| 2,000 | {cell['claim']['milliseconds']:,.1f} | {cell['settle']['milliseconds']:,.1f} |" in text
    for axis in AXES:
        name = f"bench-scaling-{axis}.svg"
        assert f"](images/{name})" in text
        assert ElementTree.parse(out / "images" / name).getroot().tag.endswith("svg")


def test_neither_run_takes_away_what_the_other_has_written(tmp_path: Path, results: dict[str, Any]) -> None:
    one, other = report.places(tmp_path / "one"), report.places(tmp_path / "other")
    report.write(invented(django=1000, floor=30_000, pgq=19_000), one)
    alone = one.report.read_text()
    report.write_scaling(results, one)
    report.write_scaling(results, other)
    report.write(invented(django=1000, floor=30_000, pgq=19_000), other)
    text = one.report.read_text()
    # Goals come first, from both.
    head, own = alone.split("## Side by side\n")
    assert text.startswith(head.rstrip())
    before, _, after = text.partition(own)
    assert "| claim with a backlog of 2,000 rows, against 1,000 | +10% |" in before
    assert "\n## As it grows\n" in after
    assert text.count("# Benchmarks\n") == 1
    assert text == other.report.read_text()
    assert {path.name for path in one.images.iterdir()} == {path.name for path in other.images.iterdir()}


def test_what_bends_is_said(tmp_path: Path, results: dict[str, Any]) -> None:
    bent = json.loads(json.dumps(results))
    first, last = (one for one in bent["measured"] if one["axis"] == "history")
    first["settle"]["buffers"], last["settle"]["buffers"] = 10.0, 13.0
    places = report.places(tmp_path)
    report.write_scaling(bent, places)
    assert "settle, pages: +30%" in places.report.read_text()


def test_the_steepest_line_is_judged(results: dict[str, Any]) -> None:
    bent = json.loads(json.dumps(results))
    _, last = (one for one in bent["measured"] if one["axis"] == "history")
    last["settle"]["milliseconds"] *= 1000
    *_, (what, wanted, measured, met) = goals.of_growth(Growth(bent))
    assert what.endswith(": history, settle")
    assert wanted == "+10%"
    assert float(measured.strip("+%")) > 1000
    assert not met


def test_sizes_are_compared_within_each_round() -> None:
    """Half of the rounds meet a machine that is slower by half; the larger size takes a tenth more in each."""
    smallest = [{"server_us": 10.0 * pace} for pace in (1, 1.5, 1.5, 1, 1.5)]
    larger = [{"server_us": 1.1 * one["server_us"]} for one in smallest]
    assert scaling.compared(smallest, smallest) == {"server_us": 15.0}
    assert scaling.compared(larger, smallest) == {"server_us": pytest.approx(16.5)}
    assert scaling.compared(larger[1:2] + larger[:1], smallest[1:2] + smallest[:1]) == {
        "server_us": pytest.approx(13.75)
    }


def test_drains_are_compared_within_each_pass() -> None:
    smallest = [{"count": 9, "rate": 10.0 / pace, "client_us": pace, "wal_bytes": 7.0} for pace in (1.0, 1.5, 1.4)]
    larger = [{**one, "rate": one["rate"] / 2, "client_us": 2 * one["client_us"]} for one in smallest]
    assert scaling.compared_drains(larger, smallest) == {
        "count": 9, "rate": pytest.approx(5 / 1.4), "client_us": pytest.approx(2.8), "wal_bytes": 7.0, "turns": larger,
    }  # fmt: skip
    # What a drain was too short for is left out of its pass, and out of no other.
    larger[1]["client_us"], smallest[2]["client_us"] = None, 0.0
    assert scaling.compared_drains(larger, smallest)["client_us"] == 2.0
    assert scaling.compared_drains(larger, smallest)["rate"] == pytest.approx(5 / 1.4)
    larger[0]["client_us"] = None
    assert scaling.compared_drains(larger, smallest)["client_us"] is None


def test_an_axis_is_measured_anew_beside_the_others(
    out: Path, results: dict[str, Any], tmp_path: Path, pg_dsn: str
) -> None:
    kept = [{**one, "when": "2001-01-01T00:00:00+00:00"} for one in results["measured"]]
    places = report.places(tmp_path)
    report.write_scaling({**results, "when": "2001-01-01T00:00:00+00:00", "measured": kept}, places)
    assert "Measured anew" not in places.report.read_text()
    done = run_module("bench.scaling", pg_dsn, "--tiny", "--only", "queues", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    measured = json.loads(places.scaling.read_text())["measured"]
    assert {one["axis"] for one in measured} == AXES.keys()
    assert {one["axis"] for one in measured if one["when"] > "2002"} == {"queues"}
    assert places.report.read_text().count("Measured anew") == 1


def test_what_is_wrong_is_named(pg_dsn: str) -> None:
    done = run_module("bench.scaling", pg_dsn, "--only", "backlog,sizes")
    assert done.returncode == 2
    assert "there is no sizes" in done.stderr
