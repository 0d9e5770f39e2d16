"""The pages of docs/migrate: each row of "you had, here" names a test, a page and its section, or why there is none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pgq.tasks import async_task, result, task
from pgq.testing import drain
from tests.support.links import anchors
from tests.support.pools import ROOT

DOCS = ROOT / "docs"
HEADER = "| you had | here | shown by |"
PAGES = [page for page in sorted((DOCS / "migrate").glob("*.md")) if HEADER in page.read_text()]


def rows(page: Path) -> list[list[str]]:
    """The rows of the page's tables that begin with HEADER."""
    found, within = [], False
    for line in page.read_text().splitlines():
        within = line == HEADER or (within and line.startswith("|"))
        if within and line.startswith("| ") and line != HEADER:
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_row_is_shown_by_something(page: Path) -> None:
    tests = {
        f"{file.stem}::{node.name}"
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert len(rows(page)) > 5
    for row in rows(page):
        assert len(row) == 3, row
        assert all(row), row
        shown = row[2]
        if shown.startswith("none: "):
            continue
        if "::" in shown:
            assert shown in tests, shown
        else:
            other, _, anchor = shown.partition("#")
            assert (DOCS / other).exists(), other
            assert not anchor or anchor in anchors((DOCS / other).read_text()), shown


def test_there_is_a_page_for_each_who_comes() -> None:
    assert {page.stem for page in PAGES} >= {"apscheduler", "cron", "django-cfg", "django-tasks", "procrastinate"}


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
