"""F9, F10, F16: PostgreSQL crashes, ends everybody's sessions, or has no connection left to give."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import fault_table as table
from tests.support.firing import SETTINGS, every_second, judge
from tests.support.outages import KNOCKS, LINES, lines_per_second
from tests.support.pools import until, wait_for
from tests.support.site import Site

#: Seconds until work goes on as before, once PostgreSQL accepts connections.
BACK_WITHIN = 5.0 if table.FULL else 30.0


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def accepts(site: Site) -> bool:
    with contextlib.suppress(psycopg.OperationalError), site.session():
        return True
    return False


@pytest.mark.fault("F9", short=2, full=8)
def test_postgresql_crashes_under_load(own_site, rounds, note):
    """Tasks that run go on, and what comes of them is settled when PostgreSQL is back: nothing runs twice."""
    site, server = own_site
    pool = site.start(workers=2, retry=30.0)
    for number, crash in zip(range(rounds), itertools.cycle((server.crash, server.kill)), strict=False):
        site.enqueue("work", 60, 0.05)
        (long,) = site.enqueue("work", 1, 4.0, priority=1)
        until(lambda long=long: site.runs().get(long), 30)
        crash()
        down, used = time.monotonic(), processor_time(pool.pid)
        # The long one ends meanwhile.
        until(lambda long=long: site.runs()[long][0].ended, 30)
        if table.FULL:
            time.sleep(number % 4)
        # The supervisor does not spin, having nobody to talk to.
        assert processor_time(pool.pid) - used < 0.05 + 0.06 * (time.monotonic() - down)
        server.start()
        recovery = site.recovery()
        note.round(recovery=recovery)
        assert recovery < BACK_WITHIN
    site.drain()
    assert lines_per_second(pool) <= LINES
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F9", short=1, full=3)
def test_schedules_go_on_after_a_crash(own_site, rounds, note):
    site, server = own_site
    site.start(**SETTINGS)
    firsts = every_second(site, 3)
    for _ in range(rounds):
        wait_for(lambda: len(site.runs()) >= 3, "the schedules fire")
        server.crash()
        server.start()
        note.round(recovery=site.recovery())
    wait_for(lambda: len(site.runs()) > 10, "the schedules fire")
    judge(site, firsts, note)


class Meter:
    """How many tasks end in a second, while a producer keeps the queue full."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._produce, daemon=True)
        self.thread.start()

    def _produce(self) -> None:
        while not self.over.wait(0.05):
            with contextlib.suppress(psycopg.OperationalError):
                if self.site.left() < 2000:
                    self.site.enqueue("work", 500, 0.001)

    def ended(self) -> list[float]:
        """When (CLOCK_MONOTONIC) tasks ended, in order."""
        runs = (run.ended for several in self.site.runs().values() for run in several)
        return sorted(ended for ended in runs if ended is not None)

    def rate(self, begin: float, end: float) -> float:
        return sum(begin <= at < end for at in self.ended()) / (end - begin)

    def close(self) -> None:
        self.over.set()
        self.thread.join()


@pytest.fixture
def meter(own_site: tuple[Site, object]) -> Iterator[Callable[[], Meter]]:
    meters: list[Meter] = []

    def start() -> Meter:
        meters.append(Meter(own_site[0]))
        return meters[-1]

    yield start
    for each in meters:
        each.close()


@pytest.mark.fault("F9", short=0, full=3)
def test_throughput_is_back_after_an_outage(own_site, meter, rounds, note):
    """T95: from when PostgreSQL accepts connections until as much goes through in one second as before."""
    site, server = own_site
    pool = site.start(workers=2)
    measure = meter()
    for down in (1.0, 30.0, 60.0)[:rounds]:
        began = time.monotonic()
        until(lambda began=began: measure.rate(began, time.monotonic()) and time.monotonic() - began > 8, 60)
        before = measure.rate(time.monotonic() - 5, time.monotonic())
        server.crash()
        time.sleep(down)
        knocks = pool.log().count("\n")
        server.start()
        until(lambda: accepts(site), 30, 0.05)
        accepted = time.monotonic()
        time.sleep(10)
        ends = measure.ended()
        windows = (accepted + step / 10 for step in range(90))
        recovered = next(
            (at for at in windows if sum(at <= end < at + 1 for end in ends) >= 0.95 * before), accepted + 10
        )
        print(f"down {down:g} s, {before:.0f} tasks/s before; back after {recovered - accepted:.2f} s, {knocks} lines")  # noqa: T201
        note.round(recovery=recovered - accepted)
        assert recovered - accepted <= BACK_WITHIN
    measure.close()
    site.drain()
    assert lines_per_second(pool) <= LINES
    note.violations += site.check().violations + site.stop()


