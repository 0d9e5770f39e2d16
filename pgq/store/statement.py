"""How a statement's text is read from its file, run, and given arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.texts import sql

Row = tuple[Any, ...]
T = TypeVar("T")


def all_rows(cursor: Cursor, name: str, parameters: dict[str, Any], **parts: int | str) -> list[Row]:
    cursor.execute(sql(name, **parts), parameters)
    return cursor.fetchall()


def one_row(cursor: Cursor, name: str, parameters: dict[str, Any], **parts: int | str) -> Row:
    cursor.execute(sql(name, **parts), parameters)
    row: Row | None = cursor.fetchone()
    assert row is not None, f"{name}.sql returns a row"
    return row


def records(
    cursor: Cursor, kind: Callable[..., T], name: str, parameters: dict[str, Any], **parts: int | str
) -> list[T]:
    """Return a record for each row: the columns are named as its fields."""
    cursor.execute(sql(name, **parts), parameters)
    columns = [column[0] for column in cursor.description or ()]
    return [kind(**dict(zip(columns, row, strict=True))) for row in cursor.fetchall()]


def run(cursor: Cursor, name: str, **parts: int | str) -> None:
    # With parameters, though empty, psycopg takes "%%" for a percent sign, as in every other statement.
    cursor.execute(sql(name, **parts), {})


# Each array is written as one literal: psycopg's own way costs ten times as much, for each task.


def text_array(texts: Sequence[str | None]) -> str:
    """Return texts as the literal of an array. Nothing but NULLs is the empty array, which unnest pads with NULLs."""
    missing = texts.count(None)
    if missing == len(texts):
        return "{}"
    joined = "" if missing else "\0".join(texts)  # type: ignore[arg-type]  # None is not among them
    # No text of PostgreSQL holds NUL. If one of these does, PostgreSQL must refuse it: it must not become two texts.
    if missing or joined.count("\0") >= len(texts):
        return "{" + ",".join([_element(text) for text in texts]) + "}"
    return "{" + _element(joined).replace("\0", '","') + "}"


def _element(text: str | None) -> str:
    if text is None:
        return "NULL"
    # Always quoted: NULL, the empty text, commas and braces have a meaning in an array.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def id_array(ids: Sequence[UUID]) -> str:
    first = ids[0]
    # The tasks of a claim share one receipt object.
    if all(id is first for id in ids):
        return "{" + ",".join([first.hex] * len(ids)) + "}"
    return "{" + ",".join([id.hex for id in ids]) + "}"


def flag_array(flags: Sequence[bool]) -> str:
    return "{" + ",".join(["t" if flag else "f" for flag in flags]) + "}"


def microseconds_array(seconds: Sequence[float]) -> str:
    # Whole numbers: the shortest text of a float takes ten times as long to find.
    return "{" + str([int(number * 1e6) for number in seconds])[1:-1] + "}"
