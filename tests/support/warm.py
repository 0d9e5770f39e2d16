"""Interpreters that start warm: they are forks of a process that has imported what each of them imports.

Tests start hundreds of pools, and half a second of the processor went into each interpreter: two for a pool. Here a
process, one for each process of pytest, imports Django and psycopg and sets nothing up. The supervisor is a fork of it,
and so is the fork server, which remains the supervisor's child. From then on they do what interpreters of their own
would: read the environment, set Django up, run the command. What a pool executes anew (HUP) starts cold, and so does a
second fork server. Programs of a project (see `projects`) start warm only where a test asks for it.

What starts warm has the command line of the process that was forked, and a pool has one child more until its fork
server is used. A pool starts cold if the test says so or has it run under a wrapper, or if its environment is made for
interpreters or the loader (PYTHONPATH, LD_PRELOAD). With PGQ_TEST_COLD=1 all do, and in the long forms of the suite
(`make faults`, `make deploy-test`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import process, util
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
#: What a pool imports before Django is set up; nothing of a project, and nothing that needs settings.
IMPORTED = (
    "django.core.management", "django.core.management.commands.check", "django.core.handlers.wsgi",
    "django.core.serializers.json", "django.core.cache.backends.locmem", "django.db.backends.postgresql.base",
    "django.db.models", "django.contrib.auth.hashers", "django.contrib.auth.validators", "django.urls", "django.forms",
    "django.template.backends.django", "django.views.generic.base", "asgiref.sync", "asyncio", "croniter",
    "multiprocessing.forkserver", "multiprocessing.resource_tracker", "psycopg", "psycopg.types.json", "zoneinfo",
)  # fmt: skip
#: Bytes of an order: an environment, and a command line.
LONGEST = 1 << 20
COLD = any(os.environ.get(name) for name in ("PGQ_TEST_COLD", "PGQ_FAULTS", "PGQ_DEPLOY"))


class WarmProcess:
    """What `subprocess.Popen` is to its child, as far as tests use it."""

    def __init__(self, pid: int, ended: socket.socket) -> None:
        self.pid, self._ended = pid, ended
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; minus the signal's number if a signal ended it.

        Raises:
            subprocess.TimeoutExpired: It has not ended within so many seconds.
        """
        code = self._code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"pool {self.pid}", timeout or 0.0)
        return code

    def _code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            self.returncode = int(self._ended.recv(16))
            self._ended.close()
        return self.returncode


class Warmth:
    """The process that is forked, started when it is first needed; it ends with this one."""

    def __init__(self) -> None:
        self.orders: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], out: IO[bytes], err: IO[bytes]
    ) -> WarmProcess:
        """Start a program of Python in a session of its own.

        Args:
            command: What follows the interpreter: ``-m django ...``, ``-c SOURCE ...`` or ``SCRIPT ...``.
            cwd: Its working directory.
            env: Its whole environment.
            out: Its stdout, a file with a descriptor.
            err: Its stderr.

        Raises:
            RuntimeError: The process that is forked has ended.
        """
        if self.orders is None:
            self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())],
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                )  # fmt: skip
        ended, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            order = json.dumps({"command": list(command), "cwd": str(cwd), "env": dict(env)}).encode()
            socket.send_fds(self.orders, [order], [out.fileno(), err.fileno(), theirs.fileno()])
        if not (pid := ended.recv(16)):
            raise RuntimeError("the process that is forked for warm interpreters (tests/support/warm.py) has ended")
        return WarmProcess(int(pid), ended)


WARMTH = Warmth()


def may_start_warm(env: Mapping[str, str]) -> bool:
    return not COLD and sys.platform == "linux" and not any(name.startswith(("PYTHON", "LD_")) for name in env)


# ------------------------------------------------------------------------------------------------- the process itself


def serve(orders: socket.socket) -> Callable[[], None] | None:
    """Fork as ordered. Returns in each fork what it is to run, and in this process None, when no order will come."""
    while True:
        order, fds, *_ = socket.recv_fds(orders, LONGEST, 3)
        if not order:
            return None
        if os.fork() == 0:
            # Its descriptor is closed below, and may be another file's by the time that this object is closed.
            orders.detach()
            return _watched(json.loads(order), *fds)
        for fd in fds:
            os.close(fd)


def _watched(order: dict[str, Any], out: int, err: int, ended: int) -> Callable[[], None]:
    """Fork once more: the supervisor. This process waits for it and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.setsid()
        os.close(out)
        os.close(err)
        with socket.socket(fileno=ended) as says:
            says.send(b"%d" % pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            # The test may not be there any more.
            with contextlib.suppress(OSError):
                says.send(b"%d" % code)
        os._exit(0)
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 1 << 16)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    return _spare_fork_server() or _program(order["command"])


def _program(command: list[str]) -> Callable[[], None]:
    """Return what runs the program as ``python COMMAND`` would, after it has set `sys` as that would."""
    kind, cwd = command[0], os.getcwd()
    sys.orig_argv[1:] = command
    sys.argv[:] = command if kind not in ("-m", "-c") else [kind, *command[2:]]
    # That of a script, of -m and of -c; then the environment's; then what is installed, pgq in its checkout the last.
    first = {"-m": cwd, "-c": ""}.get(kind, str(Path(cwd, kind).parent))
    named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [first, *named, *(path for path in sys.path if path not in ("", str(ROOT))), str(ROOT)]
    process.ORIGINAL_DIR = cwd  # type: ignore[attr-defined]  # where a child of multiprocessing looks for the script
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    if kind == "-m":
        return lambda: runpy.run_module(command[1], run_name="__main__", alter_sys=True) and None
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind == "-c":
        code = compile(command[1], "<string>", "exec")
    else:
        main.__file__ = str(Path(cwd, kind))
        code = compile(Path(main.__file__).read_bytes(), main.__file__, "exec")
    return lambda: exec(code, main.__dict__)


def _spare_fork_server() -> Callable[[], None] | None:
    """Fork what becomes the supervisor's first fork server. Returns in that fork what it is to run."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        return _become_fork_server(theirs)
    theirs.close()
    spawn = util.spawnv_passfds

    def spawnv_passfds(path: Any, args: Sequence[Any], passfds: Sequence[int]) -> int:
        source = str(args[-1])
        if ours.fileno() < 0 or not source.startswith("from multiprocessing.forkserver import main"):
            return spawn(path, args, passfds)
        order = json.dumps({"source": source, "fds": list(passfds), "env": dict(os.environ), "cwd": os.getcwd()})
        with ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
            socket.send_fds(ours, [order.encode()], passfds)
        return pid

    util.spawnv_passfds = spawnv_passfds
    return None


def _become_fork_server(orders: socket.socket) -> Callable[[], None]:
    data, fds, *_ = socket.recv_fds(orders, LONGEST, 16)
    if not data:
        # The supervisor has ended, or has executed itself anew.
        os._exit(0)
    orders.close()
    order = json.loads(data)
    # The source names them by number. Out of the way first, so that none overwrites another.
    high = [os.dup2(fd, 1000 + number) for number, fd in enumerate(fds)]
    os.closerange(3, 1000)
    for fd, number in zip(high, order["fds"], strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv[:] = ["-c"]
    return lambda: exec(order["source"], {"__name__": "__main__"})  # what `python -c` would run


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    # So that forks do not copy what is loaded.
    gc.collect()
    gc.freeze()
    # The kernel clears away the processes that wait for supervisors.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv.pop())) as orders:
        run = serve(orders)
    if run is not None:
        run()


if __name__ == "__main__":
    main()
