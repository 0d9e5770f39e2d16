"""`python -m demo` as whoever tries pgq runs it: what it says at the end, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgq.contrib.embedded import Server, ServerError, find_binaries

ROOT = Path(__file__).parents[2]
STDLIB = Path(sysconfig.get_path("stdlib"))
PROC = Path("/proc")

try:
    find_binaries()
except ServerError as error:
    pytest.skip(str(error), allow_module_level=True)

# One after the other: each has a server and a pool of its own.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]


class Runner:
    """Runs demos that keep their data in one folder."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.mark = f"DEMO_TEST={uuid.uuid4().hex}"

    @contextmanager
    def demo(self, source: Path, **env: str):
        name, _, value = self.mark.partition("=")
        inherited = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "ONCE")}
        given = {name: value, "DEMO_DATA": str(self.data), "DEMO_SOURCE": str(source), "COLUMNS": "100"}
        with subprocess.Popen(
            [sys.executable, "-m", "demo"],
            cwd=ROOT,
            env={**inherited, **given, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def once(self, source: Path) -> tuple[int, str]:
        with self.demo(source, ONCE="1") as process:
            said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def left(self) -> list[str]:
        """Return the command lines of what is left running, children of children included."""
        found = []
        for process in PROC.glob("[0-9]*"):
            try:
                ours = self.mark.encode() in (process / "environ").read_bytes().split(b"\0")
                # A server overwrites its environment with its title.
                ours = ours or self.data in Path(os.readlink(process / "cwd")).parents
                if ours:
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # It has ended meanwhile, or is another user's.
        return found

    def nothing_is_left(self) -> bool:
        return not self.left() and not Server(self.data).running


@pytest.fixture
def runner():
    # Not tmp_path, which the server's user cannot reach when we are root.
    with tempfile.TemporaryDirectory(prefix="pgq-test-") as name:
        Path(name).chmod(0o755)
        runner = Runner(Path(name))
        yield runner
        Server(runner.data).remove()


@pytest.fixture
def source(tmp_path):
    """A few real files and one that Python cannot parse."""
    for path in (STDLIB / "json").glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "bad.py").write_text("print 'Python 2'\n")
    return tmp_path


def test_once_counts_each_file(runner, source):
    status, said = runner.once(source)
    assert status == 0, said
    end = json.loads(said.splitlines()[-1])
    enqueued = len(list(source.glob("*.py")))
    assert end.pop("seconds") > 0
    assert end == {"enqueued": enqueued, "succeeded": enqueued - 1, "failed": 1}
    assert "bad.py" in said
    assert "SyntaxError" in said
    assert "\x1b" not in said
    assert runner.nothing_is_left(), runner.left()


def test_an_interrupt_at_any_moment_leaves_nothing(runner):
    # What it has just said, or seconds: in the middle of initdb, of migrate, of the start, of the work.
    for moment in (0.6, "Database", "Workers", "Tasks"):
        with runner.demo(STDLIB) as process:
            if isinstance(moment, float):
                time.sleep(moment)
            else:
                for line in process.stdout:
                    if line.startswith(moment):
                        break
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, f"{moment}: {said}"
        assert said.endswith("nothing of it is left running.\n"), f"{moment}: {said}"
        assert runner.nothing_is_left(), f"{moment}: {runner.left()}"


INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "asyncio.events":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

if sys.orig_argv[-2:] == ["-m", "demo"]:
    sys.meta_path.insert(0, Interrupt())
"""


def test_an_interrupt_in_the_middle_of_an_import(runner, tmp_path):
    """The half of asyncio that was imported cannot be imported again."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    with runner.demo(STDLIB, PYTHONPATH=str(tmp_path)) as process:
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.splitlines()[0]) == (0, "Stopping."), said
    assert said.endswith("nothing of it is left running.\n"), said


def test_a_killed_one_is_followed_by_another(runner, source):
    with runner.demo(STDLIB) as process:
        for line in process.stdout:
            if line.startswith("Tasks"):
                break
        status, said = runner.once(source)
        assert status == 1, "two at once"
        assert "Another demo is running" in said
        process.kill()
    status, said = runner.once(source)
    assert status == 0, said
    assert json.loads(said.splitlines()[-1])["failed"] == 1
    end = time.monotonic() + 15
    while runner.left() and time.monotonic() < end:
        time.sleep(0.1)
    assert runner.nothing_is_left(), runner.left()
