"""Coroutines and threads: tasks that run beside each other in one worker."""

from __future__ import annotations

import re
import signal
import time

import pytest

from pgq.models import QueuedTask, Task
from pgq.tasks import async_task, cancel, enqueue_many, fetch
from tests.app.models import Note
from tests.functions import oracle as oracle_tasks
from tests.support.hand import MARK
from tests.support.pools import Oracle, is_alive, wait_for
from tests.support.settled import WAIT, all_settled, assert_each_ran_once, terminate_all

pytestmark = pytest.mark.django_db(transaction=True)

HERE = "tests.functions.slots"
ANAP, AWAIT, ADIE = f"{HERE}.anap", f"{HERE}.await_file", f"{HERE}.adie"


def most_at_a_time(oracle) -> int:
    """How many tasks ran at the same time, at most."""
    running = most = 0
    for event, *_ in oracle.lines():
        running += (event == "start") - (event == "end")
        most = max(most, running)
    return most


@pytest.mark.parametrize(
    ("good", "bad", "settings"),
    [(f"{HERE}.anap", f"{HERE}.afail", {}), (MARK, f"{oracle_tasks.__name__}.fail", {"threads": 2})],
    ids=["coroutines", "threads"],
)
def test_each_has_its_line_in_the_log(good, bad, settings, pool, oracle):
    succeeded, failed = async_task(good, "good"), async_task(bad, "bad")
    running = pool("--log-level", "DEBUG", workers=1, **settings)
    wait_for(all_settled)
    log = running.log()
    assert re.search(rf"DEBUG +\d+ task {succeeded} \({good}\) succeeded in [\d.]+ ms, in attempt 1\n", log)
    # With what was raised.
    name = bad.rpartition(".")[2]
    assert re.search(rf"ERROR +\d+ task {failed} \({bad}\) failed: .*\n.*Traceback(.*\n)+? .* in {name}\n", log)


# ------------------------------------------------------------------------------------------------- coroutines


def test_ten_thousand_that_sleep_a_second_take_seconds_on_one_worker(pool, oracle):
    ids = enqueue_many(ANAP, [(number, 1.0) for number in range(10_000)])
    began = time.monotonic()
    pool(workers=1, coroutines=5000)
    wait_for(all_settled, "all are settled", 60)
    assert_each_ran_once(oracle, ids)
    # One after the other they would take three hours. The rest is for a busy machine.
    assert time.monotonic() - began < 30
    assert 2000 < most_at_a_time(oracle) <= 5000


def test_no_more_than_there_are_places_and_others_run_meanwhile(pool, oracle, tmp_path):
    go = tmp_path / "go"
    running = pool(workers=1, coroutines=3)
    ids = [async_task(AWAIT, number, str(go)) for number in range(3)]
    wait_for(lambda: len(oracle.count("start")) == 3, "three run")
    # A worker whose places are taken claims nothing, so that another worker may.
    later = [async_task(AWAIT, number, str(go)) for number in range(3, 10)]
    wait_for(lambda: QueuedTask.objects.filter(worker=None).count() == 7, "the others are nobody's")
    (row,) = running.report()
    assert row["state"] == "working"
    go.touch()
    wait_for(all_settled)
    assert most_at_a_time(oracle) == 3
    assert Task.objects.filter(success=True, id__in=ids + later).count() == 10


def test_a_plain_task_runs_while_a_coroutine_waits(pool, oracle, tmp_path):
    go = tmp_path / "go"
    pool(workers=1)
    slow = async_task(AWAIT, "slow", str(go))
    wait_for(lambda: oracle.starts("slow") == 1)
    assert fetch(async_task(MARK, "quick"), wait=20_000).success
    # What has landed is settled though its neighbours still fly.
    assert fetch(async_task(ANAP, "short", 0.01), wait=20_000).success
    assert fetch(slow) is None
    go.touch()
    assert fetch(slow, wait=20_000).success


def test_those_of_a_module_that_was_not_imported_yet_run_beside_each_other(pool, oracle, tmp_path):
    go = tmp_path / "go"
    pool(workers=1)
    ids = [async_task("tests.functions.late.await_file", number, str(go)) for number in range(3)]
    wait_for(lambda: len(oracle.count("start")) == 3, "all run at the same time")
    go.touch()
    assert all(fetch(id, wait=20_000).success for id in ids)


def test_one_at_a_time_if_told_so(pool, oracle):
    enqueue_many(ANAP, [(number, 0.02) for number in range(10)])
    pool(workers=1, coroutines=1)
    wait_for(all_settled)
    assert most_at_a_time(oracle) == 1


def test_a_failure_is_its_own(pool, oracle):
    pool(workers=1)
    bad, good = async_task(f"{HERE}.afail", "bad"), async_task(ANAP, "good", 0.05)
    task = fetch(bad, wait=20_000)
    assert (task.exception, task.message) == ("builtins.ValueError", "on purpose")
    assert "await asyncio.sleep(0)" in task.traceback or "raise ValueError" in task.traceback
    assert fetch(good, wait=20_000).success


