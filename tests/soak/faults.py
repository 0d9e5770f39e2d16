"""Everything at once: two pools under load while a nemesis kills, freezes, cuts off and restarts, for as long as asked.

    python -m tests.soak.faults --minutes 30

Then the oracle of the fault suite judges: nothing lost, nothing run twice under a valid lease, the ledger of the atomic
tasks exact, and no process, session, lock or memory leaked. Prints one line of JSON; exit code 0 if all is well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import psycopg
import pytest

if TYPE_CHECKING:
    from pgq.records import NewTask
    from tests.support.pools import Pool
    from tests.support.site import OwnServer, Site

#: Shares of what is enqueued.
MIX = (("work", 0.0, 60), ("work", 0.02, 20), ("ledger", 0.0, 15), ("fail", 0.0, 5))
#: Leases of QUICK are 3 s.
FREEZE = (0.5, 8.0)


@dataclass
class Report:
    """What is printed."""

    seconds: float = 0.0
    seed: int = 0
    tasks: int = 0
    runs: int = 0
    repeated: int = 0
    overlap_expired: int = 0
    unknown: int = 0
    attacks: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    #: Growth of the medians from the second quarter of the time to the last, in per cent.
    growth: dict[str, float] = field(default_factory=dict)


class Producer(threading.Thread):
    """Enqueues at a steady pace and notes what was acknowledged, what was refused and of what nobody knows."""

    def __init__(self, site: Site, rate: float, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self.site, self.rate, self.rng = site, rate, rng
        self.stop = threading.Event()
        self.failing: set[str] = set()

    def run(self) -> None:
        from pgq.enqueue.make import make_task
        from pgq.records.options import TaskOptions
        from tests.support.site import TASKS

        names, seconds, weights = zip(*MIX, strict=True)
        session: psycopg.Connection[Any] | None = None
        while not self.stop.wait(self.rng.expovariate(self.rate / 10)):
            tasks = []
            for name, nap in self.rng.choices(list(zip(names, seconds, strict=True)), weights, k=10):
                task = make_task(f"{TASKS}.{name}", (nap,), options=TaskOptions(max_attempts=3, retry_backoff=0.1))
                tasks.append(task)
                if name == "fail":
                    self.failing.add(task.id.hex)
            session = self._write(session, tasks)
        if session is not None:
            session.close()

    def _write(self, session: psycopg.Connection[Any] | None, tasks: list[NewTask]) -> psycopg.Connection[Any] | None:
        from pgq.store import queue

        ids = [task.id.hex for task in tasks]
        try:
            if session is None or session.closed:
                session = self.site.session()
        except psycopg.Error:
            # Nothing was sent.
            return None
        try:
            queue.enqueue_many(session.cursor(), tasks)
        except psycopg.Error:
            self.site.unknown += ids
            session.close()
            return None
        self.site.acknowledged += ids
        return session


class Nemesis:
    """Does its worst, one thing after the other."""

    def __init__(
        self, site: Site, server: OwnServer, rng: random.Random, *, crashes: bool = True, **settings: Any
    ) -> None:
        """`crashes`: PostgreSQL's, too. `settings`: of the pools, as for `Site.start`."""
        self.site, self.server, self.rng = site, server, rng
        self.crashes, self.settings = crashes, settings
        self.done: Counter[str] = Counter()
        self.pools = [self._start(number) for number in range(2)]

    def _start(self, number: int) -> Pool:
        # A task that is hit by chance again and again is no poison.
        return self.site.start("--name", f"pool{number}", ready=False, workers=2, max_crashes=1000, **self.settings)

    def attack(self) -> None:
        """One of the faults, chosen by its weight."""
        weights: dict[Callable[[], None], int] = {
            self.kill_worker: 30, self.freeze_worker: 10, self.freeze_pool: 10, self.kill_pool: 10, self.stop_pool: 5,
            self.terminate_sessions: 25, self.terminate_one: 10, self.crash_postgresql: 3 * self.crashes,
            self.reload_pool: 5,
        }  # fmt: skip
        fault = self.rng.choices(list(weights), list(weights.values()))[0]
        fault()
        self.done[fault.__name__] += 1

    def _worker_pids(self, pool: Pool) -> list[int]:
        with suppress(psycopg.Error):
            return [row["pid"] for row in pool.report() if row.get("pid")]
        return []

    def kill_worker(self) -> None:
        if pids := self._worker_pids(self.rng.choice(self.pools)):
            self.site.kill(self.rng.choice(pids))

    def freeze_worker(self) -> None:
        if pids := self._worker_pids(self.rng.choice(self.pools)):
            self._freeze([self.rng.choice(pids)])

    def freeze_pool(self) -> None:
        pool = self.rng.choice(self.pools)
        self._freeze(list(pool.processes()))

    def _freeze(self, pids: list[int]) -> None:
        self.site.freeze(*pids)
        time.sleep(self.rng.uniform(*FREEZE))
        self.site.thaw(*pids)

    def kill_pool(self) -> None:
        self._end(signal.SIGKILL)

    def stop_pool(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        place = self.rng.randrange(len(self.pools))
        pool = self.pools[place]
        workers = self._worker_pids(pool)
        pool.signal(number)
        pool.wait(60)
        for pid in workers:
            self.site.deaths.setdefault(pid, time.monotonic())
        self.pools[place] = self._start(place)

    def reload_pool(self) -> None:
        pool = self.rng.choice(self.pools)
        # Before it has handlers, SIGHUP ends it, as it ends any program.
        if f"pid {pool.pid}" in pool.log():
            pool.signal(signal.SIGHUP)

    def terminate_sessions(self) -> None:
        self._terminate("true")

    def terminate_one(self) -> None:
        role = self.rng.choice(["pgq supervisor", "pgq upkeep", "pgq worker"])
        self._terminate(f"application_name = '{role}'")

    def _terminate(self, which: str) -> None:
        with suppress(psycopg.Error), self.site.session() as session:
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {which}"
            )

    def crash_postgresql(self) -> None:
        self.server.crash()
        time.sleep(self.rng.uniform(0.0, 5.0))
        self.server.start()


