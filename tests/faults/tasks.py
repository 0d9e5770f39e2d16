"""Tasks that say in the trace what they do, with the receipt they do it under: one line for each start and end."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any

from pgq.execution.call import running_claim
from pgq.tasks import task
from tests.functions.oracle import _file


def say(event: str, *more: object) -> str:
    """Write a line: event, task id, receipt, pid, CLOCK_MONOTONIC in ns, attempt. Returns the receipt."""
    claim = running_claim()
    assert claim is not None
    words = (event, claim.id.hex, claim.receipt.hex, os.getpid(), time.monotonic_ns(), claim.attempts, *more)
    os.write(_file(os.environ["PGQ_TEST_ORACLE"]), (" ".join(map(str, words)) + "\n").encode())
    return claim.receipt.hex


def work(seconds: float = 0.0) -> str:
    """Sleep so long. The result is the receipt, so that the table tells which run it accepted."""
    receipt = say("start")
    if seconds:
        time.sleep(seconds)
    say("end")
    return receipt


def rest(seconds: float = 0.0) -> str:
    """As `work`, where time.sleep does not work: under libfaketime."""
    receipt = say("start")
    select.select([], [], [], seconds)
    say("end")
    return receipt


def hold(path: str) -> str:
    """Runs until that file exists."""
    receipt = say("start")
    while not os.path.exists(path):
        time.sleep(0.005)
    say("end")
    return receipt


@task
def registered(seconds: float = 0.0) -> str:
    return work(seconds)


def long_first(seconds: float = 60.0) -> str:
    """Long in its first attempt, short in those that follow."""
    claim = running_claim()
    assert claim is not None
    return work(seconds if claim.attempts == 1 else 0.0)


def spin(seconds: float) -> str:
    """Use the processor so long."""
    receipt = say("start")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    say("end")
    return receipt


def fail(seconds: float = 0.0) -> None:
    say("start")
    if seconds:
        time.sleep(seconds)
    say("end", "failed")
    raise ValueError("on purpose")


def die(number: int = signal.SIGKILL) -> None:
    say("start")
    os.kill(os.getpid(), number)
    time.sleep(60)


def slot(intended: Any = None, **_: Any) -> str:
    """For schedules: says which slot it stands for."""
    receipt = say("start", intended)
    say("end", intended)
    return receipt


@task(atomic=True)
def ledger(before: float = 0.0, after: float = 0.0) -> str:
    """Write a line into the table `ledger`, and take some time on either side of it."""
    from django.db import connection

    receipt = say("start")
    try:
        time.sleep(before)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO ledger (task, receipt) VALUES (%s, %s)", (running_claim().id, receipt))
        time.sleep(after)
    except BaseException:
        # PostgreSQL may go away meanwhile, and this run be over long before its process is.
        say("end", "failed")
        raise
    say("end")
    return receipt


def noop() -> None:
    """Leaves no trace, for a million of them."""


def enqueue_plain(key: str, end: str) -> None:
    """Enqueue one that notes its start under this key; then end in that way."""
    from pgq.tasks import async_task

    async_task("tests.functions.oracle.mark", key)
    if end == "raise":
        raise ValueError("on purpose")
    if end == "die":
        os.kill(os.getpid(), signal.SIGKILL)


def enqueue_in_transaction(key: str, end: str) -> None:
    from django.db import transaction

    with transaction.atomic():
        enqueue_plain(key, end)


@task(atomic=True)
def enqueue_atomic(key: str, end: str) -> None:
    enqueue_plain(key, end)
