"""Runs an example: its own PostgreSQL, then each line of its Procfile, until one of them ends or Ctrl-C.

    python examples/run.py shop

DATABASE_URL  an empty PostgreSQL database to use; without it a server is started, and thrown away at the end
PORT          where its page is served (default: the first free one from 8000 on)

It does what `foreman` or `honcho` does: the line `release` first, which makes the tables, then all others side by side.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from pgq.contrib.embedded import Server, ServerError

HERE = Path(__file__).resolve().parent
#: Seconds that processes have to end after SIGTERM: running tasks may finish.
PATIENCE = 20.0


class Processes:
    """The lines of a Procfile as processes, each in a group of its own, so that Ctrl-C reaches none before its time."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopping = threading.Event()

    def start(self, name: str, line: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            f"exec {line}", shell=True, cwd=self.folder, env=self.environment, start_new_session=True
        )
        self.running[name] = process
        return process

    def first_to_end(self) -> int:
        """Wait until a process has ended, and return its status; 0 if all were asked to stop."""
        while not self.stopping.wait(0.05):
            for name, process in self.running.items():
                if process.poll() is not None:
                    if process.returncode:
                        print(f"{name} ended with status {process.returncode}.", flush=True)
                    return process.returncode
        return 0

    def stop(self) -> None:
        """End what runs: by SIGTERM, and after some time by SIGKILL, with all that it has started."""
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + PATIENCE
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def procfile(folder: Path) -> dict[str, str]:
    """Return the command of each process by its name."""
    lines = [line for line in (folder / "Procfile").read_text().splitlines() if line and not line.startswith("#")]
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines)}


def free_port(first: int = 8000) -> int:
    for port in range(first, 65536):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise SystemExit("No port is free.")


def run(folder: Path, database_url: str, stopped: threading.Event) -> int:
    port = os.environ.get("PORT") or str(free_port())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    own = {"DATABASE_URL": database_url, "PORT": port, "PATH": path, "PYTHONUNBUFFERED": "1"}
    processes = Processes(folder, {**os.environ, "DJANGO_RUNSERVER_HIDE_WARNING": "true", **own})
    processes.stopping = stopped
    commands = procfile(folder)
    try:
        if release := commands.pop("release", None):
            status = processes.start("release", release).wait()
            if status or stopped.is_set():
                return status
            del processes.running["release"]
        for name, command in commands.items():
            processes.start(name, command)
        if "web" in commands:
            print(f"http://127.0.0.1:{port}/ (Ctrl-C ends the example)", flush=True)
        return processes.first_to_end()
    finally:
        processes.stop()


def main() -> int:
    names = sorted(path.parent.name for path in HERE.glob("*/Procfile"))
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        print(f"Which example? python examples/run.py NAME, and NAME is one of: {', '.join(names)}", file=sys.stderr)
        return 2
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    folder = HERE / sys.argv[1]
    if url := os.environ.get("DATABASE_URL"):
        return run(folder, url, stopped)
    try:
        with Server() as server:
            return run(folder, server.url, stopped)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
