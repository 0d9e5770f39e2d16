"""All pages of docs/reference that are made from the code as a whole, and the part of the index that names them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from tests.support.reference import checks, commands, errors, layout, members, metrics, models, names, options
from tests.support.reference.docstrings import filled, first_sentence, markdown, table

FOLDER = Path(__file__).parents[3] / "docs/reference"
_INDEX = """\
# Names of Python

Every public name, and the page that tells of it. Settings are on [settings.md](settings.md), commands on
[commands.md](commands.md), functions and views of SQL on [sql.md](sql.md), routes on [rest.md](rest.md). What is not
named here may change in any release. These pages are made from the code by `make docs`.
"""


def written() -> dict[Path, str]:
    """Return each page as it should be."""
    made: dict[str, Callable[[], str]] = {
        "python.md": _index,
        "options.md": options.written,
        "models.md": models.written,
        "errors.md": errors.written,
        "commands.md": commands.written,
        "checks.md": checks.written,
        "metrics.md": metrics.written,
    }
    texts = {name: write() for name, write in made.items()}
    texts |= {page.file: _page(page) for page in layout.PAGES}
    return {FOLDER / name: text.rstrip("\n") + "\n" for name, text in texts.items()}


def _page(page: layout.Page) -> str:
    placed = layout.placed()
    parts = [f"# {page.title}\n", f"{filled(page.intro)}\n"]
    for section in page.sections:
        parts.append(f"## {section.title}\n")
        if section.module:
            parts.append(markdown(importlib.import_module(section.module).__doc__))
        if section.more:
            parts.append(f"{filled(section.more)}\n")
        own = [name for name in section.all_names() if placed[name] == (name, page.file)]
        elsewhere = [name for name in section.all_names() if name not in own]
        if elsewhere:
            parts.append(f"Told of elsewhere: {', '.join(layout.link(name, page.file) for name in elsewhere)}.\n")
        parts += map(names.of, own)
    return "\n".join(part for part in parts if part.strip())


def _index() -> str:
    rows = []
    for module in layout.MODULES:
        for name in layout.public(module):
            home, short = members.found(name)
            rows.append((layout.link(name), first_sentence(members.description(home, short))))
    return "\n".join([_INDEX, table(("name", "what it is"), *sorted(rows, key=lambda row: row[0].lower()))])