def end_sessions(site: Site, name: str) -> int:
    """End the sessions that call themselves so; return how many."""
    return int(
        site.value(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE %s",
            name,
        )
    )


@pytest.mark.fault("F10", short=1, full=3)
@pytest.mark.parametrize("name", ["pgq %", "pgq supervisor", "pgq upkeep", "pgq worker"] if table.FULL else ["pgq %"])
def test_sessions_are_ended_again_and_again(site, rounds, note, name):
    """Every 100 ms, while tasks run and a schedule fires."""
    pool = site.start(**{**SETTINGS, "workers": 2, "retry": 30.0})
    firsts = every_second(site, 1)
    seconds = 20.0 if table.FULL else 2.0
    for _ in range(rounds):
        site.enqueue("work", 100, 0.02)
        end, ended = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            ended += end_sessions(site, name)
            time.sleep(0.1)
        assert ended > 2, "the fault took place"
        # Knocking grows slower, though each time somebody opens.
        assert ended < 4 * (KNOCKS + seconds * 2)
        recovery = site.recovery()
        assert recovery < (2.0 if table.FULL else 20.0)
        note.round(recovery=recovery)
    wait_for(lambda: len(site.runs()) > 100 * rounds + 3, "the schedule fires")
    site.drain()
    assert lines_per_second(pool) <= LINES
    judge(site, firsts, note)


@pytest.mark.fault("F10", short=2, full=20)
def test_a_new_listener_listens(site, rounds, note):
    """After its session was ended the supervisor listens again, and looks at what it missed. Polls would take 20 s."""
    site.start(workers=2, poll=20.0)
    for _ in range(rounds):
        wait_for(lambda: listens(site), "the supervisor listens")
        end_sessions(site, "pgq supervisor")
        note.round(recovery=site.recovery(timeout=15.0))
        wait_for(lambda: listens(site), "the supervisor listens again")
        note.round(recovery=site.recovery(timeout=15.0))
    site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()


def listens(site: Site) -> bool:
    """Whether the supervisor has a session that has got past LISTEN."""
    return bool(
        site.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pgq supervisor' AND query !~ 'LISTEN|set_config'"
        )
    )


@pytest.mark.fault("F16", short=1, full=3)
def test_no_connection_is_to_be_had(own_server, tmp_path, rounds, note):
    """What runs is settled over the connections there are; who has none waits until there is one."""
    from tests.support.site import a_site

    server = own_server(max_connections=20, superuser_reserved_connections=3)
    with a_site(tmp_path, server.dsn) as site:
        # Not as a superuser, for whom three are kept.
        with site.session() as session:
            session.execute("CREATE ROLE app LOGIN")
            session.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
            session.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")
        app = psycopg.conninfo.make_conninfo(site.dsn, user="app")
        site.pool_dsn = app
        pool = site.start(workers=3)
        for _ in range(rounds):
            held = list(fill(app))
            assert held, "the fault took place"
            tasks = site.enqueue("work", 30, 0.2)
            until(
                lambda tasks=tasks: (
                    site.value("SELECT count(*) FROM pgq_task WHERE id = ANY (%s::uuid[])", tasks) == 30
                ),
                60,
            )
            # One worker loses its session and gets none: the others go on, and it comes back in the end.
            end_sessions(site, "pgq worker")
            held += fill(app)
            site.enqueue("work", 30, 0.05)
            for session in held:
                session.close()
            note.round(recovery=site.recovery())
        site.drain()
        assert lines_per_second(pool) <= LINES
        note.violations += site.check(max_starts=1).violations + site.stop()


def fill(dsn: str) -> Iterator[psycopg.Connection]:
    """Take every connection that is left."""
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            yield psycopg.connect(dsn)
