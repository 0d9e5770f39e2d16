"""The pages for those who move here from another queue: their code before and after, and their tables of names.

A page's Python blocks begin with what they are: ``# shop/tasks.py, before``, ``..., after``, ``# shop/guard.py``. A
test writes them into a project, runs the old ones by the real package, and the new ones by a real pool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tests.support.blocks import ROOT, texts
from tests.support.projects import Project

#: What the pages' code is about: each run of a task leaves a row.
MODELS = """
from django.db import models

class Receipt(models.Model):
    order = models.IntegerField()
    text = models.TextField(default="")
"""
_TITLE = re.compile(r"# ([\w/]+\.py)(?:, (before|after))?\b")
_CODE = re.compile(r"`([^`]+)`")
#: Words of Python, of shells and of other programs that stand in the columns of pgq.
_COMMON = re.findall(
    r"\w+",
    """
    and or not in is for None True False def async await lambda raise except with import from as print type str list
    asyncio gather run sleep timedelta datetime days hours minutes seconds transaction atomic on_commit savepoint
    django tasks backends cache cursor pg_advisory_xact_lock select SELECT FROM INSERT UPDATE DELETE WHERE logging
    getLogger manage py python TERM HUP INT KILL SIGKILL connect disconnect weekday contextvars functools partial shop
    self args kwargs id SECRET_KEY attempt_count
    """,
)


def code(page: str) -> dict[str, str]:
    """Return the Python blocks of a page by their first lines, without what follows the name."""
    found = {}
    for text in texts(page, "python"):
        title = _TITLE.match(text)
        assert title, f"{page}: a block begins with its file: {text.splitlines()[0]}"
        assert title[0] not in found, title[0]
        found[title[0].removeprefix("# ")] = text
    return found


def files(page: str, when: str) -> dict[str, str]:
    """Return the page's files, by their paths, as they are before or after the move; others are there after it."""
    found = {}
    for title, text in code(page).items():
        path, _, of = title.partition(", ")
        if of == when or (not of and when == "after"):
            found[path] = text
    return found


def write(shop: Project, page: str, when: str) -> None:
    """Write these files into a project, and its settings, which are added to those that it has."""
    for path, text in files(page, when).items():
        if path.endswith("settings.py"):
            shop.configure(text)
        else:
            shop.write(path, text)


def old_project(project: Callable[..., Project], page: str) -> Project:
    """Make a project of the page as it is before the move, beside pgq, with its tables."""
    shop = project(migrate=False, apps={"shop": {"models.py": MODELS}}, warm=True)
    write(shop, page, "before")
    shop.manage("migrate", "--run-syncdb", "--verbosity=0")
    return shop


def receipts(shop: Project) -> list[tuple[int, str]]:
    """Return what the tasks have done: each run of one is a row."""
    return shop.sql('SELECT "order", text FROM shop_receipt ORDER BY 1, 2')


# ------------------------------------------------------------------------------------------------- tables


def rows(page: str) -> list[tuple[str, str]]:
    """Return the rows of the page's tables of names, there and here."""
    found = []
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if len(cells) == 2 and not set("".join(cells)) <= set("-: "):
            found.append((cells[0], cells[1]))
    return found


def words_there(page: str) -> set[str]:
    """Return the words that stand as code in the columns of the other package."""
    return {word for there, _ in rows(page) for part in _CODE.findall(there) for word in re.findall(r"[\w-]+", part)}


def missing(page: str, names: Iterable[str]) -> list[str]:
    """Return which of another package's names have no row; one that ends in ``_*`` stands for all that begin so."""
    words = words_there(page)
    beginnings = tuple(re.findall(r"`(\w+_)\*`", "".join(there for there, _ in rows(page)))) or ("\0",)
    return sorted({name for name in names if name not in words and not name.startswith(beginnings)})


def unknown(page: str) -> list[str]:
    """Return the words that stand as code in the columns of pgq, and that no other page of pgq knows as code."""
    known = {*_COMMON, *words_there(page)}
    for folder in ("reference", "guide", "operate"):
        for other in (ROOT / "docs" / folder).glob("*.md"):
            known.update(re.findall(r"\w+", other.read_text()))
    here = [part for _, cell in rows(page) for part in _CODE.findall(cell) if "/" not in part]
    return sorted({word for part in here for word in re.findall(r"[a-zA-Z_]\w+", part)} - known)
