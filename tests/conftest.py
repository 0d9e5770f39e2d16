"""One PostgreSQL server for the whole run; fixtures for pools of workers are in pools.py."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.contrib.embedded import Server, ServerError

pytest_plugins = [
    "tests.support.fixtures",
    "tests.support.pools",
    "tests.support.browser",
    "tests.support.deploy",
    "tests.support.notify",
    "tests.support.projects",
    "tests.support.retention",
    "tests.support.faults",
    "tests.support.selection",
    "tests.support.skips",
    "tests.support.costs",
    "tests.support.examples",
    "tests.support.packages",
]

SERVER_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": 200,
    # Somebody who prepares a transaction and goes away pins the horizon.
    "max_prepared_transactions": 4,
    "shared_buffers": "128MB",
    # No checkpoint but those that CREATE DATABASE and the end of the server ask for.
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "log_lock_waits": "on",
    "log_line_prefix": "%m [%p] %q%a %d ",
}
SERVER = pytest.StashKey[Server]()
#: What is compiled, for the next run too.
BYTECODE = Path(__file__).parents[1] / ".pgq" / "bytecode"


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts us in the background has us ignore Ctrl-C, and each program that a test starts inherits it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "smoke: one of the few that `python -m tests.matrix --short` runs")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    # The workers of xdist start after this, with this environment.
    config = session.config
    if not hasattr(config, "workerinput"):
        _compile_once(config)
    if os.environ.get("DATABASE_URL") or hasattr(config, "workerinput") or config.option.collectonly:
        return
    try:
        server = config.stash[SERVER] = Server(settings=SERVER_SETTINGS)
        config.add_cleanup(server.stop)
        server.start()
    except ServerError as error:
        raise pytest.UsageError(str(error)) from error
    # What the developer's shell says about another server would get in the way.
    for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGQ_")]:
        del os.environ[name]
    os.environ.update({f"PG{key.upper()}": str(value) for key, value in _parameters(server.dsn).items()})


def _compile_once(config: pytest.Config) -> None:
    """Let hundreds of short processes share what Python compiles, also where it may not lie beside the sources."""
    if not os.environ.get("PYTHONDONTWRITEBYTECODE") or os.environ.get("PYTHONPYCACHEPREFIX"):
        return
    folder = str(BYTECODE / sys.implementation.cache_tag)
    try:
        new = not Path(folder).exists()
        # Some tests start processes of other users.
        Path(folder).mkdir(0o755, parents=True, exist_ok=True)
    except OSError:
        temporary = tempfile.TemporaryDirectory(prefix="pgq-bytecode-", ignore_cleanup_errors=True)
        config.add_cleanup(temporary.cleanup)
        folder, new = temporary.name, True
        Path(folder).chmod(0o755)
    if new:
        _link_what_is_compiled(folder)
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = folder
    sys.dont_write_bytecode = False


def _link_what_is_compiled(folder: str) -> None:
    """Link what is compiled of Python's and of installed packages' modules to where it is looked for from now on."""
    paths = sysconfig.get_paths()
    for root in {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}:
        for cache in Path(root).rglob("__pycache__"):
            if {"test", "tests"}.intersection(cache.relative_to(root).parts):
                continue
            place = Path(folder, *cache.parent.parts[1:])
            place.mkdir(parents=True, exist_ok=True)
            for compiled in cache.glob(f"*.{sys.implementation.cache_tag}*.pyc"):
                # Of two that are one, by a link between the folders, the first will do.
                with contextlib.suppress(FileExistsError):
                    (place / compiled.name).symlink_to(compiled)


def pytest_report_header(config: pytest.Config) -> str:
    if config.option.collectonly:
        return "database: none, only collecting"
    server = config.stash.get(SERVER, None)
    return f"database: {server!r}" if server else "database: the one of DATABASE_URL"


def _parameters(conninfo: str) -> dict[str, object]:
    parameters = conninfo_to_dict(conninfo)
    return {"database" if key == "dbname" else key: value for key, value in parameters.items()}


@pytest.fixture(scope="session")
def pg_dsn() -> str:
    """Connection string (libpq) of a plain database of the test server, where a test may make its own schema.

    It is not Django's test database, and all tests share it.
    """
    if url := os.environ.get("DATABASE_URL"):
        return make_conninfo(url)
    named = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    return make_conninfo(**{key: os.environ[name] for key, name in named.items()})
