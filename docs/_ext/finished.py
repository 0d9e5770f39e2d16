"""What is done with the site once Sphinx has built it.

* Nothing inline is left in the pages, so that it can be served with a strict Content-Security-Policy (docs/conf.py).
* ``llms.txt`` lists the pages with a sentence each; ``sitemap.xml`` does, too, where the site's address is known.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_STATIC = re.compile(r'href="([^"]*_static/)pygments\.css')
_SCRIPT, _STYLE = re.compile(r"<script>(.*?)</script>", re.DOTALL), re.compile(r"<style>(.*?)</style>", re.DOTALL)
#: Styles of the theme's pictures, and what says the same without one.
_ATTRIBUTES = {' style="display: none;"': ' class="pgq-sprite"', ' style="opacity: 50%"': ' opacity="0.5"'}
#: The folders of the site, in the order of its index.
_FOLDERS = ("start", "guide", "operate", "migrate", "reference", "explain", "")


def finish(app: Any, error: Exception | None) -> None:
    """Go over the pages that were written."""
    if error is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(without_inline(text, site / "_static"), encoding="utf-8")
    # Where hosts look for it. It is shown at any address, so its links begin at the root.
    missing = (site / "404/index.html").read_text(encoding="utf-8")
    root = app.config.notfound_urls_prefix
    (site / "404.html").write_text(missing.replace('href="../', f'href="{root}'), encoding="utf-8")
    (site / "llms.txt").write_text(_list_of_pages(app), encoding="utf-8")
    if app.config.html_baseurl:
        (site / "sitemap.xml").write_text(_sitemap(app), encoding="utf-8")


def without_inline(text: str, static: Path) -> str:
    """Return a page whose scripts and styles are files in `static`, which are written."""
    found = _STATIC.search(text)
    if found is None:
        return text
    prefix = found[1]

    def name(content: str, kind: str) -> str:
        file = static / f"inline-{hashlib.sha256(content.encode()).hexdigest()[:8]}.{kind}"
        file.write_text(content.strip() + "\n", encoding="utf-8")
        return prefix + file.name

    text = _SCRIPT.sub(lambda script: f'<script src="{name(script[1], "js")}"></script>', text)
    text = _STYLE.sub(lambda style: f'<link rel="stylesheet" href="{name(style[1], "css")}">', text)
    for said, same in _ATTRIBUTES.items():
        text = text.replace(said, same)
    return text


def _list_of_pages(app: Any) -> str:
    parts = [f"# {app.config.project}\n\n> {_first_sentence(app, app.config.root_doc)}\n"]
    for folder in _FOLDERS:
        pages = [name for name in sorted(app.env.found_docs) if name.rpartition("/")[0] == folder]
        lines = [
            f"- [{app.env.titles[name].astext()}]({_address(app, name)}): {_first_sentence(app, name)}".rstrip(": ")
            for name in pages
            if name not in (app.config.root_doc, "404")
        ]
        if lines:
            parts.append("\n".join([f"## {folder.capitalize() or 'More'}\n", *lines]) + "\n")
    return "\n".join(parts)


def _first_sentence(app: Any, name: str) -> str:
    """Return the first sentence of prose on a page, as plain text."""
    text = Path(app.env.doc2path(name)).read_text(encoding="utf-8")
    prose = [part for part in text.split("\n\n") if re.match(r"[A-Za-z*]|`[^`]", part)]
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[*`]", r"\1", " ".join((prose or [""])[0].split()))
    return re.split(r"(?<=[.:])\s", plain)[0].rstrip(".:") + "." if plain else ""


def _sitemap(app: Any) -> str:
    places = [
        f"<url><loc>{escape(_address(app, name))}</loc></url>" for name in sorted(app.env.found_docs) if name != "404"
    ]
    head = '<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    return "\n".join([head, *places, "</urlset>"]) + "\n"


def _address(app: Any, name: str) -> str:
    path: str = app.builder.get_target_uri(name)
    base: str = app.config.html_baseurl
    return f"{base.rstrip('/')}/{path}" if base else path


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
