"""docs/architecture.md says what the contract says, and the house stays as small as it was meant to be."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
ROOMS = next(contract for contract in CONTRACTS if contract["name"] == "rooms")
PROCESSES = sorted((ROOT / "pgq" / "pool").rglob("*.py"))


def test_the_table_of_rooms_is_the_contract() -> None:
    rows = re.findall(r"^\| \d+ \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == [
        set(re.findall(r"\w+", layer)) for layer in ROOMS["layers"]
    ]


def test_the_contract_is_short_and_names_everything() -> None:
    assert len(ROOMS["layers"]) <= 12
    assert ROOMS["exhaustive"]
    assert {contract["type"] for contract in CONTRACTS} == {"layers", "forbidden"}
    entries = [path for path in (ROOT / "pgq").iterdir() if path.name not in ("__pycache__", "migrations_sql")]
    assert len(entries) <= 35


def test_where_things_are_is_true() -> None:
    table = PAGE.partition("## Where is it, where does it go")[2]
    names = [name for name in re.findall(r"`([\w/]+(?:\.\w+|/))`", table) if "MODULE" not in name and name.islower()]
    assert len(names) > 15
    missing = [name for name in names if not (ROOT / "pgq" / name).exists() and not (ROOT / name).exists()]
    # A name after a comma is in the folder of the one before.
    assert [name for name in missing if not list((ROOT / "pgq").rglob(name))] == []


def test_the_page_is_read_in_ten_minutes() -> None:
    # 200 words a minute, and some for looking at the tables.
    assert len(PAGE.split()) < 2200


@pytest.mark.parametrize("path", PROCESSES, ids=lambda path: path.stem)
def test_no_class_of_the_processes_is_too_long_to_be_read_in_one_go(path: Path) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.end_lineno is not None and node.end_lineno - node.lineno >= 250
    }
    assert long == {}


def test_a_folder_of_statements_is_a_module_of_the_store() -> None:
    store = ROOT / "pgq" / "store"
    assert {folder.name for folder in (store / "sql").iterdir() if folder.is_dir()} <= {
        module.stem for module in store.glob("*.py")
    }
