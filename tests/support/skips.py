"""In continuous integration a skipped test is a failure, unless its reason is on the list below.

A check that is skipped everywhere is no check: what tests need, ``.ci/run`` installs. The list holds what a machine may
lack for good, such as a kernel's feature, and what another command runs.
"""

from __future__ import annotations

import os
import re
import sys

import django
import pytest

#: Regular expressions for the beginnings of reasons.
ALLOWED = (
    # Run by other commands: `make test PGQ_TEST_FULL=1`, `make deploy-test`, `make examples-test`, `make matrix`,
    # test_mutants.py.
    r"PGQ_TEST_FULL is not set",
    r"PGQ_DEPLOY is not full",
    r"PGQ_EXAMPLES is not full",
    r"run by test_mutants.py",
    r"the pools of this test find their database by PGDATABASE, which DATABASE_URL overrides",
    r"Debian's server cannot be moved",
    r"nobody cannot run the PostgreSQL of this virtualenv",
    # The kernel's, or its container's.
    r"network namespaces need root and ip",
    r"no network namespaces here",
    r"no tmpfs can be mounted",
    r"needs root, to mount a tmpfs",
    r"needs root and a cgroup v1 of pids",
    r"needs root and the controller pids of cgroup v1",
    r"this kernel has no /proc/self/oom_score_adj",
    # A clone without history has no release before this one.
    r"needs a checkout with its history",
    # What an older Django cannot do is tested with a newer one: by `make test`, and in other cells of the matrix.
    *([r"Django 6.1 and later"] if django.VERSION < (6, 1) else []),
    *([r"fakeredis is not installed on Python 3\.15"] if sys.version_info >= (3, 15) else []),
)
_ALLOWED = re.compile("|".join(ALLOWED))


class Skips:
    """Collects what was skipped, and fails the run if something was that should not be."""

    def __init__(self) -> None:
        self.unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test; with xdist the reports of all processes come here."""
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that was skipped as a whole."""
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or not isinstance(report.longrepr, tuple):
            return
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not _ALLOWED.match(reason):
            self.unexpected.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let a run that passed fail."""
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the tests that were skipped."""
        if self.unexpected:
            terminalreporter.section(
                "skipped in CI for a reason that tests/support/skips.py does not list", red=True, bold=True
            )
            for line in self.unexpected:
                terminalreporter.line(line, red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Watch only in CI, and there in the process that hears of all tests."""
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(), "pgq skips")
