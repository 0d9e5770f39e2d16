"""Stored values as the database has them, before anybody has looked at them."""

from __future__ import annotations


class StoredText(str):
    """A stored value that nobody has looked at yet."""

    __slots__ = ()


def stored_text(instance: object, attribute: str) -> str | None:
    """Return the text of a StoredField as the database has it; None if it is null, deferred or was set since."""
    value = instance.__dict__.get(attribute)
    return str(value) if isinstance(value, StoredText) else None
