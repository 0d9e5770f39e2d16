"""What pools take of this host's memory, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pgq.pool.orphans import descendants
from pgq.status import Stat
from pgq.status.pools import Process
from pgq.store import pools as store_pools
from pgq.store.connection import Cursor

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """Memory of a process, or of several, in kB."""

    #: Its own, and its share of what it shares; None: it cannot be read, as it is another user's process.
    pss: int | None = 0
    rss: int = 0

    def __add__(self, other: Usage) -> Usage:
        pss = None if self.pss is None or other.pss is None else self.pss + other.pss
        return Usage(pss, self.rss + other.rss)


@dataclass(frozen=True, slots=True)
class Machine:
    """This host's memory in kB, or that of the container if it may have less."""

    host: str
    total: int
    available: int


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """A worker process; it is gone if `usage` is None."""

    process: Process
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """A pool of this host, as /proc shows it."""

    stat: Stat
    supervisor: Usage
    workers: tuple[WorkerMemory, ...]
    #: Upkeep, the fork server and what tasks have started.
    others: Usage

    @property
    def all_workers(self) -> Usage:
        return _together(worker.usage for worker in self.workers)

    @property
    def total(self) -> Usage:
        return self.supervisor + self.all_workers + self.others


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen at once."""

    machine: Machine
    pools: tuple[PoolMemory, ...]
    #: Pools whose processes cannot be seen from here.
    elsewhere: tuple[Stat, ...]


def can_read() -> bool:
    """Whether this system has a /proc as Linux has it."""
    return (_PROC / "self" / "status").exists()


def read(cursor: Cursor) -> Reading:
    """Return the memory of this host, and of the pools that run on it.

    Raises:
        psycopg.Error, django.db.Error: PostgreSQL is gone, or the tables are missing.
        OSError: There is no /proc: see `can_read`.
    """
    host = socket.gethostname()
    pools, elsewhere = [], []
    for stat in map(Stat.of, store_pools.pools(cursor)):
        if not stat.is_alive:
            continue
        # A container may have this host's name and processes of its own, so the pid alone proves nothing.
        if stat.host == host and "pgq_worker" in _command_line(stat.sentinel):
            pools.append(_pool(stat))
        else:
            elsewhere.append(stat)
    return Reading(_machine(host), tuple(pools), tuple(elsewhere))


def _pool(stat: Stat) -> PoolMemory:
    family = descendants([stat.sentinel])
    workers = tuple(
        WorkerMemory(process, _usage(process.pid) if process.pid in family else None) for process in stat.processes
    )
    rest = family.difference(worker.process.pid for worker in workers if worker.process.pid is not None)
    return PoolMemory(stat, _usage(stat.sentinel) or Usage(), workers, _together(map(_usage, rest)))


def _together(usages: Iterable[Usage | None]) -> Usage:
    return sum((usage for usage in usages if usage), start=Usage())


def _command_line(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def _usage(pid: int) -> Usage | None:
    """Return what a process takes; None: it is gone."""
    try:
        rss = _fields(_PROC / str(pid) / "status").get("VmRSS", 0)
    except OSError:
        return None
    try:
        pss: int | None = _fields(_PROC / str(pid) / "smaps_rollup").get("Pss")
    except OSError:
        # Another user's process, or a kernel without the file.
        pss = None
    return Usage(pss, rss)


def _fields(path: Path) -> dict[str, int]:
    """Read lines such as ``VmRSS:  1234 kB``."""
    found = {}
    for line in path.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0])
    return found


def _machine(host: str) -> Machine:
    fields = _fields(_PROC / "meminfo")
    total, available = fields.get("MemTotal", 0), fields.get("MemAvailable", 0)
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None and limit < total:
        # The cache that the kernel would give up counts as used there.
        return Machine(host, limit, min(available, max(limit - used + _cgroup_cache(), 0)))
    return Machine(host, total, available)


def _cgroup(name: str) -> int | None:
    """Return a number of the process's control group (version 2) in kB; None: there is none, or no limit."""
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text()) // 1024
    except (OSError, ValueError):
        return None


def _cgroup_cache() -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                return int(value) // 1024
    return 0
