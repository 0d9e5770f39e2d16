"""manage.py pgq_monitor: pools, queues, running tasks and failures, as they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser

from pgq.conf import Queues, asked
from pgq.ground.ids import task_name
from pgq.management import live
from pgq.management.command import PgqCommand
from pgq.management.live import SeveralSources, Source, allot
from pgq.management.monitor import VIEWS, Monitor, Screen, Seen, extra_json, queues_in_order
from pgq.management.output import Column, clock, message, rate, span, state, text
from pgq.status import Stat, snapshot
from pgq.status.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Command(PgqCommand):
    help = (
        "Shows pools, queues, running tasks and the latest failures, live on a terminal: q quits, 1 to 5 and tab "
        "switch between overview, queues (p pauses the chosen one), workers, failures and schedules. Without a "
        "terminal, or with --run-once, it prints them once; with --interval again and again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        live.add_arguments(parser)
        parser.add_argument("--view", choices=VIEWS, default=VIEWS[0], help=f"what to show first (default: {VIEWS[0]})")
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        if len(asked()) > 1:
            if options["view"] != VIEWS[0]:
                raise CommandError(f"--view {options['view']} is of one database: give --database as well")
            several = SeveralSources("pgq monitor", snapshot.snapshot)
            live.show(self, options, several, SeveralScreen, several_as_json)
            return
        monitor = Monitor(options["view"])
        live.show(
            self,
            options,
            Source(self.settings.database, "pgq monitor", monitor.read),
            lambda out: Screen(out, monitor, _tables, _summary),
            lambda seen: {**as_json(seen.snapshot), **extra_json(monitor.view, seen)},
            press=monitor.press,
        )


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
    Column("Times", right=True, from_width=50),
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
    done = rate(seen.rates.get(queue.queue, 0.0))
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


def _failure(task: Any, times: int) -> list[Any]:
    return [
        span(task.seconds),
        text(task.func, limit=100),
        text(task.exception.rpartition(".")[2], "red", limit=60),
        text(task.message or "", limit=120),
        times,
        task.id.hex,
    ]


def _failures(seen: Snapshot) -> list[list[Any]]:
    """Return the latest failures, those of one function with one exception as one, by the last of them."""
    times = Counter((task.func, task.exception) for task in seen.failures)
    shown: dict[tuple[str, str], Any] = {}
    for task in seen.failures:
        shown.setdefault((task.func, task.exception), task)
    return [_failure(task, times[key]) for key, task in shown.items()]


def _tables(seen: Snapshot) -> list[tuple[str, Any, list[list[Any]]]]:
    """Return title, columns and rows of each table, the most important first."""
    pools = [_pool(stat, seen) for stat in (*seen.pools, *seen.silent)]
    return [
        ("Pools", _POOLS, pools),
        ("Queues", _QUEUES, [_queue(queue, seen) for queue in queues_in_order(seen)]),
        ("Running", _RUNNING, [_running(task) for task in seen.running]),
        ("Latest failures", _FAILURES, _failures(seen)),
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


# ------------------------------------------------------------------------------------------------- several databases


class SeveralScreen:
    """What fills a terminal with the overview of all databases, an equal part for each."""

    def __init__(self, out: Console) -> None:
        self.out, self.one = out, Screen(out, Monitor(), _tables, _summary)

    def page(self, seen: Mapping[str, Snapshot | str]) -> list[RenderableType]:
        """Return what is printed where there is no screen."""
        made: list[RenderableType] = []
        for alias, one in seen.items():
            made.append(_away(alias, one) if isinstance(one, str) else text(alias, "bold cyan"))
            made += [] if isinstance(one, str) else self.one.page(Seen(one, VIEWS[0]))
        return made

    def render(self, seen: Mapping[str, Snapshot | str] | None, age: float, trouble: str | None) -> RenderableType:
        """Return what the screen shows; see `Screen.render`."""
        from rich.console import Group

        parts: list[RenderableType] = [] if trouble is None else [text(trouble, "bold red")]
        if seen is None:
            return Group(*parts, text("Waiting for PostgreSQL ...  q quits", "dim"))
        # A line is kept free at the bottom, for the hint; and one for each of those that are away.
        there = [one for one in seen.values() if not isinstance(one, str)]
        lines = (self.out.height - len(parts) - 1 - (len(seen) - len(there))) // max(len(there), 1)
        for alias, one in seen.items():
            if isinstance(one, str):
                parts.append(_away(alias, one))
                continue
            tables = _tables(one)
            parts.append(text(f"{alias} {self.one.heading(one)}", "bold"))
            parts += self.one.sections(tables, allot(lines - 1, [len(rows) for _, _, rows in tables], overhead=2))
        return Group(*parts, text("q quits", "dim"))


def _away(alias: str, why: str) -> RenderableType:
    return message(f"{alias}: {why}", "bold red")


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
                "per_second": round(seen.rates.get(queue.queue, 0.0), 3),
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
