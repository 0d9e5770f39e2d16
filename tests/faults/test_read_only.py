"""F23: PostgreSQL answers and takes no writes: read-only, cancelled, out of transaction ids."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from tests.support.pools import Pool, wait_for
from tests.support.site import OwnServer, Site, a_site, dsn_for


def noise(pool: Pool, since: int, seconds: float) -> list[str]:
    """I11: what the pool said, from that line of its log on. Five lines a second for each of its four processes."""
    lines = pool.log().splitlines()[since:]
    tracebacks = sum("Traceback" in line for line in lines)
    return [f"I11: {len(lines)} lines in the log within {seconds:.0f} s, {tracebacks} tracebacks"] * (
        len(lines) > 20 * seconds or tracebacks > 4
    )


def wait_out(site: Site, running: list[str], seconds: float) -> None:
    """Let the tasks that run come to their end, and then that time pass."""
    wait_for(lambda: all(site.runs()[task][0].ended for task in running), "they have ended")
    time.sleep(seconds)


@contextmanager
def read_only_by_default(site: Site) -> Iterator[None]:
    """ALTER DATABASE; whoever is connected is thrown out, so that it counts for all."""
    with site.session() as session:
        name = sql.Identifier(session.info.dbname)
        session.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'pgq %'"
        )
        yield
        session.execute("SET default_transaction_read_only = off")
        session.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))


@pytest.mark.fault("F23", short=0, full=2)
def test_all_transactions_are_read_only(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        site.enqueue("work", 60, 0.05)
        running = site.enqueue("work", 2, 1.0, priority=1)
        wait_for(lambda ids=running: site.runs().keys() >= set(ids), "they run")
        said, began = len(pool.log().splitlines()), time.monotonic()
        with read_only_by_default(site):
            # Longer than a lease: they are kept in memory, and nobody else takes them for abandoned.
            wait_out(site, running, 5.0)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                site.enqueue("work")
            note.violations += noise(pool, said, time.monotonic() - began)
            assert "read-only transaction" in pool.log()
        healed = time.monotonic()
        site.drain()
        started = [run.started for several in site.runs().values() for run in several]
        note.round(recovery=min((at for at in started if at > healed), default=healed) - healed)
        assert {len(site.runs()[task]) for task in running} == {1}
    note.violations += site.check(max_starts=2).violations + site.stop()


@pytest.mark.fault("F23", short=0, full=1)
def test_a_storm_of_cancels(site, note):
    """pg_cancel_backend for all sessions, twenty times a second: every statement may fail, none is lost."""
    pool = site.start(workers=2)
    site.enqueue("work", 200, 0.02)
    storm, over = 0, threading.Event()

    def cancel() -> None:
        nonlocal storm
        with site.session() as session:
            while not over.wait(0.05):
                storm += session.execute(
                    "SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'pgq %' AND pid <> pg_backend_pid()"
                ).fetchone()[0]  # type: ignore[index]

    thread = threading.Thread(target=cancel)
    began = time.monotonic()
    thread.start()
    try:
        wait_for(lambda: site.starts() > 30, "work goes on in the storm", 60)
        time.sleep(6)
    finally:
        over.set()
        thread.join()
    note.violations += noise(pool, 0, time.monotonic() - began)
    assert storm > 100
    note.round(recovery=site.recovery())
    site.drain()
    note.violations += site.check(max_starts=2).violations + site.stop()


#: From here on PostgreSQL gives no transaction ids: so many before the oldest one that is in use.
RESERVE = 3_000_000


def exhaust(site: Site, server: OwnServer, leave: int = 2000) -> None:
    """Have a cluster believe that it has used up its transaction ids, but for that many.

    A replication slot that nobody uses keeps the old ones from being frozen, as in most real cases.
    """
    site.value("SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')")
    oldest = int(site.value("SELECT min(datfrozenxid::text::bigint) FROM pg_database"))
    wanted = oldest + 2**31 - 1 - RESERVE - leave
    home = server.server
    home._postgres(home.binaries / "pg_ctl", "-m", "fast", "-w", "stop", data=home.data)
    done = home._postgres(home.binaries / "pg_resetwal", "-x", str(wanted), "-D", ".", data=home.data)
    assert not done.returncode, done.stdout
    # It has to find the states of those transactions.
    states = home.data / "pg_xact" / f"{wanted // 2**20:04X}"
    states.write_bytes(bytes(2**18))
    states.chmod(0o600)
    owner = home.data.stat()
    os.chown(states, owner.st_uid, owner.st_gid)
    server.start()


def heal(site: Site, server: OwnServer) -> None:
    """Drop the slot; autovacuum does the rest."""
    with site.session() as session:
        session.execute("SELECT pg_drop_replication_slot('forgotten')")
        names = [row[0] for row in session.execute("SELECT datname FROM pg_database WHERE datallowconn")]
    for name in names:
        with psycopg.connect(dsn_for(server.dsn, name), autocommit=True) as session:
            session.execute("VACUUM (FREEZE)")

    def accepts() -> bool:
        try:
            site.value("SELECT pg_current_xact_id()")
        except psycopg.Error:
            return False
        return True

    wait_for(accepts, "PostgreSQL gives transaction ids again", 120, 0.2)


@pytest.mark.fault("F23", short=0, full=1)
def test_out_of_transaction_ids(own_server, tmp_path, note):
    """Every write is refused, in words that might be about what is written. No result is thrown away for it."""
    server = own_server(wal_level="logical", autovacuum_naptime="1s")
    with a_site(tmp_path, server.dsn) as site:
        exhaust(site, server)
        pool = site.start(workers=2)
        site.enqueue("work", 20, 0.05)
        running = site.enqueue("work", 2, 6.0, priority=1)
        wait_for(lambda: site.runs().keys() >= set(running), "they run")
        with site.session() as session, pytest.raises(psycopg.errors.ProgramLimitExceeded):  # noqa: PT012
            while True:
                session.execute("SELECT pg_current_xact_id()")
        began, said = time.monotonic(), len(pool.log().splitlines())
        wait_out(site, running, 4.0)
        note.violations += noise(pool, said, time.monotonic() - began)
        heal(site, server)
        healed = time.monotonic()
        note.round(recovery=site.recovery())
        site.drain()
        assert "not accepting commands" in pool.log()
        assert {len(site.runs()[task]) for task in running} == {1}, f"settled after {healed - began:.0f} s"
        note.violations += site.check(max_starts=2).violations + site.stop()
