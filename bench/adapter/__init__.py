"""pgq in the public harness hardbyte/postgresql-job-queue-benchmarking: see README.md here."""

from __future__ import annotations

import os
import struct
import time

#: A task's message to the adapter: the milliseconds from its enqueue to its start, sent when it is done.
MESSAGE = struct.Struct("d")
_pipe: int | None = None


def work(enqueued_ns: int, milliseconds: float, padding: str = "") -> None:
    """The task: so much sleep, then a word to the adapter."""
    global _pipe
    waited = max(0.0, (time.time_ns() - enqueued_ns) / 1e6)
    if milliseconds:
        time.sleep(milliseconds / 1000)
    if _pipe is None:
        _pipe = os.open(os.environ["BENCH_ADAPTER_PIPE"], os.O_WRONLY)
    # Shorter than PIPE_BUF, so the messages of many workers do not mix.
    os.write(_pipe, MESSAGE.pack(waited))
