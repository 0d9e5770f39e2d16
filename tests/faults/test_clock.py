"""F22: clocks jump: that of a pool, and that of PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgq.store import leases, queue
from pgq.upkeep.leadership import Leadership
from pgq.upkeep.rescue import Rescue
from tests.support.firing import SLOT, end_schedule, schedule_each_second
from tests.support.pools import Pool, until, wait_for
from tests.support.site import OwnServer, Site, a_site

LIBRARY = next(Path("/usr").glob("lib*/**/faketime/libfaketime.so.1"), None)
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="no libfaketime (Debian: apt install faketime)")
HOUR = 3600
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def preload(**more: str) -> dict[str, str]:
    """The environment in which a program has a clock of its own. CLOCK_MONOTONIC stays: it never jumps."""
    return {"LD_PRELOAD": str(LIBRARY), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", **more}


class Clocked:
    """A server whose clock can be set."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "clock"
        self.set(0)
        environment = preload(FAKETIME_TIMESTAMP_FILE=str(self.file), FAKETIME_NO_CACHE="1")
        with pytest.MonkeyPatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            self.server = OwnServer()

    def set(self, seconds: int) -> None:
        """Set the clock to so many seconds from the true time."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.chmod(0o644)
        new.rename(self.file)


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[tuple[Site, Clocked]]:
    # Not in tmp_path: the server's user reads the file.
    with tempfile.TemporaryDirectory(prefix="pgq-clock-") as folder, contextlib.ExitStack() as stack:
        os.chmod(folder, 0o755)  # only the clock is in there
        clock = Clocked(Path(folder))
        stack.callback(clock.server.remove)
        yield stack.enter_context(a_site(tmp_path, clock.server.dsn)), clock


def claim_all(site: Site, worker: Any) -> None:
    with site.session() as session:
        assert queue.claim(session.cursor(), limit=8, worker=worker, receipt=uuid4())


# ------------------------------------------------------------------------------------------------- without faketime


def jump(session: psycopg.Connection[Any], rescue: Rescue, seconds: float = 20.0) -> None:
    """What it looks like when the clock jumps: all that was written down, in the table and by us, is older now."""
    session.execute("UPDATE pgq_queue SET lock = lock - %s * interval '1 second'", (seconds,))
    rescue.looks = deque((at, said - timedelta(seconds=seconds)) for at, said in rescue.looks)


@pytest.mark.fault("F22", short=1, full=3)
def test_an_expired_lease_is_rescued_only_if_nobody_renews_it(site, rounds, note):
    worker = uuid4()
    with site.session() as session:
        for _ in range(rounds):
            site.enqueue("work", 5)
            claim_all(site, worker)
            rescue = Rescue(Leadership(), retry=2.0, every=0.2)
            began, rescued = time.monotonic(), 0
            while time.monotonic() - began < 4.0:
                jump(session, rescue)
                # They have all run out, and their holder has not come round to renewing them.
                for _ in range(4):
                    rescued += rescue.search(session) or 0
                    time.sleep(0.1)
                leases.renew(session.cursor(), [worker], since=LONG_AGO, age=0.3)
            assert not rescued, f"I3: {rescued} leases of a living worker were rescued"
            # Now nobody renews any more.
            stopped = time.monotonic()
            found = wait_for(partial(rescue.search, session), "the leases are rescued", 15, 0.1)
            took = time.monotonic() - stopped
            note.round([f"I7: {found} of 5 leases rescued, after {took:.2f} s"] * (found != 5 or not 0.5 < took < 10))
            session.execute("TRUNCATE pgq_queue")


@pytest.mark.fault("F22", short=1, full=1)
def test_time_in_which_nobody_looked_on_does_not_count(site, note):
    """PostgreSQL was away, or we were frozen: those who renew could not do so either."""
    site.enqueue("work", 5)
    claim_all(site, uuid4())
    with site.session() as session:
        session.execute("UPDATE pgq_queue SET lock = lock - interval '1 hour'")
        rescue = Rescue(Leadership(), retry=1.0, every=0.1)
        rescue.search(session)
        for pause in (lambda: time.sleep(1.5), lambda: (time.sleep(0.3), rescue.forget(), time.sleep(0.9))):
            pause()
            assert not rescue.search(session)
        assert wait_for(lambda: rescue.search(session), "the leases are rescued", pause=0.1) == 5
        note.round()


@pytest.mark.fault("F22", short=1, full=1)
def test_leases_in_the_future_come_back_to_the_present(site, note):
    site.enqueue("work", 5)
    claim_all(site, uuid4())
    with site.session() as session:
        session.execute("UPDATE pgq_queue SET lock = lock + interval '1 hour'")
        rescue = Rescue(Leadership(), retry=1.0, every=0.1)
        assert wait_for(lambda: rescue.search(session), "the leases are rescued", 10, 0.1) == 5
        note.round()


@needs_faketime
@pytest.mark.fault("F22", short=0, full=2)
def test_the_clock_of_a_pool_is_wrong(site, rounds, note):
    """It does not matter: only PostgreSQL's clock counts."""
    site.start(workers=2, allowed=[SLOT])
    pools = [
        site.start(workers=2, allowed=[SLOT], env=preload(FAKETIME=f"{off:+d}")) for off in (HOUR, -HOUR)
    ]  # fmt: skip
    schedule_each_second(site)
    for number in range(rounds):
        site.enqueue("rest", 3, 7.0)
        site.enqueue("rest", 60, 0.1)
        killed = pools[number % 2].worker_pids()[0]
        until(lambda: site.starts() > 10, 20)
        site.kill(killed)
        note.round(recovery=site.recovery("rest"))
        wait_for(
            lambda: site.value("SELECT count(*) FROM pgq_queue WHERE schedule IS NULL") == 0, "all is done", 60, 0.1
        )
    note.violations += end_schedule(site)
    verdict = site.check(max_starts=2)
    note.violations += verdict.violations
    assert verdict.repeated <= rounds
    note.violations += site.stop()


