"""docs/migrate/elsewhere.md: each row names a test, a page and its section, or a later release."""

from __future__ import annotations

import ast
import re

import pytest

from pgq.tasks import async_task, result, task
from pgq.testing import drain
from tests.support.links import anchors
from tests.support.pools import ROOT

DOCS = ROOT / "docs"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (DOCS / "migrate/elsewhere.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| you had |")
]


def test_every_row_is_shown_by_something() -> None:
    tests = {
        f"{file.stem}::{node.name}"
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert len(ROWS) > 50
    for row in ROWS:
        assert len(row) == 3, row
        assert all(row), row
        shown = row[2]
        if re.match(r"(?:soon|later): \w", shown):
            continue
        if "::" in shown:
            assert shown in tests, shown
        else:
            page, _, anchor = shown.partition("#")
            assert (DOCS / page).exists(), page
            assert not anchor or anchor in anchors((DOCS / page).read_text()), shown


@task
def vacuum() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM pgq_schema")


@pytest.mark.django_db(transaction=True)
def test_a_task_may_vacuum() -> None:
    id = async_task(vacuum)
    drain()
    assert result(id) is None
