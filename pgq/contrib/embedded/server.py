"""A PostgreSQL server of its own: made, started, stopped, removed. See `pgq.contrib.embedded`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.contrib.embedded.binaries import Account, ServerError, copy_binaries, find_binaries, major_version, run

PORT = 5432  # Only names the socket; each server has a directory of its own.
SOCKET = f".s.PGSQL.{PORT}"
SOCKET_PATH_MAX = 103  # On macOS and the BSDs; Linux has four more.
AWKWARD = frozenset('"$`\\\n,')  # initdb puts paths into shell commands; libpq takes a comma for the end of a host.
PROC = Path("/proc/self")


# --- Server -----------------------------------------------------------------------------------------------------------


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
        self.home = self._throwaway_home() if folder is None else _home_for(Path(folder).absolute())
        self.account = _account_for(self.home)
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
            with _locked(self.home, deadline):
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
        with _locked(self.home, time.monotonic() + self.timeout):
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
        base = _temp_base()
        for left in base.glob("pgq-throwaway-*"):
            with suppress(OSError, ServerError):
                if left.lstat().st_uid == os.geteuid() and (lock := _try_lock(left / "owned")) is not None:
                    try:
                        Server(left, binaries=self.binaries, timeout=10).remove()
                    finally:
                        os.close(lock)
        home = Path(tempfile.mkdtemp(prefix="pgq-throwaway-", dir=base))
        if os.geteuid() == 0:
            home.chmod(0o755)  # For the server's user to get to the data directory, which is closed.
        # It has this name only once it is locked: else another process could take its owner for dead.
        (home / "new").touch()
        self._owner_lock = _try_lock(home / "new")
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
        _private_dir(new, self.account)
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


# --- Folders and processes --------------------------------------------------------------------------------------------


def _home_for(folder: Path) -> Path:
    """That folder if a server can be kept there, else the one that stands for it."""
    try:
        _make_open(folder)
        reason = _why_not(folder)
    except OSError as error:
        reason = f"{error.strerror}"
    if reason:
        home = _stand_in(folder)
        _make_stand_in(home)
        if still := _why_not(home):
            raise ServerError(f"no folder for the server: {folder}: {reason}; {home}: {still}")
        return home
    return folder


def _account_for(home: Path) -> Account | None:
    """The user that runs the server of that folder: this process's (None), but PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    with suppress(OSError):
        for data in home.glob("pg[0-9]*"):
            if (found := data.stat()).st_uid != 0:
                return Account(found.st_uid, found.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise ServerError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as")


def _why_not(home: Path) -> str:
    """Why no server can be kept in that folder; empty if one can."""
    if not AWKWARD.isdisjoint(str(home)):
        return f"has one of {''.join(sorted(AWKWARD))!r} in its path"
    if len(os.fsencode(home / "pg18" / SOCKET)) > SOCKET_PATH_MAX:
        return "its path is too long for a socket"
    if account := _account_for(home):
        # The kernel knows better than the permission bits of all the parents.
        done = run(["/bin/sh", "-c", 'cd -- "$1"', "sh", home], account=account, timeout=10)
        return f"closed to uid {account.uid}" if done.returncode else ""
    if not os.access(home, os.W_OK | os.X_OK):
        return "not writable"
    if any(data.stat().st_uid != os.geteuid() for data in home.glob("pg[0-9]*")):
        return "holds the databases of another user"
    return ""


def _temp_base() -> Path:
    """The temporary directory; TMPDIR may be one that is closed to the server's user."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 only private directories are made there
        if not _why_not(Path(base)):
            return Path(base)
    raise ServerError("there is no temporary directory that the server's user can enter")


def _stand_in(folder: Path) -> Path:
    """The folder with a short path, open to the server's user, that stands for another one; always the same."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]
    return _temp_base() / f"pgq-{os.geteuid()}-{digest}"


def _make_open(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o755)  # Whatever the umask is; the data directory in it is closed.


def _make_stand_in(home: Path) -> None:
    _make_open(home)
    found = home.lstat()
    # The name can be guessed, so another user may have made it first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ServerError(f"{home} exists and is not a directory of this user alone; remove it")


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


def _private_dir(path: Path, account: Account | None) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(path, *account, follow_symlinks=False)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _locked(home: Path, deadline: float) -> Iterator[None]:
    """One caller at a time; the kernel frees the lock of one that dies."""
    os.close(os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644))
    while (lock := _try_lock(home / "lock")) is None:
        if time.monotonic() > deadline:
            raise ServerError(f"another process has kept {home / 'lock'} locked all this time")
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(lock)


def _tail(log: Path, start: int = 0, lines: int = 15) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 10_000))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


# --- Settings and command line ----------------------------------------------------------------------------------------


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
