"""Limits under fire: pools work on random keys with random limits, which are changed, while all that can fail fails.

    python -m tests.soak.flow --starts 1000000

Round after round, each with a seed of its own, which is printed: a producer enqueues, a nemesis kills and freezes
workers and pools, ends sessions and crashes PostgreSQL; then all is drained, and the oracle of `tests.support.flow`
judges. The limits hold under valid leases, no window has more than its rate, no unique key is doubled, the order is as
promised, no task is lost; and between the storms no key with a ready task and room is left alone for 2 s.
`--seed N --starts 1` runs a round again. Exit code 0 if all is well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import django
import psycopg
import pytest

from tests.soak.faults import Nemesis
from tests.support import flow
from tests.support.flow import History, Promise

if TYPE_CHECKING:
    from tests.support.pools import Pool
    from tests.support.site import OwnServer, Site

WORK = "tests.functions.flow.work"
#: Seconds that a key with a ready task and room may be left alone: of looks between which others are claimed (a busy
#: machine may stop all of it for longer); and in all.
IDLE, ALL_IDLE = 2.0, 6.0
#: So many tasks live at most: were the pools slower than the producer, those of the higher priority alone would be run.
BACKLOG = 1500
#: Of all pools, with some that were killed in the middle of a turn.
WORKERS = 8
#: Seconds within which pools are as they were, after the worst of it: leases of QUICK are 3 s.
RECOVERY = 6.0


@dataclass
class Report:
    """What is printed."""

    seed: int
    rounds: int = 0
    starts: int = 0
    #: Of processes that were frozen, when the lease was over.
    late: int = 0
    tasks: int = 0
    limits_set: int = 0
    #: Seconds of which it was judged whether a key is left alone.
    calm: float = 0.0
    #: The longest that one was left alone in them.
    longest_idle: float = 0.0
    attacks: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


class Limits:
    """The limits, and what is known of the values they may have."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        most = History
        self.promises = [
            Promise("key", "one", most()),
            Promise("key", "two", most()),
            Promise("key", "wild", most()),
            Promise("key", "fifo", most(), order="fifo"),
            Promise("key", "strict", order="strict"),
            Promise("key", "rated", rate=most(), period=0.5),
            Promise("key", "smooth", rate=most(), period=1.0, smooth=True),
            Promise("key", "both", most(), rate=most(), period=1.0),
            Promise("queue", "narrow", most()),
            Promise("queue", "slow", rate=most(), period=1.0),
        ]

    def values(self, promise: Promise, *, holding: bool) -> tuple[int | None, int | None]:
        """Return a concurrency and a rate by chance; if not `holding`, the largest."""
        choose = self.rng.choice if holding else max
        fixed = {"one": 1, "two": 2, "fifo": choose((1, 1, 0))}
        concurrency = None if promise.concurrency is None else fixed.get(promise.name, choose((0, 1, 2, 3, 5)))
        rate = None if promise.rate is None else choose((21, 40, 100, 250) if promise.smooth else (5, 20, 100, 400))
        return concurrency, rate

    def set(self, site: Site, promise: Promise, *, holding: bool = True) -> None:
        concurrency, rate = self.values(promise, holding=holding)
        began, confirmed = time.time(), None
        with suppress(psycopg.Error), site.session(connect_timeout=2) as session:
            session.execute(
                "SELECT pgq_set_limit(%s, %s, %s, %s, %s, %s, %s)",
                (promise.name, concurrency, rate, None if rate is None else promise.period, promise.smooth,
                 promise.order == "strict", promise.scope),
            )  # fmt: skip
            confirmed = time.time()
        for history, value in ((promise.concurrency, concurrency), (promise.rate, rate)):
            if history is not None and value is not None:
                history.set(value, began, confirmed)

    def set_all(self, site: Site) -> None:
        for promise in self.promises:
            self.set(site, promise, holding=False)


