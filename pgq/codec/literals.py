"""Arguments written as text, as in Django-Q's schedules: ``1, 'two'`` and ``{'x': 1}`` or ``x=1``.

Only Python literals are read, nothing is evaluated.
"""

from __future__ import annotations

import ast
from typing import Any

from pgq.errors import invalid

_NOT_LITERALS = (ValueError, SyntaxError, MemoryError, RecursionError, TypeError)


def read(field: str, text: str) -> Any:
    """Read args or kwargs from text.

    Args:
        field: "args" or "kwargs".

    Raises:
        ValueError: The text is not made of literals; the message names the field. (Django-Q takes such kwargs for
            none, without a word.)
    """
    return read_args(text) if field == "args" else read_kwargs(text)


def read_args(text: str, field: str = "args") -> tuple[Any, ...]:
    """Read positional arguments; as in Django-Q, what is not a tuple is one argument: ``[1, 2]`` is one list."""
    try:
        value = ast.literal_eval(text.strip())
    except _NOT_LITERALS:
        raise invalid(field, f"{text[:100]!r} is not made of Python literals, such as: 1, 'two', [3]") from None
    return value if isinstance(value, tuple) else (value,)


def read_kwargs(text: str, field: str = "kwargs") -> dict[str, Any]:
    """Read keyword arguments, as a dict or as ``x=1, y='two'``."""
    text = text.strip()
    try:
        if text.startswith("{"):
            value = ast.literal_eval(text)
        else:
            call = ast.parse(f"f({text})", mode="eval").body
            if not isinstance(call, ast.Call) or call.args or any(item.arg is None for item in call.keywords):
                raise ValueError
            value = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError
    except _NOT_LITERALS:
        raise invalid(field, f"{text[:100]!r} is not made of Python literals, such as: x=1, y='two'") from None
    return value
