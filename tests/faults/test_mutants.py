"""Each guard that is removed is missed: the test that stands for it fails, and by what it asserts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.support import fault_table as table
from tests.support.mutants import MUTANTS, NONE, QUICK
from tests.support.pools import ROOT
from tests.support.site import dsn_for

#: All in one process of pytest, since what they look at is made once for all.
pytestmark = pytest.mark.xdist_group("mutants")
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.mutants", "-p", "no:cacheprovider"]
NAMES = list(MUTANTS) if table.FULL else list(QUICK)


@dataclass
class Outcome:
    code: int
    output: str
    #: The tests that failed, with what they said.
    failed: list[tuple[str, str]]


class Runner:
    """Runs tests in a pytest of its own, on databases of its own."""

    def __init__(self, folder: Path, server_dsn: str) -> None:
        self.folder, self.server_dsn = folder, server_dsn

    def run(self, mutant: str, *tests: str) -> Outcome:
        name = f"pgq_mutant_{uuid4().hex[:12]}"
        notes = self.folder / name
        environment = {
            **os.environ, "PGQ_MUTANT": mutant, "PGQ_MUTANT_NOTES": str(notes), "PGQ_FAULTS": "",
            "DATABASE_URL": dsn_for(self.server_dsn, name),
        }  # fmt: skip
        # What this pytest has told its own tests.
        for key in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
            environment.pop(key, None)
        with psycopg.connect(self.server_dsn, autocommit=True) as session:
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            try:
                done = subprocess.run(
                    [*PYTEST, *tests], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
                    check=False,
                )  # fmt: skip
            finally:
                for each in (name, f"test_{name}"):
                    session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(each)))
        failed = [tuple(json.loads(line)) for line in notes.read_text().splitlines()] if notes.exists() else []
        return Outcome(done.returncode, done.stdout[-6000:] + done.stderr[-2000:], failed)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, pg_dsn: str) -> Iterator[dict[str, Outcome]]:
    """How the tests end under each mutant, and without any: two at a time, since most of them wait."""
    runner = Runner(tmp_path_factory.mktemp("mutants"), pg_dsn)
    caught_by = {name: [MUTANTS[name].caught_by] for name in NAMES}
    # The longest first, so that the others run beside it.
    tests = {NONE: sorted({test for each in caught_by.values() for test in each}), **caught_by}
    with ThreadPoolExecutor(2) as threads:
        yield dict(zip(tests, threads.map(lambda name: runner.run(name, *tests[name]), tests), strict=True))


def test_none_of_them_fails_while_all_guards_are_there(outcomes):
    outcome = outcomes[NONE]
    assert outcome.failed == []
    assert outcome.code == 0, outcome.output


@pytest.mark.parametrize("name", NAMES)
def test_a_mutant_is_caught(name, outcomes):
    outcome = outcomes[name]
    assert outcome.code == 1, outcome.output
    assert any(re.match(MUTANTS[name].sign, message, re.DOTALL) for _, message in outcome.failed), (
        f"it fails, but not by what it asserts: {outcome.failed}\n{outcome.output}"
    )
