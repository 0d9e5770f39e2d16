"""F14, F15: PostgreSQL fails over to a standby that lacks the last commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.contrib import embedded
from pgq.contrib.embedded.folders import SOCKET, private_dir
from pgq.enqueue.make import make_task
from pgq.store import queue
from tests.support.pools import until, wait_for
from tests.support.site import TASKS, OwnServer, Site, a_site, dsn_for


class Standby(OwnServer):
    """A copy of a server that follows it."""

    def __init__(self, primary: OwnServer) -> None:
        self.server = embedded.Server(settings=primary.server.settings)
        program = self.server.binaries / "pg_basebackup"
        if not program.exists():
            self.server.remove()
            pytest.skip("no pg_basebackup beside the server (Debian: apt install postgresql-client)")
        private_dir(self.server.data, self.server.account)
        done = self.server._postgres(
            program, "-D", ".", "-d", primary.dsn, "-R", "-X", "stream", "-c", "fast", "--no-sync",
            data=self.server.data,
        )  # fmt: skip
        assert not done.returncode, done.stdout
        for copied in self.server.data.glob(f"{SOCKET}*"):
            copied.unlink()
        self.server.start()

    def has_caught_up_with(self, primary: OwnServer) -> bool:
        with psycopg.connect(primary.dsn) as session:
            (at,) = session.execute("SELECT pg_current_wal_lsn()").fetchone() or ()
        with psycopg.connect(self.dsn) as session:
            row = session.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (at,)).fetchone()
        return bool(row and row[0])

    def cut_off(self) -> None:
        """Hear no more of the primary."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            session.execute("ALTER SYSTEM SET primary_conninfo = ''")
            session.execute("SELECT pg_reload_conf()")
            until(lambda: not session.execute("SELECT FROM pg_stat_wal_receiver").fetchone(), 20)

    def promote(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            assert session.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)


@pytest.fixture
def pair(tmp_path: Path, own_server: Callable[..., OwnServer]) -> Iterator[tuple[Site, OwnServer, Standby]]:
    """A site on a primary with a standby; its pools may go to either, and want the one that takes writes."""
    primary = own_server()
    with a_site(tmp_path, primary.dsn) as site:
        standby = Standby(primary)
        try:
            hosts = [str(conninfo_to_dict(server.dsn)["host"]) for server in (primary, standby)]
            site.pool_dsn = make_conninfo(
                site.dsn, host=",".join(hosts), port="5432,5432", target_session_attrs="read-write", connect_timeout=3
            )
            wait_for(lambda: standby.has_caught_up_with(primary), "the standby follows", pause=0.1)
            yield site, primary, standby
        finally:
            standby.remove()


def go_to(site: Site, standby: Standby) -> None:
    """Have the test look at the standby from now on."""
    site.dsn = dsn_for(standby.dsn, str(conninfo_to_dict(site.dsn)["dbname"]))
    for pool in site.pools:
        pool.look_dsn = site.dsn


