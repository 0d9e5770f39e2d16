"""Testers beside each other take the same tests, each in another order; the matrix runs again those that failed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from tests.matrix import failed_in
from tests.support.selection import TESTS, pytest_collection


def collected(tester: int, *ignored: str) -> list[str]:
    """Return where one of four testers begins to collect, and where it goes on."""
    config = SimpleNamespace(
        workerinput={"workerid": f"gw{tester}", "workercount": 4},
        args=[str(TESTS)],
        getoption={"ignore": list(ignored) or None}.__getitem__,
    )
    pytest_collection(SimpleNamespace(config=config))
    return [str(Path(place).relative_to(TESTS)) for place in config.args]


def test_each_tester_begins_in_another_room_and_takes_all() -> None:
    orders = [collected(tester) for tester in range(4)]
    assert len({order[0] for order in orders}) == 4
    assert {"admin", "typing", "pool", "project"} < set(orders[0])
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_what_is_ignored_is_no_place_to_begin() -> None:
    for tester in range(4):
        assert set(collected(tester)) - set(collected(tester, str(TESTS / "typing"))) == {"typing"}


def test_what_failed_beside_others_is_named_as_pytest_takes_it() -> None:
    output = """
FAILED tests/store/test_plans.py::test_claim[custom-1-all queues]@plans - AssertionError: Seq Scan
FAILED tests/tasks/test_it.py::test_mail[a@b.example]
ERROR tests/pool/test_boot.py::test_it - OSError: no - room
ERROR tests/pool/test_boot.py::test_it - OSError: at teardown
3 failed, 4 passed in 5.00s
"""
    assert failed_in(output) == [
        "tests/store/test_plans.py::test_claim[custom-1-all queues]",
        "tests/tasks/test_it.py::test_mail[a@b.example]",
        "tests/pool/test_boot.py::test_it",
    ]
