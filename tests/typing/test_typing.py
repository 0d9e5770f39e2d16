"""mypy and pyright refuse the wrong calls of calls.py, and nothing else in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLS = Path(__file__).with_name("calls.py")

CHECKERS = {
    "mypy": (["--strict", "--follow-imports=silent", "--no-error-summary"], r"calls\.py:(\d+): error: (.*)"),
    "pyright": (["--pythonpath", sys.executable], r"calls\.py:(\d+):\d+ - error: (.*)"),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checkers_refuse_just_the_wrong_calls(checker: str) -> None:
    options, pattern = CHECKERS[checker]
    command = [sys.executable, "-m", checker, *options, str(CALLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {int(line): message for line, message in re.findall(pattern, done.stdout)}
    lines = enumerate(CALLS.read_text().splitlines(), 1)
    marked = {number: line.strip() for number, line in lines if line.endswith("# refused")}
    assert len(marked) > 40
    assert {number: found[number] for number in found.keys() - marked.keys()} == {}, "refused, and right"
    assert {number: marked[number] for number in marked.keys() - found.keys()} == {}, "wrong, and not refused"
