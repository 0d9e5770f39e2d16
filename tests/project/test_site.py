"""The site builds without a warning, and no link of any page leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pgq
from tests.support.links import dead_links

ROOT = Path(__file__).parents[2]


def build(pages: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does; what was read is kept beside the site, not in the checkout."""
    given = ["-W", "-n", "--keep-going", "-q", "-j", "2", "-b", "dirhtml", "-d", str(into / "read")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *given, str(pages), str(into / "site")], capture_output=True, text=True
    )


def test_the_site_builds_without_a_warning_and_needs_no_other_host(tmp_path: Path) -> None:
    """Sphinx warns of dead links between pages, of wrong anchors, and of a page that is in no table of contents."""
    built = build(ROOT / "docs", tmp_path)
    assert built.returncode == 0, built.stderr
    first = (tmp_path / "site" / "index.html").read_text()
    assert f"<title>pgq {pgq.__version__}</title>" in first
    assert (tmp_path / "site" / "searchindex.js").stat().st_size > 10_000
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]*)|<link[^>]* href=\"([^\"]*)", page.read_text())
        assert [name for names in loaded for name in names if re.match(r"(https?:)?//", name)] == [], page


def test_a_page_that_is_in_no_table_of_contents_stops_the_build(tmp_path: Path) -> None:
    pages = tmp_path / "pages" / "docs"
    pages.mkdir(parents=True)
    (pages.parent / "pgq").mkdir()
    (pages.parent / "pgq" / "__init__.py").write_text('__version__ = "7.1"\n')
    (pages / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text().replace('["_static"]', "[]"))
    (pages / "index.md").write_text("# First\n\n[a file](../pgq/__init__.py)\n")
    (pages / "alone.md").write_text("# Alone\n\n[dead](missing.md) [wrong](index.md#other)\n")
    built = build(pages, tmp_path)
    assert built.returncode != 0
    assert "alone.md: WARNING: document isn't included in any toctree" in built.stderr
    assert "missing.md" in built.stderr
    assert "'other'" in built.stderr
    assert "__init__" not in built.stderr


# ---------------------------------------------------------------------------------------------------------- links


def pages() -> list[Path]:
    """Every page of the repository; what tools made, environments and caches, has a dot before its name."""
    found = ROOT.rglob("*.md")
    return [page for page in found if not any(part[0] == "." for part in page.relative_to(ROOT).parts)]


def test_no_link_between_files_is_dead() -> None:
    found = {str(page.relative_to(ROOT)): dead_links(page) for page in pages()}
    assert len(found) > 25
    assert {page: links for page, links in found.items() if links} == {}


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# `One` thing\n\n[a](#one-thing) [b](#two) [c](other.md) [d](https://example.org/x)\n```\n[e](f)\n```\n"
    )
    assert dead_links(page) == ["#two", "other.md"]
