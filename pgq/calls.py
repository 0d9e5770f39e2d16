"""What the public functions do: a translation of Django-Q's names and options to those of the modules below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from pgq import caching, inline, results, signing
from pgq.conf import get_settings
from pgq.enqueue import CHUNK, check_chunk, enqueue, enqueue_all, enqueue_calls, make_task, path, unknown_option
from pgq.errors import EnqueueError
from pgq.flow import chained
from pgq.ids import new_id
from pgq.models import Task
from pgq.records import NewTask

#: Keyword arguments that are options, not the function's.
OPTIONS = frozenset({
    "hook", "group", "save", "sync", "cached", "ack_failure", "timeout", "task_name", "cluster", "broker", "q_options",
    "queue", "priority", "run_after", "max_attempts", "retry_backoff", "retry_on", "no_retry_on", "ack", "unique_key",
    "sensitive",
    "iter_count", "iter_cached", "chain",
})  # fmt: skip
#: Options that other code writes: Django-Q's inner ones, and one that is kept free.
_NOT_YET = {
    "unique_key": "is reserved, and not there yet",
    "iter_count": "is Django-Q's own business; use async_iter",
    "iter_cached": "is Django-Q's own business; use async_iter with cached",
    "chain": "is Django-Q's own business; use async_chain",
}


def _split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Split keyword arguments into the function's, the options of `make_task`, and whether to run at once.

    As in Django-Q, what stands in q_options wins, and leaves a keyword of the same name to the function.
    """
    if not kwargs:
        return {}, {"name": None, "queue": None}, get_settings().sync
    given = dict(kwargs)
    q_options = given.pop("q_options", None) or {}
    if not isinstance(q_options, Mapping):
        raise EnqueueError("q_options", f"must be a dict, got {q_options!r}")
    options = dict(q_options)
    for name in options:
        if name not in OPTIONS:
            raise unknown_option(name, OPTIONS - _NOT_YET.keys(), of="q_options")
    for key in OPTIONS & given.keys() - q_options.keys():
        options[key] = given.pop(key)
    for key, why in _NOT_YET.items():
        if options.get(key) is not None:
            raise EnqueueError(key, why)
        options.pop(key, None)
    options.pop("broker", None)
    sync = options.pop("sync", None)
    options["name"] = options.pop("task_name", None)
    cluster = options.pop("cluster", None)
    options["queue"] = options.get("queue") or cluster
    return given, options, get_settings().sync if sync is None else bool(sync)


def _submit(new: NewTask, sync: bool) -> str:
    return (inline.run(new) if sync else enqueue(new)).hex


