"""F19: PgBouncer in transaction mode stands between pgq and PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connections
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.store import connection as store_connection
from pgq.store.caller import _uses, execute_often
from pgq.store.listener import shares_sessions
from tests.support.firing import end_schedule, schedule_each_second
from tests.support.pools import is_alive, until, wait_for
from tests.support.site import Site

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer (Debian: apt install pgbouncer)")
PORT = 6432  # Only names the socket.

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr =
listen_port = {own_port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
logfile = {folder}/log
pidfile = {folder}/pid
ignore_startup_parameters = extra_float_digits
"""


class Bouncer:
    """A PgBouncer before the server of a site."""

    def __init__(self, site: Site, mode: str, size: int = 6) -> None:
        server = conninfo_to_dict(site.dsn)
        self.folder = Path(tempfile.mkdtemp(prefix="pgq-bouncer-"))
        (self.folder / "ini").write_text(
            CONFIGURATION.format(
                host=server["host"], port=server.get("port", 5432), user=server.get("user", "postgres"), mode=mode,
                size=size, folder=self.folder, own_port=PORT,
            )
        )  # fmt: skip
        self.account = None
        if os.geteuid() == 0:
            # It refuses root, and the server's socket is open to the server's user only.
            self.account = pwd.getpwuid(Path(str(server["host"])).stat().st_uid)
            for path in (self.folder, self.folder / "ini"):
                os.chown(path, self.account.pw_uid, self.account.pw_gid)
        self.dsn = make_conninfo(site.dsn, host=str(self.folder), port=PORT)
        self.start()

    def start(self) -> None:
        switch = {"user": self.account.pw_uid, "group": self.account.pw_gid} if self.account else {}
        self.process = subprocess.Popen(
            [str(PROGRAM), str(self.folder / "ini")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", **switch,
        )  # fmt: skip
        wait_for(lambda: (self.folder / f".s.PGSQL.{PORT}").exists(), "PgBouncer listens")

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)
        (self.folder / f".s.PGSQL.{PORT}").unlink(missing_ok=True)

    def remove(self) -> None:
        if is_alive(self.process.pid):
            self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder)


@pytest.fixture
def bouncer(site: Site, request: pytest.FixtureRequest) -> Iterator[Bouncer]:
    made = Bouncer(site, request.param)
    site.pool_dsn = made.dsn
    yield made
    made.remove()


def connect(dsn: str) -> store_connection.Connection:
    return psycopg.connect(dsn, autocommit=True, prepare_threshold=None)


@pytest.mark.parametrize("bouncer", ["transaction", "session"], indirect=True)
@pytest.mark.fault("F19", short=0, full=3)
def test_the_kind_of_pooler_is_found_out(site, bouncer, request, rounds, note):
    wanted = "transaction" in request.node.callspec.id
    for _ in range(rounds):
        with connect(bouncer.dsn) as session:
            found = shares_sessions(session, lambda: connect(bouncer.dsn))
            note.round([f"taken for {found}"] * (found is not wanted))
    with connect(site.dsn) as session:
        assert not shares_sessions(session, lambda: connect(site.dsn))


@pytest.mark.parametrize("bouncer", ["transaction"], indirect=True)
@pytest.mark.fault("F19", short=1, full=3)
def test_a_producer_prepares_nothing_behind_a_pooler(site, bouncer, rounds, note, django_db_blocker):
    """Busy producers in turns, over fewer sessions than there are of them."""
    there = conninfo_to_dict(bouncer.dsn)
    producers = []
    for number in range(4):
        django = connections["default"].copy(f"producer {number}")
        django.settings_dict |= {"NAME": there["dbname"], "HOST": there["host"], "PORT": there["port"]}
        connections[django.alias] = django
        producers.append(django)

    def insert(cursor, func):
        cursor.execute("INSERT INTO pgq_queue (func) VALUES (%s)", (func,))

    try:
        with django_db_blocker.unblock():
            for _ in range(rounds * 12):
                for django in producers:
                    execute_often(django.alias, insert, "tests.faults.tasks.work")
        note.round([f"{django.alias} took it for a server" for django in producers if _uses[django.connection]])
        assert site.value("SELECT count(*) FROM pgq_queue") == 12 * 4 * rounds
    finally:
        for django in producers:
            django.close()
            del connections[django.alias]


@pytest.mark.parametrize("bouncer", ["transaction"], indirect=True)
@pytest.mark.fault("F19", short=0, full=2)
def test_all_goes_through_a_pooler_in_transaction_mode(site, bouncer, rounds, note):
    """Without LISTEN, without prepared statements: both are given up for polling and plain statements, unasked."""
    settings = {"workers": 2, "allowed": ["tests.faults.tasks.slot"]}
    pools = [site.start(**settings) for _ in range(2)]
    assert all("pooler in transaction mode" in pool.log() for pool in pools)
    listeners = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
    assert site.value(listeners) == 0
    schedule_each_second(site)
    for _ in range(rounds):
        site.enqueue("work", 300, 0.001)
        # Longer than a lease.
        site.enqueue("work", 2, 5.0)
        killed = site.busy_pid()
        site.kill(killed)
        wait_for(lambda: site.value("SELECT count(*) FROM pgq_queue WHERE schedule IS NULL") == 0, "done", 60, 0.1)
        # Idle now: found by looking.
        slow = [site.recovery() for _ in range(5)]
        note.round([f"I7: {slow} s to the start of a task"] * (max(slow) > 5), recovery=max(slow))
    bouncer.stop(signal.SIGINT)
    site.enqueue("work", 50)
    bouncer.start()
    back = time.monotonic()
    wait_for(lambda: site.value("SELECT count(*) FROM pgq_queue WHERE schedule IS NULL") == 0, "done", 60, 0.1)
    note.round(recovery=time.monotonic() - back)
    note.violations += end_schedule(site)
    assert not any("Traceback" in pool.log() for pool in pools)
    for pool in pools:
        pool.stop()
    # Its sessions with PostgreSQL outlive those who used them.
    bouncer.stop()
    until(lambda: not site.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgq %%'"), 10)
    note.violations += site.check().violations + site.stop()
