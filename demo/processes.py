"""The demo's processes: started so that they end with it, watched, and stopped; and the signals that end it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class DemoError(Exception):
    """The demo cannot go on; the message is for whoever runs it."""


class Stopped(BaseException):
    """Whoever runs the demo has had enough of it. Like KeyboardInterrupt, nothing that catches Exception keeps it."""


class Signals:
    """Turns the first SIGINT, SIGTERM or SIGHUP into `Stopped`; a bit later where it would leave something."""

    def __init__(self) -> None:
        self.count = 0
        self.held = False

    def install(self) -> None:
        # SIGINT even if it is ignored, as it is in what a script has put into the background; SIGHUP not: nohup.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._arrived)

    def _arrived(self, number: int, frame: object) -> None:
        self.count += 1
        # Only once: the next one comes while we clean up.
        if self.count == 1 and not self.held:
            raise Stopped

    def check(self) -> None:
        """Raise `Stopped` if it is time, though the exception of the handler got lost or was held."""
        if self.count and not self.held:
            raise Stopped

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Let a step come to its end."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        self.check()


class Process:
    """A command of manage.py in a process group of its own: a Ctrl-C of the terminal comes to us alone."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "demo.leash", str(ROOT / "demo" / "manage.py"), *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
                    "PYTHONUNBUFFERED": "1",
                    # Of the files that are parsed, and no news for the log.
                    "PYTHONWARNINGS": "ignore::SyntaxWarning",
                },
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def check(self) -> None:
        """Raise DemoError if the process has ended."""
        if not self.running:
            raise DemoError(f"{self.name} has ended with exit code {self.popen.returncode}.\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """Return the end of the log, with its path."""
        written = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"The end of {self.log}:", *(f"    {line}" for line in written or ["(empty)"])])

    def stop(self, *, patience: float, hurry: Callable[[], bool]) -> None:
        """Ask it to end, and see to it that nothing is left of its process group."""
        if self.running:
            self.popen.terminate()
        self._wait(lambda: not self.running, patience, hurry)
        # What it started ends when it sees that it is gone. (Longer waits are for a PID 1 that is slow to reap.)
        self._wait(lambda: not self._group_left(), 0.5, hurry)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._group_left():
                os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdin:
            self.popen.stdin.close()

    def _group_left(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    @staticmethod
    def _wait(until: Callable[[], bool], seconds: float, hurry: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end and not hurry():
            time.sleep(0.02)


def is_free(port: int) -> bool:
    """Return whether a server can listen on that port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Return whether a server listens on that port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
