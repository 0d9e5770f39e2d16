"""The endpoint that Prometheus scrapes: read from tables that upkeep keeps, so it costs the same at any size.

Every process that serves it answers the same: the numbers are the database's, not the process's.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpResponse

from pgq import __version__
from pgq.models import Schedule
from pgq.recurrence import moments
from pgq.status import findings, metrics
from pgq.status.pools import Stat
from pgq.store import overview, schema, statistics
from pgq.store import pools as store_pools
from pgq.store.metrics import OUTCOMES
from pgq.urls.endpoint import Call, endpoint
from pgq.urls.exposition import COUNTER, GAUGE, HISTOGRAM, OPEN, PLAIN, Family, render, wants_open
from pgq.urls.found import LIVE

#: Upper bounds of histograms: powers of two of microseconds, from half a millisecond to more than two hours.
_POWERS = range(9, 34)
#: Schedules that have a sample each.
_SCHEDULES = 500
_STATUSES = {findings.OK: 0, findings.WARNING: 1, findings.PROBLEM: 2}


@endpoint(
    "GET",
    "metrics",
    "Tell the metrics, as Prometheus reads them; OpenMetrics by the header Accept",
    scope="metrics",
    permissions=("view_dashboard",),
    answer="Metrics",
)
def scrape(call: Call) -> Any:
    """Return the text."""
    began = time.monotonic()
    families = [family for part in _PARTS for family in part(call)]
    duration = Family("pgq_scrape_duration_seconds", GAUGE, "Seconds that reading all of this took.")
    duration.add(time.monotonic() - began)
    is_open = wants_open(call.request.headers.get("Accept", ""))
    text = render([*families, duration], is_open=is_open)
    return HttpResponse(text, content_type=OPEN if is_open else PLAIN, headers={"Vary": "Accept"})


def _totals(call: Call) -> Iterator[Family]:
    tasks = Family("pgq_tasks", COUNTER, "Reports of tasks, by how the attempt ended.")
    run = Family("pgq_task_run_seconds", HISTOGRAM, "How long attempts ran.")
    wait = Family("pgq_task_wait_seconds", HISTOGRAM, "How long tasks waited from ready to claimed.")
    times: dict[str, tuple[_Times, _Times]] = {}
    for total in metrics.totals(call.cursor):
        for outcome in OUTCOMES:
            number = getattr(total.counts, outcome)
            if number:
                tasks.add(number, queue=total.queue, func=total.func, outcome=outcome)
        runs, waits = times.setdefault(total.queue, (_Times(), _Times()))
        runs.add(total.runs, total.run_seconds)
        waits.add(total.waits, total.wait_seconds)
    for queue, (runs, waits) in times.items():
        run.add_histogram(runs.bounds(), runs.counts.total(), runs.seconds, queue=queue)
        wait.add_histogram(waits.bounds(), waits.counts.total(), waits.seconds, queue=queue)
    yield from (tasks, run, wait)


class _Times:
    """Histograms of several functions, added up."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.seconds = 0.0

    def add(self, counts: Mapping[int, int], seconds: float) -> None:
        self.counts.update(counts)
        self.seconds += seconds

    def bounds(self) -> list[tuple[float, int]]:
        """Return the upper bounds that are told, and how many do not exceed each."""
        # A time of fewer than 2**power microseconds has as many bits at most, and two buckets for each number of bits.
        return [
            (2**power / 1e6, sum(count for bucket, count in self.counts.items() if bucket <= 2 * power + 1))
            for power in _POWERS
        ]


def _queues(call: Call) -> Iterator[Family]:
    tasks = Family("pgq_queue_tasks", GAUGE, "Live tasks, by state, at the last look of upkeep.")
    exact = Family("pgq_queue_exact", GAUGE, "0 if the number of ready tasks is an estimate.")
    oldest = Family("pgq_queue_oldest_ready_seconds", GAUGE, "Seconds since the first ready task became ready.")
    paused = Family("pgq_queue_paused", GAUGE, "1 while nothing is claimed from the queue.")
    workers = Family("pgq_queue_workers", GAUGE, "Workers that serve the queue.")
    drain = Family("pgq_queue_drain_seconds", GAUGE, "Until the queue is empty, if all goes on so; +Inf: it is not.")
    stale = Family("pgq_scrape_stale_seconds", GAUGE, "Seconds since upkeep last looked at the queues.")
    ready: dict[str, int] = {}
    now = metrics.now(call.cursor)
    for gauge in metrics.gauges(call.cursor):
        if not gauge.queue:
            stale.add((now - gauge.at).total_seconds())
            continue
        ready[gauge.queue] = gauge.ready
        for state in LIVE:
            tasks.add(getattr(gauge, state), queue=gauge.queue, state=state)
        exact.add(int(gauge.exact), queue=gauge.queue)
        oldest.add(gauge.oldest_ready or 0.0, queue=gauge.queue)
        paused.add(int(gauge.paused), queue=gauge.queue)
        workers.add(gauge.workers, queue=gauge.queue)
    for queue, seconds in _drains(call, ready, now).items():
        drain.add(seconds, queue=queue)
    yield from (tasks, exact, oldest, paused, workers, drain, stale)


