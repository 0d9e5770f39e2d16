"""A site: one database with its pools, its trace and its producers, on the shared server or on one of its own.

::

    def test_something(site):
        site.start(workers=2)                           # a pool, ready when this returns
        site.enqueue("work", 100)                       # acknowledged: committed
        ...                                             # the fault
        site.drain()
        site.check().assert_clean()
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.contrib.embedded import Server
from pgq.enqueue.make import make_task
from pgq.pool.orphans import children_of
from pgq.records.options import TaskOptions
from pgq.store import queue
from tests.support import trace
from tests.support.pools import ROOT, Oracle, Pool, is_alive, until, wait_for

#: Leases of 3 s and ticks of half a second: so that a fault is over in seconds.
QUICK = {"retry": 3.0, "tick": 0.5, "poll": 1.0, "kill_after": 1.0, "save_limit": 0}
TASKS = "tests.faults.tasks"
#: Statements of migrations_sql, as psql would run them.
MIGRATIONS = sorted((ROOT / "migrations_sql").glob("*.up.sql"))


def dsn_for(url: str, database: str) -> str:
    """Return a connection string or URL with another database."""
    return make_conninfo(url, dbname=database)


def make_database(server_dsn: str) -> str:
    """Make a database with pgq's tables; return its connection string."""
    name = f"pgq_fault_{uuid4().hex[:12]}"
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = dsn_for(server_dsn, name)
    with psycopg.connect(dsn, autocommit=True) as session:
        for path in MIGRATIONS:
            session.execute(path.read_text())  # type: ignore[arg-type]  # a file of pgq
    return dsn


