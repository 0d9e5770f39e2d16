"""What the public functions do: a translation of Django-Q's names and options to those of the modules below."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from pgq import caching, inline, results, signing
from pgq import schedule as schedules
from pgq.conf import get_settings
from pgq.enqueue import CHUNK, check_chunk, enqueue, enqueue_all, enqueue_calls, make_task, path
from pgq.errors import EnqueueError
from pgq.flow import chained
from pgq.ids import new_id
from pgq.models import Schedule, Task
from pgq.options import CALL_OPTIONS, NO_OPTIONS, OF_SCHEDULE, TaskOptions, unknown_option
from pgq.records import NewTask

#: Django-Q's words for options that have another name here; the last one is of its schedules.
_OTHER_WORDS = {"task_name": "name", "cluster": "queue", "broker_name": "queue"}
#: Django-Q's own business, and a word that is kept free.
_NOT_YET = {
    "unique_key": "is reserved, and not there yet",
    "iter_count": "is Django-Q's own business; use async_iter",
    "iter_cached": "is Django-Q's own business; use async_iter with cached",
    "chain": "is Django-Q's own business; use async_chain",
}
#: Keyword arguments of a call that are options, not the function's (which may have one called name).
_WORDS = frozenset({*CALL_OPTIONS, "task_name", "cluster", "broker", "sync"}) - {"name"}
#: The same for a schedule, which has some of them as parameters of its own.
_WORDS_OF_SCHEDULE = _WORDS - {"priority", "run_after"} | {"broker_name"}


def _words(
    kwargs: Mapping[str, Any], q_options: Any, known: Collection[str], refused: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into the function's, and the words that are options.

    As in Django-Q, what stands in q_options wins, and leaves a keyword of the same name to the function.
    """
    given, q_options = dict(kwargs), q_options or {}
    if not isinstance(q_options, Mapping):
        raise EnqueueError("q_options", f"must be a dict, got {q_options!r}")
    for word in q_options:
        if word not in known and word not in refused:
            raise unknown_option(word, known, of="q_options")
    own = [word for word in given if (word in known or word in refused) and word not in q_options]
    return given, {**q_options, **{word: given.pop(word) for word in own}}


def _options(words: Mapping[str, Any]) -> TaskOptions:
    """Return the options that Django-Q's words, or ours, say."""
    said = {word: value for word, value in words.items() if word in CALL_OPTIONS}
    for word, name in _OTHER_WORDS.items():
        if word in words:
            said[name] = said.get(name) or words[word]
    return TaskOptions.of(**said)


def _split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], TaskOptions, bool]:
    """Split keyword arguments of a call into the function's, the options, and whether to run at once."""
    if not kwargs:
        return {}, NO_OPTIONS, get_settings().sync
    given = dict(kwargs)
    given, words = _words(given, given.pop("q_options", None), _WORDS, _NOT_YET)
    for word, why in _NOT_YET.items():
        if words.get(word) is not None:
            raise EnqueueError(word, why)
    sync = words.get("sync")
    return given, _options(words), get_settings().sync if sync is None else bool(sync)


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
    return _submit(make_task(func, args, given, options), sync)


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
    given, said, sync = _split(options)
    for name in given:
        raise unknown_option(name, _WORDS)
    check_chunk(chunk)
    calls = several("calls", calls)
    if then is not None:
        then = path("then", then)
    collector = new_id()
    of_then = TaskOptions(queue=said.queue)
    if then is not None:
        said = said.but(group=said.group or collector.hex)
    if sync:
        ran = [inline.run(make_task(func, *_arguments(call), said)).hex for call in calls]
        if then is not None:
            inline.run(make_task(then, (said.group,), options=of_then))
        return ran
    if then is not None:
        said = said.but(collector=collector.hex)
    with transaction.atomic(using=get_settings().database):
        ids = enqueue_calls(func, map(_arguments, calls), said, chunk=chunk)
        if then is not None:
            # Last, since only now their number is known; nobody sees any of them before the commit.
            enqueue(make_task(then, (said.group,), options=of_then, id=collector, remaining=len(ids) or None))
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
    of_part = options.but(hook=None, cached=None, name=None, group=whole.hex, collector=whole.hex, save=True)
    of_whole = TaskOptions(
        hook=options.hook, cached=options.cached, name=options.name, queue=options.queue, sensitive=options.sensitive,
        collects=whole.hex,
    )  # fmt: skip
    calls = [call if isinstance(call, tuple) else (call,) for call in several("args_iter", args_iter)]
    parts = [make_task(func, call, given, of_part.but(index=index)) for index, call in enumerate(calls)]
    collector = make_task(collect_results, (whole.hex,), None, of_whole, id=whole, remaining=len(parts) or None)
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
    options = options.but(group=options.group or group, cached=cached if options.cached is None else options.cached)
    return make_task(func, args if isinstance(args, tuple | list) else (args,), given, options)


