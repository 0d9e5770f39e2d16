"""The site builds without a warning, and no link of any page leads nowhere."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import pgq
from tests.support.browser import MARKS, Browser
from tests.support.links import dead_links
from tests.support.pools import wait_for

ROOT = Path(__file__).parents[2]
#: Those that look at the site share one, and with it the browser's process.
ON_ONE = pytest.mark.xdist_group("browser")


def build(pages: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does; what was read is kept beside the site, not in the checkout."""
    given = ["-W", "-n", "--keep-going", "-q", "-j", "2", "-b", "dirhtml", "-d", str(into / "read")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *given, str(pages), str(into / "site")], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once."""
    into = tmp_path_factory.mktemp("site")
    built = build(ROOT / "docs", into)
    # Sphinx warns of dead links between pages, of wrong anchors, and of a page that is in no table of contents.
    assert built.returncode == 0, built.stderr
    return into / "site"


@ON_ONE
def test_the_site_builds_without_a_warning_and_needs_no_other_host(site: Path) -> None:
    first = (site / "index.html").read_text()
    assert f"<title>pgq {pgq.__version__}</title>" in first
    assert (site / "searchindex.js").stat().st_size > 10_000
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]*)|<link[^>]* href=\"([^\"]*)", text)
        assert [name for names in loaded for name in names if re.match(r"(https?:)?//", name)] == [], page
        # As the policy in docs/conf.py wants it.
        assert re.findall(r"<script>|<style| style=\"| on\w+=\"|javascript:", text) == [], page


@ON_ONE
def test_programs_find_the_pages(site: Path) -> None:
    listed = re.findall(r"^- \[[^]]+\]\(([^)]*)\): \S", (site / "llms.txt").read_text(), re.MULTILINE)
    pages = {str(page.parent.relative_to(site)) + "/" for page in site.rglob("*/index.html")}
    assert pages - set(listed) == {"404/", "genindex/", "search/"}
    assert not (site / "sitemap.xml").exists()


def test_a_site_whose_address_is_known_has_a_sitemap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGQ_DOCS_URL", "https://docs.example.com/pgq/")
    pages = tmp_path / "pages" / "docs"
    shutil.copytree(ROOT / "docs/_ext", pages / "_ext")
    shutil.copytree(ROOT / "docs/_static", pages / "_static")
    (pages.parent / "pgq").mkdir()
    (pages.parent / "pgq" / "__init__.py").write_text('__version__ = "7.1"\n')
    shutil.copy(ROOT / "docs/conf.py", pages)
    (pages / "index.md").write_text("# First\n\nA *page*.\n\n```{toctree}\nother\n```\n")
    (pages / "other.md").write_text("# Other\n\nAnother [page](index.md). More.\n")
    (pages / "404.md").write_text("---\norphan: true\n---\n# Not here\n\n[First](index.md)\n")
    built = build(pages, tmp_path)
    assert built.returncode == 0, built.stderr
    places = re.findall("<loc>(.*?)</loc>", (tmp_path / "site/sitemap.xml").read_text())
    assert places == ["https://docs.example.com/pgq/", "https://docs.example.com/pgq/other/"]
    assert "- [Other](https://docs.example.com/pgq/other/): Another page." in (tmp_path / "site/llms.txt").read_text()
    missing = (tmp_path / "site/404.html").read_text()
    assert re.findall(r'(?:href|src)="(?!#|/pgq/|https?:)([^"]*)"', missing) == []


def test_a_page_that_is_in_no_table_of_contents_stops_the_build(tmp_path: Path) -> None:
    pages = tmp_path / "pages" / "docs"
    pages.mkdir(parents=True)
    (pages.parent / "pgq").mkdir()
    (pages.parent / "pgq" / "__init__.py").write_text('__version__ = "7.1"\n')
    conf = (ROOT / "docs" / "conf.py").read_text().replace('["_static"]', "[]").replace(', "finished"', "")
    (pages / "conf.py").write_text(conf.replace('html_favicon = "_static/favicon.svg"', ""))
    (pages / "index.md").write_text("# First\n\n[a file](../pgq/__init__.py)\n")
    (pages / "alone.md").write_text("# Alone\n\n[dead](missing.md) [wrong](index.md#other)\n")
    built = build(pages, tmp_path)
    assert built.returncode != 0
    assert "alone.md: WARNING: document isn't included in any toctree" in built.stderr
    assert "missing.md" in built.stderr
    assert "'other'" in built.stderr
    assert "__init__" not in built.stderr


# -------------------------------------------------------------------------------------------------- in a browser


class _Strict(SimpleHTTPRequestHandler):
    """Serves a folder with the policy that docs/conf.py names, and its page for what is not there."""

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", "default-src 'self'; img-src 'self' data:")
        super().end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = (Path(self.directory) / "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Strict, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class TestInABrowser:
    pytestmark = MARKS

    PAGES = ("", "guide/tasks/", "reference/functions/", "reference/checks/", "explain/benchmarks/")

    def test_pages_fit_a_phone_and_nothing_is_refused(self, address: str, chromium: Browser) -> None:
        for scheme in ("light", "dark"):
            feature = [{"name": "prefers-color-scheme", "value": scheme}]
            chromium.devtools("Emulation.setEmulatedMedia", features=feature)
            for width in (1280, 320):
                chromium.devtools(
                    "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
                )
                for page in self.PAGES:
                    chromium.open(address + page)
                    assert chromium.run("return document.documentElement.scrollWidth") <= width, (page, width)
                    assert chromium.complaints() == []
        chromium.devtools("Emulation.clearDeviceMetricsOverride")
        chromium.devtools("Emulation.setEmulatedMedia", features=[])

    def test_the_search_finds_a_page(self, address: str, chromium: Browser) -> None:
        chromium.open(address + "search/?q=watermark")
        wait_for(lambda: "search finished" in chromium.text.lower() or "found" in chromium.text.lower())
        assert wait_for(lambda: chromium.run("return document.querySelectorAll('ul.search li').length")) >= 2
        assert chromium.complaints() == []

    def test_what_is_not_there_leads_on(self, address: str, chromium: Browser) -> None:
        chromium.open(address + "guide/no/such/page")
        assert "There is no such page" in chromium.text
        chromium.leave_by("article a[href$='reference/glossary/']")
        assert "One meaning each" in chromium.text or "one meaning each" in chromium.text
        assert [said for said in chromium.complaints() if "404" not in said] == []


def test_links_out_of_the_site_lead_into_the_repository_that_the_metadata_name(tmp_path: Path) -> None:
    for name in ("docs/conf.py", "pgq/__init__.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text((ROOT / name).read_text())
    for metadata, shown in (
        (None, "see LICENSE"),
        ("[project]\n", "see LICENSE"),
        (
            '[project.urls]\nRepository = "https://example.org/pgq/"\n',
            f"see [LICENSE](https://example.org/pgq/blob/v{pgq.__version__}/LICENSE)",
        ),
    ):
        if metadata is not None:
            (tmp_path / "pyproject.toml").write_text(metadata)
        read = runpy.run_path(str(tmp_path / "docs" / "conf.py"))
        source = ["see [LICENSE](../LICENSE)"]
        read["_links_out_of_the_site"](None, "index", source)
        assert source == [shown]


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
