"""`async_iter` and `async_chain`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.db import transaction

from pgq.conf import at, database_of, get_settings
from pgq.enqueue.calls import TaskCall, several
from pgq.enqueue.make import make_task
from pgq.enqueue.places import beside, check_together, queue_for
from pgq.enqueue.signature import RESULT_BEFORE
from pgq.enqueue.write import enqueue_all
from pgq.errors import EnqueueError
from pgq.execution import inline
from pgq.ground.ids import new_id
from pgq.records import NewTask
from pgq.records.options import TaskOptions
from pgq.tasks.async_task import submit
from pgq.tasks.handle import TaskId
from pgq.tasks.words import split_call
from pgq.workflows.follow_ons import chained
from pgq.workflows.groups import collect_results


def async_iter(func: str | Callable[..., Any], args_iter: Iterable[Any], **kwargs: Any) -> TaskId[list[Any]]:
    """Call a function with each of many arguments, and collect the results in one.

    Args:
        func: A function at the top of a module, its dotted path, or a Task object of django.tasks.
        args_iter: The arguments: each a tuple, or one single argument.
        kwargs: Options as for `async_task` (hook: of the whole), and keyword arguments for each call.

    Returns:
        The id of the whole: its result is the list of results, in order; a part that failed stands as its error's text.
    """
    given, options, sync = split_call(kwargs)
    whole = new_id()
    of_part = options.of_part().but(hook=None, cached=None, name=None, group=whole.hex, collector=whole.hex, save=True)
    of_whole = TaskOptions(
        hook=options.hook,
        cached=options.cached,
        name=options.name,
        queue=options.queue,
        sensitive=options.sensitive,
        collects=whole.hex,
    )
    calls = [call if isinstance(call, tuple) else (call,) for call in several("args_iter", args_iter)]
    parts = [make_task(func, call, given, of_part.but(index=index)) for index, call in enumerate(calls)]
    of_whole = beside(collect_results, of_whole, queue_for(func, of_part), "args_iter")
    collector = make_task(collect_results, (whole.hex,), None, of_whole, id=whole, remaining=len(parts) or None)
    alias = database_of(collector.queue)
    with transaction.atomic(using=alias):
        enqueue_all([*parts, collector], using=alias)
        if sync:
            with at(alias):
                for new in (*parts, collector):
                    inline.run_queued(new.id)
    return TaskId(whole.hex)


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
        cached, sync: As for `async_task`, of each link.
        broker: Ignored, as everywhere; the broker is PostgreSQL.
        chain: Links: a function, or (function,), (function, args), (function, args, kwargs with options), or what
            `call_of` of a task returns.
        group: Their group; None: a new one.
        pass_results: Give each link the result of the one before as its first argument.
        continue_on_failure: Go on after a link that failed, as Django-Q does.

    Returns:
        The group.

    Raises:
        WrongCall: A link's function cannot be called with its arguments (and the result before). Nothing was written.
        EnqueueError: A link is wrong, or there is none. Nothing was written.
    """
    chain = list(several("chain", chain))
    if not chain:
        raise EnqueueError("chain", "needs at least one link")
    group = group or new_id().hex
    first = (RESULT_BEFORE,) if pass_results else ()
    links = [link_task(link, group, cached, first if place else ()) for place, link in enumerate(chain)]
    check_together(links, "chain")
    whole = chained(links, pass_results=pass_results, continue_on_failure=continue_on_failure)
    submit(whole, get_settings().sync if sync is None else sync)
    return group


def link_task(link: Any, group: str, cached: Any, first: tuple[str, ...] | None = ()) -> NewTask:
    """Return the task of one link of a chain. `first`: as for `make_task`."""
    if isinstance(link, TaskCall):
        options = _of_link(link.options, group, cached)
        return make_task(link.task, link.args, link.kwargs, options, first=first)
    func, args, kwargs = (*link, (), {})[:3] if isinstance(link, tuple | list) and len(link) == 1 else _parts(link)
    given, options, _ = split_call(kwargs or {})
    args = args if isinstance(args, tuple | list) else (args,)
    return make_task(func, args, given, _of_link(options, group, cached), first=first)


def _of_link(options: TaskOptions, group: str, cached: Any) -> TaskOptions:
    return options.of_part().but(
        group=options.group or group, cached=cached if options.cached is None else options.cached
    )


def _parts(link: Any) -> tuple[Any, Any, Any]:
    if isinstance(link, str) or callable(link):
        return link, (), {}
    if isinstance(link, tuple | list) and len(link) in (2, 3):
        return link[0], link[1], link[2] if len(link) == 3 else {}
    raise EnqueueError("chain", f"a link is a function, or (function, args, kwargs), got {link!r}")
