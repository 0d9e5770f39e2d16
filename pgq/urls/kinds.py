"""Kinds of parameters: how one is read from a query or from a body, and its schema. Wrong ones raise ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.utils.dateparse import parse_datetime

from pgq.ground import ids


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values.

    Attributes:
        schema: Of JSON Schema 2020-12, which OpenAPI 3.1 uses.
        read: Takes a JSON value; returns what the endpoint gets, or raises ValueError: "must be ...".
        of_text: Makes the JSON value of what stands in a query or a path.
    """

    schema: Mapping[str, Any]
    read: Callable[[Any], Any]
    of_text: Callable[[str], Any] = str


def choice(*words: str) -> Kind:
    """One of these words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return Kind({"type": "string", "enum": list(words)}, read)


def whole(low: int, high: int) -> Kind:
    """A whole number within bounds."""

    def read(value: Any) -> int:
        is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not is_whole or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return Kind({"type": "integer", "minimum": low, "maximum": high}, read, _number)


def number(low: float, high: float) -> Kind:
    """A number within bounds."""

    def read(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return Kind({"type": "number", "minimum": low, "maximum": high}, read, _number)


def _number(text: str) -> Any:
    # As JSON writes numbers: Python's own readers take blanks, underscores and digits of other scripts, too.
    if not text.isascii() or len(text) > 30:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) and text.strip() == text else text


def text(longest: int = 500) -> Kind:
    """A text that PostgreSQL can hold: neither empty nor with a NUL."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= longest or not _is_storable(value):
            raise ValueError(f"must be a text of 1 to {longest} characters without NUL")
        return value

    return Kind({"type": "string", "minLength": 1, "maxLength": longest}, read)


def _is_storable(value: str) -> bool:
    return not any(each == "\0" or "\ud800" <= each <= "\udfff" for each in value)


def task_id() -> Kind:
    """The id of a task: 32 hex digits."""

    def read(value: Any) -> UUID:
        id = ids.parse_id(value)
        if id is None or not str(value).isascii():
            raise ValueError("must be the id of a task: 32 hex digits")
        return id

    return Kind({"type": "string", "pattern": "^[0-9a-f]{32}$", "examples": ["0" * 32]}, read)


def moment() -> Kind:
    """A moment with its offset from UTC, as RFC 3339 has it."""

    def read(value: Any) -> datetime:
        try:
            found = parse_datetime(value) if isinstance(value, str) else None
            if found is not None and found.tzinfo is not None and 1970 < found.year < 9999:
                # PostgreSQL takes offsets up to 16 hours, Python up to 24.
                return found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise ValueError("must be a moment with its offset from UTC, such as 2030-01-31T12:00:00Z")

    return Kind({"type": "string", "format": "date-time"}, read)


def flag() -> Kind:
    """True or false; 1 or 0 in a query."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value

    words = {"true": True, "1": True, "false": False, "0": False}
    return Kind({"type": "boolean"}, read, words.get)


def array(longest: int = 1000) -> Kind:
    """A JSON array."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > longest:
            raise ValueError(f"must be an array of {longest} items at most")
        return value

    return Kind({"type": "array", "maxItems": longest}, read)


def mapping() -> Kind:
    """A JSON object with any members."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("must be an object")
        return value

    return Kind({"type": "object"}, read)


def record(**fields: Kind) -> Kind:
    """A JSON object with these members, each of which may be left out."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("must be an object")
        return read_all(value, fields, required=())

    properties = {name: dict(kind.schema) for name, kind in fields.items()}
    return Kind({"type": "object", "properties": properties, "additionalProperties": False}, read)


def read_all(given: Mapping[str, Any], fields: Mapping[str, Kind], *, required: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of given members.

    Raises:
        Wrong: Some are unknown, missing or wrong.
    """
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            errors[name[:100]] = f"is not known here; known: {known}"
            continue
        try:
            values[name] = fields[name].read(value)
        except Wrong as wrong:
            errors.update({f"{name}.{inner}": reason for inner, reason in wrong.errors.items()})
        except ValueError as error:
            errors[name] = str(error)
    errors.update({name: "is missing" for name in required if name not in given})
    if errors:
        raise Wrong(errors)
    return values


class Wrong(ValueError):
    """Members of an object are wrong: `errors` has the reason of each."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name} {reason}" for name, reason in errors.items()))
        self.errors = errors
