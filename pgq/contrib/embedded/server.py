"""A PostgreSQL server of its own: made, started, stopped, removed. See `pgq.contrib.embedded`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.contrib.embedded.binaries import ServerError, copy_binaries, find_binaries, major_version, run
from pgq.contrib.embedded.folders import PORT, SOCKET, account_for, home_for, locked, private_dir, temp_base, try_lock

PROC = Path("/proc/self")


class Server:
    """A PostgreSQL server that lives in a folder.

    Args:
        folder: Where everything goes; made if it is missing. If the server's user cannot use it, a folder under the
            system's temporary directory stands for it, always the same one: see ``home``. None: a throwaway server.
        settings: Server settings, as in postgresql.conf; a server that already runs keeps the ones it has.
        binaries: Directory of the PostgreSQL to run; default: `find_binaries`.
        timeout: Seconds for a start or a stop.

    ``dsn`` is for libpq and psycopg, ``url`` for DATABASE_URL (see `database_from_url`); both name the database
    ``postgres`` and its superuser. ``started``: whether this object started the server, and did not join one.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        binaries: Path | None = None,
        timeout: float = 60,
    ) -> None:
        self.settings = dict(settings or {})
        self.timeout = timeout
        self.started = False
        self.binaries = binaries.absolute() if binaries else find_binaries()
        self.major = major_version(self.binaries)
        if self.major is None:
            raise ServerError(f"{self.binaries} holds no working initdb, pg_ctl and postgres")
        self._owner_lock: int | None = None
        self.home = self._throwaway_home() if folder is None else home_for(Path(folder).absolute())
        self.account = account_for(self.home)
        # The version is in the name: the files of another one are left alone.
        self.data = self.home / f"pg{self.major}"
        self.log = self.data / "server.log"
        self.dsn = make_conninfo(host=str(self.data), port=PORT, user="postgres", dbname="postgres")
        self.url = f"postgresql://postgres@{quote(str(self.data), safe='')}:{PORT}/postgres"

    def __repr__(self) -> str:
        return f"<Server PostgreSQL {self.major} in {self.home}>"

    @property
    def running(self) -> bool:
        """Whether a server answers. Its pid would prove nothing: after a kill it may be another process's."""
        return _listens(self.data)

    def start(self) -> Server:
        """Start the server, or join the one that runs here already; returns when it answers queries."""
        deadline = time.monotonic() + self.timeout
        try:
            with locked(self.home, deadline):
                if not self._joined():
                    binaries = self._runnable_binaries()
                    if not self.data.exists():
                        self._initdb(binaries)
                    self.started = True  # Set before it is so: if this is interrupted, the server is stopped.
                    self._launch(binaries, deadline)
                self._wait_until_ready(deadline)
        except BaseException:
            if self.started or self._owner_lock is not None:
                with suppress(ServerError):
                    self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop what runs in the folder, also if it was only joined; a throwaway server is deleted as well."""
        if self._owner_lock is not None:
            return self.remove()
        if not self.home.is_dir():
            return None
        with locked(self.home, time.monotonic() + self.timeout):
            # A server of another version too: it must not go on unseen after an upgrade.
            for data in self.home.glob("pg[0-9]*"):
                for mode, seconds in (("fast", self.timeout), ("immediate", 10)):
                    if _listens(data):
                        args = ["-m", mode, "-w", "-t", f"{seconds:.0f}", "stop"]
                        self._postgres(self._runnable_binaries() / "pg_ctl", *args, data=data)
                if _listens(data):
                    raise ServerError(f"the server in {data} does not stop\n{_tail(data / 'server.log')}")
        self.started = False
        return None

    def remove(self) -> None:
        """Stop the server and delete its databases."""
        lock, self._owner_lock = self._owner_lock, None
        self.stop()
        # Only what this class has made: the folder may hold other things too.
        for path in self.home.glob("*"):
            if re.fullmatch(r"(new-)?pg\d+|binaries-\d+(\.new)?", path.name):
                shutil.rmtree(path, ignore_errors=True)
            elif path.name in ("lock", "owned", "new") and path.is_file():
                path.unlink()
        with suppress(OSError):
            self.home.rmdir()
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.started:
            self.stop()

    # Steps

    def _throwaway_home(self) -> Path:
        base = temp_base()
        for left in base.glob("pgq-throwaway-*"):
            with suppress(OSError, ServerError):
                if left.lstat().st_uid == os.geteuid() and (lock := try_lock(left / "owned")) is not None:
                    try:
                        Server(left, binaries=self.binaries, timeout=10).remove()
                    finally:
                        os.close(lock)
        home = Path(tempfile.mkdtemp(prefix="pgq-throwaway-", dir=base))
        if os.geteuid() == 0:
            home.chmod(0o755)  # For the server's user to get to the data directory, which is closed.
        # It has this name only once it is locked: else another process could take its owner for dead.
        (home / "new").touch()
        self._owner_lock = try_lock(home / "new")
        (home / "new").rename(home / "owned")
        return home

    def _joined(self) -> bool:
        """Whether a server runs here; if not, nothing is left that would keep one from starting.

        Both pg_ctl and postgres take any living process with the pid in postmaster.pid for the server: after a
        container restart that is the rule, not the exception. They do clear a pid that no process has.
        """
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return _listens(self.data)
        patience = time.monotonic() + 10
        while not _listens(self.data):
            try:
                os.kill(pid, 0)
                # A server works in its data directory. Without /proc, it is none if it does not listen in the end.
                is_server = not PROC.exists() or Path(f"/proc/{pid}/cwd").samefile(self.data)
            except ProcessLookupError:
                return False
            except OSError:
                is_server = False  # Another user's process, or one that ended and waits for its parent.
            if is_server and time.monotonic() < patience:
                time.sleep(0.1)
            elif is_server and PROC.exists():
                raise ServerError(f"the server in {self.data} (pid {pid}) does not answer\n{_tail(self.log)}")
            else:
                for stale in (self.data / "postmaster.pid", self.data / f"{SOCKET}.lock"):
                    stale.unlink(missing_ok=True)
                return False
        return True

    def _runnable_binaries(self) -> Path:
        binaries = self.binaries
        if self.account and major_version(binaries, self.account) is None:
            if not {"site-packages", "dist-packages"}.isdisjoint(binaries.parts):
                binaries = copy_binaries(binaries, self.home)
            if major_version(binaries, self.account) is None:
                raise ServerError(f"the server's user (uid {self.account.uid}) cannot run {binaries / 'postgres'}")
        return binaries

    def _initdb(self, binaries: Path) -> None:
        # Under another name until it is whole: an initdb that was killed leaves nothing that looks like a database.
        new = self.home / f"new-{self.data.name}"
        shutil.rmtree(new, ignore_errors=True)
        private_dir(new, self.account)
        args = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        args += ["--auth-local=trust", "--auth-host=scram-sha-256"]
        if self.settings.get("fsync") == "off":
            args.append("--no-sync")
        done = self._postgres(binaries / "initdb", *args, data=new)
        if done.returncode:
            raise ServerError(f"initdb failed in {new}\n{done.stdout.strip()}")
        new.rename(self.data)

    def _launch(self, binaries: Path, deadline: float) -> None:
        settings = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": f'"{self.data}"',
            "unix_socket_permissions": "0700",
            **self.settings,
        }
        # -o goes through a shell.
        options = " ".join(f"-c {shlex.quote(f'{key}={value}')}" for key, value in settings.items())
        seen = self.log.stat().st_size if self.log.exists() else 0
        while True:
            left = max(deadline - time.monotonic(), 1)
            args = ["-w", "-t", f"{left:.0f}", "-l", self.log.name, "-o", options, "start"]
            done = self._postgres(binaries / "pg_ctl", *args, data=self.data)
            if not done.returncode:
                return
            output = _tail(self.log, seen)
            # The sessions of a server that was killed take a moment to notice.
            if "shared memory block" not in output or time.monotonic() > deadline - 1:
                raise ServerError(f"PostgreSQL {self.major} did not start in {self.data}\n{done.stdout}{output}")
            time.sleep(0.3)

    def _wait_until_ready(self, deadline: float) -> None:
        while True:
            try:
                return psycopg.connect(self.dsn, connect_timeout=10).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise ServerError(f"no connection to {self!r}: {error}\n{_tail(self.log)}") from error
            time.sleep(0.1)

    def _postgres(self, program: Path, *args: str, data: Path) -> subprocess.CompletedProcess[str]:
        # The path goes by PGDATA and the working directory: pg_ctl would put it in double quotes for a shell.
        limit = self.timeout + 10
        try:
            return run([program, *args], account=self.account, timeout=limit, cwd=data, env={"PGDATA": str(data)})
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{program} took over {limit:.0f} s\n{_tail(data / 'server.log')}") from error
        except OSError as error:
            raise ServerError(f"cannot run {program}: {error}") from error


def _listens(data: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(data / SOCKET))
        except (BlockingIOError, TimeoutError):
            return True  # Its queue of connections is full, so it has one.
        except OSError:
            return False
        return True


def _tail(log: Path, start: int = 0, lines: int = 15) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 10_000))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def database_from_url(url: str) -> dict[str, Any]:
    """An entry of Django's DATABASES from a libpq URL (or ``key=value`` string), with its parameters as OPTIONS.

    libpq does the parsing, so whatever psql takes works here: sockets, several hosts, percent-encoded passwords.

    Args:
        url: What libpq takes.
    """
    try:
        options: dict[str, Any] = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        # Not chained: the message of libpq may quote the password.
        raise ValueError("not a PostgreSQL URL such as postgresql://user:password@host:5432/name") from None
    named = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    values = {key: str(options.pop(name, "")) for key, name in named.items()}
    return {"ENGINE": "django.db.backends.postgresql", **values, "OPTIONS": options}
