"""What a setting may be: the declaration of one key, and the rules that their values obey.

A rule takes a value and returns None if it is right, else what it should have been, to follow "Make it".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeAlias

from pgq import recurrence
from pgq.ground import backoff, limits

Rule: TypeAlias = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One key of the settings, besides its name, type and default, which are those of its field in `conf.Settings`."""

    #: What its values obey.
    rule: Rule
    #: What it means, for the page of the settings.
    meaning: str
    #: What a value counts or names: "seconds", "alias in `CACHES`"; empty if the meaning says it.
    unit: str = ""
    #: Which processes read it: "pool", "producer", "reader", "admin" or "all".
    read_by: str = "pool"
    #: How the page writes the default; empty: as Python does.
    default: str = ""
    #: Whether Django-Q has a key of this name.
    django_q: bool = False
    #: Another name for it, which is Django-Q's.
    alias: str | None = None
    #: Makes of a right value what is kept.
    keep: Callable[[Any], Any] = lambda value: value
    #: Returns what is odd about a right value, to follow "PGQ['key'] is 3", and what to do; None: nothing.
    caution: Callable[[Any], tuple[str, str] | None] = lambda value: None


def declare(default: Any, rule: Rule, meaning: str, *, shown: str = "", **facts: Any) -> Any:
    """Declare a field of `conf.Settings`.

    Args:
        default: The value, or what makes it.
        shown: How the page writes the default.
        facts: The other fields of `Declaration`.
    """
    declared = {"declaration": Declaration(rule=rule, meaning=meaning, default=shown, **facts)}
    if callable(default):
        return field(default_factory=default, metadata=declared)
    return field(default=default, metadata=declared)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def positive(value: Any) -> str | None:
    return None if _is_number(value) and value > 0 else "a number above 0"


def not_negative(value: Any) -> str | None:
    return None if _is_number(value) and value >= 0 else "a number, 0 or above"


def positive_or_none(value: Any) -> str | None:
    return None if value is None or positive(value) is None else "a number above 0, or None"


def whole(value: Any) -> str | None:
    return None if _is_number(value) and isinstance(value, int) else "a whole number"


def positive_whole(value: Any) -> str | None:
    return whole(value) or positive(value)


def not_negative_whole(value: Any) -> str | None:
    return whole(value) or not_negative(value)


def days_or_none(value: Any) -> str | None:
    # Longer ago than that, PostgreSQL's and Python's calendars end.
    most = 365_000
    right = value is None or (_is_number(value) and 0 < value <= most)
    return None if right else f"a number of days above 0, {most} at most, or None"


def port_or_none(value: Any) -> str | None:
    right = value is None or (whole(value) is None and 0 < value < 65536)
    return None if right else "the number of a port, or None"


def boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def boolean_or_seconds(value: Any) -> str | None:
    return None if isinstance(value, bool) or positive(value) is None else "True, False or a number of seconds"


def text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text that is not empty"


def text_or_none(value: Any) -> str | None:
    return None if value is None else text(value)


def texts(value: Any) -> str | None:
    right = isinstance(value, list | tuple | set) and all(text(item) is None for item in value)
    return None if right else "a list of texts"


def texts_or_none(value: Any) -> str | None:
    return None if value is None else texts(value)


def databases(value: Any) -> str | None:
    wanted = "a dict {alias in DATABASES: [queues]}, such as {'second': ['reports']}"
    if not isinstance(value, Mapping):
        return wanted
    place: dict[str, str] = {}
    for alias, queues in value.items():
        if text(alias) is not None or texts(queues) is not None:
            return wanted
        for queue in queues:
            if place.setdefault(queue, alias) != alias:
                return f"{wanted}; the queue {queue!r} stands under {place[queue]!r} and under {alias!r}"
    return None


def one_of(*choices: str | None) -> Rule:
    return lambda value: None if value in choices else "one of " + ", ".join(map(repr, choices))


def zone_or_none(value: Any) -> str | None:
    try:
        if value is not None:
            recurrence.parse_zone(value, UTC)
    except (ValueError, AttributeError):
        return "the name of a time zone, such as 'Europe/Paris', or None"
    return None


def pauses(value: Any) -> str | None:
    try:
        if not callable(value):
            backoff.validate(value)
    except ValueError:
        return "seconds, a list of seconds, a dict (see docs/reference/settings.md), a function, or None"
    return None


def reporters(value: Any) -> str | None:
    right = isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())
    return None if right else "a dict {name: {argument: value}}"


def queue_limits(value: Any) -> str | None:
    wanted = "a dict such as {'mail': {'concurrency': 10, 'rate': '1000/h'}}"
    if not isinstance(value, Mapping):
        return wanted
    for queue, given in value.items():
        if text(queue) is not None or not isinstance(given, Mapping) or not given.keys() <= {"concurrency", "rate"}:
            return wanted
        try:
            limits.of_queue(queue, given)
        except ValueError as error:
            return f"{wanted} (queue {queue!r}: {error})"
    return None


def schedules(value: Any) -> str | None:
    """What each of them must be is said where they are read, since that imports what they name."""
    right = isinstance(value, list | tuple) or text(value) is None or hasattr(value, "to_schedules")
    return None if right else "a list of schedules (see docs/guide/schedules.md), or the dotted path of one"


def release(value: Any) -> str | None:
    right = value is None or text(value) is None or not_negative_whole(value) is None
    return None if right else "a text or a whole number that grows with each deploy, or None"


def pools(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "a dict {name: {key: value}}"
