"""Joins the options of a call with those of its function's @task and those that its queue's policy adds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pgq import codec
from pgq.conf import Policy, Settings
from pgq.enqueue import django_tasks, registry
from pgq.errors import EnqueueError, UnknownFunction
from pgq.records.option_checks import check_backoff, check_exception
from pgq.records.options import NO_OPTIONS, TaskOptions


def path(argument: str, func: str | Callable[..., Any]) -> str:
    """Return the dotted path by which a worker finds that very function; with @task, the path of its registration.

    Raises:
        UnknownFunction: There is none; the message names the argument and says what to do.
    """
    try:
        if isinstance(func, registry.Decorated):
            entry = registry.registered(func.path)
            # If not, another function was registered under that path since.
            return func.path if entry is not None and entry.func is func.func else registry.path_of(func.func)
        if not isinstance(func, str):
            function = django_tasks.function_of(func)
            registry.refuse_yield(function)
            return registry.path_of(function)
        if registry.registered(func) is None:
            found: Any = registry.look_up(func)
            if isinstance(found, registry.Decorated):
                # The path of a module that imports the function: the options of its @task hold all the same.
                return found.path
            if registry.is_django_task(found):
                return path(argument, found)
            registry.refuse_yield(registry.called(func, found))
    except EnqueueError as error:
        raise error.of(argument) from error.__cause__
    return func


@functools.lru_cache(maxsize=1000)
def _own_path(option: str, path: str) -> str:
    """Return the path that the exception class at a path gives as its own: workers compare that one."""
    try:
        found = registry.locate(path)
    except UnknownFunction as error:
        raise error.of(option) from error.__cause__
    return check_exception(option, found)  # type: ignore[arg-type]  # it refuses what is no exception class


def with_path(options: TaskOptions) -> TaskOptions:
    """Return options in which the path of a callable backoff stands for it.

    Raises:
        UnknownFunction: It has no path.
    """
    backoff = options.retry_backoff
    return options.but(retry_backoff={"callable": path("retry_backoff", backoff)}) if callable(backoff) else options


def followed(options: TaskOptions) -> TaskOptions:
    """Return options in which each path was followed, and is the one that workers compare.

    A decorator must not call it: following a path may import the very module that is being imported.

    Raises:
        UnknownFunction: A path leads to nothing, or to no exception class.
    """
    if options is NO_OPTIONS:
        return options
    if options.retry_backoff is not None:
        options = with_path(options)
        if isinstance(options.retry_backoff, Mapping) and "callable" in options.retry_backoff:
            named = {"callable": path("retry_backoff", options.retry_backoff["callable"])}
            options = options.but(retry_backoff=named)
    if options.retry_on is not None:
        options = options.but(retry_on=[_own_path("retry_on", item) for item in options.retry_on])
    if options.no_retry_on is not None:
        options = options.but(no_retry_on=[_own_path("no_retry_on", item) for item in options.no_retry_on])
    return options


def with_policy(options: TaskOptions, policy: Policy) -> TaskOptions:
    """Return a task's options with what the policy of its queue adds to them."""
    if policy.ack_failures and options.ack_failure is None:
        options = options.but(ack_failure=True)
    if policy.retry_backoff is not None and options.retry_backoff is None:
        options = with_path(options.but(retry_backoff=check_backoff("retry_backoff", policy.retry_backoff)))
    return options


def options_text(options: TaskOptions, policy: Policy, settings: Settings) -> str:
    if options is NO_OPTIONS and policy.retry_backoff is None and not (policy.ack_failures or settings.cached):
        # Most calls: nothing is to be added, and nothing to be stored.
        return "{}"
    options = with_policy(followed(options), policy)
    # As in Django-Q, `cached` of the producer's settings travels with the task.
    if settings.cached and options.cached is None:
        options = options.but(cached=settings.cached)
    stored = options.stored()
    return codec.encode(stored, where="options") if stored else "{}"
