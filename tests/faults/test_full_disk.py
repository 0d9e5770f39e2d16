"""F17, F18: no room on the disk, for tables, for the log, for notifications."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgq.enqueue.make import make_task
from pgq.store import queue
from tests.support.pools import Pool, is_alive, wait_for
from tests.support.site import TASKS, OwnServer, Site, a_site

MOUNT = shutil.which("mount")


class Disk:
    """A small one. PostgreSQL's, when it is mounted at a folder of its own."""

    def __init__(self, path: Path, size: str, like: Path) -> None:
        self.path = path
        done = subprocess.run(
            [str(MOUNT), "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def free(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Leave no more than that many bytes."""
        with (self.path / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, self.free() - leave)

    def clear(self) -> None:
        (self.path / "ballast").unlink()

    def enlarge(self, size: str) -> None:
        subprocess.run([str(MOUNT), "-o", f"remount,size={size}", str(self.path)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)


@pytest.fixture
def mount() -> Iterator[Any]:
    """Mount small disks; unmounted when the test ends."""
    if MOUNT is None or os.geteuid() != 0:
        pytest.skip("needs root, to mount a tmpfs")
    with contextlib.ExitStack() as stack:

        def make(size: str, like: Path, path: Path | None = None) -> Disk:
            if path is None:
                path = Path(tempfile.mkdtemp(prefix="pgq-disk-"))
                stack.callback(shutil.rmtree, path, ignore_errors=True)
            disk = Disk(path, size, like)
            stack.callback(disk.unmount)
            return disk

        yield make


def enqueue_until_it_fails(site: Site, limit: float = 60.0) -> psycopg.Error:
    """Enqueue, a hundred at a time, until that is refused; what was refused is noted as unknown."""
    end = time.monotonic() + limit
    try:
        session = site.session()
    except psycopg.OperationalError as error:
        return error
    with session:
        while time.monotonic() < end:
            tasks = [make_task(f"{TASKS}.work", ()) for _ in range(100)]
            ids = [task.id.hex for task in tasks]
            try:
                queue.enqueue_many(session.cursor(), tasks)
            except psycopg.Error as error:
                site.unknown += ids
                return error
            site.acknowledged += ids
    pytest.fail(f"no enqueue was refused within {limit:g} s")


def too_noisy(pool: Pool, seconds: float) -> list[str]:
    lines = len(pool.log().splitlines())
    # Five lines a second for each process, and there are four of them.
    return [f"I11: {lines} lines in the log within {seconds:.0f} s"] * (lines > 20 * seconds)


@pytest.mark.fault("F17", short=0, full=2)
def test_no_room_for_tables(own_site, mount, rounds, note):
    site, server = own_site
    disk = mount("24m", server.server.data)
    with site.session() as session:
        session.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
        session.execute("ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE small")
        session.execute("ALTER INDEX ALL IN TABLESPACE pg_default SET TABLESPACE small")
    began = time.monotonic()
    pool = site.start(workers=2)
    for _ in range(rounds):
        running = site.enqueue("work", 2, 1.5)
        wait_for(lambda ids=running: site.runs().keys() >= set(ids), "they run")
        disk.fill(leave=100_000)
        error = enqueue_until_it_fails(site)
        assert isinstance(error, psycopg.errors.DiskFull)
        wait_for(lambda ids=running: all(site.runs()[task][0].ended for task in ids), "they have ended")
        wait_for(lambda: "could not extend" in pool.log(), "the pool has noticed", 20)
        time.sleep(3)
        disk.clear()
        freed = time.monotonic()
        site.drain()
        last = max(run.started for several in site.runs().values() for run in several)
        note.round(recovery=max(0.0, last - freed))
    note.violations += too_noisy(pool, time.monotonic() - began)
    note.violations += site.check(max_starts=1).violations + site.stop()
    with site.session() as session:
        session.execute("ALTER TABLE ALL IN TABLESPACE small SET TABLESPACE pg_default")
        session.execute("ALTER INDEX ALL IN TABLESPACE small SET TABLESPACE pg_default")
        session.execute("DROP TABLESPACE small")


@pytest.mark.fault("F17", short=0, full=2)
def test_no_room_for_the_log(own_server, mount, tmp_path, rounds, note):
    """PostgreSQL panics and stays down until there is room; then all goes on by itself."""
    server: OwnServer = own_server(max_wal_size="48MB", min_wal_size="32MB")
    with a_site(tmp_path, server.dsn) as site:
        server.crash()
        data = server.server.data
        disk = mount("100m", data)
        shutil.copytree(data / "pg_wal", disk.path / "pg_wal")
        for path in (disk.path / "pg_wal", *(disk.path / "pg_wal").rglob("*")):
            os.chown(path, data.stat().st_uid, data.stat().st_gid)
        shutil.rmtree(data / "pg_wal")
        (data / "pg_wal").symlink_to(disk.path / "pg_wal")
        server.start()
        pool = site.start(workers=2)
        for _ in range(rounds):
            site.enqueue("work", 20, 0.1)
            running = site.enqueue("work", 2, 4.0)
            postmaster = server.postmaster()
            disk.fill()
            with site.session() as noise, contextlib.suppress(psycopg.OperationalError):
                noise.execute("DROP TABLE IF EXISTS noise")
                noise.execute("CREATE TABLE noise AS SELECT repeat('x', 1000) FROM generate_series(1, 300000)")
            error = enqueue_until_it_fails(site, 60)
            assert isinstance(error, psycopg.OperationalError), error
            wait_for(lambda pid=postmaster: not is_alive(pid), "PostgreSQL is down", 60)
            time.sleep(2)
            disk.clear()
            server.start()
            back = time.monotonic()
            site.drain(90)
            started = [run.started for several in site.runs().values() for run in several]
            note.round(recovery=min((at for at in started if at > back), default=back) - back)
            assert {len(site.runs()[task]) for task in running} == {1}, "what ran meanwhile was settled afterwards"
        assert "Traceback" not in pool.log()
        verdict = site.check(max_starts=2)
        note.violations += verdict.violations + site.stop()


@pytest.mark.fault("F18", short=0, full=1)
def test_notifications_cannot_be_sent(own_server, mount, tmp_path, note):
    """Every commit with a NOTIFY fails now. Pools find out and ask for none; then no enqueue fails."""
    server: OwnServer = own_server()
    with a_site(tmp_path, server.dsn) as site:
        server.crash()
        disk = mount("320k", server.server.data, server.server.data / "pg_notify")
        server.start()
        pool = site.start(workers=2)
        site.enqueue("work", 5)
        site.drain()
        with site.session(autocommit=False) as stuck:
            # One session that listens and stays in its transaction: nothing can be removed from the queue.
            stuck.execute("LISTEN pgq_wake")
            stuck.commit()
            stuck.execute("SELECT 1")
            with site.session() as flood, contextlib.suppress(psycopg.OperationalError):
                while True:
                    flood.execute("SELECT pg_notify('flood', repeat('x', 7000))")
            refused = refusals(site, 15.0)
            # Until the next beat of the pool (3/4 s), and until its flag runs out (2 s).
            took = max(refused) - min(refused) if refused else 0.0
            note.violations += [f"F18: enqueues were refused for {took:.1f} s"] * (took > 8)
            note.round(recovery=took)
            late = [site.recovery() for _ in range(5)]
            note.violations += [f"I7: {late} s to a start without notifications"] * (max(late) > 5)
            assert "no notification reaches this pool" in pool.log()
            note.violations += waits_for_a_result(site)
            disk.enlarge("16m")
            stuck.close()
        wait_for(lambda: "notifications reach this pool again" in pool.log(), "they are used again")
        assert site.recovery() < 5
        site.drain()
        note.violations += site.check(max_starts=1).violations + site.stop()


def refusals(site: Site, seconds: float) -> list[float]:
    """Enqueue one task after the other for so long; return when (monotonic) one was refused."""
    refused = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            site.enqueue("work")
        except psycopg.OperationalError:
            refused.append(time.monotonic())
        time.sleep(0.1)
    return refused


def waits_for_a_result(site: Site) -> list[str]:
    """Somebody waits for a result, in a process of its own: so settling might be asked to notify."""
    (task,) = site.enqueue("work", 1, 1.0)
    code = f"import django; django.setup(); from pgq.tasks import fetch; print(fetch({task!r}, wait=15000).success)"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": site.dsn}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return [] if done.stdout.strip() == "True" else [f"F18: no result: {done.stdout} {done.stderr[-500:]}"]


@pytest.mark.fault("F18", short=0, full=1)
def test_a_flood_of_notifications(site, note):
    """10,000 of them, by somebody else, on the channel that wakes us: tasks start all the same, and nothing breaks."""
    pool = site.start(workers=2)
    with site.session() as flood:
        for _ in range(100):
            with flood.transaction():
                flood.execute("SELECT count(pg_notify('pgq_wake', n::text)) FROM generate_series(1, 100) n")
        recovery = site.recovery()
        with pytest.raises(psycopg.Error):
            flood.execute("SELECT pg_notify('pgq_wake', repeat('x', 8000))")
    site.enqueue("work", 100)
    site.drain()
    note.round(recovery=recovery)
    assert "Traceback" not in pool.log()
    note.violations += site.check(max_starts=1).violations + site.stop()
