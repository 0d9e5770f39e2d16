"""Tasks that listen to the events of their worker, and say in the oracle's file what they hear."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from pgq.ground import events
from tests.functions.oracle import say


def _name(func: str) -> str:
    return func.rpartition(".")[2]


def _claimed(record: Any) -> None:
    for claim in record.claims:
        say("claim", _name(claim.func))


def _started(call: Any) -> None:
    say("started", _name(call.claim.func))


def _ended(report: Any) -> None:
    say("ended", f"{_name(report.claim.func)}:{type(report.error).__name__}")


def _settled(record: Any) -> None:
    for report in record.accepted:
        say("settled", f"{_name(report.claim.func)}:{type(report.outcome).__name__}")


def _woken(number: int) -> None:
    say("woken", number)


def _raises(record: Any) -> None:
    raise LookupError("a listener that raises")


@contextlib.contextmanager
def _span(call: Any) -> Iterator[None]:
    say("enter", _name(call.claim.func))
    try:
        yield
    except ValueError as error:
        say("saw", f"{error}")
        raise
    finally:
        say("leave", _name(call.claim.func))


def _broken(call: Any) -> Any:
    raise LookupError("a hook that raises")


def _hangs() -> None:
    say("exit", "hangs")
    time.sleep(3600)


def listen() -> None:
    """From now on this worker says what takes place in it."""
    for event in (events.claim, events.start, events.end, events.settle, events.wake):
        event.listen(_raises)
    events.claim.listen(_claimed)
    events.start.listen(_started)
    events.end.listen(_ended)
    events.settle.listen(_settled)
    events.wake.listen(_woken)
    events.around_run.add(_broken)
    events.around_run.add(_span)
    events.before_exit(lambda: say("exit", "first"))
    events.before_exit(_hangs)
    events.before_exit(lambda: say("exit", "never"))


def succeed() -> int:
    return 1


async def succeed_on_loop() -> int:
    return 2


def fail() -> None:
    raise ValueError("seen")
