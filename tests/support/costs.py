"""What tests cost: `--costs` prints seconds of the clock and of the processor, by folder, file and test.

A test that takes long and burns little waits for something, and may wait beside others; one that burns is what makes
the suite long. Counted are the process that runs the test and what it started and waited for. Not counted are the
PostgreSQL server, what outlives its parent, and what starts warm (see warm.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

#: (seconds, seconds of the processor), by the test's id.
COSTS = pytest.StashKey[dict[str, tuple[float, float]]]()
PROPERTY = "processor"
SHOWN = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", action="store_true", help="print what each folder, file and the dearest tests cost")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.costs:
        config.stash[COSTS] = {}
        config.pluginmanager.register(_Meter(config), "costs")


class _Meter:
    def __init__(self, config: pytest.Config) -> None:
        self.costs = config.stash[COSTS]
        self.last = _processor()

    def pytest_runtest_logstart(self) -> None:
        self.last = _processor()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        """Each phase's report carries what was burnt since the one before."""
        report: Any = yield
        now = _processor()
        report.user_properties = [*report.user_properties, (PROPERTY, now - self.last)]
        self.last = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seconds, burnt = self.costs.get(report.nodeid, (0.0, 0.0))
        new = dict(report.user_properties).get(PROPERTY, 0.0)
        self.costs[report.nodeid] = (seconds + report.duration, burnt + float(str(new)))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for title, level in (("folder", 0), ("file", 1), ("test", 2)):
            sums: dict[str, tuple[float, float, int]] = {}
            for test, (seconds, burnt) in self.costs.items():
                file = test.partition("::")[0]
                key = (file.rpartition("/")[0], file, test)[level]
                one, two, count = sums.get(key, (0.0, 0.0, 0))
                sums[key] = (one + seconds, two + burnt, count + 1)
            terminalreporter.section(f"seconds, of the processor, tests: by {title}")
            ranked = sorted(sums.items(), key=lambda item: -item[1][0])
            for key, (seconds, burnt, count) in ranked[:SHOWN]:
                terminalreporter.write_line(f"{seconds:8.1f} {burnt:8.1f} {count:5} {key}")


def _processor() -> float:
    """Return the processor's seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])
