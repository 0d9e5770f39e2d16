"""Tasks of which there is one at a time, which wait for quiet, or which have to start in time."""

from __future__ import annotations

import time

from pgq.tasks import Debounce, Unique, current_task, task
from tests.functions.common import TaskError, seen
from tests.functions.oracle import say


@task(unique="order")
def by_name(order, note=""):
    seen.append((order, note))
    return note


@task(unique=["order", "kind"])
def by_two(order, kind="plain", note=""):
    return note


@task(unique=True)
def by_all(order, kind="plain", *more, **named):
    return order


@task(unique=lambda order, note="": None if order < 0 else order // 10)
def by_function(order, note=""):
    return order


@task(unique=Unique("order", until="end"), max_attempts=3, retry_backoff=60)
def until_end(order, note=""):
    seen.append((order, note))
    if note == "fail":
        raise TaskError(note)


@task(unique=Unique("order", until=3600))
def for_an_hour(order, note=""):
    seen.append((order, note))


@task(unique="order", debounce=(60, 300))
def debounced(order, note=""):
    seen.append((order, note))


@task(debounce=Debounce(60, args="first"))
def debounced_all(note=""):
    seen.append(note)


@task(unique="order", takes_context=True)
def with_context(context, order):
    return order


@task(expires=3600)
def in_time(note=""):
    seen.append(note)
    return note


@task
def any_number(order=0, note=""):
    seen.append((order, note))
    return order


@task(unique=Unique("key", until="end"), max_attempts=0)
def guarded(key, seconds):
    """Says in the oracle's file that it runs, and for which task."""
    what = f"{key}/{current_task().id}"
    say("start", what)
    time.sleep(seconds)
    say("end", what)
