"""When a failed task is tried again. Pure arithmetic.

A backoff is stored with the task as JSON:

* a number: that many seconds, each time;
* a list of numbers: one for each attempt, the last one repeated;
* ``{"kind": "fixed" | "linear" | "exponential", "base": seconds, "factor": 2, "max": seconds, "jitter": 0..1}``;
* ``{"callable": "app.tasks.my_backoff"}``: called with the number of the failed attempt and the exception; returns
  seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pgq.ground import chance

#: Used when a task names none: 5 s, 10 s, 20 s ... up to an hour, each shortened by up to a half at random.
DEFAULT: Mapping[str, Any] = {"kind": "exponential", "base": 5.0, "factor": 2.0, "max": 3600.0, "jitter": 0.5}
_KEYS = {"kind", "base", "factor", "max", "jitter"}


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def validate(backoff: Any) -> None:
    """Raise ValueError, saying what is wrong, unless this is a backoff as described above (or None)."""
    if backoff is None or _is_seconds(backoff):
        return
    if isinstance(backoff, list | tuple):
        if not backoff or not all(_is_seconds(item) for item in backoff):
            raise ValueError(f"a list of seconds must hold at least one, all 0 or above, got {backoff!r}")
        return
    if isinstance(backoff, Mapping):
        if set(backoff) == {"callable"} and isinstance(backoff["callable"], str):
            return
        unknown = set(backoff) - _KEYS
        if unknown or backoff.get("kind") not in ("fixed", "linear", "exponential"):
            raise ValueError(
                f"a dict needs a kind (fixed, linear or exponential) and may have {_KEYS}, got {backoff!r}"
            )
        wrong = [key for key in ("base", "factor", "max", "jitter") if key in backoff and not _is_seconds(backoff[key])]
        if wrong or backoff.get("jitter", 0) > 1:
            raise ValueError(f"base, factor and max must be numbers, 0 or above, and jitter 0 to 1, got {backoff!r}")
        return
    raise ValueError(f"must be seconds, a list of seconds, a dict or a callable, got {backoff!r}")


def delay(
    backoff: Any,
    attempt: int,
    error: BaseException | None = None,
    resolve: Callable[[str], Callable[[int, BaseException | None], float]] | None = None,
) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1)."""
    if backoff is None:
        backoff = DEFAULT
    if isinstance(backoff, int | float):
        return float(backoff)
    if isinstance(backoff, list | tuple):
        return float(backoff[min(attempt, len(backoff)) - 1])
    if "callable" in backoff:
        if resolve is None:
            raise ValueError("a callable backoff needs `resolve`, which imports it")
        return max(0.0, float(resolve(backoff["callable"])(attempt, error)))
    base = float(backoff.get("base", DEFAULT["base"]))
    grown = {
        "fixed": base,
        "linear": base * attempt,
        "exponential": base * float(backoff.get("factor", 2.0)) ** min(attempt - 1, 64),
    }[backoff["kind"]]
    bounded = min(grown, float(backoff.get("max", DEFAULT["max"])))
    return bounded * (1 - chance.between(0, 1) * float(backoff.get("jitter", 0.0)))
