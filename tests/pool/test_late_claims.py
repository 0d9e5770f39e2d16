"""A worker is lost while PostgreSQL carries out its claim, which commits later. Its tasks run at once, uncharged."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from pgq.models import QueuedTask, Task
from pgq.tasks import async_task
from tests.support.hand import MARK
from tests.support.pools import connect, is_alive, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

KEY = 4711
#: What of a claim is held up: the statement, or the commit.
TRIGGERS = {
    "update": "CREATE TRIGGER hold_up BEFORE UPDATE ON pgq_queue FOR EACH ROW {when}",
    "commit": "CREATE CONSTRAINT TRIGGER hold_up AFTER UPDATE ON pgq_queue DEFERRABLE INITIALLY DEFERRED"
              " FOR EACH ROW {when}",
}  # fmt: skip
WHEN = "WHEN (NEW.lock IS NOT NULL AND OLD.lock IS NULL AND NEW.queue = 'held') EXECUTE FUNCTION hold_up()"
WAITING = (
    f"SELECT pid FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND objid = {KEY}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
WAIT = "tests.functions.oracle.wait_for_file"


class Hold:
    """Holds up the claims of the queue "held" until it lets them go."""

    def __init__(self, where: str) -> None:
        self.session = connect()
        self.session.execute(
            "CREATE OR REPLACE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM pg_advisory_xact_lock_shared({KEY}); RETURN NEW; END $$"
        )
        self.session.execute(TRIGGERS[where].format(when=WHEN))
        self.close()

    def close(self) -> None:
        self.session.execute(f"SELECT pg_advisory_lock({KEY})")

    def let_go(self) -> None:
        self.session.execute(f"SELECT pg_advisory_unlock({KEY})")

    def is_reached(self) -> bool:
        return self.session.execute(WAITING).fetchone() is not None

    def end_claims(self) -> None:
        """Have PostgreSQL notice that their clients are gone."""
        ended = self.session.execute(f"SELECT pid, pg_terminate_backend(pid) FROM ({WAITING}) claim").fetchall()
        # Not until no claim is held up: the next worker's may be by now.
        left = "SELECT FROM pg_stat_activity WHERE pid = ANY (%s)"
        wait_for(lambda: not self.session.execute(left, [[pid for pid, _ in ended]]).fetchall())

    def remove(self) -> None:
        self.session.execute("SELECT pg_advisory_unlock_all()")
        self.session.execute("DROP TRIGGER hold_up ON pgq_queue")
        self.session.execute("DROP FUNCTION hold_up()")
        self.session.close()


@pytest.fixture
def hold(transactional_db: None) -> Iterator[Callable[[str], Hold]]:
    """Asked for before `pool`, so that it is taken away when the pools have ended."""
    made: list[Hold] = []

    def make(where: str) -> Hold:
        made.append(Hold(where))
        return made[-1]

    yield make
    for each in made:
        each.remove()


@pytest.mark.parametrize("where", TRIGGERS)
def test_what_was_claimed_starts_at_once_and_is_charged_nothing(where, hold, pool, oracle):
    """While the pool runs on, while it reloads, and while it stops."""
    hold, running = hold(where), pool(workers=1)

    lose_a_claim(running, hold, "running")
    # The new one is there, so the first look at what the dead one held is over.
    running.worker_pids()
    hold.let_go()
    let_go = time.monotonic()
    running.wait_for(lambda: oracle.ends("running"), "it runs")
    assert oracle.times("running")[0] - let_go < 5

    hold.close()
    lose_a_claim(running, hold, "reloads")
    end_workers(running, signal.SIGHUP)
    hold.let_go()
    running.wait_for(lambda: oracle.ends("reloads"), "it runs")
    wait_for(lambda: Task.objects.count() == 2)
    assert set(Task.objects.values_list("attempt_count", flat=True)) == {1}
    assert [task.history for task in Task.objects.all()] == [[], []]

    hold.close()
    id = lose_a_claim(running, hold, "stops")
    end_workers(running, signal.SIGTERM)
    hold.let_go()
    assert running.wait() == 0
    assert_ready(id)


def test_killed_by_the_third_term(hold, pool):
    hold, running = hold("update"), pool(workers=1)
    id = async_task(MARK, "late", queue="held")
    wait_for(hold.is_reached, "the claim is held up")
    (worker,) = running.worker_pids()
    for stops in (1, 2, 3):
        running.signal(signal.SIGTERM)
        wait_for(lambda stops=stops: running.log().count("stopping (") >= stops)
    wait_for(lambda: not is_alive(worker))
    hold.let_go()
    assert running.wait() == 0
    assert_ready(id)


def test_what_was_being_settled_runs_again_if_that_is_rolled_back(hold, pool, oracle, tmp_path):
    """The first look cannot have it: it is locked until PostgreSQL notices that its client is gone."""
    hold, running = hold("update"), pool(workers=1, settle_ms=60_000)
    gate = tmp_path / "gate"
    id = async_task(WAIT, "settled", str(gate))
    wait_for(lambda: oracle.starts("settled"))
    late = async_task(MARK, "late", queue="held")
    gate.touch()
    wait_for(hold.is_reached, "the claim is held up")
    kill(*running.worker_pids())
    running.worker_pids()
    hold.end_claims()
    hold.let_go()
    running.wait_for(lambda: Task.objects.count() == 2, "both run")
    assert (oracle.starts("settled"), oracle.starts("late")) == (2, 1)
    for task in Task.objects.filter(id__in=[id, late]):
        assert (task.attempt_count, task.history) == (1, [])


def lose_a_claim(running, hold, key: str) -> str:
    """Have the only worker killed in the middle of its claim; return the task's id."""
    (worker,) = running.worker_pids()
    id = async_task(MARK, key, queue="held")
    wait_for(hold.is_reached, "the claim is held up")
    kill(worker)
    return id


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))


def end_workers(running, number: int) -> None:
    """Signal the pool, and wait until it waits for nothing but the claim that it has lost."""
    (worker,) = running.worker_pids()
    running.signal(number)
    wait_for(lambda: not is_alive(worker))


def assert_ready(id: str) -> None:
    row = QueuedTask.objects.get(pk=id)
    assert (row.state, row.attempts, row.crashes) == ("ready", 0, 0)
