"""Folders that a server can be kept in: open to its user, closed to others, locked by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pgq.contrib.embedded.binaries import Account, ServerError, run

PORT = 5432  # Only names the socket; each server has a directory of its own.
SOCKET = f".s.PGSQL.{PORT}"
SOCKET_PATH_MAX = 103  # On macOS and the BSDs; Linux has four more.
AWKWARD = frozenset('"$`\\\n,')  # initdb puts paths into shell commands; libpq takes a comma for the end of a host.


def home_for(folder: Path) -> Path:
    """That folder if a server can be kept there, else the one that stands for it."""
    try:
        _make_open(folder)
        reason = _why_not(folder)
    except OSError as error:
        reason = f"{error.strerror}"
    if reason:
        home = stand_in(folder)
        _make_stand_in(home)
        if still := _why_not(home):
            raise ServerError(f"no folder for the server: {folder}: {reason}; {home}: {still}")
        return home
    return folder


def account_for(home: Path) -> Account | None:
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
    if account := account_for(home):
        # The kernel knows better than the permission bits of all the parents.
        done = run(["/bin/sh", "-c", 'cd -- "$1"', "sh", home], account=account, timeout=10)
        return f"closed to uid {account.uid}" if done.returncode else ""
    if not os.access(home, os.W_OK | os.X_OK):
        return "not writable"
    if any(data.stat().st_uid != os.geteuid() for data in home.glob("pg[0-9]*")):
        return "holds the databases of another user"
    return ""


def temp_base() -> Path:
    """The temporary directory; TMPDIR may be one that is closed to the server's user."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 only private directories are made there
        if not _why_not(Path(base)):
            return Path(base)
    raise ServerError("there is no temporary directory that the server's user can enter")


def stand_in(folder: Path) -> Path:
    """The folder with a short path, open to the server's user, that stands for another one; always the same."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]
    return temp_base() / f"pgq-{os.geteuid()}-{digest}"


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


def private_dir(path: Path, account: Account | None) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(path, *account, follow_symlinks=False)


def try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def locked(home: Path, deadline: float) -> Iterator[None]:
    """One caller at a time; the kernel frees the lock of one that dies."""
    os.close(os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644))
    while (lock := try_lock(home / "lock")) is None:
        if time.monotonic() > deadline:
            raise ServerError(f"another process has kept {home / 'lock'} locked all this time")
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(lock)
