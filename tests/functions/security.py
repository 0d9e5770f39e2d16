"""Tasks that attack the pool they run in."""

from __future__ import annotations

import gc
import os
import time
from multiprocessing.connection import Connection

from pgq.pool import protocol
from tests.faults.tasks import say

#: What is no message: half of one; one that is announced to be huge; half of a size; one without the id that belongs to
#: it; one that only the supervisor says; a pickle, in a good frame.
FRAMES = {
    "half": b"\x00\x00\x00\x20ab",
    "huge": b"\x7f\xff\xff\xff" + b"x" * 1000,
    "half a size": b"\xff\xff\xff\xff\x00\x00",
    "no id": b"\x00\x00\x00\x03nxx",
    "cancel": b"\x00\x00\x00\x01c",
    "pickle": b"\x00\x00\x00\x20cos\nsystem\n(S'touch touched'\ntR.",
}


def _pipes() -> list[Connection]:
    return [found for found in gc.get_objects() if type(found) is Connection and not found.closed]


def forge(frame: str) -> None:
    say("start")
    for pipe in _pipes():
        os.write(pipe.fileno(), FRAMES[frame])
    time.sleep(1.0)
    say("end")


def chatter(seconds: float) -> None:
    """Say as fast as one can that the worker sleeps, and other things that are not so."""
    say("start")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for pipe in _pipes():
            for message in (protocol.IDLE, protocol.HELD, protocol.READY, protocol.MORE, b"?", b""):
                pipe.send_bytes(message)
    say("end")


def leak(secret: str, message: str) -> None:
    """Fails with a message that would like to be more than one line of the log."""
    say("start")
    time.sleep(0.5)
    say("end", "failed")
    raise ValueError(message)