def test_each_knows_itself(pool, oracle):
    pool(workers=1)
    ids = [async_task(f"{HERE}.who", number) for number in range(5)]
    assert [fetch(id, wait=20_000).result for id in ids] == ids


def test_timeout(pool, oracle):
    running = pool(workers=1)
    pids = running.worker_pids()
    task = fetch(async_task(ANAP, "long", 600, timeout=0.2), wait=20_000)
    assert (task.exception, oracle.ends("long")) == ("pgq.errors.TaskTimeout", 0)
    assert "0.2 seconds" in task.message
    assert running.worker_pids() == pids


def test_one_that_holds_the_loop_is_killed_at_its_timeout_and_nobody_else_is_charged(pool, oracle, tmp_path):
    go = tmp_path / "go"
    pool(workers=1, kill_after=0.3)
    innocent = async_task(AWAIT, "innocent", str(go))
    wait_for(lambda: oracle.starts("innocent") == 1)
    guilty = async_task(f"{HERE}.hold_the_loop", "guilty", 600, timeout=0.3)
    task = fetch(guilty, wait=20_000)
    assert task.exception == "pgq.errors.TaskTimeout"
    wait_for(lambda: oracle.starts("innocent") == 2, "the innocent one runs again")
    go.touch()
    assert fetch(innocent, wait=20_000).attempt_count == 1


def test_cancel(pool, oracle):
    pool(workers=1)
    ids = [async_task(ANAP, key, 600) for key in "ab"]
    wait_for(lambda: oracle.starts("a") and oracle.starts("b"))
    assert cancel(ids[0]) == "running"
    task = fetch(ids[0], wait=20_000)
    assert task.exception == "pgq.errors.TaskCancelled"
    assert QueuedTask.objects.get().id == ids[1]
    cancel(ids[1])
    assert fetch(ids[1], wait=20_000)


def test_who_swallows_a_cancel_has_the_last_word(pool, oracle):
    pool(workers=1)
    id = async_task(f"{HERE}.swallow_cancels", "a")
    wait_for(lambda: oracle.starts("a"))
    cancel(id)
    assert fetch(id, wait=20_000).result == "went on"


def test_the_orm(pool, oracle):
    running = pool(workers=1)
    assert fetch(async_task(f"{HERE}.leave_session_changed"), wait=20_000).success
    ids = [async_task(f"{HERE}.use_orm", f"note {number}") for number in range(20)]
    assert [fetch(id, wait=20_000).result for id in ids] == [1] * 20
    assert Note.objects.count() == 20
    assert "session settings of its own" in running.log()


def test_what_it_started_on_the_loop_ends_with_it(pool, oracle):
    pool(workers=1)
    assert fetch(async_task(f"{HERE}.leave_child", "a"), wait=20_000).success
    wait_for(lambda: oracle.count("child-cancelled")["a"] == 1)


def test_term_lets_them_finish(pool, oracle, tmp_path):
    go = tmp_path / "go"
    running = pool(workers=1, coroutines=5)
    ids = [async_task(AWAIT, number, str(go)) for number in range(8)]
    wait_for(lambda: len(oracle.count("start")) == 5)
    running.signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in running.log())
    go.touch()
    assert running.wait() == 0
    assert Task.objects.filter(success=True, id__in=ids).count() == 5
    assert QueuedTask.objects.filter(worker=None, attempts=0).count() == 3


def test_run_once_waits_for_them(pool, oracle):
    ids = enqueue_many(ANAP, [(number, 0.5) for number in range(20)])
    assert pool("--run-once", workers=1, ready=False).wait() == 0
    assert Task.objects.filter(success=True, id__in=ids).count() == 20


def test_a_lease_is_renewed(pool, oracle):
    pool(workers=1, retry=1.0)
    task = fetch(async_task(ANAP, "long", 4.0), wait=20_000)
    assert (task.success, oracle.starts("long")) == (True, 1)


# ------------------------------------------------------------------------------------------------- who did it?


def test_of_several_that_may_have_killed_their_worker_the_innocent_succeed(pool, oracle, tmp_path):
    """All are charged with a crash. Before one more would fail them, each has its chance alone."""
    pool(workers=1)
    innocent = [async_task(ANAP, number, 0.3) for number in range(5)]
    guilty = async_task(ADIE, "guilty")
    task = fetch(guilty, wait=30_000)
    assert (task.success, task.exception, oracle.starts("guilty")) == (False, "pgq.errors.WorkerDied", 3)
    wait_for(all_settled)
    assert Task.objects.filter(success=True, id__in=innocent).count() == 5


def forked(oracle: Oracle) -> list[int]:
    return [int(line[2]) for line in oracle.lines() if line[0] == "child"]


