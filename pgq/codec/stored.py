"""Stored values as the database has them, not yet decoded."""

from __future__ import annotations


class StoredText(str):
    """A stored value that has not been decoded yet."""

    __slots__ = ()


def stored_text(instance: object, attribute: str) -> str | None:
    """Return the text of a StoredField as the database has it; None if it is null, deferred or was set since."""
    value = instance.__dict__.get(attribute)
    return str(value) if isinstance(value, StoredText) else None
