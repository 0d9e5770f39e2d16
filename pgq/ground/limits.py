"""Keys and limits as `@task` and the settings give them: the records, and how a text such as "100/m" is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: What PostgreSQL's integer holds.
_MOST = 2**31 - 1
#: Seconds of the longest period, a year.
LONGEST_PERIOD = 366 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"\s*(\d+)\s*/\s*(\d+)?\s*([smhd])\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyOf:
    """How `@task` says what the key of a call is: the name of an argument, or a function of the call's arguments."""

    by: str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many tasks may run at the same time, under which name (None: that of the function)."""

    most: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """How many tasks may be started in any time of a length.

    ``Rate(100, 60)`` says the same as ``"100/m"``.
    """

    #: How many; 0 holds all.
    most: int
    #: Seconds.
    period: float
    #: Tasks that give the same name share the limit; None: the function has it for itself.
    name: str | None = None
    #: Spread the starts over the period.
    smooth: bool = False


def name_of(value: Any) -> str:
    """Return the name of a limit.

    Raises:
        ValueError: It is no text that the part of a key before its first colon can be.
    """
    if not isinstance(value, str) or not value or ":" in value or "\0" in value or len(value.encode()) > 500:
        raise ValueError(f"the name of a limit must be a text of 1 to 500 bytes without a colon, got {value!r}")
    return value


def concurrency_of(value: Any) -> Concurrency:
    """Return what a number, or a pair of a name and a number, says.

    Raises:
        ValueError: It is neither.
    """
    name = None
    if isinstance(value, tuple | list) and len(value) == 2:
        name, value = name_of(value[0]), value[1]
    if isinstance(value, Concurrency):
        return value
    return Concurrency(_count(value, "a number, or a pair of a name and a number"), name)


def rate_of(value: Any) -> Rate:
    """Return what a `Rate`, a text such as "100/m" or "10/30s", or a pair of a name and one of these says.

    Raises:
        ValueError: It is none of them.
    """
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str):
        rate = rate_of(value[1])
        return Rate(rate.most, rate.period, name_of(value[0]), rate.smooth)
    if isinstance(value, Rate):
        if value.name is not None:
            name_of(value.name)
        period = value.period
        if isinstance(period, bool) or not isinstance(period, int | float) or not 0.001 <= period <= LONGEST_PERIOD:
            raise ValueError(f"a period must be 0.001 to {LONGEST_PERIOD} seconds, got {period!r}")
        return Rate(_count(value.most, "a Rate of a number"), float(period), value.name, bool(value.smooth))
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"must be a text such as '100/m' (units: s, m, h, d), '10/30s', or a Rate; got {value!r}")
    return rate_of(Rate(int(found[1]), float(found[2] or 1) * _UNITS[found[3]]))


def _count(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError(f"must be {what}, from 0 (hold all) to {_MOST}; got {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as the table has it. None: no limit of that kind; 0: all tasks are held."""

    #: "queue", or "key": then `name` is a whole key, or the part of keys before their first colon.
    scope: str
    name: str
    concurrency: int | None = None
    rate: int | None = None
    #: Seconds.
    period: float | None = None
    smooth: bool = False
    strict: bool = False


def of_queue(queue: str, given: Mapping[str, Any]) -> Limit:
    """Return the limit of a queue, from what the settings give: concurrency, rate or both.

    Raises:
        ValueError: A value is wrong.
    """
    concurrency, rate = given.get("concurrency"), given.get("rate")
    most = None if concurrency is None else concurrency_of(concurrency).most
    if rate is None:
        return Limit("queue", queue, most)
    read = rate_of(rate)
    return Limit("queue", queue, most, read.most, read.period, read.smooth)
