"""Pools of workers for tests: real processes, a real database, and a file that holds what ran.

::

    def test_something(pool, oracle):
        running = pool(workers=2)                       # ready when this returns
        async_task(oracle_tasks.mark, "a")
        wait_for(lambda: oracle.ends("a") == 1)

A pool is stopped when the test ends, and none of its processes may be left then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from django.db import connection as django_connection
from psycopg.conninfo import make_conninfo

from pgq.pool.orphans import process_stat
from tests.support import warm

ROOT = Path(__file__).parents[2]
#: Long: it is only waited for when a test fails, and the machines that run tests are slow and busy.
PATIENCE = 30.0

T = TypeVar("T")


def until(read: Callable[[], T], timeout: float, pause: float = 0.01) -> T:
    """Call `read` until it returns something true, and return that.

    Raises:
        TimeoutError: It has not.
    """
    end = time.monotonic() + timeout
    while not (found := read()):
        if time.monotonic() > end:
            raise TimeoutError(f"nothing after {timeout:g} s")
        time.sleep(pause)
    return found


def wait_for(read: Callable[[], T], what: str = "", timeout: float = PATIENCE, pause: float = 0.01) -> T:
    """As `until`, but if it never does, the test has failed."""
    try:
        return until(read, timeout, pause)
    except TimeoutError:
        pytest.fail(f"waited {timeout:g} s in vain: {what or read}")


def test_dsn() -> str:
    """Connection string of Django's test database."""
    parameters = django_connection.get_connection_params()
    kept = ("host", "port", "user", "password", "dbname")
    return make_conninfo(**{key: parameters[key] for key in kept if parameters.get(key)})


test_dsn.__test__ = False  # type: ignore[attr-defined]


def connect(**options: Any) -> psycopg.Connection[Any]:
    """Open a session of its own on the test database, in autocommit by default."""
    return psycopg.connect(test_dsn(), **{"autocommit": True, **options})


def processes_of_session(session: int) -> dict[int, str]:
    """The living processes of a session (setsid), by pid, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, _, of_session, *_ = process_stat(int(entry.name))
            if int(of_session) == session and state not in "ZX":
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")[:80]
        except OSError:
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return process_stat(pid)[0] not in "ZX"
    except OSError:
        return False


class Oracle:
    """The file in which tasks of `tests.functions.oracle` say that they start and end, a line for each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()]

    def count(self, event: str) -> Counter[str]:
        return Counter(line[1] for line in self.lines() if line[0] == event)

    def starts(self, key: object) -> int:
        return self.count("start")[str(key)]

    def ends(self, key: object) -> int:
        return self.count("end")[str(key)]

    def pids(self, key: object) -> list[int]:
        """In which processes a task started, in order."""
        return [int(line[2]) for line in self.lines() if line[0] == "start" and line[1] == str(key)]

    def times(self, key: object, event: str = "start") -> list[float]:
        """When (CLOCK_MONOTONIC, which all processes share)."""
        return [float(line[3]) for line in self.lines() if line[0] == event and line[1] == str(key)]


