"""F8: no process is to be had, and children that die before they have done anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.pools import is_alive, wait_for

PIDS = Path("/sys/fs/cgroup/pids")


class Limit:
    """A cgroup with a limit of processes (cgroup v1)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def wrapper(self) -> list[str]:
        """A command that runs another one inside."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]

    def set(self, limit: int | str) -> None:
        (self.folder / "pids.max").write_text(str(limit))

    def remove(self) -> None:
        wait_for(lambda: not (self.folder / "cgroup.procs").read_text(), "nobody is left in the cgroup")
        self.folder.rmdir()


@pytest.fixture
def limit(tmp_path: Path) -> Iterator[Callable[[], Limit]]:
    """Make a limit; outlives the fixture `site`, whose processes are in it, if asked for first."""
    made: list[Limit] = []

    def make() -> Limit:
        try:
            made.append(Limit(PIDS / f"pgq_{os.getpid()}_{len(made)}"))
        except OSError as error:
            pytest.skip(f"needs root and a cgroup v1 of pids: {error}")
        return made[-1]

    yield make
    for each in made:
        each.remove()


def pauses(pool) -> list[float]:
    """The pauses after each child that could not be started, or died before it had done anything, in seconds."""
    return [float(line.split("starts in ")[1].split()[0]) for line in pool.log().splitlines() if "starts in " in line]


def assert_growing_pauses(pool, places: int, since: int = 0) -> None:
    """One of the places comes to its fourth failure: 0.1 s doubled three times, and jittered down to half at most."""
    pool.wait_for(lambda: len(pauses(pool)) > since + 3 * places, "children die again and again")
    assert max(pauses(pool)[since:]) >= 0.4
    assert pool.process.poll() is None


@pytest.mark.fault("F8", short=0, full=3)  # The short form is in tests/pool/test_pool.py.
def test_children_die_while_they_start(site, rounds, note, tmp_path):
    """Something in the project kills each child, or what forks them, before it is ready."""
    broken = tmp_path / "broken"
    broken.touch()
    env = {"DJANGO_SETTINGS_MODULE": "tests.support.breaking_settings", "PGQ_TEST_BROKEN": str(broken)}
    for _ in range(rounds):
        broken.touch()
        pool = site.start(workers=2, ready=False, env=env)
        assert_growing_pauses(pool, places=3)
        site.enqueue("work", 20)
        broken.unlink()
        pool.worker_pids()
        site.drain()
        note.round(site.check(max_starts=1).violations + site.stop())


@pytest.mark.fault("F8", short=1, full=5)
def test_workers_die_with_their_first_claim(site, rounds, note, tmp_path):
    """Ready, claims, dies: no task is to blame and none is started. The rows are given back each time, uncharged."""
    broken = tmp_path / "broken"
    pool = site.start(workers=2, failpoints=[{"at": "claim.committed", "do": "kill9", "while": str(broken)}])
    for _ in range(rounds):
        before = len(pauses(pool))
        broken.touch()
        site.enqueue("work", 20)
        assert_growing_pauses(pool, places=2, since=before)
        assert not [run for runs in site.runs().values() for run in runs if run.task in site.acknowledged[-20:]]
        broken.unlink()
        began = time.monotonic()
        site.drain()
        note.round(recovery=time.monotonic() - began)
        pool.worker_pids()
    note.violations += site.check(max_starts=1).violations + site.stop()
    # A death before the first start is charged to nobody.
    assert site.value("SELECT max(attempt_count) FROM pgq_task") == 1


@pytest.mark.fault("F8", short=1, full=5)
def test_no_process_is_to_be_had(limit, site, rounds, note):
    """A fork fails: who works goes on working, and what the dead held is run by others."""
    cgroup = limit()
    pool = site.start(workers=3, wrapper=cgroup.wrapper)
    for _ in range(rounds):
        pids = pool.worker_pids()
        first, second = site.enqueue("work", 2, 2.5)
        wait_for(lambda: {first, second} <= site.runs().keys(), "both run")  # noqa: B023
        victim = site.runs()[first][0].pid
        cgroup.set(1)
        before = len(pauses(pool))
        site.kill(victim)
        again = wait_for(lambda: site.runs()[first][1:], "it runs again")  # noqa: B023
        note.round(recovery=again[0].started - site.deaths[victim])
        pool.wait_for(lambda: len(pauses(pool)) >= before + 4, "nobody could be started")  # noqa: B023
        assert all(is_alive(pid) for pid in pids if pid != victim), "the others died with a fork that failed"
        cgroup.set("max")
        assert len(pool.worker_pids()) == 3
        site.drain()
    note.violations += site.check(max_starts=2).violations + site.stop()
