"""The site builds without a warning, and no link of any page leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pgq

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)


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


def anchors(text: str) -> set[str]:
    """What a link may name behind its #: headings as GitHub and MyST turn them into ids, and ids of HTML."""
    headings = re.findall(r"^#+ (.*)", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one.strip().lower().replace("`", "")) for one in headings]
    ids: set[str] = set()
    for one in plain:
        first = re.sub(r"[^\w\- ]", "", one).replace(" ", "-")
        ids.add(next(name for count in range(99) if (name := f"{first}-{count}" if count else first) not in ids))
    return ids | set(re.findall(r'(?:id|name)="([^"]+)"', text))


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match("[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        there = target.exists()
        if there and anchor and target.suffix == ".md":
            there = anchor in anchors(target.read_text(encoding="utf-8"))
        if not there:
            dead.append(link)
    return dead


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
