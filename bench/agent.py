"""The producer: runs in a system's virtualenv, reads commands from stdin and answers on stdout, a line of JSON each.

::

    python -m bench.agent procrastinate
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import systems
from bench.systems.base import System

#: Background load comes in portions, this many seconds apart.
TICK = 0.02


def one(system: System, *, seconds: float, task: str = "noop") -> dict[str, Any]:
    """Enqueue one after the other for so long."""
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        system.enqueue_one(task)
        count += 1
    return {"count": count, "seconds": time.monotonic() - began}


def many(system: System, *, seconds: float, task: str = "noop") -> dict[str, Any]:
    """Enqueue chunk after chunk for so long."""
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        system.enqueue_many(task, system.chunk)
        count += system.chunk
    return {"count": count, "seconds": time.monotonic() - began}


def fill(system: System, *, count: int, task: str) -> dict[str, Any]:
    """Enqueue so many."""
    began = time.monotonic()
    for start in range(0, count, system.chunk):
        system.enqueue_many(task, min(system.chunk, count - start))
    return {"count": count, "seconds": time.monotonic() - began}


def probe(system: System, *, seconds: float, rate: float, load: float, first: int) -> dict[str, Any]:
    """Enqueue stamps at random moments, `rate` a second, and `load` no-op tasks a second besides.

    Returns for each stamp its number, and when its enqueueing began and had been committed.
    """
    began = time.monotonic()
    sent: list[tuple[int, int, int]] = []
    next_probe, next_tick, loaded = began + random.expovariate(rate), began, 0
    while (now := time.monotonic()) < began + seconds:
        if load and now >= next_tick:
            due = int(load * (now - began)) - loaded
            if due > 0:
                # A producer that cannot keep up does not catch up with one huge portion.
                due = min(due, max(1, int(load * TICK * 5)))
                system.enqueue_many("noop", due)
                loaded += due
            next_tick = now + TICK
        if now >= next_probe:
            number = first + len(sent)
            before = time.monotonic_ns()
            system.enqueue_one("stamp", number)
            sent.append((number, before, time.monotonic_ns()))
            next_probe = now + random.expovariate(rate)
        # While there is load, probes wait for the end of a portion; they are timed from their own beginning.
        time.sleep(max(0.0, min(next_probe, next_tick if load else next_probe) - time.monotonic()))
    return {"sent": sent, "loaded": loaded, "seconds": time.monotonic() - began}


def call(system: System, *, task: str, number: int) -> dict[str, Any]:
    """Enqueue one task with that argument."""
    system.enqueue_one(task, number)
    return {}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "one": one, "many": many, "fill": fill, "probe": probe, "call": call
}  # fmt: skip


def main() -> None:
    # Whatever the system prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    system = systems.get(sys.argv[1])
    if sys.argv[2:] == ["prepare"]:
        system.prepare()
        return
    system.open()
    answers.write("{}\n")
    for line in sys.stdin:
        command = json.loads(line)
        own = COMMANDS.get(command["do"]) or getattr(system, command["do"])
        arguments = {key: value for key, value in command.items() if key != "do"}
        answer = own(system, **arguments) if command["do"] in COMMANDS else own(**arguments)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