@needs_faketime
@pytest.mark.fault("F22", short=0, full=1)
def test_the_clock_of_postgresql_jumps(clocked, rounds, note):
    """Forward and back: no task of a living worker is run twice, no slot fires twice, and the dead are found."""
    site, clock = clocked
    site.start(workers=2, allowed=[SLOT])
    schedule_each_second(site)
    lost = 0
    for to in (HOUR, 0, -HOUR, 0) * rounds:
        other = site.start(workers=2, allowed=[SLOT])
        note.violations += living_through(site, clock, to)
        recovery, found = dying_after(site, clock, other, HOUR if to == 0 else 0)
        note.round(recovery=recovery)
        lost += found
    clock.set(0)
    note.violations += end_schedule(site)
    verdict = site.check(max_starts=2)
    note.violations += verdict.violations
    assert verdict.repeated == lost, "only what the dead had in hand ran twice"
    note.violations += site.stop()


def living_through(site: Site, clock: Clocked, to: int) -> list[str]:
    """Tasks of twice a lease, some of them waiting behind the others, see the clock jump; return what is wrong."""
    tasks = site.enqueue("work", 6, 7.0)
    wait_for(lambda: len(site.runs().keys() & set(tasks)) >= 4, "they run", 60)
    clock.set(to)
    wait_for(lambda: abs(offset(site) - to) < 60, "PostgreSQL sees it", 20, 0.1)
    wait_for(lambda: not left(site, tasks), "they are done", 90, 0.1)
    return [f"I3: {task} ran again after a jump to {to:+d}" for task in tasks if len(site.runs()[task]) > 1]


def dying_after(site: Site, clock: Clocked, pool: Pool, to: int) -> tuple[float, int]:
    """The host of a pool dies as the clock jumps; return the seconds until its tasks ran again, and their number."""
    tasks = site.enqueue("work", 4, 4.0)
    wait_for(lambda: len(site.runs().keys() & set(tasks)) == 4, "they run", 60)
    dead = set(pool.processes())
    clock.set(to)
    site.kill(pool.pid)
    died = time.monotonic()
    pool.process.wait()
    wait_for(lambda: not pool.processes(), "the pool is dead")
    site.deaths.update(dict.fromkeys(dead, died))
    lost = [task for task in tasks if site.runs()[task][0].pid in dead]
    assert lost
    wait_for(lambda: all(len(site.runs()[task]) > 1 for task in lost), "what it ran runs again", 60, 0.1)
    wait_for(lambda: not left(site, tasks), "they are done", 60, 0.1)
    return max(site.runs()[task][1].started for task in lost) - died, len(lost)


def offset(site: Site) -> float:
    return float(site.value("SELECT extract(epoch FROM clock_timestamp())")) - time.time()


def left(site: Site, tasks: list[str]) -> int:
    return int(site.value("SELECT count(*) FROM pgq_queue WHERE id = ANY (%s::uuid[])", tasks))
