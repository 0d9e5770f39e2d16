"""Runs sessions step by step in every order of their steps, and looks after each step whether what must hold does.

A session is a list of steps; a step is called in the session's own thread, with its connection. One that waits for
another session's lock is left waiting, and its further steps follow when it goes on.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
Step = Callable[[Connection], None]

#: Seconds after which a step that does not return is looked at: does it wait for a lock?
_PATIENCE = 0.02


def orders(lengths: Sequence[int], most: int | None = None, seed: int = 1) -> Iterator[tuple[int, ...]]:
    """Return every order of so many steps of each session, as numbers of sessions. `most`: some of them, by chance."""
    steps = [number for number, length in enumerate(lengths) for _ in range(length)]
    if most is None:
        yield from sorted(set(itertools.permutations(steps)))
        return
    chance = random.Random(seed)
    for _ in range(most):
        chance.shuffle(steps)
        yield tuple(steps)


class Session:
    """A session in a thread of its own, which takes one step after the other."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.connection = connect()
        self.pid = self.connection.info.backend_pid
        self.errors: list[BaseException] = []
        self._steps: queue.Queue[Step | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                step(self.connection)
            except BaseException as error:
                self.errors.append(error)
            self._steps.task_done()
        self._steps.task_done()

    def take(self, step: Step) -> None:
        self._steps.put(step)

    def is_busy(self) -> bool:
        return bool(self._steps.unfinished_tasks)

    def wait(self, monitor: Connection, timeout: float = 10.0) -> None:
        """Wait until all its steps are taken, or it waits for a lock."""
        began = time.monotonic()
        while self.is_busy():
            passed = time.monotonic() - began
            if passed > _PATIENCE and self._waits(monitor):
                return
            assert passed < timeout, "a step neither ends nor waits for a lock"
            time.sleep(0.0005)

    def _waits(self, monitor: Connection) -> bool:
        text = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        row = monitor.execute(text, (self.pid,)).fetchone()
        return row is not None and bool(row[0])

    def close(self) -> None:
        self._steps.put(None)
        self._thread.join(10)
        self.connection.close()


def explore(
    connect: Callable[[], Connection],
    begin: Callable[[Connection], Sequence[Sequence[Step]]],
    wrong: Callable[[Connection, bool], str | None],
    *,
    most: int | None = None,
    first: bool = False,
) -> list[str]:
    """Return what was found wrong, with the order of the steps.

    Args:
        connect: Opens a session in autocommit.
        begin: Prepares the tables, and returns the steps of each session. They are made anew for each order.
        wrong: Looks at what is committed; returns what is wrong, or None. It is told whether all steps were taken.
        most: Of the orders, so many by chance; None: all.
        first: The first that is found is enough.
    """
    monitor = connect()
    found = []
    lengths = [len(steps) for steps in begin(monitor)]
    sessions = [Session(connect) for _ in lengths]
    try:
        for order in orders(lengths, most):
            if first and found:
                break
            scripts = [iter(steps) for steps in begin(monitor)]
            for number in order:
                sessions[number].take(next(scripts[number]))
                for session in sessions:
                    session.wait(monitor)
                if (what := wrong(monitor, False)) is not None:
                    found.append(f"{order}: {what}")
                    break
            for session in sessions:
                for step in scripts[sessions.index(session)]:
                    session.take(step)
            until = time.monotonic() + 10
            while any(session.is_busy() for session in sessions):
                assert time.monotonic() < until, "the sessions wait for each other"
                time.sleep(0.0005)
            errors = [error for session in sessions for error in session.errors]
            assert not errors, errors
            if (what := wrong(monitor, True)) is not None:
                found.append(f"{order}: at the end: {what}")
    finally:
        for session in sessions:
            session.close()
        monitor.close()
    return found
