"""What claiming and settling cost as everything grows: the backlog, the history, queues, payloads, workers.

::

    python -m bench.scaling                         10,000 to 1,000,000 rows; a section of docs/explain/benchmarks.md
    python -m bench.scaling --largest 7             to 10,000,000 rows
    python -m bench.scaling --only queues           just these, into .pgq/bench
    python -m bench.scaling --only queues --anew    just these, beside what the report has of the others
    python -m bench.scaling --report                write the report again from the last results

One client claims and settles with the statements of pgq's workers, see `bench.systems.floor`. Each batch is replaced by
as many new tasks, so that the backlog stays what it is. The cells of `pools` and `workers` are drains by whole pools.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from bench import cells, measure, report
from bench.__main__ import PARTIAL, TROUBLE, say
from bench.lab import Lab, describe, laboratory
from bench.systems.floor import Batches, Floor, as_a_worker
from bench.systems.pgq import Pgq
from pgq.store import lanes

#: No checkpoint may fall between the fill and the measuring: after it, the first write to each page logs all of it.
MORE_WAL = "32GB"
#: Rows of one INSERT of a fill.
CHUNK = 1_000_000
#: Batches that one client works before the next one's turn, half a second or so.
TURN = 25
#: The first ones of a turn do not count: they meet the caches of others.
COLD = 5
#: Batches between two moves of the watermarks: about as many as a busy pool settles between two ticks.
TICK = 10
#: Drains are timed from this share of their tasks on: 64 connections know their statements only after some claims each.
WARM = 1 / 3
#: The axes of keys and limits.
LIMITED = ("keys", "behind", "idle")
#: So much is claimed at once at most, or a batch of large tasks would measure the client's memory.
BATCH_BYTES = 2**21

FILL_QUEUE = """
    INSERT INTO pgq_queue (func, args, queue)
    SELECT 'bench.tasks.noop', %(args)s::jsonb, 'queue' || n / %(run)s %% %(queues)s
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
# In the partition of this week, into which the measured tasks go as well.
FILL_HISTORY = """
    INSERT INTO pgq_task (id, success, attempt_count, started, stopped, enqueued_at, func, queue, result)
    SELECT pgq_uuid7(week + (now() - week) * n / %(rows)s), true, 1, now(), now(), now(), 'bench.tasks.noop', 'queue0',
           '"null"'
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) n, date_trunc('week', now(), 'UTC') week
"""
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, WAL, TIMING OFF, FORMAT JSON) "


class Plan(NamedTuple):
    """How much to measure."""

    rows: tuple[int, ...]
    queues: tuple[int, ...] = (1, 10, 100, 1000)
    workers: tuple[int, ...] = (1, 2, 4, 16, 64)
    keys: tuple[int, ...] = (1, 100, 10_000)
    #: Tasks behind a full key; lanes of keys that are idle.
    behind: tuple[int, ...] = (1000, 100_000, 1_000_000)
    idle: tuple[int, ...] = (100, 10_000, 100_000)
    payload: tuple[int, ...] = (100, 1000, 10_000, 100_000, 1_000_000)
    #: Rows of the backlog, where it is not the backlog that grows.
    usual: int = 100_000
    batch: int = 512
    #: Turns that are measured, after one that warms up.
    turns: int = 40
    #: Drains of each size by whole pools.
    passes: int = 5
    #: Batches that lie ready where the tasks are too large for a backlog beyond that.
    ahead: int = 200
    #: Whole batches of a drain for each worker of the largest pool. Each pool drains as many tasks as that one.
    drain: int = 16
    #: About so long does a drain take.
    seconds: float = 10


TINY = Plan(
    rows=(1000, 2000), queues=(1, 10), workers=(1, 2), payload=(100, 100_000), usual=1000, batch=64, turns=1, passes=2,
    ahead=10, drain=128, seconds=0.5, keys=(1, 10), behind=(10, 1000), idle=(10, 1000),
)  # fmt: skip


class Fill(NamedTuple):
    """What is in the tables before a cell begins."""

    backlog: int
    history: int = 0
    queues: int = 1
    #: So many tasks of one queue follow each other, then comes the next queue.
    run: int = 1
    payload: int = 2


