"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; all columns but the first are numbers, unless the last one holds words."""
    safe = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    aligned = ["---", *["---:"] * (len(header) - 1)]
    if header[-1] in ("", "what it keeps of a task"):
        aligned = ["---"] * len(header)
    return "\n".join("| " + " | ".join(row) + " |" for row in (safe[0], aligned, *safe[1:]))
