"""manage.py pgq_memory: what pools take of this host's memory, from /proc."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser

from pgq import db, store
from pgq.console import (
    Column,
    PgqCommand,
    Source,
    emit,
    message,
    positive_seconds,
    repeat,
    span,
    state,
    table,
    text,
    watch,
)
from pgq.orphans import descendants
from pgq.status import Stat

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_PROC = Path("/proc")
_INTERVAL = 2.0
_MIB = 1024.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Memory of a process, or of several, in kB."""

    #: Its own, and its share of what it shares; None: another user's process, which does not tell.
    pss: int | None = 0
    rss: int = 0

    def __add__(self, other: Usage) -> Usage:
        pss = None if self.pss is None or other.pss is None else self.pss + other.pss
        return Usage(pss, self.rss + other.rss)


@dataclass(frozen=True, slots=True)
class Machine:
    """This host's memory in kB, or that of the container if it may have less."""

    total: int
    available: int


@dataclass(slots=True)
class PoolMemory:
    """A pool of this host, as /proc shows it."""

    stat: Stat
    supervisor: Usage
    #: By number; None: the process is not there.
    workers: list[tuple[int, int | None, Usage | None]]
    #: Upkeep, the fork server and what tasks have started.
    others: Usage

    @property
    def total(self) -> Usage:
        return sum((usage for _, _, usage in self.workers if usage), start=self.supervisor + self.others)


@dataclass(slots=True)
class Reading:
    """What was seen at once."""

    machine: Machine
    pools: list[PoolMemory]
    #: Pools whose processes cannot be seen from here.
    elsewhere: list[Stat]


