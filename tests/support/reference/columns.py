"""What the comments in migrations_sql say of tables and their columns, as psql shows them."""

from __future__ import annotations

import functools
import re

from pgq.store import schema

_COMMENT = re.compile(r"COMMENT ON (TABLE|COLUMN) ([\w.\"]+) IS\s+'((?:[^']|'')*)'")


@functools.cache
def _comments() -> dict[str, str]:
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(schema.directory().glob("*.up.sql")))
    # A later file may say it anew.
    return {name.replace('"', ""): said.replace("''", "'") for _, name, said in _COMMENT.findall(text)}


def of_table(table: str) -> str:
    """Return what is said of a table; nothing: nothing."""
    return _comments().get(table, "")


def of_column(table: str, column: str) -> str:
    """Return what is said of a column; nothing: nothing."""
    return _comments().get(f"{table}.{column}", "")
