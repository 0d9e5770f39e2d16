"""manage.py pgq_memory: what pools take of this host's memory, from /proc."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser

from pgq.conf import asked
from pgq.management import live
from pgq.management.command import PgqCommand
from pgq.management.live import Readable, SeveralSources, Source
from pgq.management.output import Column, message, span, state, table, text
from pgq.pool import memory
from pgq.pool.memory import PoolMemory, Reading, Usage
from pgq.store.connection import Cursor

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_MIB = 1024.0


class Command(PgqCommand):
    help = (
        "Shows the memory of the pools on this host: PSS (shared pages count in parts, so that sums are right) and RSS "
        "(shared pages count in full for each process). Live on a terminal (q quits); without one, or with --run-once, "
        "once. Needs Linux."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        live.add_arguments(parser)
        parser.add_argument("--workers", action="store_true", help="show each worker")
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        if not memory.can_read():
            raise CommandError("pgq_memory reads /proc, which this system does not have.")
        source: Readable[Reading] = (
            Source(self.settings.database, "pgq memory", _read)
            if len(asked()) == 1
            else _SeveralReadings(self.stderr.write)
        )
        live.show(self, options, source, lambda out: _Screen(out, options["workers"]), as_json)


def _read(cursor: Cursor, before: Reading | None) -> Reading:
    return memory.read(cursor)


class _SeveralReadings:
    """Reads the pools of several databases in one."""

    def __init__(self, trouble: Callable[[str], None]) -> None:
        self.several, self.trouble = SeveralSources("pgq memory", _read), trouble

    def close(self) -> None:
        self.several.close()

    def read(self) -> Reading:
        seen = self.several.read()
        for alias, one in seen.items():
            if isinstance(one, str):
                self.trouble(f"{alias}: {one}")
        readings = [one for one in seen.values() if isinstance(one, Reading)]
        pools = tuple(pool for one in readings for pool in one.pools)
        elsewhere = tuple(stat for one in readings for stat in one.elsewhere)
        return dataclasses.replace(readings[0], pools=pools, elsewhere=elsewhere)


# ------------------------------------------------------------------------------------------------- showing

_POOLS = (
    Column("Host"),
    Column("Id"),
    Column("State", from_width=70),
    Column("Supervisor", right=True, from_width=60),
    Column("Workers", right=True),
    Column("Others", right=True, from_width=60),
    Column("PSS MiB", right=True),
    Column("RSS MiB", right=True),
)
_WORKERS = (
    Column("Pool"),
    Column("Worker", right=True),
    Column("Pid", right=True),
    Column("PSS MiB", right=True),
    Column("RSS MiB", right=True),
    Column("State", from_width=50),
    Column("Task", from_width=80),
)


def _mib(kilobytes: int | None) -> str:
    return "?" if kilobytes is None else f"{kilobytes / _MIB:,.1f}"


def _head(seen: Reading) -> Any:
    machine = seen.machine
    percent = 100 * machine.available / machine.total if machine.total else 0.0
    line = f"{machine.host}: {_mib(machine.available)} of {_mib(machine.total)} MiB available ({percent:.1f} %)"
    return text(line, "bold red" if percent < 5 else "bold")


def _pool(pool: PoolMemory) -> list[Any]:
    return [
        pool.stat.host,
        str(pool.stat.cluster_id)[-8:],
        state(pool.stat.status),
        _mib(pool.supervisor.pss),
        _mib(pool.all_workers.pss),
        _mib(pool.others.pss),
        _mib(pool.total.pss),
        _mib(pool.total.rss),
    ]


def _workers(pool: PoolMemory) -> list[list[Any]]:
    return [
        [
            str(pool.stat.cluster_id)[-8:],
            worker.process.number,
            worker.process.pid or "",
            _mib(worker.usage.pss) if worker.usage else "gone",
            _mib(worker.usage.rss) if worker.usage else "",
            worker.process.state,
            worker.process.task or "",
        ]
        for worker in pool.workers
    ]


class _Screen:
    """The memory of the pools, and that of each worker if it is wanted."""

    def __init__(self, out: Console, each: bool) -> None:
        self.out, self.each = out, each
        #: The least that was available, in kB; None: nothing was read yet.
        self.lowest: int | None = None

    def page(self, seen: Reading) -> list[RenderableType]:
        made: list[RenderableType] = [_head(seen)]
        if seen.pools:
            made.append(table(self.out, _POOLS, [_pool(pool) for pool in seen.pools]))
        else:
            made.append(
                message("No pool runs on this host." if seen.elsewhere else "No pools appear to be running.", "yellow")
            )
        if self.each and seen.pools:
            made.append(table(self.out, _WORKERS, [row for pool in seen.pools for row in _workers(pool)]))
        if seen.elsewhere:
            hosts = ", ".join(sorted({stat.host for stat in seen.elsewhere}))
            count = len(seen.elsewhere)
            made.append(
                message(f"Not to be seen from here: {count} pool{'s' if count > 1 else ''} on {hosts}", "yellow")
            )
        if any(pool.total.pss is None for pool in seen.pools):
            made.append(message("?: the processes are another user's; run this as that user or as root.", "yellow"))
        return made

    def render(self, seen: Reading | None, age: float, trouble: str | None) -> RenderableType:
        from rich.console import Group

        parts: list[RenderableType] = [text(f"{trouble} (last seen {span(age)} ago)", "bold red")] if trouble else []
        if seen is None:
            return Group(*parts, text("Waiting for PostgreSQL ...  q quits", "dim"))
        available = seen.machine.available
        self.lowest = available if self.lowest is None else min(self.lowest, available)
        return Group(*parts, *self.page(seen), text(f"lowest available: {_mib(self.lowest)} MiB  q quits", "dim"))


def as_json(seen: Reading) -> dict[str, Any]:
    """Return a reading for programs, in kB."""

    def usage(of: Usage | None) -> dict[str, Any] | None:
        return None if of is None else {"pss": of.pss, "rss": of.rss}

    return {
        "host": seen.machine.host,
        "total": seen.machine.total,
        "available": seen.machine.available,
        "pools": [
            {
                "id": str(pool.stat.cluster_id),
                "name": pool.stat.name,
                "supervisor": usage(pool.supervisor),
                "others": usage(pool.others),
                "all": usage(pool.total),
                "workers": [
                    {"number": worker.process.number, "pid": worker.process.pid, "usage": usage(worker.usage)}
                    for worker in pool.workers
                ],
            }
            for pool in seen.pools
        ],
        "elsewhere": [{"id": str(stat.cluster_id), "name": stat.name, "host": stat.host} for stat in seen.elsewhere],
    }
