"""In CI a skipped test fails the run, unless tests/support/skips.py lists the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = """
import pytest

@pytest.mark.skipif(True, reason={reason!r})
def test_something(): ...

def test_something_else(): ...
"""


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("no program of that name", "1", 1),
        ("no program of that name", "", 0),
        ("no network namespaces here: no permission", "1", 0),
    ],
)
def test_a_test_skipped_for_a_reason_not_listed_fails_the_run_in_ci(tmp_path: Path, reason: str, ci: str, code: int):
    (tmp_path / "test_it.py").write_text(TEST.format(reason=reason))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.support.skips", "-c", os.devnull, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("test_it.py::test_something: no program" in done.stdout) == bool(code)