def tasks_there(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as session:
        return {row[0].hex for row in session.execute("SELECT id FROM pgq_queue UNION ALL SELECT id FROM pgq_task")}


@pytest.mark.fault("F14", short=0, full=1)
def test_failover_to_a_standby_that_lost_the_tail(pair, note):
    site, primary, standby = pair
    pools = [site.start(workers=2) for _ in range(2)]
    done = site.enqueue("work", 40, 0.02)
    site.drain()
    # Claimed before the cut, and finished after the failover: under receipts that the standby knows.
    long = site.enqueue("work", 3, 20.0)
    wait_for(lambda: site.runs().keys() >= set(long), "they run")
    # Some of these are claimed and finished after the cut: of that the standby never hears.
    behind = site.enqueue("work", 40, 0.2)
    wait_for(lambda: len(site.runs().keys() & set(behind)) > 2, "some have run")
    wait_for(lambda: standby.has_caught_up_with(primary), "the standby has heard of them", pause=0.1)
    standby.cut_off()
    cut = time.monotonic()
    tail = site.enqueue("work", 60, 0.01, priority=1)
    wait_for(lambda: site.runs().keys() >= set(tail), "the tail has run", 60)
    wait_for(lambda: sum(run.started > cut for t in behind for run in site.runs().get(t, ())) > 3, "others too", 60)

    lost = tasks_there(site.dsn) - tasks_there(dsn_for(standby.dsn, str(conninfo_to_dict(site.dsn)["dbname"])))
    primary.kill()
    standby.promote()
    promoted = time.monotonic()
    go_to(site, standby)
    # Exactly what was enqueued after the cut. Whoever waited for more than a local commit would know.
    assert lost == set(tail)
    site.acknowledged = [task for task in site.acknowledged if task not in lost]
    site.unknown += lost
    # What was claimed after the cut is free again there, while its worker may still be at it.
    site.frozen.update({pid: cut for pool in pools for pid in pool.processes()})
    site.recovery()
    site.drain(90)
    runs = site.runs()
    note.round(recovery=min(run.started for t in runs for run in runs[t] if run.started > promoted) - promoted)
    note.violations += [f"I3: {task} ran {len(runs[task])} times" for task in done + long if len(runs[task]) != 1]
    note.violations += site.check(max_starts=2).violations
    again = [task for task in behind if len(runs[task]) == 2]
    assert again, "what the standby had not heard of has run again"
    assert not tasks_there(site.dsn) & set(tail)
    note.violations += site.stop()


@pytest.mark.fault("F14", "F23", short=0, full=1)
def test_a_pool_at_a_standby_waits_until_it_takes_writes(pair, note):
    """Code 25006 at each statement: the pool neither ends nor spins nor floods the log."""
    site, primary, standby = pair
    tasks = site.enqueue("work", 10)
    wait_for(lambda: standby.has_caught_up_with(primary), "the standby has heard of them", pause=0.1)
    go_to(site, standby)
    site.pool_dsn = site.dsn
    pool = site.start(workers=2, ready=False)
    began = time.monotonic()
    wait_for(lambda: "read-only" in pool.log() or "recovery" in pool.log(), "it says why", 30)
    time.sleep(8)
    lines = len(pool.log().splitlines())
    note.violations += [f"I11: {lines} lines in the log"] * (lines > 5 * 4 * (time.monotonic() - began))
    assert "Traceback" not in pool.log()
    standby.promote()
    promoted = time.monotonic()
    site.drain(30)
    note.round(recovery=max(site.runs()[task][0].started for task in tasks) - promoted)
    note.violations += site.check(max_starts=1).violations + site.stop()
    primary.kill()


@pytest.mark.fault("F15", short=0, full=1)
def test_the_wait_for_the_standby_is_cancelled(pair, note):
    """The commit took place here, and nowhere else: the WARNING means that nobody knows, not that all is well."""
    site, primary, standby = pair
    pools = [site.start(workers=2)]
    site.enqueue("work", 20, 0.02)
    site.drain()
    wait_for(lambda: standby.has_caught_up_with(primary), "the standby follows", pause=0.1)
    # Their claims are safe; their receipts will not be.
    running = site.enqueue("work", 2, 3.0)
    wait_for(lambda: site.runs().keys() >= set(running), "they run")
    wait_for(lambda: standby.has_caught_up_with(primary), "the standby follows", pause=0.1)
    standby.crash()
    with psycopg.connect(primary.dsn, autocommit=True) as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        session.execute("SELECT pg_reload_conf()")
    cut = time.monotonic()
    doubtful = [enqueue_and_be_cancelled(site, way) for way in ("pg_cancel_backend", "pg_terminate_backend")]
    site.unknown += doubtful
    ended = wait_for(lambda: all(site.runs()[task][0].ended for task in running), "they have ended")
    assert ended
    wait_for(
        lambda: cancel_waiters(site, "pg_cancel_backend") or not still_there(site, running), "settled here", 60, 0.2
    )
    wait_for(
        lambda: not cancel_waiters(site, "pg_cancel_backend") and not still_there(site, running), "settled", 60, 0.3
    )
    primary.kill()
    standby.start()
    standby.promote()
    go_to(site, standby)
    promoted = time.monotonic()
    site.frozen.update({pid: cut for pool in pools for pid in pool.processes()})
    site.recovery(timeout=60)
    note.round(recovery=time.monotonic() - promoted)
    site.drain(60)
    note.violations += site.check(max_starts=2).violations
    assert [len(site.runs()[task]) for task in running] == [2, 2], "their receipts were lost, so they ran again"
    assert not tasks_there(site.dsn) & set(doubtful)
    note.violations += site.stop()


def enqueue_and_be_cancelled(site: Site, way: str) -> str:
    """Enqueue, and end the wait for the standby that way; return the id."""
    heard: list[str] = []
    task = make_task(f"{TASKS}.work", ())
    with psycopg.connect(site.dsn, autocommit=True) as session:
        pid = session.info.backend_pid
        session.add_notice_handler(lambda notice: heard.append(f"{notice.severity} {notice.message_primary}"))
        with Canceller(site, way, pid):
            try:
                queue.enqueue(session.cursor(), task)
                acknowledged = True
            except psycopg.OperationalError:
                acknowledged = False
    # Either an error or this word of warning: no producer may take it for done who does not ignore both.
    assert not acknowledged or any("canceling wait for synchronous replication" in line for line in heard), heard
    return task.id.hex


class Canceller:
    """Ends the wait of a session, once it waits."""

    def __init__(self, site: Site, way: str, pid: int) -> None:
        import threading

        self.thread = threading.Thread(
            target=wait_for, args=(lambda: cancel_waiters(site, way, pid), f"session {pid} waits")
        )

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: Any) -> None:
        self.thread.join()


def cancel_waiters(site: Site, way: str, pid: int | None = None) -> int:
    statement = f"""SELECT count(*) FILTER (WHERE {way}(pid)) FROM pg_stat_activity
                     WHERE wait_event = 'SyncRep' AND pid = coalesce(%s, pid)"""
    return int(site.value(statement, pid))


def still_there(site: Site, tasks: list[str]) -> int:
    return int(site.value("SELECT count(*) FROM pgq_queue WHERE id = ANY (%s::uuid[])", tasks))