def _drains(call: Call, ready: Mapping[str, int], now: datetime) -> dict[str, float]:
    """Return in how many seconds queues are empty, of those that upkeep has looked at for some minutes."""
    found = {}
    for one in metrics.series(call.cursor, "ready", start=now - timedelta(minutes=6), end=now, step=60, by="queue"):
        known = [(point.at, point.value) for point in one.points if point.value is not None]
        if len(known) < 2 or one.key not in ready:
            continue
        (begin, first), (end, last) = known[0], known[-1]
        # What ends less what comes is by how much the queue gets shorter.
        fewer = (first - last) / (end - begin).total_seconds()
        found[one.key] = 0.0 if not last else last / fewer if fewer > 0 else math.inf
    return dict(sorted(found.items()))


def _pools(call: Call) -> Iterator[Family]:
    pools = Family("pgq_pools", GAUGE, "Pools that live.")
    workers = Family("pgq_workers", GAUGE, "Worker processes, by what they do.")
    age = Family("pgq_pool_heartbeat_age_seconds", GAUGE, "Seconds since the last heartbeat of the pools of that name.")
    alive: Counter[str] = Counter()
    states: Counter[tuple[str, str]] = Counter()
    ages: dict[str, float] = {}
    for pool in map(Stat.of, store_pools.pools(call.cursor)):
        ages[pool.name] = max(ages.get(pool.name, 0.0), pool.silent)
        alive[pool.name] += pool.is_alive
        if pool.is_alive:
            states.update((pool.name, process.state) for process in pool.processes)
    for name, number in sorted(alive.items()):
        pools.add(number, pool=name)
        age.add(ages[name], pool=name)
    for (name, state), number in sorted(states.items()):
        workers.add(number, pool=name, state=state)
    if not alive:
        pools.add(0, pool="")
    yield from (pools, workers, age)


def _schedules(call: Call) -> Iterator[Family]:
    errors = Family("pgq_schedule_errors", GAUGE, "Schedules that could not be fired.")
    following = Family("pgq_schedule_next_run_timestamp_seconds", GAUGE, "When a schedule fires next.")
    errors.add(overview.schedule_counts(call.cursor)[2])
    rows = Schedule.objects.using(call.database).filter(paused=False, next_run__isnull=False).exclude(repeats=0)
    for pk, name, at in rows.order_by("pk").values_list("pk", "name", "next_run")[:_SCHEDULES]:
        following.add(None if at is None else moments.aware(at).timestamp(), schedule=name or str(pk))
    yield from (errors, following)


def _checks(call: Call) -> Iterator[Family]:
    checks = Family("pgq_check_status", GAUGE, "What a check found last: 0 ok, 1 warning, 2 problem.")
    for finding in metrics.findings(call.cursor):
        checks.add(_STATUSES.get(finding.status, 2), check=finding.check)
    yield checks


def _server(call: Call) -> Iterator[Family]:
    size = Family("pgq_table_bytes", GAUGE, "Size of a table with its indexes.")
    dead = Family("pgq_table_dead_rows", GAUGE, "Rows that vacuum has not removed yet.")
    inserted = Family("pgq_rows_inserted", COUNTER, "Rows written to a table since PostgreSQL's statistics were reset.")
    for table in statistics.table_statistics(call.cursor):
        size.add(table.bytes, table=table.table)
        dead.add(table.dead_rows, table=table.table)
        inserted.add(table.inserted, table=table.table)
    server = statistics.server_statistics(call.cursor)
    horizon = Family("pgq_horizon_age_seconds", GAUGE, "Age of the oldest transaction that keeps vacuum from its work.")
    horizon.add(server.horizon_age or 0.0)
    usage = Family("pgq_notification_queue_usage_ratio", GAUGE, "How full PostgreSQL's queue of notifications is.")
    usage.add(server.notifications)
    build = Family("pgq_build_info", GAUGE, "The release that answers, and the version of the tables that it needs.")
    build.add(1, version=__version__, schema=str(schema.VERSION))
    yield from (size, dead, inserted, horizon, usage, build)


_PARTS = (_totals, _queues, _pools, _schedules, _checks, _server)
