"""How soon do a thousand coroutines that wait for results hear of them, and by how many sessions?

::

    python -m bench.waiting [--waiters 1000] [--workers 1]

One process enqueues tasks and awaits ``aresult`` of all of them at once. Then a real pool runs them. Counted are the
sessions of the waiting process; measured is the time from the commit that settled a task (PostgreSQL notes it, with
``track_commit_timestamp``) to the moment at which its coroutine goes on. The goals: two sessions, and 50 ms for 99 %.

The database is a new one, made and dropped in the server of DATABASE_URL, or in one that is started for the occasion.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import ExitStack

import psycopg
from psycopg.conninfo import make_conninfo

from bench.pinned import ROOT, child_environment, database
from pgq.contrib.embedded import Server

SESSIONS_GOAL, P99_GOAL = 2, 0.050
SERVER_SETTINGS = {"track_commit_timestamp": "on"}
NAME = "pgq_bench_waiting"

#: Says that all wait, then at what Unix time each task's coroutine went on.
WAIT = """
import asyncio, json, sys, time
import django
django.setup()
from pgq.tasks import aenqueue_many, aresult

async def wait(id, woken):
    await aresult(id, wait=60_000, raise_error=True)
    woken[id] = time.time()

async def main(count):
    woken = {}
    ids = await aenqueue_many("bench.pinned.noop", ((),) * count)
    waiting = [asyncio.create_task(wait(id, woken)) for id in ids]
    await asyncio.sleep(2)
    print("waiting", flush=True)
    await asyncio.gather(*waiting)
    print(json.dumps(woken))

asyncio.run(main(int(sys.argv[1])))
"""
COMMITS = """
    SELECT replace(id::text, '-', ''), extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM pgq_task
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"


def measure(server: str, waiters: int, workers: int) -> tuple[int, list[float]]:
    """Return the sessions of the waiting process, and for each task the seconds from its commit, sorted."""
    with database(server, NAME) as dsn, psycopg.connect(server, autocommit=True) as observer:
        environment = child_environment(dsn)
        command = [sys.executable, "-c", WAIT, str(waiters)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            if child.stdout.readline() != "waiting\n":
                raise RuntimeError("the process that waits has failed")
            [sessions] = observer.execute(SESSIONS, (NAME,)).fetchone() or (0,)
            pool = [sys.executable, "-m", "django", "pgq_worker", "--run-once", "--workers", str(workers)]
            subprocess.run([*pool, "--log-level", "WARNING"], cwd=ROOT, env=environment, check=True)
            woken = json.loads(child.stdout.read())
        with psycopg.connect(dsn) as connection:
            commits = dict(connection.execute(COMMITS).fetchall())
    return sessions, sorted(woken[id] - commits[id] for id in woken)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.waiting", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--waiters", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with ExitStack() as stack:
        url = os.environ.get("DATABASE_URL")
        server = make_conninfo(url) if url else stack.enter_context(Server(settings=SERVER_SETTINGS)).dsn
        sessions, delays = measure(server, options.waiters, options.workers)
    p50, p99 = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
    good = sessions <= SESSIONS_GOAL and p99 <= P99_GOAL
    print(
        f"{len(delays):,} coroutines waited by {sessions} sessions (goal: {SESSIONS_GOAL}); woken after the commit: "
        f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms (goal: {P99_GOAL * 1000:.0f}), "
        f"last {delays[-1] * 1000:.1f} ms; {'met' if good else 'MISSED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
