"""F29-F31: tasks that take their worker down, that never end, that eat the machine."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import poison
from tests.support.mixing import Mixture
from tests.support.pools import wait_for

#: How each exit is recorded. What is not named raises an exception, and its worker lives.
DEATHS = {
    "segfault": "SIGSEGV", "abort": "SIGABRT", "_exit 0": "exit code 0", "_exit 1": "exit code 1",
    "_exit 77": "exit code 77", "SIGKILL": "SIGKILL", "SIGTERM": "SIGTERM", "SIGPIPE": "SIGPIPE", "SIGBUS": "SIGBUS",
    "SIGKILL to the group": "SIGKILL", "C++": "SIGABRT",
}  # fmt: skip
RAISED = {"sys.exit 0": "SystemExit"}


@pytest.mark.fault("F29", short=1, full=3)
def test_a_task_that_exits_fails_after_three_workers_and_says_why(site, rounds, note):
    site.start(workers=2)
    for _ in range(rounds):
        # Each is settled before the next one starts, which may take the worker down and with it what is not settled.
        mixture = Mixture(site, "leave", poison.EXITS, timeout=20, ack="task")
        site.drain()
        expected = {name: f"WorkerDied: the worker died, {_by(cause)}" for name, cause in DEATHS.items()}
        expected |= {name: RAISED.get(name, name) for name in poison.EXITS if name not in DEATHS}
        wrong = mixture.judge(expected)
        for name, ended in mixture.ended().items():
            if ended.starts != (3 if name in DEATHS else 1):
                wrong.append(f"I5: {name} started {ended.starts} times")
        note.round(wrong, site.recovery())
        site.drain()
    note.violations += site.stop()


def _by(cause: str) -> str:
    return f"by {cause}" if cause.startswith("SIG") else f"with {cause}"


@pytest.mark.fault("F30", short=1, full=3)
def test_a_task_that_never_ends_is_killed_at_its_timeout(site, rounds, note):
    site.start(workers=4, kill_after=0.5)
    for _ in range(rounds):
        mixture = Mixture(site, "hang", poison.ENDLESS, timeout=0.4)
        site.drain()
        wrong = mixture.judge(dict.fromkeys(poison.ENDLESS, "pgq.errors.TaskTimeout"))
        wrong += [f"I5: {name}: {ended}" for name, ended in mixture.ended().items() if ended.starts != 1]
        note.round(wrong, site.recovery())
        site.drain()
    note.violations += site.stop()


@pytest.mark.fault("F31", short=1, full=3)
def test_a_hog_harms_only_its_worker(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        mixture = Mixture(site, "hog", poison.HOGS, timeout=20)
        site.drain()
        expected = {"memory": "MemoryError", "out of memory": "by SIGKILL", "disk": "No space left", "threads": ""}
        note.round(mixture.judge(expected), site.recovery())
        site.drain()
    # Those that leaked had no successor in their process.
    assert {"open files", "threads"} <= set(re.findall(r"its tasks have left \d+ (.+)", pool.log()))
    assert pool.process.poll() is None
    note.violations += site.stop()


@pytest.mark.fault("F31")
def test_the_kernel_takes_a_worker_before_the_supervisor(site):
    pool = site.start(workers=2)
    if not os.access("/proc/self/oom_score_adj", os.R_OK):
        pytest.skip("this kernel has no /proc/self/oom_score_adj")
    score = {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (pool.pid, *pool.worker_pids())}
    assert all(score[worker] > score[pool.pid] for worker in pool.worker_pids())
    site.stop()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup in which there may be 64 processes."""
    root = Path("/sys/fs/cgroup/pids")
    path = root / f"pgq-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"needs root and the controller pids of cgroup v1: {error}")
    (path / "pids.max").write_text("64")
    yield path
    for pid in map(int, (path / "cgroup.procs").read_text().split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    wait_for(lambda: not (path / "cgroup.procs").read_text(), "the cgroup is empty")
    path.rmdir()


@pytest.mark.fault("F31", short=1, full=3)
def test_a_fork_bomb_ends_with_its_worker(site, cgroup, rounds, note):
    site.start(workers=2, kill_after=0.5)
    for _ in range(rounds):
        mixture = Mixture(site, "fork_bomb", [str(cgroup)], timeout=1.0)
        site.drain()
        wrong = mixture.judge({str(cgroup): "pgq.errors.TaskTimeout"})
        wait_for(lambda: not (cgroup / "cgroup.procs").read_text(), "nothing is left of the bomb", 10)
        note.round(wrong, site.recovery())
        site.drain()
    note.violations += site.stop()
