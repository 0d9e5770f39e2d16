"""What becomes of rates, latencies and sizes while a pool works on and on.

::

    python -m bench.steady                        30 minutes at half of what the pool can drain
    python -m bench.steady --pinned --minutes 10  at full load, while a transaction keeps vacuum from removing anything

Each run has a section in docs/explain/benchmarks.md, a line a minute. Checkpoints, autovacuum and upkeep run as
always.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psycopg

from bench import cells, measure, report
from bench.__main__ import PARTIAL, say
from bench.lab import Family, Lab, Producer, describe, laboratory
from bench.pinned import pinned as holding_a_snapshot
from bench.systems.pgq import Pgq

WORKERS = 2
#: Probes a second.
RATE = 20.0
#: At full load so many tasks are kept ready, and so many are enqueued at once.
BACKLOG, PORTION = 40_000, 10_000
#: The lab keeps checkpoints out of its cells; here they belong to it.
SETTINGS = {"checkpoint_timeout": "5min", "max_wal_size": "4GB"}
DONE = "SELECT coalesce(sum(n_tup_ins), 0)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'pgq_task%'"
SIZES = """
    SELECT pg_table_size('pgq_queue'), pg_indexes_size('pgq_queue'),
           (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'pgq_queue')
"""


class Course:
    """One run: a pool, a producer, and a look at both after each of its minutes.

    Args:
        load: Tasks a second; None: as many as the pool takes.
    """

    def __init__(self, lab: Lab, system: Pgq, dsn: str, pool: Family, producer: Producer, load: float | None) -> None:
        self.lab, self.system, self.pool, self.producer, self.load = lab, system, pool, producer, load
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.enqueued = self.probes = 0

    def minute(self, seconds: float) -> dict[str, Any]:
        """Work for so long; return how it went."""
        cpu, before, began = cells.Cpu(self.lab, self.system, self.pool), self._done(), time.monotonic()
        latencies = self._full(seconds) if self.load is None else self._steady(seconds)
        elapsed, done = time.monotonic() - began, self._done()
        heap, indexes, dead = self._row(SIZES)
        return {
            "rate": (done - before) / elapsed,
            "backlog": max(0, self.enqueued - done),
            "milliseconds": cells.quantiles(latencies),
            **cpu.so_far().each(max(1, done - before)),
            "heap_bytes": heap,
            "index_bytes": indexes,
            "dead": dead,
        }

    def _steady(self, seconds: float) -> list[float]:
        assert self.load is not None
        first = self.probes
        sent = self.producer.ask("probe", seconds=seconds, rate=RATE, load=self.load, first=first)
        self.probes += len(sent["sent"])
        self.enqueued += sent["loaded"] + len(sent["sent"])
        measured = cells.latencies(self.lab, sent)
        self.lab.stamps.unlink(missing_ok=True)
        return sorted(measured["samples"])

    def _full(self, seconds: float) -> list[float]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.enqueued - self._done() < BACKLOG:
                self.producer.ask("fill", count=PORTION, task="noop")
                self.enqueued += PORTION
            else:
                time.sleep(0.05)
        return []

    def _done(self) -> int:
        # The statistics are a moment behind, the same moment each time; to count a long history would be a load.
        return int(self._row(DONE)[0])

    def _row(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self.connection.execute(query).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row


def capacity(lab: Lab, system: Pgq, seconds: float) -> float:
    """Return how many no-op tasks a second the pool drains."""
    plan = cells.TINY._replace(drain=seconds)
    return float(cells.drain(lab, system, plan, kind="noop", workers=WORKERS, rate=system.rate)["rate"])


def run(lab: Lab, *, minutes: int, pinned: bool, share: float, minute: float = 60.0) -> dict[str, Any]:
    """Run for so long; return the numbers of each minute."""
    system = Pgq()
    lab.install(system)
    load = None if pinned else share * capacity(lab, system, min(4.0, minute))
    lab.stamps.unlink(missing_ok=True)
    with (
        lab.fresh(system) as dsn,
        lab.producer(system, dsn) as producer,
        lab.pool(system, dsn, WORKERS) as pool,
        holding_a_snapshot(dsn) if pinned else nullcontext(),
    ):
        course = Course(lab, system, dsn, pool, producer, load)
        until = time.monotonic() + cells.START_SECONDS
        while not course.minute(min(5.0, minute))["rate"] and time.monotonic() < until:
            pass  # The workers start.
        rows = []
        for number in range(1, minutes + 1):
            rows.append(course.minute(minute))
            pool.check()
            say(f"minute {number}: {_brief(rows[-1])}")
        course.connection.close()
    return {"load": load, "minutes": rows}


def _brief(row: dict[str, Any]) -> str:
    p99 = row["milliseconds"].get("p99")
    latency = f", p99 {p99:.1f} ms" if p99 is not None else ""
    size = (row["heap_bytes"] + row["index_bytes"]) / 2**20
    return f"{row['rate']:,.0f}/s, {row['backlog']:,} waiting{latency}, {size:,.0f} MiB, {row['dead']:,} dead"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.steady", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--pinned", action="store_true", help="at full load, with a transaction that stays open")
    parser.add_argument("--share", type=float, default=0.5, help="of what the pool drains (default: 0.5)")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="folder for results and report (default: the documentation)")
    options = parser.parse_args(arguments)
    if not 0 < options.share < 1 or options.minutes < 2:
        parser.error("--share must be between 0 and 1, --minutes 2 or more")
    places = report.places(options.out or (PARTIAL if options.tiny else None))
    began, load_before = time.monotonic(), os.getloadavg()[0]
    with laboratory(**SETTINGS) as lab:  # type: ignore[arg-type]  # none of them is "fsync"
        found = run(
            lab, minutes=options.minutes, pinned=options.pinned, share=options.share, minute=1 if options.tiny else 60
        )
        machine = describe(lab) | {"load_before": load_before}
    results = json.loads(places.steady.read_text()) if places.steady.exists() else {"format": 1}
    results["pinned" if options.pinned else "half"] = found | {
        "when": measure.now(),
        "share": None if options.pinned else options.share,
        "workers": WORKERS,
        "machine": machine,
    }
    report.write_steady(results, places)
    say(f"{places.report} ({time.monotonic() - began:,.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
