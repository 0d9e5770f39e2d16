"""Does a long transaction slow the queue down?

::

    python -m bench.pinned [--tasks 500000] [--workers 2] [--limited]

Drains no-op tasks with a real pool, every result stored, twice: as it is, and while a REPEATABLE READ transaction is
held open, so that no vacuum can remove what the tasks leave behind. Prints the rate of each fifth of the tasks. The
goal is that, pinned, the last fifth keeps 90 % of the rate of the first.

The database is a new one, made and dropped in the server of DATABASE_URL, or in one that is started for the occasion.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgq.contrib.embedded import Server
from pgq.store import schema

ROOT = Path(__file__).parent.parent
GOAL = 0.9
SERVER_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB", "synchronous_commit": "off", "fsync": "off"}
#: The default, 250, would measure the pruning of results too.
PGQ = {"save_limit": 0}

FIFTHS = """
    SELECT count(*), extract(epoch FROM max(stopped) - min(stopped))::float8
      FROM (SELECT stopped, ntile(5) OVER (ORDER BY stopped) AS fifth FROM pgq_task WHERE success) t
     GROUP BY fifth ORDER BY fifth
"""


class Run(NamedTuple):
    """What one drain showed: tasks a second, of each fifth of the tasks and over all."""

    fifths: list[float]
    overall: float

    @property
    def ratio(self) -> float:
        """The rate of the last fifth as a share of the first one's."""
        return self.fifths[-1] / self.fifths[0]


@contextmanager
def database(server: str, name: str) -> Iterator[str]:
    """Make a database with our tables, and drop it in the end."""
    dsn = make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(dsn) as connection:
                for file in sorted(schema.directory().glob("*.up.sql")):
                    connection.execute(file.read_bytes())
            yield dsn
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def pinned(dsn: str) -> Iterator[None]:
    """Hold a snapshot, as a report or a dump does."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT FROM pgq_queue LIMIT 1")
        yield


def child_environment(dsn: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": dsn,
        "DJANGO_SETTINGS_MODULE": "bench.settings",
        "BENCH_PGQ": json.dumps(PGQ),
        "PYTHONPATH": str(ROOT),
    }


ENQUEUE = """
import sys, django
django.setup()
from pgq.tasks import enqueue_many
from pgq.tasks import set_limit
count, keys = int(sys.argv[1]), int(sys.argv[2])
set_limit("limited", concurrency=2)
for key in range(keys):
    enqueue_many("bench.pinned.noop", ((),) * (count // keys), chunk=5000, key=f"limited:{key}")
if not keys:
    enqueue_many("bench.pinned.noop", ((),) * count, chunk=5000)
"""


def noop() -> None:
    pass


def drain(dsn: str, tasks: int, workers: int, *, pin: bool, keys: int = 0) -> Run:
    """Enqueue, then run a pool until nothing is left; return what it showed. `keys`: so many, with a limit of 2."""
    environment = child_environment(dsn)
    subprocess.run([sys.executable, "-c", ENQUEUE, str(tasks), str(keys)], cwd=ROOT, env=environment, check=True)
    with ExitStack() as stack, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE pgq_queue")
        if pin:
            stack.enter_context(pinned(dsn))
        command = [sys.executable, "-m", "django", "pgq_worker", "--run-once", "--workers", str(workers)]
        subprocess.run([*command, "--log-level", "WARNING"], cwd=ROOT, env=environment, check=True)
        rows = connection.execute(FIFTHS).fetchall()
    done = sum(count for count, _ in rows)
    if done != tasks:
        raise RuntimeError(f"{done} of {tasks} tasks have a result")
    return Run([count / seconds for count, seconds in rows], tasks / sum(seconds for _, seconds in rows))


def measure(server: str, tasks: int, workers: int, *, pin: bool, name: str = "pgq_bench_pinned", keys: int = 0) -> Run:
    """Drain in a database of its own."""
    with database(server, name) as dsn:
        return drain(dsn, tasks, workers, pin=pin, keys=keys)


def show(title: str, run: Run) -> None:
    rates = "".join(f"{rate:>10,.0f}" for rate in run.fifths)
    print(f"{title:<10}{rates}{run.overall:>12,.0f}{run.ratio:>14.1%}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pinned", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tasks", type=int, default=500_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limited", action="store_true", help="100 keys, two tasks of each at a time")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = os.environ.get("DATABASE_URL")
        server = make_conninfo(url) if url else stack.enter_context(Server(settings=SERVER_SETTINGS)).dsn
        with psycopg.connect(server) as connection:
            version = connection.info.parameter_status("server_version")
        print(f"PostgreSQL {version}, {os.cpu_count()} processors, {options.workers} workers, {options.tasks:,} tasks")
        print(f"{'':<10}{''.join(f'{n}/5'.rjust(10) for n in range(1, 6))}{'overall':>12}{'last/first':>14}")
        began, keys = time.monotonic(), 100 if options.limited else 0
        free = measure(server, options.tasks, options.workers, pin=False, keys=keys)
        show("unpinned", free)
        held = measure(server, options.tasks, options.workers, pin=True, keys=keys)
        show("pinned", held)
    good = held.ratio >= GOAL
    verdict = "met" if good else "MISSED"
    print(f"pinned, the last fifth runs at {held.ratio:.1%} of the first; the goal, {GOAL:.0%}, is {verdict}")
    print(f"({time.monotonic() - began:.0f} s in all)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