class Producer(threading.Thread):
    """Enqueues at a pace: most tasks as Python does, those that are unique as psql does."""

    def __init__(self, site: Site, rate: float, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self.site, self.rate, self.rng = site, rate, rng
        self.stop = threading.Event()
        self.sent = 0

    def run(self) -> None:
        session: psycopg.Connection[Any] | None = None
        while not self.stop.wait(self.rng.expovariate(self.rate / 20)):
            try:
                if session is None or session.closed:
                    session = self.site.session(connect_timeout=2)
                [(live,)] = session.execute("SELECT count(*) FROM pgq_queue").fetchall()
                if live < BACKLOG:
                    self._enqueue(session)
                    self._enqueue_unique(session)
                    self.sent += 20
            except psycopg.Error:
                if session is not None:
                    session.close()
        if session is not None:
            session.close()

    def _enqueue(self, session: psycopg.Connection[Any]) -> None:
        from pgq.enqueue.make import make_task
        from pgq.records.options import TaskOptions
        from pgq.store import queue

        choose, tasks = self.rng.choice, []
        for _ in range(18):
            name = self.rng.choices(
                ("one", "two", "wild", "both", "fifo", "strict", "rated", "smooth", "free"),
                (12, 12, 12, 6, 10, 3, 8, 4, 20),
            )[0]  # fmt: skip
            ordered = name in ("fifo", "strict")
            options: dict[str, Any] = {
                "key": f"{name}:{self.rng.randrange(4)}",
                "queue": "default" if ordered else choose(("default", "default", "narrow", "slow")),
                "priority": 0 if ordered else choose((0, 0, 0, 1)),
                "max_attempts": 10,
                "retry_backoff": 0.05,
            }
            fail = int(not ordered and self.rng.random() < 0.03) or 2 * int(
                name == "strict" and self.rng.random() < 0.2
            )
            tasks.append(make_task(WORK, (choose((0, 0, 0, 0.001, 0.005)), fail), options=TaskOptions.of(**options)))
        queue.enqueue_many(session.cursor(), tasks)

    def _enqueue_unique(self, session: psycopg.Connection[Any]) -> None:
        for until in ("start", "end"):
            key = f"u-{until}-{self.rng.randrange(3)}"
            session.execute(
                "INSERT INTO pgq_queue (func, args, key, unique_key, unique_until, max_attempts)"
                " VALUES (%s, '[0.002, 0]', %s, %s, %s, 10) ON CONFLICT DO NOTHING",
                (WORK, self.rng.choice((None, "two:u")), key, until),
            )


class Alone(NamedTuple):
    """A key with a ready task and room that is left alone."""

    #: Monotonic; a claim begins it anew.
    since: float
    #: Seconds of looks between which others were claimed.
    counted: float = 0.0


class Watch(threading.Thread):
    """Looks whether a key with a ready task and room is left alone."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.stop = threading.Event()
        #: Until then (monotonic) something that was done may be the cause.
        self.disturbed = time.monotonic() + RECOVERY
        self.calm = self.longest = 0.0
        self.found: list[str] = []

    def disturb(self, seconds: float) -> None:
        self.disturbed = max(self.disturbed, time.monotonic() + seconds)

    def run(self) -> None:
        since: dict[str, Alone] = {}
        looked = time.monotonic()
        while not self.stop.wait(0.1):
            try:
                with self.site.session(connect_timeout=2) as session:
                    while not self.stop.wait(0.1):
                        rows = session.execute(flow.IDLE).fetchall()  # type: ignore[arg-type]
                        now, before = time.monotonic(), looked
                        looked = now
                        if now < self.disturbed or now - before > 0.6:
                            # The machine is too busy even for this.
                            since = {}
                            continue
                        self.calm += now - before
                        since = self._judge(session, rows, since, before, now)
            except psycopg.Error:
                since = {}

    def _judge(
        self, session: psycopg.Connection[Any], rows: list[Any], since: dict[str, Alone], before: float, now: float
    ) -> dict[str, Alone]:
        offset = time.time() - now
        [(last,)] = session.execute(
            "SELECT coalesce(extract(epoch FROM max(at))::float8, 0) FROM noted_claim"
        ).fetchall()
        counts = now - before if last - offset > before else 0.0
        alone = {}
        for name, claimed, queue, keys in rows:
            known = since.get(name)
            if known is None or claimed - offset > known.since:
                known = Alone(now)
            else:
                known = Alone(known.since, known.counted + counts)
            passed = now - known.since
            late = known.counted > IDLE or passed > ALL_IDLE
            if late and keys:
                # The rate of its queue lets few start: a turn of all keys may take as long. Each worker has one.
                [(others,)] = session.execute(
                    "SELECT count(*) FROM noted_claim WHERE queue = %s AND at > to_timestamp(%s)",
                    (queue, known.since + offset),
                ).fetchall()
                late = others > WORKERS * keys or not others
            else:
                self.longest = max(self.longest, known.counted)
            if late:
                why = session.execute(flow.WHY_IDLE, {"name": name}).fetchall()  # type: ignore[arg-type]
                self.found.append(f"{name} has a ready task and room, and was left alone for {passed:.1f} s: {why}")
                known = Alone(now)
            alone[name] = known
        return alone


class OfPlaces(Nemesis):
    """The workers of one of its pools run several tasks at the same time."""

    def _start(self, number: int) -> Pool:
        threads = 4 if number % 2 else 1
        return self.site.start(
            "--name", f"pool{number}", ready=False, workers=2, threads=threads, max_crashes=1000, **self.settings
        )


class Round:
    """One round: so many seconds of it all, and then the judgement."""

    def __init__(self, site: Site, server: OwnServer, seed: int, limits: Limits, nemesis: Nemesis) -> None:
        self.site, self.server, self.rng, self.limits, self.nemesis = site, server, random.Random(seed), limits, nemesis

    def run(self, report: Report, seconds: float, rate: float, storm: float) -> None:
        site, watch = self.site, Watch(self.site)
        limits = self.limits
        limits.rng = self.nemesis.rng = self.rng
        limits.set_all(site)
        producer = Producer(site, rate, random.Random(self.rng.random()))
        producer.start()
        watch.start()
        until, stormy = time.monotonic() + seconds, time.monotonic() + seconds * storm
        while time.monotonic() < until:
            time.sleep(self.rng.uniform(0.1, 0.5))
            limits.set(site, self.rng.choice(limits.promises))
            report.limits_set += 1
            if time.monotonic() < stormy:
                self.nemesis.attack()
                watch.disturb(RECOVERY)
            elif self.rng.random() < 0.3:
                # One of several workers at most: the others work on.
                self.nemesis.kill_worker()
                self.nemesis.done["kill_worker"] += 1
        limits.set_all(site)
        producer.stop.set()
        producer.join(30)
        site.drain(timeout=120)
        watch.stop.set()
        watch.join(10)
        report.calm += watch.calm
        report.longest_idle = max(report.longest_idle, watch.longest)
        self._judge(report, watch.found)

    def _judge(self, report: Report, found: list[str]) -> None:
        with self.site.session() as session:
            notes = flow.read(session, self.site.oracle.path)
            wrong = found + flow.check(notes, self.limits.promises)
            ended = {row[0].hex for row in session.execute("SELECT id FROM pgq_task").fetchall()}
            wrong += [f"{id_} is lost" for id_ in notes.inserts.keys() - ended]
            flow.clear(session, self.site.oracle.path)
            session.execute("TRUNCATE pgq_task")
        report.rounds += 1
        report.starts += notes.starts
        report.late += notes.late
        report.tasks += len(notes.inserts)
        report.violations += wrong[:20]


def run(
    starts: int, seed: int, folder: Path, *, seconds: float = 30.0, rate: float = 500.0, storm: float = 0.5,
    crashes: bool = True, show: bool = False, mutant: str = "",
) -> Report:  # fmt: skip
    """Run rounds of `seconds` until so many tasks have started or something is wrong. Django is set up.

    Args:
        rate: Tasks a second that are enqueued.
        storm: The part of a round in which the nemesis does its worst.
        crashes: Whether PostgreSQL is among what fails.
    """
    from tests.support.site import OwnServer, a_site

    report, server = Report(seed), OwnServer()
    try:
        with a_site(folder, server.dsn, show=False) as site:
            with site.session() as session:
                session.execute(flow.NOTES)  # type: ignore[arg-type]
            limits = Limits(random.Random(seed))
            limits.set_all(site)
            nemesis = OfPlaces(site, server, random.Random(seed), crashes=crashes, mutant=mutant, allowed=[WORK])
            for pool in nemesis.pools:
                pool.wait_until_ready()
            while report.starts < starts and not report.violations:
                number = seed + report.rounds
                if show:
                    print(f"round {report.rounds}: seed {number}, {report.starts} starts", flush=True)
                Round(site, server, number, limits, nemesis).run(report, seconds, rate, storm)
            report.attacks = dict(nemesis.done)
            report.violations += site.stop()
    except (AssertionError, pytest.fail.Exception) as error:
        report.violations.append(str(error))
    finally:
        server.remove()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=500.0, help="tasks a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a round (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--mutant", default="", help="the guard that the pools lack, of tests.support.mutants")
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    print(f"{options.starts} starts, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            options.starts, options.seed, Path(folder),
            seconds=options.seconds, rate=options.rate, show=True, mutant=options.mutant,
        )  # fmt: skip
    print(json.dumps(asdict(report)))
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
