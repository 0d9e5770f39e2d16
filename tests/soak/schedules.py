"""Schedules under fire: two pools, many schedules a second, and the pools killed and frozen again and again.

    python -m tests.soak.schedules --minutes 5 --schedules 200

Afterwards every slot of every schedule, from its first to its last, must have been enqueued exactly once. Needs
DATABASE_URL, or starts a server of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import django

FUNC = "tests.soak.schedules.fired"
SETTINGS = "tests.soak.settings"


def fired(name: str, slot: str) -> None:
    """What the schedules call. The slot is in the stored arguments; nothing else needs to happen."""


@dataclass(frozen=True)
class Verdict:
    """What became of the slots."""

    slots: int
    missing: int
    doubled: int
    attacks: Counter[str]

    def __str__(self) -> str:
        return json.dumps(
            {"slots": self.slots, "missing": self.missing, "doubled": self.doubled, "attacks": dict(self.attacks)}
        )


class Pool:
    """A pool as a process group of its own, so that all of it can be frozen or killed at once."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "django", "pgq_worker", "--workers", "1"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=os.environ)

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def kill_and_restart(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process = self._start()

    def stop(self) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.signal(number)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def pools(count: int, folder: Path) -> Iterator[list[Pool]]:
    running = [Pool(folder / f"pool-{number}.log") for number in range(count)]
    try:
        yield running
    finally:
        for pool in running:
            pool.stop()


def attack(victims: list[Pool], seconds: float, rng: random.Random) -> Counter[str]:
    """Kill, freeze and thaw until the time is over. Not both at once, or nobody could fire."""
    done: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(rng.uniform(1.0, 3.0))
        victim = rng.choice(victims)
        if rng.random() < 0.5:
            done["SIGKILL"] += 1
            victim.kill_and_restart()
        else:
            done["SIGSTOP"] += 1
            victim.signal(signal.SIGSTOP)
            time.sleep(rng.uniform(0.5, 8.0))
            victim.signal(signal.SIGCONT)
    return done


def make_schedules(count: int) -> None:
    from pgq.tasks import schedule

    for number in range(count):
        name = f"s{number}"
        schedule(FUNC, name, name=name, schedule_type="S", seconds=1, intended_date_kwarg="slot")


def wait_until_caught_up(seconds: float) -> None:
    """Wait until the schedules have stopped being late and no task of theirs is left, then remove them."""
    from django.utils import timezone

    from pgq.models import QueuedTask, Schedule

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        first = Schedule.objects.order_by("next_run").values_list("next_run", flat=True).first()
        if first is not None and first > timezone.now():
            break
        time.sleep(0.05)
    Schedule.objects.all().delete()
    while QueuedTask.objects.exists() and time.monotonic() < until:
        time.sleep(0.05)


def judge(attacks: Counter[str]) -> Verdict:
    """Match what was fired with the slots there were."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH fired AS (
                SELECT args ->> 0 AS name, (kwargs ->> 'slot')::timestamptz AS slot, count(*) AS times
                  FROM (SELECT args, kwargs FROM pgq_task WHERE func = %(func)s
                        UNION ALL SELECT args, kwargs FROM pgq_queue WHERE func = %(func)s) AS tasks
                 GROUP BY 1, 2
            ), expected AS (
                SELECT name, generate_series(min(slot), max(slot), '1 second') AS slot FROM fired GROUP BY name
            )
            SELECT (SELECT count(*) FROM expected),
                   (SELECT count(*) FROM expected WHERE NOT EXISTS (
                        SELECT FROM fired WHERE fired.name = expected.name AND fired.slot = expected.slot)),
                   (SELECT coalesce(sum(times - 1), 0) FROM fired)
            """,
            {"func": FUNC},
        )
        slots, missing, doubled = cursor.fetchone()
    return Verdict(slots, missing, int(doubled), attacks)


def run(seconds: float, schedules: int, seed: int, folder: Path) -> Verdict:
    """Run the whole thing against the database of Django's settings, which must be empty."""
    rng = random.Random(seed)
    with pools(2, folder) as victims:
        make_schedules(schedules)
        attacks = attack(victims, seconds, rng)
        wait_until_caught_up(60)
    return judge(attacks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    from pgq.contrib.embedded import Server

    with tempfile.TemporaryDirectory() as folder:
        server = None if os.environ.get("DATABASE_URL") else Server(settings={"max_connections": 100})
        try:
            if server is not None:
                server.start()
                os.environ["DATABASE_URL"] = server.url
            django.setup()
            from django.core.management import call_command

            call_command("migrate", verbosity=0)
            print(f"{options.schedules} schedules, {options.minutes:g} minutes, seed {options.seed}", flush=True)
            verdict = run(options.minutes * 60, options.schedules, options.seed, Path(folder))
            print(verdict)
        finally:
            if server is not None:
                server.stop()
    sys.exit(1 if verdict.missing or verdict.doubled else 0)


if __name__ == "__main__":
    main()
