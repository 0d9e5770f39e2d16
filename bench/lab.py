"""The laboratory: a server, a fresh database for each cell, producers and pools of workers as real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench import measure, peers
from bench.redis import Redis
from bench.redis import running as running_redis
from bench.systems.base import ROOT, System
from pgq.contrib.embedded import Server

#: Durable, as in production. Larger than the defaults, so that no checkpoint falls into a cell: each begins after one
#: (dropping a database makes one), and all systems write their first pages under the same conditions.
SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "max_connections": 200,
    "fsync": "on",
    "synchronous_commit": "on",
}
SHOWN = (*SETTINGS, "full_page_writes", "wal_level", "autovacuum", "jit")
STOP_SECONDS = 10
ANSWER_SECONDS = 120
#: Variables that are about somebody else's Python, project or database.
_STRANGE = ("PYTHONHOME", "PYTHONPATH", "DJANGO_SETTINGS_MODULE", "VIRTUAL_ENV", "DATABASE_URL")


class Failed(Exception):
    """A system did not do what it was asked; the message has its last words."""


class Lab:
    """Everything that the systems share."""

    def __init__(self, server: str, postmaster: int | None, folder: Path) -> None:
        self.server, self.postmaster, self.folder = server, postmaster, folder
        self.redis: Redis | None = None
        self.pythons: dict[str, str] = {}
        self.stack = ExitStack()
        self.prefix = f"pgq_bench_{os.getpid()}"

    # --------------------------------------------------------------------------------------------- systems

    def install(self, system: System) -> None:
        """Make a system ready to be measured.

        Raises:
            peers.NotHere: It cannot be; the message says why.
        """
        if system.server == "redis" and self.redis is None:
            self.redis = self.stack.enter_context(running_redis())
        self.pythons[system.name] = peers.python_of(system)
        if system.server != "postgresql":
            return
        template = f"{self.prefix}_{system.name}"
        with psycopg.connect(self.server, autocommit=True) as admin:
            admin.execute(_named("CREATE DATABASE {}", template))
            self.stack.callback(self._drop, template)
        self.run_agent(system, make_conninfo(self.server, dbname=template), "prepare")

    def _drop(self, name: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as admin:
            admin.execute(_named("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))

    @contextmanager
    def fresh(self, system: System, name: str = "cell") -> Iterator[str]:
        """Yield a database with the system's tables and nothing in them; those with other names may be there too."""
        if system.server == "redis":
            if self.redis is None:
                raise Failed("Redis does not run")
            self.redis.flush()
            yield ""
            return
        name = f"{self.prefix}_{name}"
        self._drop(name)
        with psycopg.connect(self.server, autocommit=True) as admin:
            copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            admin.execute(copy.format(sql.Identifier(name), sql.Identifier(f"{self.prefix}_{system.name}")))
        try:
            yield make_conninfo(self.server, dbname=name)
        finally:
            self._drop(name)

    def environment(self, system: System, dsn: str) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if key not in _STRANGE and not key.startswith("PG")}
        more = {"PYTHONPATH": str(ROOT), "BENCH_STAMPS": str(self.stamps)}
        if self.redis is not None:
            more["BENCH_REDIS"] = self.redis.url
        if dsn:
            given = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
            more |= {"BENCH_DATABASE": json.dumps(given), "DATABASE_URL": dsn}
        return clean | more | system.environment()

    @property
    def stamps(self) -> Path:
        return self.folder / "stamps"

    def run_agent(self, system: System, dsn: str, *words: str) -> None:
        command = [self.pythons[system.name], "-m", "bench.agent", system.name, *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(system, dsn), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"{' '.join(words)}: {_last(done.stderr, 1)}")

    @contextmanager
    def producer(self, system: System, dsn: str) -> Iterator[Producer]:
        command = [self.pythons[system.name], "-m", "bench.agent", system.name]
        with Family([command], self.environment(system, dsn), self.folder / "agent.log", talks=True) as family:
            yield Producer(family)

    @contextmanager
    def pool(self, system: System, dsn: str, workers: int) -> Iterator[Family]:
        commands = system.worker_commands(self.pythons[system.name], workers)
        with Family(commands, self.environment(system, dsn), self.folder / "pool.log") as family:
            yield family

    # --------------------------------------------------------------------------------------------- numbers

    def server_cpu(self, system: System, everybody: list[measure.Process]) -> float | None:
        pid = self.redis.pid if system.server == "redis" and self.redis else self.postmaster
        return None if pid is None else measure.cpu_seconds([pid], everybody)

    def stats(self, system: System, dsn: str) -> measure.Stats | None:
        return measure.stats(dsn) if system.server == "postgresql" else None


