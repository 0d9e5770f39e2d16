"""The text of a statement: read from its file in `pgq/store/sql`, and its parts filled in."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_PART = re.compile(r"\{([a-z_]+)\}")


@cache
def text_of(name: str) -> str:
    """Return the text of ``sql/*/NAME.sql`` without its comments, its parts not filled in."""
    text = _files()[f"{name}.sql"].read_text(encoding="utf-8")
    # Comments are not sent: psycopg would take a percent sign in them for a parameter.
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


@cache
def _files() -> dict[str, Traversable]:
    """Return the files of all statements by their names. A folder holds those of the module of its name."""
    folders = (folder for folder in (files("pgq.store") / "sql").iterdir() if folder.is_dir())
    return {file.name: file for folder in folders for file in folder.iterdir()}


@lru_cache(maxsize=512)
def sql(name: str, **parts: int | str) -> str:
    """Return the text of ``sql/NAME.sql``, its parts filled in.

    Args:
        parts: The text for each ``{part}``, which may hold placeholders.

    Raises:
        KeyError: A part is missing.
    """
    return _PART.sub(lambda part: str(parts[part[1]]), text_of(name))