class Scaling:
    """One run over all axes."""

    def __init__(self, lab: Lab, plan: Plan) -> None:
        self.lab, self.plan, self.system, self.pgq = lab, plan, Floor(), Pgq()
        self.measured: list[dict[str, Any]] = []
        lab.install(self.system)
        lab.install(self.pgq)

    def fills(self) -> dict[str, dict[int, Fill]]:
        """Return for each axis what is in the tables at each size."""
        plan, usual = self.plan, self.plan.usual
        return {
            "backlog": {size: Fill(size) for size in plan.rows},
            "history": {size: Fill(usual, history=size) for size in plan.rows},
            "queues": {size: Fill(usual, queues=size, run=max(1, usual // size)) for size in plan.queues},
            "mixed": {size: Fill(usual, queues=size) for size in plan.queues},
            "payload": {size: Fill(0, payload=size) for size in plan.payload},
        }

    def measure(self, only: Sequence[str]) -> None:
        for axis, fills in self.fills().items():
            if axis in only:
                self._axis(axis, fills)
        plan = self.plan
        # As many tasks whatever the size, so that the table is as large and the first claims weigh as much.
        batches = plan.drain * max(plan.workers)
        if "pools" in only:
            self._drains("pools", plan.queues, lambda queues: self._drain(Pgq(queues), 2, batches // 2))
        # The same with limits: of many keys, beside a full one, beside those that are not in use.
        limited = {
            "keys": (plan.keys, lambda keys: Pgq(keys=keys)),
            "behind": (plan.behind, lambda rows: Pgq(keys=100, behind=rows)),
            "idle": (plan.idle, lambda lanes: Pgq(keys=100, idle=lanes)),
        }
        for axis, (sizes, system) in limited.items():
            if axis in only:
                self._drains(axis, sizes, lambda size, system=system: self._drain(system(size), 2, batches // 4))  # type: ignore[misc]
        if "workers" in only:
            self._drains("workers", plan.workers, lambda workers: self._drain(self.pgq, workers, batches))

    def _note(self, axis: str, size: int, numbers: dict[str, Any]) -> None:
        self.measured.append({"axis": axis, "size": size, "when": measure.now(), **numbers})

    @staticmethod
    def _tried(axis: str, size: int, cell: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what a cell has measured, or why it has not."""
        began = time.monotonic()
        try:
            numbers = cell()
        except (psycopg.Error, *TROUBLE) as error:
            numbers = {"error": f"{error}"}
        say(f"{axis} {size:,}: {_brief(numbers)}  ({time.monotonic() - began:.0f} s)")
        return numbers

    def _axis(self, axis: str, fills: dict[int, Fill]) -> None:
        """Fill a database for each size, then go round them by turns: what else the machine does meets all."""
        began = time.monotonic()
        with ExitStack() as stack:
            processor = stack.enter_context(_apart())
            clients = {size: self._client(stack, size, fill, processor) for size, fill in fills.items()}
            say(f"{axis}: filled in {time.monotonic() - began:.0f} s")
            try:
                for _ in range(1 + self.plan.turns):
                    for client in clients.values():
                        client.turn()
            except (psycopg.Error, *TROUBLE) as error:
                self._note(axis, 0, {"error": f"{error}"})
                say(f"{axis}: FAILED: {error}")
                return
            smallest = next(iter(clients.values()))
            for size, client in clients.items():
                self._note(axis, size, self._tried(axis, size, partial(client.numbers, smallest)))

    def _client(self, stack: ExitStack, size: int, fill: Fill, processor: set[int]) -> Client:
        batch = self.plan.batch
        while batch > 1 and batch * fill.payload > BATCH_BYTES:
            batch //= 2
        fill = fill._replace(backlog=fill.backlog or batch * self.plan.ahead)
        dsn = stack.enter_context(self.lab.fresh(self.system, f"of_{size}"))
        with psycopg.connect(dsn) as connection:
            _fill(connection, fill)
        return Client(dsn, batch, fill, processor if self.lab.postmaster is not None else None)

    def _drains(self, axis: str, sizes: Sequence[int], drain: Callable[[int], dict[str, Any]]) -> None:
        """Drain with each size, up, then down, and so on: a machine that changes its pace meets all alike."""
        found: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
        for number in range(self.plan.passes):
            for size in reversed(sizes) if number % 2 else sizes:
                found[size].append(self._tried(axis, size, partial(drain, size)))
        smallest = found[sizes[0]]
        for size, drains in found.items():
            failed = next((one for one in (*drains, *smallest) if "error" in one), None)
            self._note(axis, size, failed or compared_drains(drains, smallest))

    def _drain(self, pgq: Pgq, workers: int, batches: int) -> dict[str, Any]:
        plan = cells.TINY._replace(drain=self.plan.seconds, warm=WARM)
        rate = batches * self.plan.batch / plan.drain
        numbers = cells.drain(self.lab, pgq, plan, kind="noop", workers=workers, rate=rate)
        return {key: numbers.get(key) for key in ("count", "rate", "client_us", "server_us", "wal_bytes")}


class Client:
    """One client that claims, settles and puts as many tasks into the queue again."""

    def __init__(self, dsn: str, batch: int, fill: Fill, processor: set[int] | None) -> None:
        self.dsn, self.batch, self.fill = dsn, batch, fill
        #: Where the server's process is to run; None: it is elsewhere.
        self.processor = processor
        self.batches = Batches(None, batch)
        #: Number of the next task to be put into the queue.
        self.next = fill.backlog + 1
        #: Milliseconds and processor time of each batch of this turn.
        self.claims: list[dict[str, float]] = []
        self.settlings: list[dict[str, float]] = []
        #: Medians of each turn so far, of claims and of settlings.
        self.turns: list[tuple[dict[str, float], dict[str, float]]] = []

    def numbers(self, smallest: Client) -> dict[str, Any]:
        """Return what claims and settlings take, compared turn by turn with the client of the smallest size."""
        (claims, settlings), others = self._counted(), smallest._counted()
        return {
            "batch": self.batch,
            "claim": compared(claims, others[0]) | self.explained(settle=False),
            "settle": compared(settlings, others[1]) | self.explained(settle=True),
            "turns": {"claim": claims, "settle": settlings},
        }

    def _counted(self) -> tuple[Sequence[dict[str, float]], Sequence[dict[str, float]]]:
        """Return the claims and the settlings of all turns but the first one."""
        claims, settlings = zip(*self.turns[1:], strict=True)
        return claims, settlings

    def turn(self) -> None:
        """Work for some batches, so that most find the caches as in a pool that is busy."""
        self.claims, self.settlings = [], []
        with self._connected():
            for number in range(1, TURN + 1):
                self.round()
                if number % TICK == 0:
                    # As upkeep does, five times a second. Nobody else draws positions.
                    lanes.advance(self.cursor, safe=lanes.positions(self.cursor)[0])
                    self.connection.commit()
        self.turns.append((_medians(self.claims[COLD:]), _medians(self.settlings[COLD:])))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Have a connection for one turn: one process, or one second, may be half as fast again as the next."""
        with psycopg.connect(self.dsn, prepare_threshold=1) as self.connection:
            as_a_worker(self.connection)
            self.cursor = self.batches.cursor = self.connection.cursor()
            self.pid = self.connection.info.backend_pid if self.processor is not None else None
            if self.processor:
                os.sched_setaffinity(self.connection.info.backend_pid, self.processor)
            yield

    def round(self) -> None:
        """Claim and settle a batch, and put as many tasks into the queue."""
        claimed, of_claim = self._timed(self.batches.claim)
        _, of_settle = self._timed(lambda: self.batches.settle(claimed))
        self.connection.commit()
        if len(claimed) != self.batch:
            raise RuntimeError(f"only {len(claimed)} of {self.batch} tasks were claimed")
        _insert(self.cursor, self.fill, self.next, self.next + self.batch - 1)
        self.next += self.batch
        self.connection.commit()
        self.claims.append(of_claim)
        self.settlings.append(of_settle)

    def _timed(self, do: Callable[[], list[tuple[Any, ...]]]) -> tuple[list[tuple[Any, ...]], dict[str, float]]:
        used, began = self._used(), time.perf_counter()
        rows = do()
        numbers = {"milliseconds": (time.perf_counter() - began) * 1e3}
        after = self._used()
        if used is not None and after is not None:
            numbers["server_us"] = (after - used) / 1e3 / self.batch
        return rows, numbers

    def _used(self) -> int | None:
        return None if self.pid is None else measure.own_nanoseconds(self.pid)

    def explained(self, *, settle: bool) -> dict[str, float]:
        """Return pages touched and bytes of WAL for each task, as EXPLAIN has them; nothing of it is kept."""
        with self._connected():
            if settle:
                rows = self.batches.settle(self.batches.claim(), before=EXPLAIN)
            else:
                rows = self.batches.claim(before=EXPLAIN)
            self.connection.rollback()
        plan = rows[0][0][0]["Plan"]
        # settle.sql never reads from its INSERT, so PostgreSQL runs that when the rest is done, and counts it apart.
        parts = [plan, *(one for one in _nodes(plan) if one.get("Operation") == "Insert")]
        return {
            "buffers": sum(one["Shared Hit Blocks"] + one["Shared Read Blocks"] for one in parts) / self.batch,
            "wal_bytes": sum(one["WAL Bytes"] for one in parts) / self.batch,
        }


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for node in plan.get("Plans", ()):
        yield node
        yield from _nodes(node)


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def compared(turns: Sequence[dict[str, float]], smallest: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of the smallest size, times the median of the ratios to it within each round.

    A round takes seconds, and for so long a machine that others use mostly keeps its pace. In two runs flat lines came
    out 1 to 2 % off this way (root mean square), by the lower deciles of each size 3 %, by its medians 5 %.
    """
    return {
        key: _paired([(one[key], other[key]) for one, other in zip(turns, smallest, strict=True)]) for key in turns[0]
    }


def compared_drains(drains: Sequence[dict[str, Any]], smallest: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare drains by whole pools likewise, pass by pass. What a drain was too short for is left out of its pass."""
    numbers: dict[str, Any] = {}
    for key in drains[0]:
        pairs = [(one[key], other[key]) for one, other in zip(drains, smallest, strict=True) if one[key] and other[key]]
        numbers[key] = _paired(pairs) if pairs else None
    return numbers | {"count": drains[0]["count"], "turns": drains}


def _paired(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(other for _, other in pairs) * statistics.median(one / other for one, other in pairs)


@contextmanager
def _apart() -> Iterator[set[int]]:
    """Keep to one processor, and name another for the server: where others work as well, no two are as fast."""
    if not hasattr(os, "sched_setaffinity"):
        yield set()
        return
    before = os.sched_getaffinity(0)
    mine, *others = sorted(before)
    os.sched_setaffinity(0, {mine})
    try:
        yield set(others[-1:])
    finally:
        os.sched_setaffinity(0, before)


def _fill(connection: psycopg.Connection[Any], fill: Fill) -> None:
    cursor = connection.cursor()
    for first, last in _chunks(fill.backlog):
        _insert(cursor, fill, first, last)
        connection.commit()
    for first, last in _chunks(fill.history):
        cursor.execute(FILL_HISTORY, {"first": first, "last": last, "rows": fill.history})
        connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE pgq_queue")
    connection.execute("VACUUM ANALYZE pgq_task")
    connection.execute("VACUUM ANALYZE pgq_lane")
    connection.autocommit = False


def _insert(cursor: psycopg.Cursor[Any], fill: Fill, first: int, last: int) -> None:
    parameters = {
        "args": json.dumps([_text(fill.payload)]),
        "queues": fill.queues,
        "run": fill.run,
        "first": first,
        "last": last,
    }
    cursor.execute(FILL_QUEUE, parameters)


def _text(size: int) -> str:
    """Text that cannot be compressed to nothing, always the same."""
    return "".join(f"{number * 2654435761 % 2**32:08x}" for number in range(size // 8 + 1))[:size]


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(1, rows + 1, CHUNK):
        yield first, min(rows, first + CHUNK - 1)


def _brief(numbers: dict[str, Any]) -> str:
    if "error" in numbers:
        return f"FAILED: {numbers['error']}"
    if "rate" in numbers:
        return f"{numbers['rate']:,.0f}/s"
    return ", ".join(
        f"{what} {numbers[what]['milliseconds']:.2f} ms, {numbers[what].get('server_us', 0):.1f} us, "
        f"{numbers[what]['buffers']:.1f} pages, {numbers[what]['wal_bytes']:.0f} B"
        for what in ("claim", "settle")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--largest", type=int, choices=(4, 5, 6, 7), default=6, help="10 to the power of this (default: 6)"
    )
    axes = ("backlog", "history", "queues", "mixed", "payload", "pools", *LIMITED, "workers")
    parser.add_argument("--only", metavar="A,B", help=f"only these: {', '.join(axes)}")
    parser.add_argument("--anew", action="store_true", help="with --only: into the report, beside the other axes")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="folder for results and report (default: the documentation)")
    parser.add_argument("--report", action="store_true", help="only write the report, from the last results")
    options = parser.parse_args(arguments)
    only = options.only.split(",") if options.only else axes
    if unknown := [axis for axis in only if axis not in axes]:
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(axes)}")
    if options.anew and not options.only:
        parser.error("--anew says what is done with the axes of --only")
    partial = (options.only and not options.anew) or options.tiny or options.largest < 6
    places = report.places(options.out or (PARTIAL if partial else None))
    if options.report:
        report.write_scaling(json.loads(places.scaling.read_text()), places)
        return 0
    plan = TINY if options.tiny else Plan(tuple(10**power for power in range(4, options.largest + 1)))
    began, load_before = time.monotonic(), os.getloadavg()[0]
    with laboratory(max_wal_size=MORE_WAL) as lab:
        run = Scaling(lab, plan)
        try:
            run.measure(only)
        except KeyboardInterrupt:
            say("interrupted: the report has what was measured until now")
        results = {
            "format": 1,
            "when": measure.now(),
            "seconds": time.monotonic() - began,
            "machine": describe(lab) | {"load_before": load_before},
            "plan": plan._asdict(),
            "measured": run.measured,
        }
    if options.only and places.scaling.exists():
        # What was measured before stands beside what is measured anew.
        before = json.loads(places.scaling.read_text())
        others = [one for one in before["measured"] if one["axis"] not in only]
        results = before | {"measured": others + run.measured} if others else results
    report.write_scaling(results, places)
    say(f"{places.report} ({time.monotonic() - began:,.0f} s)")
    return 1 if any("error" in one for one in run.measured) else 0


if __name__ == "__main__":
    sys.exit(main())
