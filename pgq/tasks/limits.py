"""`set_limit` and `drop_limit`: limits are changed while pools run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pgq.conf import at, database_of, get_settings, places
from pgq.errors import EnqueueError
from pgq.ground import limits
from pgq.store import limits as store_limits
from pgq.store.caller import callers_cursor

T = TypeVar("T")
Scope = Literal["key", "queue"]


def set_limit(
    name: str,
    *,
    concurrency: int | None = None,
    rate: str | limits.Rate | None = None,
    order: Literal["fifo", "strict"] | None = None,
    scope: Scope = "key",
    pin: bool = True,
) -> None:
    """Set a limit, in the caller's transaction; it holds from the next claim after the commit on.

    What runs goes on: a lower limit only holds back new starts. 0 holds all tasks until there is another limit.

    Args:
        name: A whole key, or the part of keys before their first colon: each such key has the limit for itself. With
            ``scope="queue"`` a queue, whose tasks have the limit together.
        concurrency: How many may run at the same time; None: any number.
        rate: How many may start in any time: ``"100/m"``, ``"10/30s"`` or a `Rate`; None: any number.
        order: ``"strict"``: a task that waits for another attempt holds back those of its key; None: as it is.
        pin: Workers that start leave it as it is, whatever the code says.

    Raises:
        EnqueueError: A value is wrong; the message names the argument.
    """
    chosen = _limit(name, scope, concurrency, rate, order)

    def here() -> None:
        with callers_cursor(get_settings().database) as cursor:
            store_limits.set_limit(cursor, chosen, keep_strict=order is None, pinned=pin)

    _where(scope, chosen.name, here)


def drop_limit(name: str, *, scope: Scope = "key") -> bool:
    """Take a limit away; return whether there was one. A worker that starts sets what the code gives anew.

    Args:
        name: As for `set_limit`.
        scope: As for `set_limit`.
    """
    _scope(scope)
    wanted = _name(name, scope)

    def here() -> bool:
        with callers_cursor(get_settings().database) as cursor:
            return store_limits.drop_limit(cursor, wanted, scope=scope)

    return any(_where(scope, wanted, here))


def _where(scope: Scope, name: str, here: Callable[[], T]) -> list[T]:
    """Do something where a limit lies: that of a queue with the queue, that of a key in each database, for itself."""
    if scope == "key":
        return places.each(here)
    with at(database_of(name)):
        return [here()]


def _limit(name: Any, scope: Any, concurrency: Any, rate: Any, order: Any) -> limits.Limit:
    _scope(scope)
    name = _name(name, scope)
    most = None if concurrency is None else _read("concurrency", limits.concurrency_of, concurrency).most
    given = None if rate is None else _read("rate", limits.rate_of, rate)
    if order not in (None, "fifo", "strict"):
        raise EnqueueError("order", f"must be 'fifo' or 'strict', got {order!r}")
    if given is None:
        return limits.Limit(scope, name, most, strict=order == "strict")
    return limits.Limit(scope, name, most, given.most, given.period, given.smooth, order == "strict")


def _scope(scope: Any) -> None:
    if scope not in ("key", "queue"):
        raise EnqueueError("scope", f"must be 'key' or 'queue', got {scope!r}")


def _name(name: Any, scope: str) -> str:
    if scope == "queue":
        if isinstance(name, str) and name and "\0" not in name:
            return name
        raise EnqueueError("name", f"must be the name of a queue, got {name!r}")
    return str(_read("name", limits.name_of, name))


def _read(argument: str, read: Any, value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise EnqueueError(argument, str(error)) from None