class Gauge:
    """Samples what must not grow."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {
            "supervisor_pss_mib": [], "sessions": [], "queue_mib": [], "backlog": [],
        }  # fmt: skip
        self.backlog = 0

    def read(self, site: Site, pools: list[Pool]) -> None:
        self.samples["supervisor_pss_mib"].append(max(_pss(pool.pid) for pool in pools))
        with suppress(psycopg.Error), site.session() as session:
            row = session.execute(
                "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),"
                " pg_total_relation_size('pgq_queue') / 1048576.0, (SELECT count(*) FROM pgq_queue)"
            ).fetchone()
            self.samples["sessions"].append(float(row[0]))
            self.samples["queue_mib"].append(float(row[1]))
            # A table stays as large as the largest backlog has made it.
            self.backlog = max(self.backlog, row[2])
            self.samples["backlog"].append(float(self.backlog))

    def wrong(self) -> list[str]:
        """Say what has grown that must not."""
        grown = self.growth()
        of_backlog = max(0.0, grown.pop("backlog", 0.0))
        allowed = {"queue_mib": 25 + of_backlog}
        return [f"{name} grew by {by} %" for name, by in grown.items() if by > allowed.get(name, 25)]

    def growth(self) -> dict[str, float]:
        grown = {}
        for name, values in self.samples.items():
            quarter = len(values) // 4
            if quarter >= 3:
                early, late = _median(values[quarter : 2 * quarter]), _median(values[-quarter:])
                grown[name] = round((late / early - 1) * 100, 1) if early else 0.0
        return grown


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _pss(pid: int) -> float:
    """Return the proportional set size of a process, in MiB; 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def run(seconds: float, seed: int, folder: Path, rate: float = 150.0) -> Report:
    """Run the whole thing on a server of its own. Django is set up."""
    from tests.support.site import OwnServer, a_site

    rng = random.Random(seed)
    report = Report(seconds=seconds, seed=seed)
    server = OwnServer()
    try:
        with a_site(folder, server.dsn, show=False) as site:
            with site.session() as session:
                session.execute("CREATE TABLE ledger (task uuid, receipt uuid)")
            nemesis, gauge = Nemesis(site, server, rng), Gauge()
            for pool in nemesis.pools:
                pool.wait_until_ready()
            producer = Producer(site, rate, random.Random(seed + 1))
            producer.start()
            until, next_sample = time.monotonic() + seconds, 0.0
            while time.monotonic() < until:
                time.sleep(rng.uniform(0.3, 2.0))
                nemesis.attack()
                if time.monotonic() > next_sample:
                    gauge.read(site, nemesis.pools)
                    next_sample = time.monotonic() + max(1.0, seconds / 120)
            producer.stop.set()
            producer.join(30)
            site.drain(timeout=120)
            _judge(report, site, producer)
            report.violations += site.stop()
            report.attacks, report.growth = dict(nemesis.done), gauge.growth()
            report.violations += gauge.wrong()
    except (AssertionError, pytest.fail.Exception) as error:
        report.violations.append(str(error))
    finally:
        server.remove()
    return report


def _judge(report: Report, site: Site, producer: Producer) -> None:
    verdict = site.check(may_fail=producer.failing)
    report.tasks, report.unknown = len(site.acknowledged), len(site.unknown)
    report.runs, report.repeated = verdict.runs, verdict.repeated
    report.overlap_expired = verdict.overlap_expired
    from tests.support.settled import wrong_entries

    report.violations += verdict.violations[:50] + wrong_entries(site, func="%.ledger")[:50]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=150.0, help="tasks a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    print(f"{options.minutes:g} minutes, {options.rate:g} tasks a second, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = run(options.minutes * 60, options.seed, Path(folder), options.rate)
        except BaseException:
            print(f"seed {options.seed}", file=sys.stderr)
            raise
    print(json.dumps(asdict(report)))
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
