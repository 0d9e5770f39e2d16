"""Write the tables of docs/reference/settings.md from what is declared in pgq/conf/__init__.py.

::

    make docs

A table stands between two comments of HTML. The first names what goes there: ``settings:`` and its keys, in order, or
the keys of Django-Q without a meaning. What is outside the comments is left alone.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path

from pgq import conf

PAGE = Path(__file__).parents[2] / "docs/reference/settings.md"
_TABLE = re.compile(r"(<!-- (?:settings: ([^>]*)|keys without meaning) -->\n).*?(<!-- end -->)", re.DOTALL)


def keys(page: str) -> list[str]:
    """Return the keys of all tables of settings."""
    return [key for table in _TABLE.finditer(page) for key in (table[2] or "").split()]


def written(page: str) -> str:
    """Return the page with its tables as they should be."""

    def table(found: re.Match[str]) -> str:
        lines = _settings(found[2].split()) if found[2] else _without_meaning()
        return "\n".join([found[1], *lines, "", found[3]])

    return _TABLE.sub(table, page)


def _settings(keys: list[str]) -> list[str]:
    defaults = {item.name: _default(item) for item in fields(conf.Settings)}
    lines = ["| key | default | unit | read by | meaning |", "|---|---|---|---|---|"]
    for key in keys:
        declared = conf.ALT_CLUSTERS if key == "ALT_CLUSTERS" else conf.DECLARATIONS[key]
        cells = (f"`{key}`", declared.default or defaults[key], declared.unit, declared.read_by, declared.meaning)
        lines.append(" ".join(f"| {cell}" if cell else "|" for cell in cells) + " |")
    return lines


def _default(field: Field[object]) -> str:
    if field.default is MISSING:
        return ""
    # Seconds may have a fraction, though the default has none.
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default!r}`"


def _without_meaning() -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for key, reason in conf.WITHOUT_MEANING.items():
        by_reason.setdefault(reason, []).append(f"`{key}`")
    rows = [f"| {', '.join(names)} | {_sentence(reason)} |" for reason, names in by_reason.items()]
    return ["| key | why |", "|---|---|", *rows]


def _sentence(reason: str) -> str:
    return reason[0].upper() + reason[1:]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
