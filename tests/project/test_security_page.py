"""Each test that the page of security names exists, and each rule names one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explain/security.md").read_text(encoding="utf-8")


def there() -> set[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))}


def test_each_test_that_the_page_names_exists() -> None:
    # Not the names of the files.
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 60
    assert named - there() == set()


def test_each_rule_of_the_faces_names_a_test() -> None:
    rows = re.findall(r"^\| S\d+ \|.*$", PAGE.split("## Rules of all faces")[1].split("\n## ")[0], re.MULTILINE)
    assert {row.split(" ")[1] for row in rows} >= {"S7", "S8", "S9", "S10", "S12", "S13", "S14"}
    assert [row for row in rows if not re.search(r"`test_\w+`", row.rpartition("| ")[0] + row)] == []
