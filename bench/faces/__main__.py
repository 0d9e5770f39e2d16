"""Does every page, command and endpoint answer within a second where there is much to show?

::

    python -m bench.faces                       10,000,000 results, 1,000,000 queued tasks in 1,000 lanes: 20 minutes
    python -m bench.faces --results 100000 --queued 10000 --history 0.02
    python -m bench.faces --only page --slow 0.2    only the dashboard, and which statements take longer than that

Each is asked four times by Django's test client, or in this process; the first time loads templates and fills caches
and does not count. The time is the median of the others. The bounds are one second and 20 statements, for all of them.

The database is a new one, made and dropped in the server of DATABASE_URL, or in one that is started for the occasion.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bench.faces.fill import FUNCTIONS, KEYS, POOLS, PRIORITIES, QUEUES, SCHEDULES, Size, fill
from bench.lab import postmaster
from bench.measure import cpu_seconds
from bench.tables import table
from pgq.contrib.embedded import Server

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "explain" / "faces.md"
#: Seconds, and statements.
BOUND, MOST = 1.0, 20
TIMES = 3
SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "16GB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
KINDS = {
    "page": "pages of the dashboard", "admin": "lists and rows in the admin", "rest": "endpoints of REST",
    "command": "commands", "sql": "views and functions",
}  # fmt: skip
#: How many of the slowest the report names.
NAMED = 10


class Answered(NamedTuple):
    """What asking once or several times has shown."""

    kind: str
    name: str
    seconds: float
    #: Of the processor, in this process and in PostgreSQL; None: that is elsewhere.
    processor: float | None
    statements: int
    size: int
    #: What went wrong; "": nothing.
    fault: str
    #: The statements that took longest, and for how long.
    slow: tuple[tuple[float, str], ...]

    @property
    def weight(self) -> float:
        """What is held against the bound: the time, or where the machine does other work as well, the processor's."""
        return self.seconds if self.processor is None else min(self.seconds, self.processor)

    @property
    def is_good(self) -> bool:
        return not self.fault and self.weight <= BOUND and self.statements <= MOST


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make(server: str, name: str, size: Size) -> str:
    """Make a database and fill it; return its connection string. From then on Django uses it."""
    dsn = make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    os.environ.update(DATABASE_URL=dsn, DJANGO_SETTINGS_MODULE="bench.faces.settings", BENCH_PGQ="{}")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    User.objects.create_superuser("admin")
    fill(dsn, size, say)
    return dsn


def measure(
    kinds: Sequence[str], times: int = TIMES, slow: float | None = None, server: int | None = None
) -> list[Answered]:
    """Ask everything of these kinds. `server`: the pid of PostgreSQL, whose processor time counts."""
    from django.contrib.auth.models import User
    from django.test import Client

    from bench.faces import ask
    from pgq.admin.dashboard import look
    from pgq.urls import endpoint

    # How long it takes is what is asked here, so none of it is given up: else a busy machine would have no answers.
    look.STATEMENT_SECONDS = look.PAGE_SECONDS = endpoint.PATIENCE = 60.0
    client = Client()
    client.force_login(User.objects.get())
    asked = [each for each in ask.everything(client, ask.Known.of()) if each.kind in kinds]
    found = []
    for each in asked:
        found.append(_answered(each, times, server))
        last = found[-1]
        if not last.is_good or (slow is not None and last.weight >= slow):
            say(f"{last.seconds:7.3f} s {last.weight:7.3f} s {last.statements:4d} {last.name} {last.fault}")
            for seconds, text in last.slow if slow is not None else ():
                say(f"        {seconds:7.3f} s {' '.join(text.split())[:1500]}")
    return found


def _answered(each: Any, times: int, server: int | None) -> Answered:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    taken, busy, size, statements = [], [], 0, []
    try:
        each.do()
        for _ in range(times):
            began, before = time.perf_counter(), _processor(server)
            with CaptureQueriesContext(connection) as captured:
                size = each.do()
            taken.append(time.perf_counter() - began)
            busy.append(_processor(server) - before)
            statements = captured.captured_queries
    except Exception as error:
        return Answered(each.kind, each.name, 0.0, None, 0, 0, f"{type(error).__name__}: {error}"[:500], ())
    slowest = sorted(((float(one["time"]), str(one["sql"])) for one in statements), reverse=True)[:2]
    return Answered(
        each.kind,
        each.name,
        statistics.median(taken),
        None if server is None else statistics.median(busy),
        len(statements),
        size,
        "",
        tuple(slowest),
    )


def _processor(server: int | None) -> float:
    """Return the processor time of this process, and of the server that has that pid."""
    return time.process_time() + (0.0 if server is None else cpu_seconds([server]))


# ------------------------------------------------------------------------------------------------- the report


