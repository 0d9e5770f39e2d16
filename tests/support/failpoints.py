"""Failpoints: at a named step of pgq, kill, freeze or fail the process that gets there.

pgq knows nothing of them: they wrap its functions, and only where `tests.faults` is an installed app and the
environment asks for some. A failpoint is a dict: {"at": name, "do": action} with one of

* "nth": number     acts at the n-th time its process gets there (default: the first),
  "flag": path      and only in the first process that can create that file
* "token": path     acts when its process gets there and can take that file away; the test may put it there again
* "while": path     acts each time, as long as that file is there

Actions: kill9, stop (SIGSTOP to itself), exit:N, sleep:SECONDS, raise:SQLSTATE.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from tests.functions.oracle import say

NAMES = (
    "claim.locked",
    "claim.committed",
    "dispatched",
    "run.pre",
    "run.post",
    "receipt.pre",
    "receipt.written",
    "receipt.committed",
    "release.pre",
    "renew.pre",
    "renew.post",
    "rescue.locked",
    "lead.acquired",
    "sched.read",
    "sched.inserted",
    "sched.advanced",
    "sched.committed",
    "enqueue.written",
    "atomic.begun",
    "atomic.written",
    "atomic.committed",
)

#: Of what upkeep counts: in the transactions of `fold` and of what ends without a worker, and after them.
COUNTING = ("fold.added", "fold.committed", "ended.written", "ended.committed")

_points: dict[str, list[dict[str, Any]]] = defaultdict(list)


def hit(name: str) -> None:
    """The process is at that step."""
    for point in _points.get(name, ()):
        if "token" in point:
            acts = _take(point["token"])
        elif "while" in point:
            acts = os.path.exists(point["while"])
        else:
            point["seen"] = point.get("seen", 0) + 1
            acts = point["seen"] == point.get("nth", 1) and _is_ours(point)
        if acts:
            say("failpoint", name)
            _act(point["do"])


def _is_ours(point: dict[str, Any]) -> bool:
    if "flag" not in point:
        return True
    try:
        os.close(os.open(point["flag"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _take(token: str) -> bool:
    try:
        os.unlink(token)
    except FileNotFoundError:
        return False
    return True


def _act(action: str) -> None:
    verb, _, argument = action.partition(":")
    if verb == "kill9":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif verb == "exit":
        os._exit(int(argument))
    elif verb == "sleep":
        time.sleep(float(argument))
    elif verb == "raise":
        raise psycopg.errors.lookup(argument)(f"failpoint: {action}")
    else:
        raise ValueError(f"no such action: {action}")


def _around(owner: Any, name: str, before: str | None = None, after: str | None = None, when: Any = None) -> None:
    """Hit a point before or after a function of a module or class. `when`: only for such a return value."""
    inner: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(inner)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            hit(before)
        value = inner(*args, **kwargs)
        if after is not None and (when is None or when(value)):
            hit(after)
        return value

    setattr(owner, name, wrapped)


def install(points: Sequence[dict[str, Any]]) -> None:
    """Wrap pgq's functions in this process and in what it forks."""
    from pgq.execution import call, ending, settle
    from pgq.execution.atomic import Atomic
    from pgq.pool.worker.loop import Worker
    from pgq.schedules import fire
    from pgq.store import keyed, leases, pools, queue, schedules
    from pgq.upkeep import chores, metrics

    for point in points:
        if point["at"] not in (*NAMES, *COUNTING):
            raise ValueError(f"no such failpoint: {point['at']}")
        _points[point["at"]].append(dict(point))
    _around(queue, "claim_and_look", after="claim.locked", when=lambda found: bool(found[0]))
    _around(keyed, "claim_keyed", after="claim.locked", when=bool)
    _around(Worker, "_exchange", after="claim.committed", when=bool)
    _around(Worker, "_run_one", before="dispatched")
    _around(call, "run_call", before="run.pre", after="run.post")
    _around(leases, "release", before="release.pre")
    _around(leases, "renew", before="renew.pre", after="renew.post")
    for rescue in ("rescue_expired", "release_worker", "release_uncharged"):
        _around(leases, rescue, after="rescue.locked", when=bool)
    _around(pools, "lead", after="lead.acquired", when=bool)
    _around(schedules, "due_schedules", after="sched.read", when=bool)
    _around(queue, "enqueue", after="enqueue.written")
    _around(fire, "write_many", after="sched.inserted")
    _around(schedules, "fire", after="sched.advanced", when=bool)
    _around(chores.Upkeep, "_due", after="sched.committed")
    _around(Atomic, "begin", after="atomic.begun")
    _around(Atomic, "_settle", after="atomic.written", when=bool)
    _around(Atomic, "end", after="atomic.committed")
    _around(metrics, "fold", after="fold.added", when=bool)
    _around(metrics.Metrics, "_fold", after="fold.committed")
    _around(ending, "for_upkeep", after="ended.written", when=bool)
    _around(chores.Upkeep, "_end", after="ended.committed")
    _wrap_transaction(settle)


def _wrap_transaction(settle: Any) -> None:
    inner = settle.transaction

    @contextlib.contextmanager
    def transaction(connection: Any, reports: Sequence[Any], cluster: str) -> Iterator[Any]:
        if reports:
            hit("receipt.pre")
        with inner(connection, reports, cluster) as cursor:
            if reports:
                hit("receipt.written")
            yield cursor
        if reports:
            hit("receipt.committed")

    settle.transaction = transaction
