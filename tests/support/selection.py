"""Which tests a run takes.

``--no-processes`` (``make check``) leaves out what starts pools, servers or browsers. The tests of the benchmark are
taken when bench/ is no longer what they passed with last: its digest stands in tests/bench/passed.txt, and
``make bench-test`` writes it anew.

And in which order: tests that wait for processes stand evenly among those that use the processor. Of several testers
each begins to collect in another room, so that one compiles what the others then find compiled.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
BENCH = TESTS / "bench"
PASSED = BENCH / "passed.txt"
#: Fixtures whose tests start processes.
PROCESSES = {"pool", "project", "site", "own_server", "browser", "new_database"}
#: Those whose tests wait, most of the time, for what pools do.
WAITING = {"pool", "site", "own_site"}


def digest() -> str:
    """Return the digest of the benchmark and of its tests."""
    found = hashlib.sha256()
    for path in sorted([*(ROOT / "bench").rglob("*.py"), *BENCH.glob("*.py")]):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-processes", action="store_true", help="only tests that start no pool, server or browser")
    parser.addoption("--bench", action="store_true", help="also tests of the benchmark that passed with this bench/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    config = session.config
    if not hasattr(config, "workerinput") or any("::" in argument for argument in config.args):
        return
    places = [Path(argument).absolute() for argument in config.args]
    if places == [TESTS]:
        # pytest looks at --ignore only below the places that it is given.
        ignored = {Path(path).absolute() for path in config.getoption("ignore") or ()}
        rooms = {place for place in TESTS.iterdir() if place.is_dir() or place.match("test_*.py")}
        places = sorted(rooms - ignored)
    begin = len(places) * int(config.workerinput["workerid"].removeprefix("gw")) // config.workerinput["workercount"]
    config.args = [str(place) for place in places[begin:] + places[:begin]]


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
    if hasattr(config, "workerinput"):
        # All testers must name the tests in the same order.
        items[:] = mixed(sorted(items, key=lambda item: item.path))


def mixed(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with those that wait spread evenly among the others, which else would run without them.

    Of a module whose fixture serves several tests, those follow each other: apart, it would be made for each anew.
    """
    waiting = [item for item in items if WAITING.intersection(getattr(item, "fixturenames", ()))]
    blocks: list[list[pytest.Item]] = []
    for item in (item for item in items if not WAITING.intersection(getattr(item, "fixturenames", ()))):
        if blocks and blocks[-1][-1].path == item.path and _shares_a_fixture(item):
            blocks[-1].append(item)
        else:
            blocks.append([item])
    # Before a test leaves a thread that draws random numbers: Hypothesis takes such a draw for one of its strategies'.
    first = {id(block) for block in blocks if any(item.get_closest_marker("hypothesis") for item in block)}
    places = [(-1.0 if id(block) in first else number / len(blocks), block) for number, block in enumerate(blocks)]
    places += [((number + 0.5) / len(waiting), [item]) for number, item in enumerate(waiting)]
    places.sort(key=lambda place: place[0])
    return [item for _, block in places for item in block]


def _shares_a_fixture(item: pytest.Item) -> bool:
    found = getattr(item, "_fixtureinfo", None)
    made = found.name2fixturedefs.values() if found else ()
    # Those of plugins serve all tests.
    return any(fixtures[-1].baseid and fixtures[-1].scope in ("class", "module") for fixtures in made)


if __name__ == "__main__":
    PASSED.write_text(f"{digest()}\n")
