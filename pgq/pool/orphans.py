"""The processes that the tasks of dead workers leave behind: adopted, found and killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere the closed pipe ends it)."""
    end_with_parent(signal.SIGKILL)


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def adopt_orphans() -> None:
    """Have the kernel make this process the parent of those among its descendants whose own parent dies (Linux).

    Workers adopt what their tasks start, daemons too, so it is theirs as long as they live, and comes to the supervisor
    when they die. So whatever the supervisor has adopted was left behind by a dead worker.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_orphans(spared: Collection[int]) -> bool:
    """Kill what dead workers have left: this process's children but the spared ones, with all their descendants.

    They are all stopped before the first is killed: a process that does nothing but fork would outrun the killing.

    Returns:
        Whether nothing is left. False is rare: a process that is stuck in the kernel.
    """
    stopped: set[int] = set()
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        orphans = descendants([os.getpid()], spared)
        if not orphans:
            return True
        new = orphans - stopped
        for pid in new or orphans:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP if new else signal.SIGKILL)
        stopped |= new
        if not new:
            for pid in orphans:
                # The others become children of this process when their parents are gone.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.001)
    return False


def descendants(roots: Iterable[int], spared: Collection[int] = ()) -> set[int]:
    """Return the pids of these processes' children, grandchildren and so on, without the roots (Linux).

    Args:
        spared: Children of the roots that do not count, nor do theirs.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents():
        children[parent].append(pid)
    found: set[int] = set()
    fresh = {pid for root in roots for pid in children[root]}.difference(spared)
    while fresh:
        found |= fresh
        fresh = {pid for parent in fresh for pid in children[parent]} - found
    return found


def children_of(parent: int) -> list[int]:
    """Return the pids of a process's children (Linux)."""
    return [pid for pid, its_parent in _parents() if its_parent == parent]


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each process there is and its parent (Linux)."""
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield int(name), int(process_stat(int(name))[1])


def process_stat(pid: int) -> list[str]:
    """Return what the kernel has of a process: its state, its parent, its group, its session ... (Linux).

    Raises:
        OSError: There is no such process, or no /proc.
    """
    with open(f"/proc/{pid}/stat") as file:
        # The command comes first, stands in parentheses and may hold anything.
        return file.read().rpartition(")")[2].split()
