"""Tasks of the soak of limits: they say in the oracle's file under which receipt they start and end."""

from __future__ import annotations

import os
import time

from pgq.execution.call import running_claim
from pgq.tasks import task
from tests.functions.oracle import _file


def say(event: str) -> None:
    """Write a line: event, id, receipt, pid, CLOCK_REALTIME in ns: a PostgreSQL on this host has the same clock."""
    claim = running_claim()
    assert claim is not None
    line = f"{event} {claim.id.hex} {claim.receipt.hex} {os.getpid()} {time.time_ns()}\n"
    # One write in append mode: whole lines, whoever else writes.
    os.write(_file(os.environ["PGQ_TEST_ORACLE"]), line.encode())


@task
def work(seconds: float = 0.0, fail: int = 0) -> None:
    """Run so long; fail in the first `fail` attempts."""
    claim = running_claim()
    assert claim is not None
    say("start")
    if seconds:
        time.sleep(seconds)
    say("end")
    if claim.attempts <= fail:
        raise ValueError("on purpose")
