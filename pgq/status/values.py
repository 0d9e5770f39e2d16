"""Stored values for people and programs that may see them: secrets masked, nothing imported, loaded or unpickled."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

from django.db.models import Model

from pgq.codec import Shown, signing
from pgq.codec.stored import stored_text

MASK = "********"
#: Names of keyword arguments and keys whose values are masked; the ModelAdmins have it as `hidden_names`.
HIDDEN_NAMES = re.compile(r"passw|secret|token|api_?key|credential|authorization", re.IGNORECASE)
#: Characters of a stored value that `for_programs` returns; of a longer one it says only that it is longer.
LONGEST = 1_000_000

_SENSITIVE = re.compile(r'"sensitive": true')


def masked(value: Any, hidden: re.Pattern[str]) -> Any:
    """Return a decoded value with the values of hidden names masked."""
    if isinstance(value, dict):
        return {
            key: MASK if isinstance(key, str) and hidden.search(key) else masked(item, hidden)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(masked(item, hidden) for item in value)
    if isinstance(value, Shown):
        return Shown.of(value.path, masked(value.fields, hidden))
    return value


def is_sensitive(row: Model) -> bool:
    """Whether the task was enqueued with `sensitive`: its arguments and its result are hidden."""
    # To search the text is enough, and cannot fail: the options of a row from psql may hold anything.
    return _SENSITIVE.search(stored_text(row, "options") or "") is not None


def hidden_text(text: str) -> str:
    """Return what stands in the place of a sensitive task's value: equal values look equal."""
    return f"<hidden: {len(text):,} characters, digest {signing.digest(text)}>"


def for_programs(row: Model, field: str) -> Any:
    """Return a stored field of a row as the JSON it is, tags of `pgq.codec` included, with hidden names masked.

    Of a sensitive task, and of what is longer than `LONGEST` or no JSON that Python reads, a text in brackets.
    """
    text = stored_text(row, field)
    if text is None:
        return None
    if is_sensitive(row):
        return hidden_text(text)
    if field == "value":
        # Whether the seal is good does not matter: nothing that needs trust is done with what it holds.
        text, _ = signing.unseal(UUID(str(row.pk)), text)
    if len(text) > LONGEST:
        return f"<too long: {len(text):,} characters>"
    try:
        return masked_json(json.loads(text, parse_constant=_refuse), HIDDEN_NAMES)
    # Nested too deep, or an int with more digits than Python reads: a row that was made by hand holds anything.
    except (RecursionError, ValueError):
        return f"<unreadable: {len(text):,} characters>"


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def masked_json(value: Any, hidden: re.Pattern[str]) -> Any:
    """Mask hidden names in stored JSON, also those of a dict stored as pairs, because a key of it looks like a tag."""
    if isinstance(value, list):
        return [masked_json(item, hidden) for item in value]
    if not isinstance(value, dict):
        return value
    pairs = value.get("$dict")
    if isinstance(pairs, list) and len(value) == 1:
        return {"$dict": [_masked_pair(pair, hidden) for pair in pairs]}
    return {key: MASK if hidden.search(key) else masked_json(item, hidden) for key, item in value.items()}


def _masked_pair(pair: Any, hidden: re.Pattern[str]) -> Any:
    if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and hidden.search(pair[0]):
        return [pair[0], MASK]
    return masked_json(pair, hidden)
