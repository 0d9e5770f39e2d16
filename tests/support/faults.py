"""Fixtures of the fault suite, its marker, and its table.

`@pytest.mark.fault("F1", short=3, full=50)` names the fault that a test stages, and its rounds. With `short=0` only
`make faults` runs it. The fixture `rounds` is that number, `note` takes what a round found.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import fault_table as table
from tests.support.site import OwnServer, Site, a_site


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(*ids, short=1, full=1): the faults a test stages, and its rounds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = []
    for item in items:
        marks = list(item.iter_markers("fault"))
        if not marks:
            continue
        item.user_properties.append(("faults", ",".join(id for mark in marks for id in mark.args)))
        if not table.FULL and all(mark.kwargs.get("short", 1) == 0 for mark in marks):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not table.FULL:
        return
    reports = [
        report
        for outcome in ("passed", "failed", "skipped", "error")
        for report in terminalreporter.stats.get(outcome, ())
        if hasattr(report, "user_properties") and (report.when == "call" or outcome in ("skipped", "error"))
    ]
    terminalreporter.section("faults and threats")
    for line in table.text(table.lines(reports)):
        terminalreporter.write_line(line)


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds to play."""
    mark = request.node.get_closest_marker("fault")
    return int(mark.kwargs.get("full" if table.FULL else "short", 1))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> table.Note:
    """Where a test notes its rounds; it fails at the end if one of them found a violation."""
    return table.Note(request.node.get_closest_marker("fault").args[0])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    note = pyfuncitem.funcargs.get("note")
    try:
        done = yield
    finally:
        if isinstance(note, table.Note):
            pyfuncitem.user_properties.append((f"note {note.fault}", note.as_json()))
    if isinstance(note, table.Note):
        assert not note.violations, "\n".join(note.violations[:20])
    return done


@pytest.fixture
def site(tmp_path: Path, pg_dsn: str) -> Iterator[Site]:
    """A database of its own on the shared server, for faults that leave the server alone."""
    with a_site(tmp_path, pg_dsn) as made:
        yield made


@pytest.fixture
def own_server() -> Iterator[Callable[..., OwnServer]]:
    """Start servers that a test may crash: ``own_server(max_connections=20)``."""
    servers: list[OwnServer] = []

    def start(**settings: Any) -> OwnServer:
        servers.append(OwnServer(**settings))
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def own_site(tmp_path: Path, own_server: Callable[..., OwnServer]) -> Iterator[tuple[Site, OwnServer]]:
    """A site on a server of its own."""
    server = own_server()
    with a_site(tmp_path, server.dsn) as made:
        yield made, server