class Pool:
    """A running `pgq_worker`."""

    def __init__(
        self,
        log: Path,
        oracle: Oracle,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        dsn: str | None = None,
        look_dsn: str | None = None,
        wrapper: Sequence[str] = (),
        cold: bool = False,
        **settings: Any,
    ) -> None:
        """`dsn` is the pool's database, `look_dsn` how the test gets there itself; None: Django's test database.

        `cold`: it starts with interpreters of its own, and has no child but those that it starts (see warm.py).
        """
        self.log_path = log
        self.dsn = dsn or test_dsn()
        self.look_dsn = look_dsn or self.dsn
        self.settings = {"workers": 2, "save_limit": 0, "kill_after": 1.0, **settings}
        #: Nothing was left of it when a test checked. From then on its pid may be another's.
        self.gone = False
        environment = {
            **os.environ,
            "DATABASE_URL": self.dsn,
            "DJANGO_SETTINGS_MODULE": "tests.support.pool_settings",
            "PGQ_TEST_SETTINGS": json.dumps(self.settings),
            "PGQ_TEST_ORACLE": str(oracle.path),
            "PYTHONPATH": str(ROOT),
            **(env or {}),
        }
        self.process: subprocess.Popen[bytes] | warm.WarmProcess
        with log.open("ab") as output:
            if not (wrapper or cold) and warm.may_start_warm(env or {}):
                command = ["-m", "django", "pgq_worker", *arguments]
                self.process = warm.WARMTH.start(command, ROOT, environment, output, output)
                return
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "django", "pgq_worker", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for(self, read: Callable[[], T], what: str = "", timeout: float = PATIENCE, pause: float = 0.01) -> T:
        """As the function of that name, but a pool that ends meanwhile is a failure at once."""

        def look_at_both() -> T:
            found = read()
            if not found and self.process.poll() is not None:
                pytest.fail(f"the pool ended with {self.process.returncode}, waiting for {what or read}")
            return found

        return wait_for(look_at_both, what, timeout, pause)

    def report(self) -> list[dict[str, Any]]:
        """What pgq_worker has of this pool's workers; empty if the pool is not in it."""
        with psycopg.connect(self.look_dsn, autocommit=True) as session:
            row = session.execute("SELECT workers FROM pgq_worker WHERE pid = %s", (self.pid,)).fetchone()
        return row[0] if row else []

    def worker_pids(self) -> list[int]:
        """The pids of the workers, by their places; waits until all are there."""

        def read() -> list[int]:
            report = self.report()
            ready = [row["pid"] for row in report if row["state"] in ("working", "idle")]
            return ready if len(ready) == len(report) and all(map(is_alive, ready)) else []

        # Each reading is a new session, and the workers that start need the processor.
        return self.wait_for(read, "all workers are ready", pause=0.05)

    def wait_until_ready(self) -> Pool:
        self.worker_pids()
        return self

    def processes(self) -> dict[int, str]:
        return {} if self.gone else processes_of_session(self.pid)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until the supervisor has ended and nothing is left of the pool; return its exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the pool did not end within {timeout:g} s")
        wait_for(lambda: not self.processes(), "no process of the pool is left", 10)
        self.gone = True
        return code

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        assert self.wait() == 0

    def destroy(self) -> list[str]:
        """Kill what is left; return what that was."""
        left = self.processes()
        for pid in left:
            with_pid_gone = (ProcessLookupError, PermissionError)
            try:
                os.kill(pid, signal.SIGKILL)
            except with_pid_gone:
                continue
        self.process.wait()
        return list(left.values())


@pytest.fixture
def oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Oracle:
    """What ran, and where."""
    oracle = Oracle(tmp_path / "oracle")
    monkeypatch.setenv("PGQ_TEST_ORACLE", str(oracle.path))
    return oracle


@pytest.fixture
def pool(transactional_db: None, tmp_path: Path, oracle: Oracle) -> Iterator[Callable[..., Pool]]:
    """Start pools: ``pool("--queues", "a", workers=3)``. Arguments are the command's, keywords are settings.PGQ."""
    pools: list[Pool] = []

    def start(*arguments: str, ready: bool = True, **settings: Any) -> Pool:
        new = Pool(tmp_path / f"pool{len(pools)}.log", oracle, *arguments, **settings)
        pools.append(new)
        return new.wait_until_ready() if ready else new

    left: list[str] = []
    try:
        yield start
        for running in pools:
            if running.process.poll() is None:
                # By now nothing that a test waits for runs; what runs still may run for ever.
                running.signal(signal.SIGTERM)
                running.signal(signal.SIGQUIT)
                assert running.wait() == 0
    finally:
        for running in pools:
            left += running.destroy()
            # Shown by pytest if the test failed.
            print(f"--- log of pool {running.pid} {running.settings}\n{running.log()}")  # noqa: T201
    assert not left, f"the pool left processes behind: {left}"


@pytest.fixture
def session(transactional_db: None) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """Open sessions of their own on the test database; they are closed, and rolled back, when the test ends."""
    opened: list[psycopg.Connection[Any]] = []

    def open_session(**options: Any) -> psycopg.Connection[Any]:
        opened.append(connect(**options))
        return opened[-1]

    yield open_session
    for connection in opened:
        connection.close()
