"""Links of pages, and what they may lead to."""

from __future__ import annotations

import os
import re
from pathlib import Path

_FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What a link may name behind its #: headings as GitHub and MyST turn them into ids, and ids of HTML."""
    headings = re.findall(r"^#+ (.*)", _FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one.strip().lower().replace("`", "")) for one in headings]
    ids: set[str] = set()
    for one in plain:
        first = re.sub(r"[^\w\- ]", "", one).replace(" ", "-")
        ids.add(next(name for count in range(99) if (name := f"{first}-{count}" if count else first) not in ids))
    return ids | set(re.findall(r'(?:id|name)="([^"]+)"', text))


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text(encoding="utf-8"))):
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
