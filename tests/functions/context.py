"""Tasks that say how far they are, for test_context.py of both folders."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

from pgq.tasks import Context, current_task, task
from tests.app.models import Note
from tests.functions.oracle import say


@task(takes_context=True)
def describe(context: Context, key: str, *, upper: bool = False) -> dict[str, Any]:
    """Returns what its context says."""
    assert current_task() is context
    names = ("id", "attempt", "max_attempts", "func", "queue", "enqueued_at", "deadline", "cancelled", "task_result")
    return {name: getattr(context, name) for name in names} | {"key": key.upper() if upper else key}


@task(takes_context=True)
async def adescribe(context: Context) -> tuple[str, bool]:
    await asyncio.sleep(0)
    return context.id, current_task() is context


def ask() -> tuple[str, int, bool]:
    """Takes no context and asks for it."""
    context = current_task()
    assert context is not None
    context.progress(1)
    return context.id, context.attempt, current_task() is context


@task(takes_context=True, max_attempts=3, retry_backoff=0)
def two_attempts(context: Context) -> int:
    context.log.info("attempt %d begins", context.attempt)
    context.progress(context.attempt, 2, "counting")
    if context.attempt == 1:
        raise ValueError("on purpose")
    context.log.warning("done")
    return context.attempt


@task(takes_context=True, atomic=True, max_attempts=2, retry_backoff=0)
def two_atomic_attempts(context: Context) -> None:
    Note.objects.create(text=f"attempt {context.attempt}")
    context.log.info("attempt %d", context.attempt)
    context.progress(context.attempt)
    if context.attempt == 1:
        raise ValueError("on purpose")


@task(takes_context=True)
def say_all(context: Context, says: list[tuple[str, list[Any]]]) -> None:
    """Calls progress or the log with what it is given."""
    for what, args in says:
        if what == "progress":
            context.progress(*args)
        else:
            getattr(context.log, what)(*args)


@task(takes_context=True)
def thousand_a_second(context: Context, key: str, seconds: float) -> int:
    """Says something a thousand times a second."""
    began = time.monotonic()
    count = 0
    while (passed := time.monotonic() - began) < seconds:
        count += 1
        context.progress(passed, seconds, f"step {count}")
        if not count % 100:
            context.log.info("step %d", count)
        time.sleep(0.001)
    say("end", key)
    return count


@task(takes_context=True)
def work_until(context: Context, key: str, path: str) -> str:
    """Says that it waits, and runs until that file exists or it is cancelled, whatever is raised in it."""
    context.progress(1, 4, f"{key} waits")
    context.log.info("%s waits in attempt %d", key, context.attempt)
    while not os.path.exists(path):
        try:
            if context.cancelled:
                context.log.info("%s is cancelled", key)
                return "saw it"
            time.sleep(0.005)
        except Exception:
            context.log.info("%s goes on", key)
    context.progress(4, 4)
    return "went on"


@task(takes_context=True)
async def awork_until(context: Context, key: str, path: str) -> str:
    context.progress(1, 4, f"{key} waits")
    while not os.path.exists(path):  # noqa: ASYNC240  # a test's process makes it
        try:
            if context.cancelled:
                return "saw it"
            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            continue
    context.progress(4, 4)
    return "went on"


@task(takes_context=True, max_attempts=2)
def die_first(context: Context, key: str, path: str) -> None:
    """Says something; killed in its first attempt once that file exists."""
    context.log.info("attempt %d", context.attempt)
    context.progress(context.attempt, 2)
    while context.attempt == 1:
        if os.path.exists(path):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.005)


@task(takes_context=True)
def say_from_a_thread(context: Context) -> None:
    thread = threading.Thread(target=lambda: context.progress(5, 10, "from a thread"))
    thread.start()
    thread.join()


@task(takes_context=True)
def measure(context: Context, path: str) -> int:
    """Says what it does, and fails as long as there is no such file."""
    context.log.info("measuring %s", path)
    return os.path.getsize(path)


kept: list[Context] = []


@task(takes_context=True)
def keep_context(context: Context) -> None:
    context.progress(1)
    kept.append(context)
