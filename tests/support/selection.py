"""Which tests a run takes.

``--no-processes`` (``make check``) leaves out what starts pools, servers or browsers. The tests of the benchmark are
taken when bench/ is no longer what they passed with last: its digest stands in tests/bench/passed.txt, and
``make bench-test`` writes it anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "tests" / "bench"
PASSED = BENCH / "passed.txt"
#: Fixtures whose tests start processes.
PROCESSES = {"pool", "project", "site", "own_server", "browser", "new_database"}


def digest() -> str:
    """Return the digest of the benchmark and of its tests."""
    found = hashlib.sha256()
    for path in sorted([*(ROOT / "bench").rglob("*.py"), *BENCH.glob("*.py")]):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-processes", action="store_true", help="only tests that start no pool, server or browser")
    parser.addoption("--bench", action="store_true", help="also tests of the benchmark that passed with this bench/")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    passed = not config.getoption("bench") and PASSED.exists() and PASSED.read_text().strip() == digest()
    quick = config.getoption("no_processes")
    left_out = [
        item
        for item in items
        if (passed and BENCH in item.path.parents)
        or (quick and (PROCESSES.intersection(getattr(item, "fixturenames", ())) or item.get_closest_marker("slow")))
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


if __name__ == "__main__":
    PASSED.write_text(f"{digest()}\n")
