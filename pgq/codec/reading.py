"""Stored values read by trust: verified ones as they were, pickles where PGQ allows them; others as descriptions.

A description imports, loads and unpickles nothing.
"""

from __future__ import annotations

from typing import Any

from pgq import codec
from pgq.codec.signing import unsign_blob
from pgq.conf import get_settings


def read_value(text: str, *, trusted: bool) -> Any:
    """Return a stored value.

    Raises:
        NotDecodable: It is trusted, and names what is not here.
    """
    if not trusted:
        return codec.decode_for_display(text)
    return codec.decode(text, trusted=True, **_pickles())


def read_args(args: str, kwargs: str, *, trusted: bool) -> tuple[Any, Any]:
    """Return stored arguments and keyword arguments: together, since compressed they stand in one text.

    Raises:
        NotDecodable: They are trusted, and name what is not here.
    """
    if not trusted:
        return codec.decode_args_for_display(args, kwargs)
    return codec.decode_args(args, kwargs, trusted=True, **_pickles())


def _pickles() -> dict[str, Any]:
    allowed = get_settings().allow_pickle
    return {"allow_pickle": allowed, "unsign": unsign_blob if allowed else None}
