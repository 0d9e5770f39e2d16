"""F11-F13: commits whose reply is lost, silent partitions, half-open connections."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgq.enqueue.make import make_task
from pgq.store import endings, queue
from tests.support import fault_table as table
from tests.support.firing import SETTINGS, every_second, judge
from tests.support.pools import Pool, until, wait_for
from tests.support.proxy import Proxy
from tests.support.site import TASKS, OwnServer, Site, a_site

#: How to know a statement by its text.
CLAIM, SETTLE, RELEASE, FIRE = "picked AS MATERIALIZED", "INSERT INTO pgq_task", "lowered AS", "UPDATE pgq_schedule"


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    """Between the pools of the site and their database."""
    proxy = Proxy(site.dsn)
    site.pool_dsn = proxy.dsn
    yield proxy
    proxy.close()


def never(*_: Any) -> bool:
    return False


def every(nth: int, text: str, most: int, without: str = "\0") -> Callable[[str, Sequence[str]], bool]:
    """Lose the reply to every n-th commit of a transaction with such a statement, so many times at most."""
    lock = threading.Lock()
    seen = [0]

    def loses(_: str, statements: Sequence[str]) -> bool:
        joined = "\n".join(statements)
        with lock:
            seen[0] += text in joined and without not in joined
            return text in joined and without not in joined and seen[0] % nth == 0 and seen[0] <= nth * most

    return loses


@pytest.mark.fault("F11", short=3, full=20)
@pytest.mark.parametrize(("text", "without"), [(CLAIM, SETTLE), (SETTLE, "\0")])
def test_the_reply_to_a_claim_or_receipt_is_lost(site, proxy, rounds, note, text, without):
    proxy.loses = every(3, text, rounds, without)
    site.start(workers=2, claim_ms=20)
    end = time.monotonic() + 90
    while len(proxy.lost) < rounds and time.monotonic() < end:
        # A few at a time: a busy worker hardly ever claims without settling.
        site.enqueue("work", 20, 0.003)
        until(lambda: not site.left(), 60)
    note.round(recovery=site.drain())
    assert len(proxy.lost) >= min(rounds, 3), "the fault took place"
    verdict = site.check(max_starts=1)
    # Claimed or settled by a commit that nobody confirmed: not run again, and not said to be lost.
    note.violations += verdict.violations + site.stop()
    assert "lease was lost" not in site.pools[0].log()


@pytest.mark.fault("F11", short=2, full=10)
def test_what_is_given_back_gets_lost_on_its_way(site, proxy, rounds, note, tmp_path):
    """Or the reply to it: in any case others get it while the task in front of it still runs."""
    site.start(workers=2)
    for number in range(rounds):
        unlucky = every(1, RELEASE, 1)
        proxy.stops, proxy.loses = (unlucky, never) if number % 2 == 0 else (never, unlucky)
        # A worker claims several short tasks, and is left with the last ones behind the long one.
        site.enqueue("work", 60, 0.002)
        gate = tmp_path / f"gate{number}"
        site.enqueue("hold", 1, str(gate))
        behind = site.enqueue("work", 60, 0.002)
        # I7: the long one does not end before they have run.
        wait_for(lambda behind=behind: set(behind) <= site.runs().keys(), "they run")
        gate.touch()
        note.round()
        site.drain()
    assert proxy.lost, "the fault took place"
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F11", short=2, full=10)
def test_the_reply_to_a_slot_is_lost(site, proxy, rounds, note):
    proxy.loses = every(2, FIRE, rounds)
    site.start(**SETTINGS)
    firsts = every_second(site, 3)
    until(lambda: len(proxy.lost) >= rounds, 120)
    note.rounds = rounds
    judge(site, firsts, note)


@pytest.mark.fault("F11", short=5, full=30)
def test_the_reply_to_an_enqueue_or_a_cancel_is_lost(site, proxy, rounds, note):
    """Whoever enqueues keeps the task he made: while it is live, enqueuing it again says that it is there."""
    proxy.loses = lambda name, _: name == "unlucky"
    pool = site.start(workers=1, poll=0.1)
    for _ in range(rounds):
        later = datetime.now(UTC) + timedelta(hours=1)
        task = make_task(f"{TASKS}.work", (0.0,))._replace(run_after=later)
        with pytest.raises(psycopg.OperationalError):
            say(proxy, "unlucky", queue.enqueue, task)
        with pytest.raises(psycopg.errors.UniqueViolation):
            say(proxy, "lucky", queue.enqueue, task)
        site.acknowledged.append(task.id.hex)
        with site.session() as session:
            session.execute("UPDATE pgq_queue SET run_after = clock_timestamp() WHERE id = %s", (task.id,))
        (long,) = site.enqueue("work", 1, 30.0)
        until(lambda long=long: site.runs().get(long), 20)
        with pytest.raises(psycopg.OperationalError):
            say(proxy, "unlucky", endings.cancel, [UUID(long)])
        site.drain()
        assert say(proxy, "lucky", endings.cancel, [UUID(long)]) == {UUID(long): "finished"}
        site.acknowledged.remove(long)
        site.unknown.append(long)
        note.round()
    note.violations += site.check(max_starts=1, may_fail=True).violations + site.stop()
    assert pool.log().count("TaskCancelled") >= rounds


def say(proxy: Proxy, name: str, verb: Callable[..., Any], *arguments: Any) -> Any:
    """Do something by a session of that name, in a transaction of its own."""
    with psycopg.connect(proxy.dsn, application_name=name) as session:
        return verb(session.cursor(), *arguments)


# ------------------------------------------------------------------------------------------------- partitions


class Network:
    """A host of its own for a pool, behind a router that can be told to forward nothing, or no replies."""

    def __init__(self) -> None:
        number = random.randrange(2, 250)
        self.host, self.router = f"pgqh{number}", f"pgqr{number}"
        self.server = f"10.83.{number}.1"
        self._pool, outside, inside = f"10.83.{number}.6", f"10.83.{number}.2", f"10.83.{number}.5"
        self.subnet = f"10.83.{number}.0/24"
        link = f"pgq{number}"
        for namespace in (self.router, self.host):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("link", "add", link, "type", "veth", "peer", "name", "out", "netns", self.router)
        ip("-n", self.router, "link", "add", "in", "type", "veth", "peer", "name", "eth0", "netns", self.host)
        for namespace, device, address in (
            (None, link, self.server), (self.router, "out", outside), (self.router, "in", inside),
            (self.host, "eth0", self._pool),
        ):  # fmt: skip
            where = ("-n", namespace) if namespace else ()
            ip(*where, "address", "add", f"{address}/30", "dev", device)
            ip(*where, "link", "set", device, "up")
        ip("route", "add", f"10.83.{number}.4/30", "via", outside)
        ip("-n", self.host, "route", "add", "default", "via", inside)
        self.forward(True)

    def forward(self, on: bool) -> None:
        """Forward packets, or drop them without a word."""
        path = "/proc/sys/net/ipv4/ip_forward"
        ip("netns", "exec", self.router, "sh", "-c", f"echo {int(on)} > {path}")

    def replies(self, on: bool) -> None:
        """Forward what comes from PostgreSQL, or drop it; what goes there arrives."""
        ip("-n", self.router, "route", "del" if on else "add", "blackhole", f"{self._pool}/32")

    def remove(self) -> None:
        for namespace in (self.host, self.router):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", namespace)


def ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, text=True)


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip (Debian: apt install iproute2)")
    try:
        made = Network()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    yield made
    made.remove()


@pytest.fixture
def far_site(network: Network, own_server: Callable[..., OwnServer], tmp_path: Path) -> Iterator[Site]:
    """A site whose pools get to PostgreSQL through that network, if they are started with `far`."""
    server = own_server(listen_addresses=network.server)
    with (server.server.data / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {network.subnet} trust\n")
    with a_site(tmp_path, server.dsn) as site:
        site.value("SELECT pg_reload_conf()")
        yield site


def start_far(site: Site, network: Network, *arguments: str, **settings: Any) -> Pool:
    near, site.pool_dsn = site.pool_dsn, make_conninfo(site.dsn, host=network.server)
    try:
        return site.start(*arguments, wrapper=["ip", "netns", "exec", network.host], **settings)
    finally:
        site.pool_dsn = near


@pytest.mark.fault("F12", short=1, full=4)
@pytest.mark.parametrize("way", ["both", "replies"] if table.FULL else ["both"])
def test_partition_shorter_than_a_lease(far_site, network, rounds, note, way):
    """Nobody takes anything from anybody, and nothing runs twice."""
    cut = network.forward if way == "both" else network.replies
    start_far(far_site, network, workers=2, retry=30.0)
    far_site.start(workers=1, retry=30.0)
    for _ in range(rounds):
        far_site.enqueue("work", 60, 0.05)
        far_site.busy_pid()
        cut(False)
        time.sleep(3.0)
        cut(True)
        note.round(recovery=far_site.recovery())
        far_site.drain()
    note.violations += far_site.check(max_starts=1).violations + far_site.stop()


@pytest.mark.fault("F12", short=0, full=2)
@pytest.mark.parametrize("way", ["both", "replies"])
def test_partition_longer_than_a_lease(far_site, network, rounds, note, way):
    """What ran beyond the partition runs again on this side, and only that run is heard. Nothing hangs."""
    cut = network.forward if way == "both" else network.replies
    far = start_far(far_site, network, workers=2)
    for number in range(rounds):
        (long,) = far_site.enqueue("work", 1, 12.0)
        until(lambda long=long: far_site.runs().get(long), 30)
        # Only now, so that the far one has it.
        near = far_site.start("--queues", "default", workers=2)
        cut(False)
        for run in far_site.runs()[long]:
            far_site.frozen.setdefault(run.pid, time.monotonic())
        until(lambda long=long: len(far_site.runs()[long]) == 2, 30)
        time.sleep(20)
        cut(True)
        healed = time.monotonic()
        (there,) = far_site.enqueue("work", 1, queue="far")
        until(lambda there=there: far_site.runs().get(there), 30)
        note.round(recovery=far_site.runs()[there][0].started - healed)
        far_site.drain()
        # The far worker may be the last to notice that it has a connection again.
        until(lambda number=number: far.log().count("lease was lost") > number, 30)
        near.stop()
    verdict = far_site.check(max_starts=2)
    assert verdict.overlap_expired >= rounds, "both sides ran it"
    assert max(note.recoveries) < 15
    note.violations += verdict.violations + far_site.stop()


# ------------------------------------------------------------------------------------------------- half-open


@pytest.mark.fault("F13", short=1, full=4)
def test_half_open_leader(site, proxy, rounds, note, tmp_path):
    """It holds the leader's lock and is heard no more: another leads soon, and no slot is lost or doubled."""
    token = tmp_path / "leading"
    slow = [{"at": "lead.acquired", "do": "sleep:0.3", "token": str(token)}]
    proxied = site.start(**SETTINGS, failpoints=slow)
    site.pool_dsn = site.dsn
    site.start(**SETTINGS)
    firsts = every_second(site, 2)
    for _ in range(rounds):
        token.touch()
        until(lambda: not token.exists(), 20)
        proxy.swallows = lambda name: name == "pgq upkeep"
        deaf = time.monotonic()
        known = len(site.runs())
        until(lambda known=known: len(site.runs()) > known + 3, 30)
        note.round(recovery=time.monotonic() - deaf)
        proxy.swallows = lambda _: False
    judge(site, firsts, note)
    assert max(note.recoveries) < (9 if table.FULL else 25)
    assert proxied.process.returncode == 0


@pytest.mark.fault("F13", short=1, full=4)
def test_half_open_listener(site, proxy, rounds, note):
    """A pooler that takes everything and says nothing: the supervisor gives it up, and knocks again."""
    pool = site.start(workers=2, retry=12.0)
    for number in range(rounds):
        proxy.swallows = lambda name: name == "pgq supervisor"
        wait_for(lambda number=number: pool.log().count("no answer for") > number, "the supervisor gives it up")
        proxy.swallows = lambda _: False
        note.round(recovery=site.recovery())
        if number < rounds - 1:
            time.sleep(2.5)  # or the next time is none worth a line in the log
    site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()
