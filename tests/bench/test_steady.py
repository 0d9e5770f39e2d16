"""The benchmark over time itself, its minutes a second long; its section leaves the rest of the report alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import report
from bench.systems.base import ROOT
from tests.support.bench import invented, run_module

#: What the tests share takes long to make.
pytestmark = pytest.mark.xdist_group("bench_steady")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, pg_dsn: str) -> Path:
    """The folder with what two tiny runs wrote."""
    folder = tmp_path_factory.mktemp("steady")
    for words in ((), ("--pinned",)):
        done = run_module("bench.steady", pg_dsn, "--tiny", "--minutes", "2", "--out", str(folder), *words)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "steady.json").read_text())


def test_each_minute_tells_rate_cost_and_size(results: dict[str, Any]) -> None:
    assert results["half"]["load"] > 100
    assert results["pinned"]["load"] is None
    for name in ("half", "pinned"):
        assert len(results[name]["minutes"]) == 2
        for row in results[name]["minutes"]:
            assert row["rate"] >= 0
            assert row["heap_bytes"] > 0
            assert row["index_bytes"] > 0
    for row in results["half"]["minutes"]:
        assert 0 < row["milliseconds"]["p50"] <= row["milliseconds"]["p99"]


def test_the_section_has_its_plots_and_they_are_xml(out: Path) -> None:
    text = (out / "benchmarks.md").read_text()
    assert text.startswith("# Benchmarks\n")
    assert text.index("| pinned horizon: the last of 2 minutes, of the first | 95% |") < text.index("## Over time\n")
    assert "### Half load, 2 minutes" in text
    assert "### Pinned horizon, 2 minutes" in text
    plots = sorted((out / "images").glob("bench-steady-*.svg"))
    assert len(plots) == 5
    for plot in plots:
        assert f"](images/{plot.name})" in text
        ElementTree.fromstring(plot.read_text())


def test_the_rest_of_the_report_stays(out: Path) -> None:
    report.write(invented(django=300.0, floor=20000.0, pgq=15000.0), report.places(out))
    text = (out / "benchmarks.md").read_text()
    assert text.count("# Benchmarks\n") == 1
    assert text.index("## Drain") < text.index("## Over time")


@pytest.mark.parametrize("words", [("--share", "1.5"), ("--minutes", "1")])
def test_what_makes_no_sense_is_refused(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.steady", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert words[0] in done.stderr
