"""Checks of options: each returns the value that is kept for a given one, or raises an error that names the option."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from pgq.codec import dotted
from pgq.config.unique import LONGEST
from pgq.errors import EnqueueError, UnknownFunction
from pgq.ground import backoff, limits, spans

#: Takes an option's name and its given value; returns the value that is kept, or raises EnqueueError.
Check = Callable[[str, Any], Any]
#: Seconds that a result is kept at most, a thousand years: times after those PostgreSQL and Python do not have.
_LONGEST_KEEP = 365_000 * 86_400


def check_backoff(option: str, value: Any) -> Any:
    """Return a backoff as it is stored; a callable stays a callable, since its path depends on what is registered."""
    if callable(value):
        return value
    try:
        backoff.validate(value)
    except ValueError as error:
        raise EnqueueError(option, str(error)) from None
    # As JSON has it: the codec would store a tuple with a tag, which no backoff has.
    return list(value) if isinstance(value, tuple) else value


def check_exception(option: str, value: type[BaseException] | str) -> str:
    """Return the dotted path of an exception class; a text is taken for one."""
    if isinstance(value, str):
        return value
    if not (isinstance(value, type) and issubclass(value, BaseException)):
        raise EnqueueError(option, f"must hold exception classes or their dotted paths, got {value!r}")
    try:
        return dotted.path_in_memory(value)
    except dotted.Unnamed as error:
        raise UnknownFunction(option, f"{value.__name__} {error}") from None


def check_exceptions(option: str, value: Any) -> list[str]:
    """Return the dotted paths of one exception class, or of several."""
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return [check_exception(option, item) for item in (value if several else [value])]


def check_ack(option: str, value: Any) -> Any:
    """Return when a task is settled."""
    if value not in ("task", "batch"):
        raise EnqueueError(option, f"must be 'task' or 'batch', got {value!r}")
    return value


def check_keep(option: str, value: Any) -> float | bool | None:
    """Return how long a result is kept, in seconds; False: a success has none; None: as the settings say."""
    if isinstance(value, bool):
        return None if value else False
    seconds = spans.seconds(value)
    if seconds is not None and seconds <= _LONGEST_KEEP:
        return seconds
    units = ", ".join(spans.UNITS)
    raise EnqueueError(
        option,
        f"must be a number of seconds above 0 and up to {_LONGEST_KEEP}, a timedelta, a text such as '7d' (units: "
        f"{units}), False or True; got {value!r}",
    )


def check_key(option: str, value: Any) -> Any:
    """Return the key that a call gives."""
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise EnqueueError(option, f"must be a text, a whole number or a UUID, got {value!r}")
    return value


def check_key_of_task(option: str, value: Any) -> limits.KeyOf:
    """Return how `@task` makes the key from the arguments."""
    if not callable(value) and not isinstance(value, str):
        raise EnqueueError(option, f"must be the name of an argument, or a function of the arguments, got {value!r}")
    return limits.KeyOf(value)


def read_by(read: Callable[[Any], Any]) -> Check:
    """Make a check of what reads the value, and raises ValueError."""

    def check(option: str, value: Any) -> Any:
        try:
            return read(value)
        except ValueError as error:
            raise EnqueueError(option, str(error)) from None

    return check


def check_order(option: str, value: Any) -> Any:
    """Return in which order the tasks of a key start."""
    if value not in ("fifo", "strict"):
        raise EnqueueError(option, f"must be 'fifo' or 'strict', got {value!r}")
    return value


def false_or(make: Callable[[Any], Any]) -> Check:
    """Make a check that keeps False, and gives all else to what raises ValueError or TypeError."""

    def check(option: str, value: Any) -> Any:
        if value is False:
            return False
        try:
            return make(value)
        except (ValueError, TypeError) as error:
            raise EnqueueError(option, str(error)) from None

    return check


def check_expires(option: str, value: Any) -> Any:
    """Return the moment, or the seconds, after which a task does not start any more."""
    if isinstance(value, datetime):
        return value
    seconds = spans.seconds(value)
    if seconds is None or seconds > LONGEST:
        raise EnqueueError(option, f"must be a datetime, or a length of time: {spans.FORMS}; got {value!r}")
    return seconds


def unless_empty(option: str, value: Any) -> Any:
    """Return the value; None: it is empty, which is as if it were not given."""
    return value or None