def report(found: Sequence[Answered], size: Size, machine: str, times: int = TIMES) -> str:
    """Return the page of the documentation."""
    kinds = [
        [
            words, f"{len(those):,}", f"{statistics.median(one.weight for one in those) * 1000:,.0f} ms",
            f"{max(one.weight for one in those) * 1000:,.0f} ms", f"{max(one.statements for one in those)}",
        ]
        for kind, words in KINDS.items()
        if (those := [one for one in found if one.kind == kind])
    ]  # fmt: skip
    slowest = sorted(found, key=lambda one: -one.weight)[:NAMED]
    rows = [
        [f"`{_short(one.name)}`", f"{one.weight * 1000:,.0f} ms", f"{one.statements}", f"{one.size / 1000:,.0f} kB"]
        for one in slowest
    ]
    return f"""\
# What the pages cost

Made by `make bench-faces`; edit nothing here by hand. It asks every page, list, endpoint, command and view, in several
ways each, of a database with {size.results:,} results and {size.queued:,} queued tasks in {QUEUES * PRIORITIES:,} lanes
and of {KEYS:,} keys with a limit, {FUNCTIONS} functions, {POOLS} pools, {SCHEDULES:,} schedules, and roll-ups of the
whole time for which they are kept. The bounds, for each of them, are {BOUND:g} second and {MOST} statements.

{machine}

{table(["", "asked", "median", "slowest", "most statements"], kinds)}

A time is the median of {times}, after one that does not count: of the processor's, in the process that answers and in
PostgreSQL, if the machine did other work meanwhile. The slowest:

{table(["", "time", "statements", "size"], rows)}

Nothing here counts, or sorts, a table: what may be large is counted up to a bound and then said to be more, or is read
from its newest end, or from the [roll-ups](../operate/metrics.md). What treats all tasks that match, as `pgq_queues
cancel` does, goes through the tables window by window instead, says how far it is, and takes as long as that takes.
"""


def _short(name: str) -> str:
    return name.replace("/admin/pgq/", "") if len(name) < 90 else name.replace("/admin/pgq/", "")[:87] + "..."


def _machine(server: str) -> str:
    with psycopg.connect(server) as connection:
        version = connection.info.parameter_status("server_version")
    when = time.strftime("%Y-%m-%d", time.gmtime())
    return f"{when}, {os.cpu_count()} processors, PostgreSQL {version}, Python {sys.version.split()[0]}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faces", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--results", type=int, default=Size().results)
    parser.add_argument("--queued", type=int, default=Size().queued)
    parser.add_argument("--history", type=float, default=1.0, help="share of the roll-ups (default: 1, all of it)")
    parser.add_argument("--only", action="append", choices=tuple(KINDS), help="what to ask (default: everything)")
    parser.add_argument("--slow", type=float, metavar="SECONDS", help="show what takes longer, and its statements")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each is asked, after the first time")
    parser.add_argument("--name", default="pgq_bench_faces", help="of the database (default: pgq_bench_faces)")
    parser.add_argument("--keep", action="store_true", help="leave the database there, and use the one that is there")
    parser.add_argument("--json", type=Path, help="write all that was measured into this file")
    parser.add_argument("--out", type=Path, help="write the page here (default: the documentation, of a full run)")
    options = parser.parse_args(arguments)
    size, began = Size(options.results, options.queued, options.history), time.monotonic()
    with ExitStack() as stack:
        url = os.environ.get("DATABASE_URL")
        server = make_conninfo(url) if url else stack.enter_context(Server(settings=SETTINGS)).dsn
        name = options.name
        if not (options.keep and _is_there(server, name)):
            make(server, name, size)
        else:
            _use(make_conninfo(server, dbname=name))
        found = measure(options.only or tuple(KINDS), options.times, options.slow, server=postmaster(server))
        machine = _machine(server)
        if not options.keep:
            _drop(server, name)
    text = report(found, size, machine, options.times)
    print(text)
    is_full = size == Size() and not options.only
    if options.out or is_full:
        (options.out or REPORT).write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([one._asdict() for one in found], indent=1), encoding="utf-8")
    bad = [one for one in found if not one.is_good]
    for one in bad:
        taken = f"{one.seconds:.3f} s ({one.weight:.3f} of the processor), {one.statements} statements"
        print(f"BEYOND THE BOUNDS: {taken}: {one.name} {one.fault}")
    say(f"{len(found)} were asked, {len(bad)} are beyond the bounds ({time.monotonic() - began:,.0f} s)")
    return 1 if bad else 0


def _is_there(server: str, name: str) -> bool:
    with psycopg.connect(server) as admin:
        return admin.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def _use(dsn: str) -> None:
    os.environ.update(DATABASE_URL=dsn, DJANGO_SETTINGS_MODULE="bench.faces.settings", BENCH_PGQ="{}")
    import django

    django.setup()


def _drop(server: str, name: str) -> None:
    from django.db import connections

    connections.close_all()
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


if __name__ == "__main__":
    sys.exit(main())
