"""manage.py pgq_monitor: pools, queues, running tasks and failures, as they change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandParser
from django.utils import timezone

from pgq.conf import Queues, asked
from pgq.ground.ids import task_name
from pgq.management.command import PgqCommand
from pgq.management.live import SeveralSources, Source, allot, positive_seconds, repeat, watch
from pgq.management.output import Column, clock, emit, message, rate, span, state, table, text
from pgq.status import Stat, snapshot
from pgq.status.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Seconds between two readings.
_INTERVAL = 2.0
#: Rows of a table where there is no screen to fit.
_ROWS = 20


class Command(PgqCommand):
    help = (
        "Shows pools, queues, running tasks and the latest failures, live on a terminal (q quits). Without a terminal, "
        "or with --run-once, it prints them once; with --interval again and again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--run-once", action="store_true", help="print once and end")
        parser.add_argument(
            "--interval", type=positive_seconds, metavar="SECONDS", help=f"between two looks (default: {_INTERVAL:g})"
        )
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        interval = None if options["run_once"] else options["interval"]
        if len(asked()) > 1:
            self._run_several(options, interval)
            return
        source = Source(self.settings.database, "pgq monitor", snapshot.snapshot)
        if options["json"]:
            repeat(source, lambda seen: self.print_json(as_json(seen)), interval=interval, trouble=self._trouble)
            return
        out = self.console(options)
        if out.is_interactive and not options["run_once"]:
            watch(out, source, Screen(out).render, interval=interval or _INTERVAL)
        else:
            repeat(source, lambda seen: emit(out, *page(out, seen)), interval=interval, trouble=self._trouble)

    def _run_several(self, options: dict[str, Any], interval: float | None) -> None:
        source = SeveralSources("pgq monitor", snapshot.snapshot)
        if options["json"]:
            repeat(
                source, lambda seen: self.print_json(several_as_json(seen)), interval=interval, trouble=self._trouble
            )
            return
        out = self.console(options)
        if out.is_interactive and not options["run_once"]:
            watch(out, source, SeveralScreen(out).render, interval=interval or _INTERVAL)
        else:
            repeat(source, lambda seen: emit(out, *_pages(out, seen)), interval=interval, trouble=self._trouble)

    def _trouble(self, what: str) -> None:
        self.stderr.write(what)


# ------------------------------------------------------------------------------------------------- tables

_POOLS = (
    Column("Host"),
    Column("Id"),
    Column("Name", from_width=70),
    Column("State"),
    Column("Pool", right=True),
    Column("TQ", right=True, from_width=60),
    Column("RC", right=True, from_width=60),
    Column("Done/s", right=True, from_width=50),
    Column("Up", right=True),
    Column("Queues", from_width=90),
    Column("Version", from_width=110),
)
_QUEUES = (
    Column("Queue"),
    Column("Ready", right=True),
    Column("Running", right=True),
    Column("Oldest", right=True, from_width=40),
    Column("Done/s", right=True, from_width=50),
    Column(""),
)
_RUNNING = (
    Column("For", right=True),
    Column("Function"),
    Column("Name", from_width=90),
    Column("Queue", from_width=60),
    Column("Attempt", right=True, from_width=80),
    Column("Pid", right=True, from_width=50),
    Column("Host", from_width=100),
)
_FAILURES = (
    Column("Ago", right=True),
    Column("Function"),
    Column("Exception", from_width=60),
    Column("Message", from_width=80),
    Column("Id", from_width=130),
)


def _pool(stat: Stat, seen: Snapshot) -> list[Any]:
    restarts = [process.restarts for process in stat.processes if process.restarts is not None]
    missing = len(stat.processes) - len(stat.workers)
    return [
        stat.host,
        str(stat.cluster_id)[-8:],
        stat.name,
        state(stat.status if stat.is_alive else "Silent"),
        text(len(stat.workers), "yellow" if missing else ""),
        stat.task_q_size,
        sum(restarts) if restarts else "-",
        rate(seen.pool_rates.get(stat.cluster_id)) if stat.is_alive else f"silent for {span(stat.silent)}",
        clock(stat.uptime()),
        str(Queues(stat.queues, stat.exclude_queues)),
        stat.version,
    ]


def _queue(queue: Any, seen: Snapshot) -> list[Any]:
    done = "-" if seen.rates is None else rate(seen.rates.get(queue.queue, 0.0))
    return [
        queue.queue,
        f"{queue.ready:,}{'+' if queue.more else ''}",
        f"{queue.running:,}",
        span(queue.oldest),
        done,
        text("paused", "yellow") if queue.paused else "",
    ]


def _running(task: Any) -> list[Any]:
    return [
        span(task.seconds),
        text(task.func, "yellow" if task.cancelled else "", limit=100),
        task.name or task_name(task.id),
        task.queue,
        task.attempt,
        task.pid or "",
        task.host,
    ]


def _failure(task: Any) -> list[Any]:
    return [
        span(task.seconds),
        text(task.func, limit=100),
        text(task.exception.rpartition(".")[2], "red", limit=60),
        text(task.message or "", limit=120),
        task.id.hex,
    ]


def _tables(seen: Snapshot) -> list[tuple[str, Any, list[list[Any]]]]:
    """Return title, columns and rows of each table, the most important first."""
    pools = [_pool(stat, seen) for stat in (*seen.pools, *seen.silent)]
    # Busy queues first: there may be many that have been idle for a while.
    queues = sorted(seen.queues, key=lambda queue: (-(queue.ready + queue.running), queue.queue))
    return [
        ("Pools", _POOLS, pools),
        ("Queues", _QUEUES, [_queue(queue, seen) for queue in queues]),
        ("Running", _RUNNING, [_running(task) for task in seen.running]),
        ("Latest failures", _FAILURES, [_failure(task) for task in seen.failures]),
    ]


def _summary(seen: Snapshot) -> str:
    counts = seen.queued
    parts = [f"ready {counts.ready}", f"running {counts.running}", f"waiting {counts.waiting}"]
    if counts.parked.number:
        parts.append(f"parked {counts.parked}")
    if seen.schedules_faulty:
        parts.append(f"schedules with errors {seen.schedules_faulty}")
    if not seen.pools:
        parts.append("no pool is running")
    return ", ".join(parts)


def _sections(out: Console, seen: Snapshot, allowed: list[int] | None) -> list[RenderableType]:
    made: list[RenderableType] = []
    for index, (title, columns, rows) in enumerate(_tables(seen)):
        most = _ROWS if allowed is None else allowed[index]
        if not rows or not most:
            continue
        more = f" ({most} of {len(rows)})" if most < len(rows) else ""
        made += [text(f"{title}{more}", "bold cyan"), table(out, columns, rows[:most])]
    return made


def page(out: Console, seen: Snapshot) -> list[RenderableType]:
    """Return what is printed where there is no screen."""
    when = f"{timezone.localtime(seen.at):%Y-%m-%d %H:%M:%S %Z}"
    return [message(f"{when}  {_summary(seen)}", "bold"), *_sections(out, seen, None)]


class Screen:
    """What fills a terminal of any size."""

    def __init__(self, out: Console) -> None:
        self.out = out

    def render(self, seen: Snapshot | None, age: float, trouble: str | None) -> RenderableType:
        from rich.console import Group

        head: list[RenderableType] = []
        if trouble is not None:
            head.append(text(trouble, "bold red"))
        if seen is None:
            return Group(*head, text("Waiting for PostgreSQL ...  q quits", "dim"))
        when = f"{timezone.localtime(seen.at):%H:%M:%S %Z}"
        stale = f" ({span(age)} ago)" if trouble is not None else ""
        head.append(text(f"pgq {when}{stale}  {_summary(seen)}", "bold"))
        # A line is kept free at the bottom, for the hint.
        lines = self.out.height - len(head) - 1
        allowed = allot(lines, [len(rows) for _, _, rows in _tables(seen)], overhead=2)
        body = _sections(self.out, seen, allowed)
        return Group(*head, *body, text("q quits", "dim"))


# ------------------------------------------------------------------------------------------------- several databases


def _pages(out: Console, seen: Mapping[str, Snapshot | str]) -> list[RenderableType]:
    made: list[RenderableType] = []
    for alias, one in seen.items():
        made.append(message(f"{alias}: {one}", "bold red") if isinstance(one, str) else text(alias, "bold cyan"))
        made += [] if isinstance(one, str) else page(out, one)
    return made


class SeveralScreen:
    """What fills a terminal with all databases, an equal part for each."""

    def __init__(self, out: Console) -> None:
        self.out = out

    def render(self, seen: Mapping[str, Snapshot | str] | None, age: float, trouble: str | None) -> RenderableType:
        from rich.console import Group

        parts: list[RenderableType] = [] if trouble is None else [text(trouble, "bold red")]
        if seen is None:
            return Group(*parts, text("Waiting for PostgreSQL ...  q quits", "dim"))
        # A line is kept free at the bottom, for the hint; and one for each of those that are away.
        there = [one for one in seen.values() if not isinstance(one, str)]
        lines = (self.out.height - len(parts) - 1 - (len(seen) - len(there))) // max(len(there), 1)
        for alias, one in seen.items():
            if isinstance(one, str):
                parts.append(text(f"{alias}: {one}", "bold red"))
                continue
            when = f"{timezone.localtime(one.at):%H:%M:%S %Z}"
            parts.append(text(f"{alias} {when}  {_summary(one)}", "bold"))
            parts += _sections(self.out, one, allot(lines - 1, [len(rows) for _, _, rows in _tables(one)], overhead=2))
        return Group(*parts, text("q quits", "dim"))


# ------------------------------------------------------------------------------------------------- JSON


def several_as_json(seen: Mapping[str, Snapshot | str]) -> dict[str, Any]:
    """Return for programs a snapshot of each database, or why there is none."""
    shown = {alias: {"away": one} if isinstance(one, str) else as_json(one) for alias, one in seen.items()}
    return {"databases": shown}


def as_json(seen: Snapshot) -> dict[str, Any]:
    """Return a snapshot for programs. Times are seconds."""
    return {
        "at": seen.at,
        "pools": [_pool_json(stat, seen) for stat in seen.pools],
        "silent_pools": [_pool_json(stat, seen) for stat in seen.silent],
        "queued": {name: getattr(seen.queued, name) for name in ("ready", "running", "waiting", "parked")},
        "queues": [
            {
                "queue": queue.queue,
                "ready": queue.ready,
                "more": queue.more,
                "running": queue.running,
                "oldest": queue.oldest,
                "paused": queue.paused,
                "per_second": None if seen.rates is None else round(seen.rates.get(queue.queue, 0.0), 3),
            }
            for queue in seen.queues
        ],
        "running": [
            {
                "id": task.id,
                "name": task.name or task_name(task.id),
                "func": task.func,
                "queue": task.queue,
                "attempt": task.attempt,
                "cancelled": task.cancelled,
                "pool": task.pool,
                "host": task.host,
                "pid": task.pid,
                "seconds": task.seconds,
            }
            for task in seen.running
        ],
        "failures": [
            {
                "id": task.id,
                "name": task.name or task_name(task.id),
                "func": task.func,
                "queue": task.queue,
                "exception": task.exception,
                "message": task.message,
                "seconds_ago": task.seconds,
            }
            for task in seen.failures
        ],
        "schedules_with_errors": seen.schedules_faulty,
    }


def _pool_json(stat: Stat, seen: Snapshot) -> dict[str, Any]:
    return {
        "id": str(stat.cluster_id),
        "name": stat.name,
        "host": stat.host,
        "pid": stat.pid,
        "state": stat.status,
        "workers": stat.workers,
        "claimed": stat.task_q_size,
        "queues": stat.queues,
        "exclude_queues": stat.exclude_queues,
        "version": stat.version,
        "uptime": stat.uptime(),
        "silent": stat.silent,
        "per_second": seen.pool_rates.get(stat.cluster_id),
    }
