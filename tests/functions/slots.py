"""Tasks for test_slots.py: they wait beside each other in one worker, and say so in the oracle's file."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

from asgiref.sync import sync_to_async

from pgq.tasks import current_task, task
from tests.app.models import Note
from tests.functions.oracle import say


async def anap(key: Any, seconds: float = 0.0) -> Any:
    say("start", key)
    await asyncio.sleep(seconds)
    say("end", key)
    return key


async def await_file(key: Any, path: str) -> Any:
    """Runs until that file exists."""
    say("start", key)
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240  # a test's process makes it
        await asyncio.sleep(0.005)
    say("end", key)
    return key


async def afail(key: Any) -> None:
    say("start", key)
    await asyncio.sleep(0)
    raise ValueError("on purpose")


async def adie(key: Any) -> None:
    say("start", key)
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


async def hold_the_loop(key: Any, seconds: float) -> None:
    """What a coroutine must not do."""
    say("start", key)
    time.sleep(seconds)  # noqa: ASYNC251
    say("end", key)


async def swallow_cancels(key: Any) -> str:
    say("start", key)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        return "went on"
    return "slept"


async def who(key: Any) -> Any:
    """Returns the task that `current_task` gives after others have run on the same loop."""
    await asyncio.sleep(0.05)
    return current_task().id


async def use_orm(text: str) -> int:
    note = await Note.objects.acreate(text=text)
    return await Note.objects.filter(pk=note.pk).acount()


def server_pid() -> int:
    """Of the session that the ORM uses here."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


async def aserver_pid() -> int:
    return await sync_to_async(server_pid)()


async def leave_session_changed() -> None:
    def change() -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SET search_path TO nowhere")

    await sync_to_async(change)()


async def leave_child(key: Any) -> None:
    """Starts something on the loop and does not wait for it."""

    async def child() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            say("child-cancelled", key)
            raise

    leave_child.kept = asyncio.create_task(child())  # type: ignore[attr-defined]
    await asyncio.sleep(0)


def thread_name(key: Any) -> str:
    return threading.current_thread().name


def leave_transaction_open(text: str) -> None:
    from django.db import transaction

    transaction.set_autocommit(False)
    Note.objects.create(text=text)


@task(atomic=True)
def atomic_note(text: str, fail: bool = False) -> int:
    note = Note.objects.create(text=text)
    if fail:
        raise ValueError("on purpose")
    return note.pk


def compute(key: Any, seconds: float) -> None:
    """Never waits: it can be interrupted between two steps of Python code."""
    say("start", key)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
    say("end", key)


@task(atomic=True)
def fork_atomic(text: str) -> int:
    """Both processes return, as of a task that forgot os._exit in the child."""
    note = Note.objects.create(text=text)
    say("child" if os.fork() == 0 else "parent", text)
    return note.pk


async def fork_on_the_loop(text: str) -> int:
    note = await Note.objects.acreate(text=text)
    say("child" if os.fork() == 0 else "parent", text)
    return note.pk
