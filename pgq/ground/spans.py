"""Lengths of time as callers give them: seconds, a timedelta, or a text such as ``"12h"``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

#: Seconds in the units of a text.
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", re.ASCII)
#: What a length of time may be, for messages.
FORMS = f"a number of seconds, a timedelta, a text such as '7d' (units: {', '.join(UNITS)})"


def seconds(value: Any) -> float | None:
    """Return a length of time in seconds, whole ones as int; None: it is none, or not above 0."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, str) and (span := _SPAN.fullmatch(value)) is not None:
        value = float(span[1]) * UNITS[span[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return None
    return int(value) if value == int(value) else float(value)