def async_task(func: str | Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Enqueue a call of a function, in the caller's transaction on PGQ["database"].

    Args:
        func: A function at the top of a module, or its dotted path.
        args, kwargs: The function's, but for these options: hook, group, save, sync, cached, ack_failure, timeout
            (seconds), task_name, cluster (or queue), priority (-100 to 100), run_after (a moment, timedelta or
            seconds), max_attempts, retry_backoff, retry_on, no_retry_on, ack, sensitive. Those inside q_options win.

    Returns:
        The task's id: 32 hex digits.

    Raises:
        EnqueueError: Something is wrong; the message names the argument. Nothing was written.
    """
    given, options, sync = _split(kwargs)
    return _submit(make_task(func, args, given, **options), sync)


def enqueue_many(
    func: str | Callable[..., Any],
    calls: Iterable[Any],
    *,
    then: str | Callable[..., Any] | None = None,
    chunk: int = CHUNK,
    **options: Any,
) -> list[str]:
    """Enqueue many calls of a function, `chunk` of them in one statement, all in one transaction.

    Args:
        calls: What to call it with: each a tuple of arguments, a dict of keyword arguments, or one single argument.
            May be a generator of any length.
        then: Called with the name of the group once all of them have settled, however they ended.
        options: As for `async_task`, the same for all.

    Returns:
        The ids, in the order of the calls.

    Raises:
        EnqueueError: As for `async_task`. Nothing was written.
    """
    given, fixed, sync = _split(options)
    for name in given:
        raise unknown_option(name, OPTIONS - _NOT_YET.keys())
    check_chunk(chunk)
    calls = several("calls", calls)
    if then is not None:
        then = path("then", then)
    collector = new_id() if then is not None else None
    if collector is not None:
        fixed["group"] = fixed.get("group") or collector.hex
    if sync:
        ran = [inline.run(make_task(func, *_arguments(call), **fixed)).hex for call in calls]
        if then is not None:
            inline.run(make_task(then, (fixed["group"],), queue=fixed["queue"]))
        return ran
    if collector is not None:
        fixed["collector"] = collector.hex
    with transaction.atomic(using=get_settings().database):
        ids = enqueue_calls(func, map(_arguments, calls), chunk=chunk, **fixed)
        if then is not None:
            # Last, since only now their number is known; nobody sees any of them before the commit.
            enqueue(make_task(then, (fixed["group"],), id=collector, remaining=len(ids) or None, queue=fixed["queue"]))
    return ids


def several(argument: str, calls: Iterable[Any]) -> Iterable[Any]:
    """Return the calls as they were given, having made sure that there are several, not one or none.

    Raises:
        EnqueueError: They are a number, a text or a dict; the message names the argument.
    """
    if isinstance(calls, str | bytes | Mapping) or not isinstance(calls, Iterable):
        reason = f"must be a list (or another iterable) of calls, got {calls!r}"
        raise EnqueueError(argument, reason[: 298 - len(argument)])
    return calls


def _arguments(call: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(call, Mapping):
        return (), call
    return call if isinstance(call, tuple) else (call,), {}


# ------------------------------------------------------------------------------------------------- reading


def _in_cache(cached: Any) -> bool:
    return bool(get_settings().cached if cached is None else cached)


def fetch(task_id: str | UUID, wait: int = 0, cached: Any = None) -> Task | None:
    """Return the finished `Task` of that id or name, or None if it has not finished in time.

    Args:
        wait: Milliseconds; 0: look once; -1: for ever.
        cached: Look in the cache; None: as PGQ["cached"] says.

    Raises:
        NotCommitted: It is waited for inside of the transaction that has enqueued it, without which it cannot run.
    """
    return results.fetch(task_id, wait, cached=_in_cache(cached))


def fetch_cached(task_id: str | UUID, wait: int = 0, broker: Any = None) -> Task | None:
    """Return the finished task from the cache; saving it makes it last."""
    return fetch(task_id, wait, cached=True)


def result(task_id: str | UUID, wait: int = 0, cached: Any = None) -> Any:
    """Return what a task returned, or the text of its failure; None also if it has not finished in time.

    To tell these apart, `fetch` the task: it is None only if the task has not finished. Arguments as for `fetch`.
    """
    found = fetch(task_id, wait, cached)
    return None if found is None else found.result


def result_cached(task_id: str | UUID, wait: int = 0, broker: Any = None) -> Any:
    """Return what a task returned, from the cache."""
    return result(task_id, wait, cached=True)


def fetch_group(
    group_id: str, failures: bool = True, wait: int = 0, count: int | None = None, cached: Any = None
) -> QuerySet[Task] | list[Task] | None:
    """Return the finished tasks of a group, newest first, or None if there is none.

    It is a queryset, as in Django-Q; a list if it comes from the cache.

    Args:
        failures: With those that failed.
        wait: Milliseconds to wait for the first, or for `count`; -1: for ever.
        count: How many to wait for, failures included.

    Raises:
        NotCommitted: As for `fetch`.
    """
    wait = -1 if count and not wait else wait
    return results.fetch_group(group_id, failures=failures, wait=wait, count=count, cached=_in_cache(cached)) or None


def fetch_group_cached(
    group_id: str, failures: bool = True, wait: int = 0, count: int | None = None, broker: Any = None
) -> QuerySet[Task] | list[Task] | None:
    """Return the finished tasks of a group from the cache."""
    return fetch_group(group_id, failures, wait, count, cached=True)


def result_group(
    group_id: str, failures: bool = False, wait: int = 0, count: int | None = None, cached: Any = None
) -> list[Any] | None:
    """Return the results of a group, newest first, or None if there is none. Arguments as for `fetch_group`."""
    found = fetch_group(group_id, failures, wait, count, cached)
    return None if found is None else [finished.result for finished in found]


def result_group_cached(
    group_id: str, failures: bool = False, wait: int = 0, count: int | None = None, broker: Any = None
) -> list[Any] | None:
    """Return the results of a group from the cache."""
    return result_group(group_id, failures, wait, count, cached=True)


def count_group(group_id: str, failures: bool = False, cached: Any = None) -> int:
    """Return how many tasks of a group have finished; `failures`: how many of them have failed."""
    return results.count_group(group_id, failures=failures, cached=_in_cache(cached))


def count_group_cached(group_id: str, failures: bool = False, broker: Any = None) -> int:
    """Return how many tasks of a group are in the cache."""
    return count_group(group_id, failures, cached=True)


def delete_group(group_id: str, tasks: bool = False, cached: Any = None) -> Any:
    """Take the label off a group's finished tasks and return how many; with `tasks` delete them."""
    if _in_cache(cached):
        return caching.delete_group(group_id)
    return Task.delete_group(group_id, tasks)


def delete_group_cached(group_id: str, broker: Any = None) -> int:
    """Take a group's finished tasks out of the cache."""
    return caching.delete_group(group_id)


def delete_cached(task_id: str, broker: Any = None) -> bool:
    """Take a finished task out of the cache."""
    return caching.delete(task_id)


def queue_size(broker: Any = None) -> int:
    """Return how many tasks are ready and not yet running."""
    return results.queued().filter(lock=None, run_after=None, parked=None, remaining=None).count()


# ------------------------------------------------------------------------------------------------- many as one


def collect_results(group: str) -> list[Any]:
    """Return the results of a group in the order in which its tasks were enqueued. The collector of `async_iter`."""
    # Whoever can write a row can put it into a group; what `async_iter` enqueued is signed.
    parts = [part for part in Task.get_task_group(group) if signing.verify_row(part)]
    parts.sort(key=lambda part: part.options.get("index", 0))
    return [part.result for part in parts]


def async_iter(func: str | Callable[..., Any], args_iter: Iterable[Any], **kwargs: Any) -> str:
    """Call a function with each of many arguments, and collect the results in one.

    Args:
        args_iter: The arguments: each a tuple, or one single argument.
        kwargs: Options as for `async_task` (hook: of the whole), and keyword arguments for each call.

    Returns:
        The id of the whole: its result is the list of results, in order; a part that failed stands as its error's text.
    """
    given, options, sync = _split(kwargs)
    whole = new_id()
    hook, cached, name = options.pop("hook", None), options.pop("cached", None), options.pop("name", None)
    options |= {"group": whole.hex, "collector": whole.hex, "save": True}
    calls = [call if isinstance(call, tuple) else (call,) for call in several("args_iter", args_iter)]
    parts = [make_task(func, call, given, index=index, **options) for index, call in enumerate(calls)]
    collector = make_task(
        collect_results, (whole.hex,), id=whole, remaining=len(parts) or None, hook=hook, name=name, cached=cached,
        queue=options["queue"], collects=whole.hex, sensitive=options.get("sensitive"),
    )  # fmt: skip
    with transaction.atomic(using=get_settings().database):
        enqueue_all([*parts, collector])
        if sync:
            for new in (*parts, collector):
                inline.run_queued(new.id)
    return whole.hex


def async_chain(
    chain: Sequence[Any],
    group: str | None = None,
    cached: Any = None,
    sync: bool | None = None,
    broker: Any = None,
    *,
    pass_results: bool = False,
    continue_on_failure: bool = False,
) -> str:
    """Run functions one after the other.

    Args:
        chain: Links: a function, or (function,), (function, args), (function, args, kwargs with options).
        group: Their group; None: a new one.
        pass_results: Give each link the result of the one before as its first argument.
        continue_on_failure: Go on after a link that failed, as Django-Q does.

    Returns:
        The group.

    Raises:
        EnqueueError: A link is wrong, or there is none. Nothing was written.
    """
    chain = list(several("chain", chain))
    if not chain:
        raise EnqueueError("chain", "needs at least one link")
    group = group or new_id().hex
    links = [link_task(link, group, cached) for link in chain]
    first = chained(links, pass_results=pass_results, continue_on_failure=continue_on_failure)
    _submit(first, get_settings().sync if sync is None else sync)
    return group


def link_task(link: Any, group: str, cached: Any) -> NewTask:
    """Return the task of one link of a chain."""
    func, args, kwargs = (*link, (), {})[:3] if isinstance(link, tuple | list) and len(link) == 1 else _parts(link)
    given, options, _ = _split(kwargs or {})
    options["group"] = options.get("group") or group
    if cached is not None:
        options.setdefault("cached", cached)
    return make_task(func, args if isinstance(args, tuple | list) else (args,), given, **options)


def _parts(link: Any) -> tuple[Any, Any, Any]:
    if isinstance(link, str) or callable(link):
        return link, (), {}
    if isinstance(link, tuple | list) and len(link) in (2, 3):
        return link[0], link[1], link[2] if len(link) == 3 else {}
    raise EnqueueError("chain", f"a link is a function, or (function, args, kwargs), got {link!r}")