def drop_database(server_dsn: str, dsn: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as session:
        name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


class Site:
    """See above.

    Attributes:
        dsn: Of the database. Pools get `pool_dsn`, which a test may point at a proxy.
        acknowledged: Ids (hex) of the tasks whose enqueue was committed.
        unknown: Ids of tasks whose commit may or may not have taken place.
        frozen, deaths: What the nemesis did to which pid and when (CLOCK_MONOTONIC), for the oracle.
    """

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder, self.dsn, self.pool_dsn = folder, dsn, dsn
        self.oracle = Oracle(folder / "trace")
        self.pools: list[Pool] = []
        self.acknowledged: list[str] = []
        self.unknown: list[str] = []
        self.frozen: dict[int, float] = {}
        self.deaths: dict[int, float] = {}

    # ------------------------------------------------------------------------------------------- pools

    def start(
        self,
        *arguments: str,
        ready: bool = True,
        failpoints: Sequence[dict[str, Any]] = (),
        mutant: str = "",
        django: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
        **settings: Any,
    ) -> Pool:
        """Start a pool. Keywords are settings.PGQ, `django` other settings, `wrapper` a command to run it under."""
        environment = {
            "PGQ_FAILPOINTS": json.dumps(list(failpoints)) if failpoints else "",
            "PGQ_MUTANT": mutant or os.environ.get("PGQ_MUTANT", ""),
            "PGQ_TEST_DJANGO": json.dumps(django or {}),
            "DJANGO_SETTINGS_MODULE": "tests.support.fault_settings",
            **(env or {}),
        }
        new = Pool(
            self.folder / f"pool{len(self.pools)}.log",
            self.oracle,
            *arguments,
            dsn=self.pool_dsn,
            look_dsn=self.dsn,
            env=environment,
            wrapper=wrapper,
            **{**QUICK, **settings},
        )
        self.pools.append(new)
        return new.wait_until_ready() if ready else new

    def stop(self) -> list[str]:
        """Stop all pools as an operator would; return what they left behind (I9)."""
        for pool in self.pools:
            if pool.process.poll() is None:
                pool.signal(signal.SIGCONT)
                pool.signal(signal.SIGTERM)
        for pool in self.pools:
            pool.wait()
        with self.session() as session:
            # PostgreSQL notices the end of a session a moment after its client's.
            with contextlib.suppress(TimeoutError):
                until(lambda: not trace.left_in_postgresql(session), 3.0)
            return trace.left_in_postgresql(session)

    def destroy(self, *, show: bool = True) -> list[str]:
        """Kill what is left; return what that was. `show`: print the logs, for pytest to show if the test failed."""
        left: list[str] = []
        for pool in self.pools:
            left += pool.destroy()
            if show:
                print(f"--- log of pool {pool.pid} {pool.settings}\n{pool.log()[-20_000:]}")  # noqa: T201
        return left

    # ------------------------------------------------------------------------------------------- PostgreSQL

    def session(self, **options: Any) -> psycopg.Connection[Any]:
        """Open a session, in autocommit by default."""
        return psycopg.connect(self.dsn, **{"autocommit": True, **options})

    def value(self, statement: str, *parameters: Any) -> Any:
        """Return the one value of a statement's one row."""
        with self.session() as session:
            row = session.execute(statement, parameters).fetchone()  # type: ignore[arg-type]  # a test's own text
        return row[0] if row else None

    def enqueue(self, func: str, count: int = 1, *args: Any, chunk: int = 500, **options: Any) -> list[str]:
        """Enqueue tasks of tasks.py and note those whose commit was confirmed; returns their ids."""
        path = func if "." in func else f"{TASKS}.{func}"
        ids: list[str] = []
        parsed = TaskOptions.of(**options)
        with self.session() as session:
            while len(ids) < count:
                tasks = [make_task(path, args, options=parsed) for _ in range(min(chunk, count - len(ids)))]
                queue.enqueue_many(session.cursor(), tasks)
                ids += [task.id.hex for task in tasks]
                self.acknowledged += [task.id.hex for task in tasks]
        return ids

    def left(self) -> int:
        """How many tasks are live."""
        return int(self.value("SELECT count(*) FROM pgq_queue"))

    # ------------------------------------------------------------------------------------------- the nemesis

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal that ends a process."""
        # Read before: on a busy machine its task may run again before the clock is read.
        now = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            self.deaths.setdefault(pid, now)

    def freeze(self, *pids: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self.frozen.setdefault(pid, time.monotonic())

    def thaw(self, *pids: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def busy_pid(self, timeout: float = 20.0) -> int:
        """Return a process in which a task runs at the moment."""

        def look() -> int:
            running = [
                run.pid
                for several in self.runs().values()
                for run in several
                if run.ended is None and is_alive(run.pid)
            ]
            return random.choice(running) if running else 0

        return wait_for(look, "a task is running", timeout)

    # ------------------------------------------------------------------------------------------- judging

    def runs(self) -> dict[str, list[trace.Run]]:
        return trace.read(self.oracle.path)

    def starts(self) -> int:
        return sum(map(len, self.runs().values()))

    def drain(self, timeout: float = 60.0) -> float:
        """Wait until nothing is live; return the seconds it took."""
        began = time.monotonic()
        wait_for(lambda: not self.left(), "the queue is empty", timeout, 0.05)
        return time.monotonic() - began

    def check(self, **options: Any) -> trace.Verdict:
        """Judge by the trace and the tables; see `trace.check`."""
        with self.session() as session:
            return trace.check(
                session,
                self.oracle.path,
                self.acknowledged,
                unknown=self.unknown,
                frozen=self.frozen,
                deaths=self.deaths,
                **options,
            )

    def recovery(self, func: str = "work", timeout: float = 30.0) -> float:
        """Enqueue one more task; return the seconds until it has started (I7)."""
        began = time.monotonic()
        (task,) = self.enqueue(func)
        until(lambda: self.runs().get(task), timeout)
        return self.runs()[task][0].started - began


class OwnServer:
    """A PostgreSQL that a test may crash."""

    def __init__(self, **settings: Any) -> None:
        defaults = {"fsync": "off", "max_connections": 100, "shared_buffers": "32MB", "max_wal_size": "1GB"}
        self.server = Server(settings={**defaults, **settings})
        self.server.start()

    @property
    def dsn(self) -> str:
        return self.server.dsn

    def postmaster(self) -> int:
        """Its pid."""
        return int((self.server.data / "postmaster.pid").read_text().split()[0])

    def crash(self) -> None:
        """SIGQUIT to the postmaster, as `pg_ctl -m immediate`: nothing is written, the next start recovers."""
        pid = self.postmaster()
        os.kill(pid, signal.SIGQUIT)
        wait_for(lambda: not is_alive(pid), "PostgreSQL has ended", 20)

    def kill(self) -> None:
        """SIGKILL to the postmaster and its children."""
        pid = self.postmaster()
        children = children_of(pid)
        for each in (pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, (pid, *children))), "PostgreSQL is dead", 20)

    def start(self) -> None:
        self.server.start()

    def remove(self) -> None:
        self.server.stop()


@contextlib.contextmanager
def a_site(folder: Path, server_dsn: str, *, show: bool = True) -> Iterator[Site]:
    """Make a site, and have nothing left of it afterwards."""
    site = Site(folder, make_database(server_dsn))
    left: list[str] = []
    try:
        yield site
    finally:
        left = site.destroy(show=show)
        with contextlib.suppress(psycopg.OperationalError):
            drop_database(server_dsn, site.dsn)
    assert not left, f"processes were left behind: {left}"