def _parts(link: Any) -> tuple[Any, Any, Any]:
    if isinstance(link, str) or callable(link):
        return link, (), {}
    if isinstance(link, tuple | list) and len(link) in (2, 3):
        return link[0], link[1], link[2] if len(link) == 3 else {}
    raise EnqueueError("chain", f"a link is a function, or (function, args, kwargs), got {link!r}")


# ------------------------------------------------------------------------------------------------- schedules


def schedule(
    func: str | Callable[..., Any],
    *args: Any,
    name: str | None = None,
    hook: str | Callable[..., Any] | None = None,
    schedule_type: str | None = None,
    minutes: int | None = None,
    seconds: float | None = None,
    cron: str | None = None,
    repeats: int = -1,
    next_run: datetime | None = None,
    cluster: str | None = None,
    queue: str | None = None,
    priority: int = 0,
    time_zone: str | None = None,
    catch_up: bool | None = None,
    overlap: str = "allow",
    jitter: float = 0,
    paused: bool = False,
    intended_date_kwarg: str | None = None,
    q_options: Mapping[str, Any] | None = None,
    update: bool = False,
    **kwargs: Any,
) -> Schedule:
    """Enqueue a call of a function again and again, or once at a time.

    Args:
        func: A function at the top of a module, or its dotted path.
        args, kwargs: The function's: anything that a task can be given, not only literals. Keywords that are options
            of `async_task`, such as ``timeout``, are options of the tasks, as if they stood in q_options.
        name: Unique. Also the group of the tasks, unless q_options name one.
        schedule_type: One of the letters of `Schedule`: ONCE, SECONDS, MINUTES, HOURLY, DAILY ... CRON; None: what
            `minutes`, `seconds` or `cron` is for, or else ONCE.
        minutes, seconds: The interval, for MINUTES and SECONDS.
        cron: For CRON: five fields, or six with seconds as the last.
        repeats: How often; negative: for ever; 0: not at all. ONCE with a negative number is deleted after it has run.
        next_run: The first slot; None: now, or the next one that `cron` names.
        cluster, queue: Where the tasks go.
        time_zone: Whose days and hours are meant; None: PGQ["time_zone"] or TIME_ZONE.
        catch_up: Fire missed slots, or one for all of them; None: as PGQ["catch_up"] says.
        overlap: ``allow``; ``skip`` a slot while a task of this schedule waits or runs; ``queue_one``: let one wait.
        jitter: Seconds by which each task is delayed at most, at random.
        intended_date_kwarg: Give the task its slot as this keyword argument (ISO text).
        q_options: group, task_name, timeout, max_attempts and the other options of `async_task`.
        update: Change the schedule of that name, if there is one.

    Raises:
        IntegrityError: There is one of that name, and `update` is not set.
        ValidationError: A field is wrong; the message names it.
        EnqueueError: The function, an argument or an option is wrong.
    """
    kwargs, words = _words(kwargs, q_options, _WORDS_OF_SCHEDULE)
    # What a form leaves empty is not said.
    may_be_empty = ("hook", *OF_SCHEDULE.values())
    words = {word: value for word, value in words.items() if value != "" or word not in may_be_empty}
    own = {"hook": hook, "queue": queue or cluster, "priority": priority}
    options = _options({**words, **{word: value for word, value in own.items() if value not in (None, "")}})
    new = Schedule(
        name=name or None, schedule_type=schedule_type,  # type: ignore[misc]  # `define` has None follow the others
        minutes=minutes, seconds=seconds, cron=cron or None,
        repeats=repeats, next_run=next_run, time_zone=time_zone or None, catch_up=catch_up, overlap=overlap,
        jitter=jitter, paused=paused, intended_date_kwarg=intended_date_kwarg or None,
    )  # fmt: skip
    return schedules.define(new, func, args, kwargs, options, update=update)
