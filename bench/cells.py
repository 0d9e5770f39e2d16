"""The cells: each measures one thing about one system, once, in a fresh database, and returns numbers for the JSON."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import psycopg

from bench import measure
from bench.lab import Failed, Family, Lab, Producer
from bench.systems.base import System

#: The counting of finished tasks may take this share of the time, no more,
WATCHING = 0.05
#: but it happens that many times in a drain, however busy the machine.
LOOKS = 8
START_SECONDS = 30
#: Of each of two clients that are compared side by side.
TURNS = 12
Numbers = dict[str, Any]


class Plan(NamedTuple):
    """How much to measure."""

    rounds: int
    workers: tuple[int, ...]
    #: What to drain, and with how many workers; no-op tasks with all of `workers`.
    kinds: tuple[str, ...]
    #: Seconds.
    drain: float
    enqueue: float
    idle: float
    pick_up: float
    load: float
    #: What to drain under limits, with `pool` workers.
    limited: tuple[str, ...] = ("one-key", "keys", "rated")
    #: Probes a second, idle and under load.
    rate: float = 33.0
    #: Workers of the pool in the cells pick-up and kill.
    pool: int = 2
    #: Busy workers that are killed, one after the other.
    kills: int = 25
    #: No round is begun that would not end within so many.
    minutes: float = 40
    #: A drain is timed from this share of its tasks on: before it, workers start, and no system is quick at that.
    warm: float = 0.1


FULL = Plan(rounds=3, workers=(1, 2, 4), kinds=("noop", "cpu", "sleep"), drain=2, enqueue=1, idle=4, pick_up=10, load=5)
QUICK = Plan(
    rounds=1,
    workers=(1, 2, 4),
    kinds=("noop", "cpu", "sleep"),
    drain=1,
    enqueue=1,
    idle=3,
    pick_up=4,
    load=3,
    kills=10,
    minutes=6,
)
TINY = Plan(
    rounds=1,
    workers=(2,),
    kinds=("noop",),
    drain=0.5,
    enqueue=0.1,
    idle=0.2,
    pick_up=0.3,
    load=0.2,
    kills=2,
    limited=(),
)


# --------------------------------------------------------------------------------------------------- enqueue


def enqueue(lab: Lab, system: System, plan: Plan) -> list[Numbers]:
    """One client enqueues one by one, then many at once; the floor also by COPY, and sends notifications."""
    measured = []
    ways = ["one", "many"]
    if hasattr(system, "copy") and system.name == "floor":
        ways = ["one", "copy", "notify"]
    with lab.fresh(system) as dsn, lab.producer(system, dsn) as producer:
        for way in ways:
            if way == "notify":
                trips = sorted(trip / 1e6 for trip in producer.ask(way, seconds=plan.enqueue)["trips"])
                measured.append({"cell": way, "milliseconds": quantiles(trips), "count": len(trips)})
                continue
            producer.ask(way, seconds=min(0.1, plan.enqueue))  # Statements are prepared and caches warm then.
            before, cpu = lab.stats(system, dsn), Cpu(lab, system, producer)
            answer = producer.ask(way, seconds=plan.enqueue)
            used, after = cpu.so_far(), lab.stats(system, dsn)
            count, seconds = answer["count"], answer["seconds"]
            numbers = {"cell": "enqueue", "way": way, "count": count, "seconds": seconds, "rate": count / seconds}
            if before and after:
                numbers["wal_bytes"] = after.since(before).wal_bytes / count
            measured.append(numbers | used.each(count))
    return measured


def side_by_side(lab: Lab, ours: System, floor: System, plan: Plan) -> list[Numbers]:
    """Enqueue with one client of each, in short turns: a disk may be twice as fast a few seconds later."""
    with ExitStack() as stack:
        clients = []
        for system in (ours, floor):
            dsn = stack.enter_context(lab.fresh(system, f"beside_{system.name}"))
            clients.append(stack.enter_context(lab.producer(system, dsn)))
        return [_in_turns(clients, ways, plan.enqueue / 5) for ways in (("one", "one"), ("many", "copy"))]


def _in_turns(clients: list[Producer], ways: tuple[str, str], seconds: float) -> Numbers:
    counts, spent = [0, 0], [0.0, 0.0]
    for turn in range(TURNS + 1):
        for number, (client, way) in enumerate(zip(clients, ways, strict=True)):
            answer = client.ask(way, seconds=seconds)
            if turn:  # In the first, statements are prepared and caches get warm.
                counts[number] += answer["count"]
                spent[number] += answer["seconds"]
    rate, bare = (count / taken for count, taken in zip(counts, spent, strict=True))
    numbers = {"cell": "side by side", "way": ways[0], "count": counts[0]}
    return numbers | {"rate": rate, "bare": bare, "share": rate / bare}


# --------------------------------------------------------------------------------------------------- drain


def drain(lab: Lab, system: System, plan: Plan, *, kind: str, workers: int, rate: float) -> Numbers:
    """Enqueue about as many tasks as take `plan.drain` seconds, then start a pool and watch the finished ones."""
    count = max(20, int(rate * plan.drain))
    with lab.fresh(system) as dsn:
        started = lab.stats(system, dsn)
        with lab.producer(system, dsn) as producer:
            producer.ask("fill", count=count, task=kind)
        if system.server == "postgresql":
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
        filled = lab.stats(system, dsn)
        with _Watcher(lab, system, dsn) as watcher, lab.pool(system, dsn, workers) as pool:
            numbers = _watch(lab, system, pool, watcher, count, plan)
            numbers["pss_bytes"] = measure.pss_bytes(pool.roots)
        ended = lab.stats(system, dsn)
    numbers |= {"cell": "drain", "kind": kind, "workers": workers, "count": count}
    if started and filled and ended:
        whole, run = filled.since(started), ended.since(filled)
        numbers |= {
            "wal_bytes": run.wal_bytes / count,
            "transactions": max(0, run.transactions - watcher.looks) / count,
            "dead_tuples": run.dead_tuples / count,
            "wal_bytes_enqueue": whole.wal_bytes / count,
            "dead_tuples_enqueue": whole.dead_tuples / count,
        }
    return numbers


def _watch(lab: Lab, system: System, pool: Family, watcher: _Watcher, count: int, plan: Plan) -> Numbers:
    began = time.monotonic()
    first: tuple[float, int] | None = None
    last = (began, 0)
    cpu: Cpu | None = None
    limit = began + START_SECONDS + 10 * plan.drain
    while last[1] < count and time.monotonic() < limit:
        pool.check()
        looked = time.monotonic()
        done = watcher.count()
        now = time.monotonic()
        if done > last[1]:
            last = (now, done)
            if first is None and done >= plan.warm * count:
                first, cpu = last, Cpu(lab, system, pool)
        elif not done and now > began + START_SECONDS:
            raise Failed(f"no task was done within {START_SECONDS} s: {pool.last_words()}")
        time.sleep(max(0.01, min((now - looked) / WATCHING, plan.drain / LOOKS)))
    if first is None or cpu is None:
        raise Failed(f"only {last[1]} of {count} tasks were done in time: {pool.last_words()}")
    done, seconds = last[1] - first[1], last[0] - first[0]
    coarse = done < count / 4
    if coarse:
        # It told of most of them at once: all that can be said is how long all of it took.
        done, seconds = last[1], last[0] - began
    numbers = {"rate": done / seconds, "done": last[1], "seconds": seconds, "coarse": coarse}
    return numbers | ({} if coarse else cpu.so_far().each(done))


class _Watcher:
    """Counts the finished tasks."""

    def __init__(self, lab: Lab, system: System, dsn: str) -> None:
        self.lab, self.system, self.looks = lab, system, 1
        self.connection = psycopg.connect(dsn, autocommit=True) if dsn else None

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection is not None:
            self.connection.close()

    def count(self) -> int:
        self.looks += 1
        if self.connection is None:
            if self.lab.redis is None:
                raise Failed("Redis does not run")
            return self.lab.redis.number(self.system.done)
        row = self.connection.execute(self.system.done).fetchone()  # type: ignore[arg-type]
        return int(row[0]) if row else 0


# --------------------------------------------------------------------------------------------------- pick-up


def pick_up(lab: Lab, system: System, plan: Plan, *, load: float) -> list[Numbers]:
    """What an idle pool costs; how soon it starts a task; how soon under `load` no-op tasks a second."""
    lab.stamps.unlink(missing_ok=True)
    with lab.fresh(system) as dsn, lab.producer(system, dsn) as producer, lab.pool(system, dsn, plan.pool) as pool:
        # Three stamps: who has run them has connected, imported and prepared.
        for number in range(3):
            producer.ask("probe", seconds=0.1, rate=1000, load=0, first=number * 10000)
        _await_start(pool, lambda: 20000 in _stamps(lab))
        time.sleep(min(1.5, plan.idle))  # Pools that look more eagerly just after a task have calmed down.
        measured = [_idle(lab, system, pool, plan, dsn)]
        sent = producer.ask("probe", seconds=plan.pick_up, rate=plan.rate, load=0, first=1_000_000)
        measured.append(latencies(lab, sent) | {"cell": "pick-up", "load": 0.0})
        if load:
            with _Watcher(lab, system, dsn) as watcher:
                before = watcher.count()
                sent = producer.ask("probe", seconds=plan.load, rate=2 * plan.rate, load=load, first=2_000_000)
                backlog = sent["loaded"] + len(sent["sent"]) - (watcher.count() - before)
            numbers = {"cell": "pick-up", "load": load, "offered": sent["loaded"] / sent["seconds"]}
            measured.append(latencies(lab, sent) | numbers | {"backlog": max(0, backlog)})
    return measured


def _idle(lab: Lab, system: System, pool: Family, plan: Plan, dsn: str) -> Numbers:
    before, cpu, began = lab.stats(system, dsn), Cpu(lab, system, pool), time.monotonic()
    time.sleep(plan.idle)
    used, seconds = cpu.so_far(), time.monotonic() - began
    numbers = {"cell": "idle", "workers": plan.pool, "client_cpu": used.client / seconds}
    numbers["server_cpu"] = None if used.server is None else used.server / seconds
    if before is not None:
        # Our own look before is among them: three transactions.
        took = measure.stats(dsn).since(before).transactions
        numbers["transactions"] = max(0, took - 3) / seconds
    return numbers


# --------------------------------------------------------------------------------------------------- kill


class _Start(NamedTuple):
    """A start of a task of `bench.tasks.hold`."""

    nanoseconds: int
    pid: int


def kill(lab: Lab, system: System, plan: Plan) -> Numbers:
    """Kill a worker that is busy with a task, again and again, and see when that task starts anew, and how often."""
    lab.stamps.unlink(missing_ok=True)
    samples, lost = [], 0
    with lab.fresh(system) as dsn, lab.producer(system, dsn) as producer, lab.pool(system, dsn, plan.pool) as pool:
        with _Watcher(lab, system, dsn) as watcher:
            for number in range(plan.kills):
                producer.ask("call", task="hold", number=number)
                _await_start(pool, lambda number=number: bool(_starts(lab, number)))
                busy = _starts(lab, number)[0].pid
                # Before, not after: on a busy machine the task may start anew before this process goes on.
                killed = time.monotonic_ns()
                os.kill(busy, signal.SIGKILL)
                if _await(pool, lambda number=number: len(_starts(lab, number)) > 1):
                    samples.append(round((_starts(lab, number)[1].nanoseconds - killed) / 1e6, 3))
                    _await(pool, lambda: watcher.count() >= len(samples))
                else:
                    lost += 1
        doubled = sum(len(_starts(lab, number)) > 2 for number in range(plan.kills))
    # So that nobody takes these for stamps.
    lab.stamps.unlink(missing_ok=True)
    numbers = {"cell": "kill", "count": len(samples), "milliseconds": quantiles(sorted(samples))}
    return numbers | {"samples": samples, "lost": lost, "doubled": doubled}


def _starts(lab: Lab, number: int) -> list[_Start]:
    lines = lab.stamps.read_text().splitlines() if lab.stamps.exists() else []
    return [_Start(int(moment), int(pid)) for of, moment, pid in map(str.split, lines) if int(of) == number]


# --------------------------------------------------------------------------------------------------- stamps


def _stamps(lab: Lab) -> dict[int, int]:
    if not lab.stamps.exists():
        return {}
    lines = lab.stamps.read_text().splitlines()
    return {int(number): int(moment) for number, moment in map(str.split, lines)}


def _await(pool: Family, seen: Callable[[], bool]) -> bool:
    """Look again and again, but not for ever; return whether it was seen."""
    end = time.monotonic() + START_SECONDS
    while not (found := seen()) and time.monotonic() < end:
        pool.check()
        time.sleep(0.02)
    return found


def _await_start(pool: Family, seen: Callable[[], bool]) -> None:
    if not _await(pool, seen):
        raise Failed(f"no task was started within {START_SECONDS} s: {pool.last_words()}")


def latencies(lab: Lab, sent: Numbers) -> Numbers:
    end = time.monotonic() + 10
    wanted = {number for number, _, _ in sent["sent"]}
    while not wanted <= _stamps(lab).keys() and time.monotonic() < end:
        time.sleep(0.1)
    started = _stamps(lab)
    # From the commit, as the producer saw it. A worker may be quicker than the answer to the producer: that is zero.
    after = [max(0, started[n] - committed) / 1e6 for n, _, committed in sent["sent"] if n in started]
    whole = [(started[n] - began) / 1e6 for n, began, _ in sent["sent"] if n in started]
    return {
        "count": len(after),
        "missing": len(wanted) - len(after),
        "milliseconds": quantiles(sorted(after)),
        "milliseconds_from_call": quantiles(sorted(whole)),
        "samples": [round(one, 3) for one in after],
    }


def quantiles(ordered: list[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: measure.quantile(ordered, share) for name, share in shares.items()} if ordered else {}


# --------------------------------------------------------------------------------------------------- processor time


class _Used(NamedTuple):
    client: float
    server: float | None

    def each(self, count: int) -> Numbers:
        """Microseconds for each of so many."""
        server = None if self.server is None else self.server / count * 1e6
        return {"client_us": self.client / count * 1e6, "server_us": server}


class Cpu:
    """Processor time from now on, of a family of ours and of the server."""

    def __init__(self, lab: Lab, system: System, family: Family | Producer) -> None:
        self.look: Callable[[], _Used] = lambda: _used(lab, system, family)
        self.began = self.look()

    def so_far(self) -> _Used:
        now = self.look()
        server = None if now.server is None or self.began.server is None else now.server - self.began.server
        return _Used(now.client - self.began.client, server)


def _used(lab: Lab, system: System, family: Family | Producer) -> _Used:
    everybody = measure.processes()
    return _Used(measure.cpu_seconds(family.roots, everybody), lab.server_cpu(system, everybody))
