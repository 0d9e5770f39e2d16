"""The key of a call: computed when the call is enqueued, and stored with it: a key that is computed again may drift.

A task with a limit has the limit's name as its key, or before it: `@task(concurrency=2, key="account")` gives
``app.tasks.send:42``. So the statement that claims finds the limit by the part before the first colon.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any
from uuid import UUID

from pgq.conf import Settings
from pgq.enqueue import registry
from pgq.enqueue.registry import Function
from pgq.errors import EnqueueError
from pgq.ground import limits
from pgq.ground.limits import KeyOf, Limit
from pgq.records.options import TaskOptions

#: Returns the key of a call's arguments and keyword arguments.
KeyMaker = Callable[[Sequence[Any], Mapping[str, Any]], str | None]


def limit_of(options: TaskOptions, path: str) -> Limit | None:
    """Return the limit that `@task` gives a function; None: it gives none.

    Raises:
        EnqueueError: It names the limit twice, and differently.
    """
    concurrency, rate, strict = options.concurrency, options.rate, options.order == "strict"
    # To run in order, a task must wait for the one before.
    most = concurrency.most if concurrency is not None else 1 if strict else None
    if concurrency is None and rate is None and not strict:
        return None
    names = {given.name for given in (concurrency, rate) if given is not None and given.name is not None}
    if len(names) > 1:
        raise EnqueueError("rate", f"a task has one limit, but concurrency and rate name two: {sorted(names)}")
    return Limit(
        "key",
        names.pop() if names else path,
        concurrency=most,
        rate=None if rate is None else rate.most,
        period=None if rate is None else rate.period,
        smooth=rate is not None and rate.smooth,
        strict=strict,
    )


def limits_in_code(settings: Settings) -> list[Limit]:
    """Return the limits that the registered functions and the settings give, one for each name."""
    found = {("queue", name): limits.of_queue(name, given) for name, given in settings.queue_limits.items()}
    for entry in registry.all_registered():
        limit = limit_of(entry.options, entry.path)
        if limit is not None:
            # Of those that share a name, the strictest word of each counts.
            found["key", limit.name] = _joined(found.get(("key", limit.name)), limit)
    return list(found.values())


def _joined(one: Limit | None, other: Limit) -> Limit:
    if one is None:
        return other
    rated = min((one, other), key=lambda limit: math.inf if limit.rate is None else limit.rate / (limit.period or 1))
    counts = [limit.concurrency for limit in (one, other) if limit.concurrency is not None]
    return Limit(
        "key",
        one.name,
        concurrency=min(counts) if counts else None,
        rate=rated.rate,
        period=rated.period,
        smooth=rated.smooth,
        strict=one.strict or other.strict,
    )


def maker(options: TaskOptions, path: str, func: Function | None) -> KeyMaker | str | None:
    """Return the key that all calls have (None: they have none), or what makes it of a call.

    Args:
        options: Those of the call over those of `@task`.
        func: The registered function.
    """
    limit, given = limit_of(options, path), options.key
    if given is None:
        return None if limit is None else limit.name
    start = "" if limit is None else f"{limit.name}:"
    if isinstance(given, str):
        return _checked(start + given)
    value = given.by if callable(given.by) else _argument(func, given.by)
    return functools.partial(_made, start, value)


def key_of(
    options: TaskOptions, path: str, func: Function | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Return the key of one call, or None."""
    made = maker(options, path, func)
    return made(args, kwargs) if callable(made) else made


def require_argument(func: Function, given: Any) -> None:
    """Raise EnqueueError unless the function has the argument whose name is to be its key."""
    if isinstance(given, KeyOf) and isinstance(given.by, str):
        _argument(func, given.by)


def _made(start: str, value: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    try:
        found = value(*args, **kwargs)
    except EnqueueError:
        raise
    except Exception as error:
        raise EnqueueError("key", f"its function fails for this call: {type(error).__name__}: {error}"[:500]) from error
    text = _text(found)
    return None if text is None else _checked(start + text)


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, str | UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    # An instance of a model.
    if hasattr(value, "_meta") and getattr(value, "pk", None) is not None:
        return str(value.pk)
    wanted = "a text, a whole number, a UUID, a saved model instance or None"
    raise EnqueueError("key", f"must be {wanted}, got {value!r}"[:500])


def _checked(key: str) -> str:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= 1000 or "\0" in key:
        raise EnqueueError("key", f"must be 1 to 1000 bytes of UTF-8, without NUL or lone surrogates, got {key[:50]!r}")
    return key


@functools.lru_cache(maxsize=1000)
def _argument(func: Function | None, name: str) -> Callable[..., Any]:
    """Return what takes the argument of that name out of a call.

    Raises:
        EnqueueError: The function has none.
    """
    try:
        parameters = list(registry.signature_of(func).parameters.values()) if func is not None else []
    except (TypeError, ValueError):
        parameters = []
    # The worker gives the context, not the caller.
    placed = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    if placed and placed[0].name == "context" and name != "context":
        placed = placed[1:]
    named = {parameter.name: parameter for parameter in parameters}
    if name not in named or named[name].kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
        known = ", ".join(named) or "it has none"
        raise EnqueueError("key", f"must be a function, or the name of an argument ({known}), got {name!r}")
    index = next((at for at, parameter in enumerate(placed) if parameter.name == name), None)
    default = None if named[name].default is Parameter.empty else named[name].default

    def argument(*args: Any, **kwargs: Any) -> Any:
        if index is not None and index < len(args):
            return args[index]
        return kwargs.get(name, default)

    return argument