@pytest.mark.parametrize("func", ["fork_atomic", "fork_on_the_loop"])
def test_a_fork_that_returns_ends_without_a_word(func, pool, oracle):
    running = pool(workers=1, threads=2)
    tasks = [fetch(async_task(f"{HERE}.{func}", str(number)), wait=20_000) for number in range(3)]
    assert all(task.success for task in tasks)
    assert sorted(Note.objects.values_list("pk", flat=True)) == [task.result for task in tasks]
    # A child may speak after its task is settled: the other process settles it.
    wait_for(lambda: len(forked(oracle)) >= 3, "the children have spoken")
    children = forked(oracle)
    assert len(children) == 3
    wait_for(lambda: not any(map(is_alive, children)), "the children have ended")
    assert "WARNING" not in running.log()


def test_ack_task_is_settled_at_once(pool, oracle, tmp_path):
    go = tmp_path / "go"
    pool(workers=1, settle_ms=60_000)
    async_task(AWAIT, "slow", str(go))
    wait_for(lambda: oracle.starts("slow"))
    assert fetch(async_task(ANAP, "a", 0.05, ack="task"), wait=10_000).success
    go.touch()


# ------------------------------------------------------------------------------------------------- threads


def test_threads_wait_beside_each_other(pool, oracle, tmp_path):
    go = tmp_path / "go"
    pool(workers=1, threads=4)
    ids = [async_task(WAIT, number, str(go)) for number in range(10)]
    wait_for(lambda: len(oracle.count("start")) == 4)
    wait_for(lambda: QueuedTask.objects.filter(worker=None).count() == 6, "the others are nobody's")
    go.touch()
    wait_for(all_settled)
    assert most_at_a_time(oracle) == 4
    assert Task.objects.filter(success=True, id__in=ids).count() == 10
    assert fetch(async_task(f"{HERE}.thread_name", 1), wait=20_000).result.startswith("pgq slot")


def test_many_short_tasks_in_threads_run_once_each(pool, oracle):
    ids = enqueue_many(MARK, range(5000))
    pool(workers=2, threads=8)
    wait_for(all_settled, timeout=60)
    assert_each_ran_once(oracle, ids)


@pytest.mark.parametrize("func", [f"{oracle_tasks.__name__}.nap", f"{HERE}.compute"])
def test_a_thread_is_interrupted_at_its_timeout_or_its_worker_killed(func, pool, oracle):
    """What waits in C, as time.sleep does, cannot be interrupted in a thread; what computes can."""
    running = pool(workers=1, threads=2, kill_after=0.5)
    pids = running.worker_pids()
    id = async_task(func, "long", 600, timeout=0.3)
    task = fetch(id, wait=20_000)
    assert (task.exception, oracle.ends("long")) == ("pgq.errors.TaskTimeout", 0)
    assert fetch(async_task(MARK, "after"), wait=20_000).success
    assert (running.worker_pids() == pids) == ("compute" in func)


def test_cancel_in_a_thread(pool, oracle):
    pool(workers=1, threads=2)
    id = async_task(f"{HERE}.compute", "long", 600)
    wait_for(lambda: oracle.starts("long"))
    cancel(id)
    task = fetch(id, wait=20_000)
    assert (task.exception, task.message) == ("pgq.errors.TaskCancelled", "the task was cancelled while it ran")


def test_a_thread_s_connection_is_cleaned(pool, oracle):
    running = pool(workers=1, threads=2)
    assert fetch(async_task(f"{HERE}.leave_transaction_open", "lost"), wait=20_000).success
    wait_for(lambda: "is closed" in running.log())
    assert not Note.objects.exists()


def test_atomic_tasks_in_threads(pool, oracle):
    pool(workers=1, threads=4)
    good = [async_task(f"{HERE}.atomic_note", f"good {number}") for number in range(20)]
    bad = [async_task(f"{HERE}.atomic_note", f"bad {number}", fail=True) for number in range(20)]
    wait_for(all_settled)
    assert Task.objects.filter(success=True, id__in=good).count() == 20
    assert Task.objects.filter(success=False, id__in=bad).count() == 20
    assert Note.objects.count() == 20


# ------------------------------------------------------------------------------------------------- a new connection


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
def test_what_is_in_flight_stays_with_its_worker_when_the_connection_breaks(kind, pool, oracle, session, tmp_path):
    """What was claimed over the old connection is released, since a claim may have been lost; but not what runs."""
    go = tmp_path / "go"
    running = pool(workers=1, threads=1 if kind == "coroutine" else 4)
    slow, quick = (AWAIT, ANAP) if kind == "coroutine" else (WAIT, oracle_tasks.nap)
    id = async_task(slow, "flying", str(go))
    wait_for(lambda: oracle.starts("flying"))
    before = QueuedTask.objects.get(pk=id).worker
    assert terminate_all(session())
    async_task(quick, "next", 0.0)
    wait_for(lambda: oracle.ends("next"), "the worker has a new connection")

    def holder() -> str | None:
        return next((row["id"] for row in running.report() if row.get("id") != before), None)

    wait_for(lambda: QueuedTask.objects.get(pk=id).worker == holder(), "it is held under the new id")
    wait_for(lambda: "answers again" in running.log())
    go.touch()
    wait_for(all_settled)
    assert oracle.starts("flying") == 1
    assert Task.objects.get(pk=id).attempt_count == 1
    assert "died" not in running.log()
