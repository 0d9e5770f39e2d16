"""The site: Sphinx, furo and MyST over the pages of this folder, which stay readable as they are in a repository.

`make docs` builds it with warnings as errors, into .pgq/site. Nothing is fetched when it is read: fonts are the
reader's own, the search is an index beside the pages. It may be served with a strict policy::

    Content-Security-Policy: default-src 'self'; img-src 'self' data:

PGQ_DOCS_URL says where it will be served, such as https://docs.example.com/pgq/; without it there is no sitemap.xml,
and the page for what is not there takes the root of its host for the site's.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "pgq"
author = "The pgq maintainers"
copyright = author
version = release = re.search(r'^__version__ = "(.+)"', (ROOT / "pgq/__init__.py").read_text(), re.MULTILINE)[1]

sys.path.insert(0, str(DOCS / "_ext"))
extensions = ["myst_parser", "sphinx_copybutton", "notfound.extension", "finished"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "attrs_inline"]
# Messages and SQL are quoted as they are typed.
smartquotes = False
# As deep as the pages link into each other.
myst_heading_anchors = 3
# A block's prompt is no part of what is copied.
copybutton_prompt_text = r"\$ |>>> |\.\.\. |[a-z]+=[#>] "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"pgq {version}"
html_static_path = ["_static"]
html_css_files = ["pgq.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_baseurl = os.environ.get("PGQ_DOCS_URL", "")
notfound_urls_prefix = f"{urlsplit(html_baseurl).path.rstrip('/')}/"
html_show_sphinx = False

linkcheck_timeout = 20
linkcheck_retries = 2
# The pages' own hosts, which exist on the reader's machine only.
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|[\w.-]*example\.(com|org|net))"]


def _named_in_the_metadata() -> str:
    """Return where the files of this release are, if [project.urls] names a Repository: as for the README's links."""
    file = ROOT / "pyproject.toml"
    urls = tomllib.loads(file.read_text())["project"].get("urls", {}) if file.exists() else {}
    return f"{urls['Repository'].rstrip('/')}/blob/v{version}/" if "Repository" in urls else ""


# Where the files of the repository can be seen, with a slash at the end. Without it, what leads out of docs/ is text.
_REPOSITORY = os.environ.get("PGQ_DOCS_REPOSITORY") or _named_in_the_metadata()
_FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)[ \t]*$", re.MULTILINE | re.DOTALL)
_ALL_OF, _NAMED = re.compile(r"^[a-z]+/\*$", re.MULTILINE), re.compile(r"^[a-z]+/[\w-]+$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\(((?:\.\./)[^)\s#]*)(#[^)\s]*)?\)")


def _links_out_of_the_site(app: Any, page: str, source: list[str]) -> None:
    """A file of the repository is no page: its link leads into the repository, or becomes its text."""
    # Where no page of a folder is left for "all others", Sphinx warns, and nothing turns that off.
    named = set(_NAMED.findall(source[0]))

    def others(found: re.Match[str]) -> str:
        there = {f"{each.parent.name}/{each.stem}" for each in DOCS.glob(found[0] + ".md")}
        return found[0] if there - named else ""

    source[0] = _ALL_OF.sub(others, source[0])
    folder = (DOCS / page).parent

    def lead(found: re.Match[str]) -> str:
        text, path, anchor = found[1], found[2], found[3] or ""
        target = Path(os.path.normpath(folder / path))
        if target.is_relative_to(DOCS):
            return found[0]
        if not _REPOSITORY:
            return text
        return f"[{text}]({_REPOSITORY}{target.relative_to(ROOT)}{anchor})"

    parts, end = [], 0
    for fence in _FENCE.finditer(source[0]):
        parts += [_LINK.sub(lead, source[0][end : fence.start()]), fence[0]]
        end = fence.end()
    source[0] = "".join([*parts, _LINK.sub(lead, source[0][end:])])


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _links_out_of_the_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