class Family:
    """Processes of ours, each in a session of its own, with whatever they start."""

    def __init__(
        self, commands: list[list[str]], environment: Mapping[str, str], log: Path, *, talks: bool = False
    ) -> None:
        self.log = log
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        self.members: list[subprocess.Popen[bytes]] = []
        with log.open("wb") as output:
            for command in commands:
                self.members.append(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env=dict(environment),
                        stdin=pipe,
                        stdout=pipe if talks else output,
                        stderr=output,
                        start_new_session=True,
                    )
                )

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def roots(self) -> list[int]:
        return [member.pid for member in self.members]

    def check(self) -> None:
        """Raise Failed if one of them has ended."""
        for member in self.members:
            if member.poll() is not None:
                raise Failed(f"ended with {member.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        return _last(self.log.read_text(errors="replace"))

    def stop(self) -> None:
        left = [one.pid for one in measure.family(self.roots)]
        for member in self.members:
            if member.poll() is None:
                member.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for member in self.members:
            with suppress(subprocess.TimeoutExpired):
                member.wait(max(0.1, end - time.monotonic()))
        # Members that are dead and not waited for keep their pids; the others may have children who outlived them.
        sessions = set(self.roots)
        for one in measure.processes():
            if one.session in sessions or (one.pid in left and one.parent in sessions):
                with suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
        for member in self.members:
            member.wait()
            for stream in (member.stdin, member.stdout):
                if stream is not None:
                    stream.close()


class Producer:
    """A process that enqueues, see `bench.agent`."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._answer()

    @property
    def roots(self) -> list[int]:
        return self.family.roots

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        member = self.family.members[0]
        if member.stdin is None:
            raise Failed("the producer has no ears")
        try:
            member.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            member.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"the producer ended: {self.family.last_words()}") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        stream = self.family.members[0].stdout
        if stream is None:
            raise Failed("the producer has no voice")
        # One answer to one question: nothing can be left in the stream's buffer.
        if not select.select([stream], [], [], ANSWER_SECONDS)[0]:
            raise Failed(f"the producer said nothing for {ANSWER_SECONDS} s: {self.family.last_words()}")
        line = stream.readline()
        if not line:
            self.family.members[0].wait(STOP_SECONDS)
            raise Failed(f"the producer ended: {self.family.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def laboratory(*, fsync: bool = True, **more: str) -> Iterator[Lab]:
    """Use the server of DATABASE_URL, or start one for the occasion, with more settings if need be."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgq-bench-")))
        url = os.environ.get("DATABASE_URL")
        if url:
            dsn = make_conninfo(url)
        else:
            settings = SETTINGS | more | ({} if fsync else {"fsync": "off", "synchronous_commit": "off"})
            dsn = stack.enter_context(Server(settings=settings)).dsn
        lab = Lab(dsn, postmaster(dsn), folder)
        stack.enter_context(lab.stack)
        yield lab


def postmaster(dsn: str) -> int | None:
    """The pid of the server that answers on a socket of this machine; None if it is elsewhere."""
    with psycopg.connect(dsn) as connection:
        backend = connection.info.backend_pid
        with suppress(OSError, ValueError):
            if Path(connection.info.host).is_absolute() and Path(f"/proc/{backend}/comm").read_text() == "postgres\n":
                return next(one.parent for one in measure.processes() if one.pid == backend)
    return None


def _named(text: str, name: str) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(name))  # type: ignore[arg-type]


def _last(text: str, lines: int = 2) -> str:
    """The last words of a process; a traceback ends with the exception, boxes around it say nothing."""
    said = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    return " / ".join(said[-lines:])[-500:] or "it said nothing"


def describe(lab: Lab) -> dict[str, Any]:
    """Say what machine and server this is."""
    with psycopg.connect(lab.server) as connection:
        version = connection.info.parameter_status("server_version")
        settings = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SHOWN}  # type: ignore[index,arg-type]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(memory / 2**30, 1),
        "python": sys.version.split()[0],
        "postgresql": version,
        "settings": settings,
        "shared_server": "DATABASE_URL" in os.environ,
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"