class Command(PgqCommand):
    help = (
        "Shows the memory of the pools on this host: PSS (shared pages count in parts, so that sums are right) and RSS "
        "(shared pages count in full for each process). Live on a terminal (q quits); without one, or with --run-once, "
        "once. Needs Linux."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--run-once", action="store_true", help="print once and end")
        parser.add_argument("--workers", action="store_true", help="show each worker")
        parser.add_argument(
            "--interval", type=positive_seconds, metavar="SECONDS", help=f"between two looks (default: {_INTERVAL:g})"
        )
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        if not (_PROC / "self" / "status").exists():
            raise CommandError("pgq_memory reads /proc, which this system does not have.")
        source: Source[Reading] = Source(self.settings.database, "pgq memory", _read)
        interval = None if options["run_once"] else options["interval"]
        if options["json"]:
            repeat(source, lambda seen: self.print_json(as_json(seen)), interval=interval, trouble=self._trouble)
            return
        out = self.console(options)
        each = options["workers"]
        if out.is_interactive and not options["run_once"]:
            lowest: list[int] = []

            def render(seen: Reading | None, age: float, trouble: str | None) -> RenderableType:
                return _screen(out, seen, each, age, trouble, lowest)

            watch(out, source, render, interval=interval or _INTERVAL)
        else:
            repeat(source, lambda seen: emit(out, *_page(out, seen, each)), interval=interval, trouble=self._trouble)

    def _trouble(self, what: str) -> None:
        self.stderr.write(what)


# ------------------------------------------------------------------------------------------------- reading


def _read(cursor: db.Cursor, before: Reading | None) -> Reading:
    stats = [stat for stat in map(Stat.of, store.pools(cursor)) if stat.is_alive]
    here = socket.gethostname()
    pools, elsewhere = [], []
    for stat in stats:
        # A container may have our host's name and processes of its own, so the number alone proves nothing.
        if stat.host == here and stat.pid is not None and "pgq_worker" in _command_line(stat.pid):
            pools.append(_pool(stat))
        else:
            elsewhere.append(stat)
    return Reading(_machine(), pools, elsewhere)


def _pool(stat: Stat) -> PoolMemory:
    assert stat.pid is not None
    family = descendants([stat.pid])
    workers: list[tuple[int, int | None, Usage | None]] = []
    for process in stat.processes:
        usage = _usage(process.pid) if process.pid in family and process.pid is not None else None
        workers.append((process.number, process.pid, usage))
    rest = family - {pid for _, pid, _ in workers}
    others = sum((usage for usage in map(_usage, rest) if usage), start=Usage())
    return PoolMemory(stat, _usage(stat.pid) or Usage(), workers, others)


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


def _machine() -> Machine:
    fields = _fields(_PROC / "meminfo")
    machine = Machine(fields.get("MemTotal", 0), fields.get("MemAvailable", 0))
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None and limit < machine.total:
        # The cache that the kernel would give up counts as used there.
        cache = _cgroup_cache()
        return Machine(limit, min(machine.available, max(limit - used + cache, 0)))
    return machine


def _cgroup(name: str) -> int | None:
    """Return a number of our control group (version 2) in kB; None: there is none, or no limit."""
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


# ------------------------------------------------------------------------------------------------- showing

_POOLS = (
    Column("Host"), Column("Id"), Column("State", from_width=70), Column("Supervisor", right=True, from_width=60),
    Column("Workers", right=True), Column("Others", right=True, from_width=60), Column("PSS MiB", right=True),
    Column("RSS MiB", right=True),
)  # fmt: skip
_WORKERS = (
    Column("Pool"), Column("Worker", right=True), Column("Pid", right=True), Column("PSS MiB", right=True),
    Column("RSS MiB", right=True), Column("State", from_width=50), Column("Task", from_width=80),
)  # fmt: skip


def _mib(kilobytes: int | None) -> str:
    return "?" if kilobytes is None else f"{kilobytes / _MIB:,.1f}"


def _together(usages: Iterable[Usage | None]) -> Usage:
    return sum((usage for usage in usages if usage), start=Usage())


def _head(seen: Reading) -> Any:
    machine = seen.machine
    percent = 100 * machine.available / machine.total if machine.total else 0.0
    line = f"{socket.gethostname()}: {_mib(machine.available)} of {_mib(machine.total)} MiB available ({percent:.1f} %)"
    return text(line, "bold red" if percent < 5 else "bold")


def _page(out: Console, seen: Reading, each: bool) -> list[RenderableType]:
    made: list[RenderableType] = [_head(seen)]
    if seen.pools:
        made.append(table(out, _POOLS, [
            [
                pool.stat.host, str(pool.stat.cluster_id)[-8:], state(pool.stat.status), _mib(pool.supervisor.pss),
                _mib(_together(usage for _, _, usage in pool.workers).pss), _mib(pool.others.pss), _mib(pool.total.pss),
                _mib(pool.total.rss),
            ]
            for pool in seen.pools
        ]))  # fmt: skip
    else:
        made.append(
            message("No pool runs on this host." if seen.elsewhere else "No pools appear to be running.", "yellow")
        )
    if each and seen.pools:
        made.append(table(out, _WORKERS, [row for pool in seen.pools for row in _workers(pool)]))
    if seen.elsewhere:
        hosts = ", ".join(sorted({stat.host for stat in seen.elsewhere}))
        count = len(seen.elsewhere)
        made.append(message(f"Not to be seen from here: {count} pool{'s' if count > 1 else ''} on {hosts}", "yellow"))
    if any(pool.total.pss is None for pool in seen.pools):
        made.append(message("?: the processes are another user's; run this as that user or as root.", "yellow"))
    return made


def _workers(pool: PoolMemory) -> list[list[Any]]:
    by_number = {process.number: process for process in pool.stat.processes}
    return [
        [
            str(pool.stat.cluster_id)[-8:], number, pid or "", _mib(usage.pss) if usage else "gone",
            _mib(usage.rss) if usage else "", by_number[number].state, by_number[number].task or "",
        ]
        for number, pid, usage in pool.workers
    ]  # fmt: skip


def _screen(
    out: Console, seen: Reading | None, each: bool, age: float, trouble: str | None, lowest: list[int]
) -> RenderableType:
    from rich.console import Group

    parts: list[RenderableType] = [text(f"{trouble} (last seen {span(age)} ago)", "bold red")] if trouble else []
    if seen is None:
        return Group(*parts, text("Waiting for PostgreSQL ...  q quits", "dim"))
    lowest[:] = [min([*lowest, seen.machine.available])]
    return Group(*parts, *_page(out, seen, each), text(f"lowest available: {_mib(lowest[0])} MiB  q quits", "dim"))


def as_json(seen: Reading) -> dict[str, Any]:
    """Return a reading for programs, in kB."""

    def usage(of: Usage | None) -> dict[str, Any] | None:
        return None if of is None else {"pss": of.pss, "rss": of.rss}

    return {
        "host": socket.gethostname(), "total": seen.machine.total, "available": seen.machine.available,
        "pools": [
            {
                "id": str(pool.stat.cluster_id), "name": pool.stat.name, "supervisor": usage(pool.supervisor),
                "others": usage(pool.others), "all": usage(pool.total),
                "workers": [{"number": number, "pid": pid, "usage": usage(of)} for number, pid, of in pool.workers],
            }
            for pool in seen.pools
        ],
        "elsewhere": [{"id": str(stat.cluster_id), "name": stat.name, "host": stat.host} for stat in seen.elsewhere],
    }  # fmt: skip
