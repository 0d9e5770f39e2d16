"""Comments, docstrings and statements name the process and the row: no riddle stands for a person, no "we" for pgq."""

from __future__ import annotations

import re
from pathlib import Path

from pgq.store import schema

PACKAGE = Path(schema.__file__).parents[1]
FILES = sorted(
    path for folder in (PACKAGE, schema.directory()) for path in folder.rglob("*") if path.suffix in (".py", ".sql")
)
#: What the patterns below would find, though it means something else: microseconds, a language, a user of the system.
ALLOWED = re.compile(r'\d us\b|\ben-us\b|\("postgres", "nobody"\)|a user postgres nor nobody', re.IGNORECASE)
RIDDLES = re.compile(
    r"\b(?:nobody|whoever|somebody|anybody|everybody|we|us|our|ours)(?![\w-])|# fmt: skip", re.IGNORECASE
)


def test_no_riddles_and_no_line_that_ruff_does_not_lay_out() -> None:
    assert len(FILES) > 200
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if RIDDLES.search(ALLOWED.sub("", line))
    ]
    assert not found, "\n".join(found)
