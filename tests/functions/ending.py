"""Tasks that leave something for the end of their worker."""

from __future__ import annotations

import atexit
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pgq import signals
from tests.functions.oracle import say

_kept: list[Any] = []


def leave_things(path: str) -> None:
    atexit.register(say, "end", "atexit")
    signals.pre_exit.connect(_say_exit, weak=False)
    threading.Thread(target=_say_later).start()
    # Its thread is no daemon and waits for more.
    executor = ThreadPoolExecutor(1)
    executor.submit(int).result()
    file = open(path, "w")  # noqa: SIM115
    file.write("in a buffer")
    _kept.extend((executor, file))


def _say_exit(proc_name: str, **_: Any) -> None:
    say("end", proc_name.replace(" ", "-"))


def _say_later() -> None:
    time.sleep(0.5)
    say("end", "thread")


def raise_at_exit() -> None:
    signals.pre_exit.connect(_raise, weak=False)
    atexit.register(_raise)


def _raise(**_: Any) -> None:
    raise ValueError("at the end")


def hang_at_exit() -> None:
    atexit.register(time.sleep, 3600)
