"""Pools: real processes that are killed, stopped, reloaded and cut off from PostgreSQL."""

from __future__ import annotations

import os
import re
import signal
import statistics
import time
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone

from pgq.enqueue.make import make_task
from pgq.enqueue.write import enqueue_all
from pgq.models import Failure, QueuedTask, Task, WorkerPool
from pgq.pool.orphans import process_stat
from pgq.status import Stat
from pgq.tasks import async_task, enqueue_many, fetch, queue_size, result, schedule
from tests.support.hand import MARK, value
from tests.support.pools import connect, is_alive, wait_for
from tests.support.settled import DIE, NAP, TASKS, WAIT, all_settled, assert_each_ran_once, terminate_all

pytestmark = pytest.mark.django_db(transaction=True)

#: Half a minute each: run with PGQ_TEST_FULL=1.
FULL = [pytest.mark.slow, pytest.mark.skipif(not os.environ.get("PGQ_TEST_FULL"), reason="PGQ_TEST_FULL is not set")]


def parent_of(pid: int) -> int:
    return int(process_stat(pid)[1])


@pytest.mark.parametrize(
    ("workers", "count"),
    [
        (1, 10_000),
        (2, 100_000),
        (8, 20_000),
        pytest.param(1, 100_000, marks=FULL),
        pytest.param(8, 100_000, marks=FULL),
    ],
)
def test_every_task_runs_once_and_every_result_is_stored(workers, count, pool, oracle):
    ids = enqueue_many(MARK, range(count))
    pool(workers=workers)
    wait_for(all_settled, "all tasks are settled", timeout=180, pause=0.1)
    assert_each_ran_once(oracle, ids)
    with connect() as session:
        assert value(session, "SELECT count(*) FROM pgq_task WHERE result = args -> 0") == count
        assert value(session, "SELECT bool_and(attempt_count = 1) FROM pgq_task")


def test_stopped_and_started_pools_lose_and_double_nothing(pool, oracle):
    """Pools are stopped in the middle, over and over; none of their tasks is lost, and none runs twice."""
    ids = enqueue_many(MARK, range(20_000))
    stops = 0
    while not all_settled():
        running = pool(workers=2, ready=False)
        done = Task.objects.count()
        wait_for(lambda done=done: Task.objects.count() >= done + 4_000 or all_settled(), "the pool works", pause=0.05)
        running.stop()
        stops += 1
        assert not QueuedTask.objects.exclude(lock=None).exists(), "a stopped pool holds no lease"
    assert stops > 2
    assert_each_ran_once(oracle, ids)


def test_enqueuing_while_two_pools_work(pool, oracle):
    for started in [pool(workers=1, ready=False) for _ in range(2)]:
        started.wait_until_ready()
    ids = []
    for number in range(40):
        ids += enqueue_many(MARK, range(number * 50, number * 50 + 50), priority=number % 3, queue=f"q{number % 4}")
    wait_for(all_settled)
    assert_each_ran_once(oracle, ids)
    assert len({line[2] for line in oracle.lines()}) == 2


def test_slow_task_does_not_hold_back_what_was_claimed_with_it(pool, oracle, tmp_path):
    """Hundreds are claimed at once when tasks are tiny; those behind a slow one go to the other worker."""
    pool(workers=2)
    enqueue_many(MARK, range(2000))
    wait_for(all_settled)
    gate = tmp_path / "gate"
    calls = (
        [(MARK, (f"a{n}",)) for n in range(20)]
        + [(WAIT, ("slow", str(gate)))]
        + [(MARK, (f"b{n}",)) for n in range(300)]
    )
    enqueue_all(make_task(func, args) for func, args in calls)
    behind = {f"b{n}" for n in range(300)}
    wait_for(lambda: oracle.starts("slow") and behind <= oracle.count("end").keys())
    assert oracle.ends("slow") == 0
    gate.touch()
    wait_for(all_settled)
    assert set(oracle.count("start").values()) == {1}


def test_what_has_finished_is_settled_while_a_slow_task_runs(pool, oracle, tmp_path):
    gate = tmp_path / "gate"
    first = async_task(MARK, "first")
    second = async_task(WAIT, "slow", str(gate))
    pool(workers=1)
    assert fetch(first, wait=20_000).success
    assert QueuedTask.objects.get().id == second
    gate.touch()
    assert fetch(second, wait=20_000).success


# ------------------------------------------------------------------------------------------------- killed workers


def test_killed_busy_worker_is_replaced_and_its_task_runs_again(pool, oracle, tmp_path):
    running = pool(workers=3)
    pids = running.worker_pids()
    gate = tmp_path / "gate"
    ids = [async_task(WAIT, number, str(gate)) for number in range(3)]
    wait_for(lambda: len(oracle.count("start")) == 3)
    (victim,) = oracle.pids(1)
    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: oracle.starts(1) == 2)
    assert oracle.times(1)[1] - killed_at < 5
    assert (oracle.starts(0), oracle.starts(2)) == (1, 1)
    gate.touch()
    wait_for(all_settled)
    now = running.worker_pids()
    assert victim not in now
    assert [pid for pid in pids if pid != victim] == [pid for pid in now if pid in pids]
    assert running.process.poll() is None
    task = Task.objects.get(pk=ids[1])
    assert (task.success, task.attempt_count) == (True, 2)
    assert [entry["exception"] for entry in task.history] == ["pgq.errors.WorkerDied"]
    assert {Task.objects.get(pk=id).attempt_count for id in (ids[0], ids[2])} == {1}


def test_killed_idle_worker_is_replaced(pool, oracle):
    running = pool(workers=2)
    pids = running.worker_pids()
    os.kill(pids[0], signal.SIGKILL)
    now = running.wait_for(lambda: [pid for pid in [running.worker_pids()] if pids[0] not in pid and len(pid) == 2])[0]
    assert now[1] == pids[1]
    ids = enqueue_many(NAP, [(number, 0.05) for number in range(20)])
    wait_for(all_settled)
    assert {Task.objects.get(pk=id).attempt_count for id in ids} == {1}
    assert {int(line[2]) for line in oracle.lines()} == set(now)


def test_killed_upkeep_is_replaced(pool, oracle):
    running = pool(workers=1, tick=0.1)
    workers = running.worker_pids()
    others = set(running.processes()) - {running.pid, *workers}
    server = parent_of(workers[0])
    (upkeep,) = [pid for pid in others if pid != server and parent_of(pid) == server]
    os.kill(upkeep, signal.SIGKILL)
    async_task(MARK, "delayed", run_after=0.5)
    wait_for(lambda: oracle.starts("delayed") == 1)
    assert running.worker_pids() == workers


def test_killed_fork_server_does_not_end_the_pool(pool, oracle):
    running = pool(workers=2)
    pids = running.worker_pids()
    os.kill(parent_of(pids[0]), signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, pids)))
    id = async_task(MARK, "after")
    assert fetch(id, wait=30_000).success
    assert not set(running.worker_pids()) & set(pids)


def test_tasks_claimed_with_the_one_that_kills_are_not_charged(pool, oracle):
    """They waited in the killed worker's hands."""
    running = pool(workers=1)
    enqueue_many(MARK, range(1000))
    wait_for(all_settled)
    calls = [(f"{TASKS}.die_once", ("killer",))] + [(MARK, (f"b{n}",)) for n in range(50)]
    enqueue_all(make_task(func, args) for func, args in calls)
    wait_for(all_settled)
    assert oracle.starts("killer") == 2
    starts = oracle.count("start")
    assert {starts[f"b{n}"] for n in range(50)} == {1}
    assert set(Task.objects.exclude(func=f"{TASKS}.die_once").values_list("attempt_count", flat=True)) == {1}
    assert running.process.poll() is None


def test_task_that_kills_its_worker_three_times_has_failed(pool, oracle):
    running = pool(workers=2)
    id = async_task(DIE, "killer", max_attempts=10)
    other = async_task(MARK, "other")
    task = wait_for(lambda: Task.objects.filter(pk=id).first())
    assert (task.success, task.exception) == (False, "pgq.errors.WorkerDied")
    assert oracle.starts("killer") == 3
    assert len(set(oracle.pids("killer"))) == 3
    assert "SIGKILL" in task.message
    # The claim that found it out of crashes started nothing.
    assert (task.attempt_count, len(task.history)) == (3, 3)
    assert running.log().count(f"died, by SIGKILL, running task {id} ({DIE})") == 3
    assert fetch(other, wait=20_000).success
    assert len(running.worker_pids()) == 2


# ------------------------------------------------------------------------------------------------- stopping


def test_term_drains_and_gives_back(pool, oracle, tmp_path):
    running = pool(workers=1)
    enqueue_many(MARK, range(500))
    wait_for(all_settled)
    # Small ones, so that many are claimed at once; the first of the next batch keeps the worker.
    gate = tmp_path / "gate"
    slow = async_task(WAIT, "slow", str(gate))
    wait_for(lambda: oracle.starts("slow"))
    rest = enqueue_many(MARK, [f"rest{n}" for n in range(10)])
    running.signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in running.log())
    time.sleep(0.2)  # It would be wrong to end now: the task still runs.
    assert running.process.poll() is None
    gate.touch()
    assert running.wait() == 0
    assert fetch(slow).success
    assert oracle.ends("slow") == 1
    rows = QueuedTask.objects.order_by("position")
    assert [row.id for row in rows] == rest
    assert {(row.state, row.attempts) for row in rows} == {("ready", 0)}
    assert not WorkerPool.objects.exists()


def test_second_term_hurries_and_nothing_is_charged(pool, oracle):
    running = pool(workers=1, kill_after=0.5)
    id = async_task(NAP, "long", 600)
    wait_for(lambda: oracle.starts("long"))
    running.signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in running.log())
    running.signal(signal.SIGTERM)
    began = time.monotonic()
    assert running.wait() == 0
    assert time.monotonic() - began < 10
    row = QueuedTask.objects.get(pk=id)
    assert (row.state, row.attempts, row.crashes) == ("ready", 0, 0)


def test_third_term_kills_at_once(pool, oracle):
    running = pool(workers=1, kill_after=600)
    id = async_task(f"{TASKS}.nap_in_c", "long", 600)
    wait_for(lambda: oracle.starts("long"))
    for stops in (1, 2, 3):
        running.signal(signal.SIGTERM)
        wait_for(lambda stops=stops: running.log().count("stopping (") >= stops)
    assert running.wait() == 0
    assert QueuedTask.objects.get(pk=id).state == "ready"


def test_term_to_all_processes_drains_too(pool, oracle):
    """As systemd does it, and a shell to its process group."""
    running = pool(workers=2)
    id = async_task(NAP, "slow", 1)
    wait_for(lambda: oracle.starts("slow"))
    os.killpg(running.pid, signal.SIGTERM)
    assert running.wait() == 0
    assert oracle.ends("slow") == 1
    assert fetch(id).success


def test_interrupt_of_the_terminal_drains(pool, oracle):
    running = pool(workers=2)
    id = async_task(NAP, "slow", 1)
    wait_for(lambda: oracle.starts("slow"))
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait() == 0
    assert fetch(id).success


def test_a_task_that_raises_keyboard_interrupt_fails_and_interrupts_end_idle_and_busy_pools(pool, oracle):
    idle = pool(workers=1)
    failed = async_task(f"{TASKS}.interrupt", "interrupts")
    assert fetch(failed, wait=20_000).exception == "builtins.KeyboardInterrupt"
    # It was no signal to the pool.
    assert fetch(async_task(MARK, "after"), wait=20_000).success
    idle.signal(signal.SIGINT)
    assert idle.wait() == 0
    id = async_task(NAP, "long", 60)
    busy = pool(workers=1, kill_after=60, ready=False)
    wait_for(lambda: oracle.starts("long"))
    for stops in (1, 2, 3):
        busy.signal(signal.SIGINT)
        wait_for(lambda stops=stops: busy.log().count("stopping (SIGINT)") >= stops)
    assert busy.wait() == 0
    row = QueuedTask.objects.get(id=id)
    assert (row.lock, row.crashes) == (None, 0)


def test_grace_ends(pool, oracle):
    running = pool(workers=1, grace=0.5)
    id = async_task(NAP, "long", 600)
    wait_for(lambda: oracle.starts("long"))
    running.stop()
    assert QueuedTask.objects.get(pk=id).state == "ready"


@pytest.mark.parametrize("busy", ["sleeping", "in C"])
def test_killed_supervisor_takes_its_children_with_it(busy, pool, oracle):
    running = pool(workers=2)
    func = NAP if busy == "sleeping" else f"{TASKS}.nap_in_c"
    async_task(func, "long", 600)
    wait_for(lambda: oracle.starts("long"))
    assert len(running.processes()) >= 4
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_for(lambda: not running.processes(), "its children are gone", timeout=2)
    # Nobody gave it back: another pool finds the lease when it has run out.
    assert QueuedTask.objects.get().state == "running"


def test_lease_of_a_killed_pool_runs_out_and_its_task_runs_again(pool, oracle):
    first = pool(workers=1)
    id = async_task(f"{TASKS}.die_once", "x")
    wait_for(lambda: oracle.starts("x") == 2)  # Replaced by its own supervisor ...
    assert fetch(id, wait=20_000).attempt_count == 2
    id = async_task(NAP, "y", 600)
    wait_for(lambda: oracle.starts("y") == 1)
    first.signal(signal.SIGKILL)
    first.process.wait()
    second = pool(workers=1, retry=2, tick=0.2)  # ... and here by the lease.
    wait_for(lambda: oracle.starts("y") == 2)
    row = QueuedTask.objects.get(pk=id)
    assert (row.attempts, row.crashes) == (2, 1)
    second.signal(signal.SIGTERM)
    # Two signals of a kind that are pending at once are one.
    wait_for(lambda: "stopping" in second.log())
    second.signal(signal.SIGTERM)
    second.wait()


def test_task_longer_than_its_lease_runs_once(pool, oracle):
    """The lease is renewed while its worker lives; other pools look for expired ones all the time."""
    for started in [pool(workers=1, retry=2, tick=0.1, ready=False) for _ in range(2)]:
        started.wait_until_ready()
    id = async_task(NAP, "long", 5)
    assert fetch(id, wait=30_000).attempt_count == 1
    assert oracle.starts("long") == 1


# ------------------------------------------------------------------------------------------------- reloading


def test_hup_replaces_the_workers_and_keeps_the_supervisor(pool, oracle):
    running = pool(workers=2)
    pid, pids = running.pid, running.worker_pids()
    during = async_task(NAP, "during", 1)
    wait_for(lambda: oracle.starts("during"))
    running.signal(signal.SIGHUP)
    assert fetch(during, wait=20_000).attempt_count == 1
    now = running.wait_for(lambda: [p for p in [running.worker_pids()] if not set(p) & set(pids)])[0]
    assert len(now) == 2
    assert running.pid == pid
    assert fetch(async_task(MARK, "after"), wait=20_000).success
    assert int(oracle.pids("after")[0]) in now
    assert oracle.starts("during") == 1
    wait_for(lambda: WorkerPool.objects.count() == 1)


def test_a_pool_that_is_told_to_reload_while_it_reloads_does_so_again(pool):
    """By default SIGHUP ends a program, and a pool that is executed anew is a while without handlers."""
    running = pool(workers=1)
    running.signal(signal.SIGHUP)
    wait_for(lambda: "reloading" in running.log())

    def starts() -> bool:
        running.signal(signal.SIGHUP)
        return running.log().count(f"pid {running.pid}") > 1

    wait_for(starts, "it is executed anew", pause=0.02)
    assert fetch(async_task(MARK, "after"), wait=30_000).success
    assert running.process.poll() is None


def test_worn_out_worker_is_replaced(pool, oracle):
    running = pool(workers=1, recycle=20)
    first = running.worker_pids()
    ids = enqueue_many(NAP, [(number, 0.01) for number in range(70)])
    wait_for(all_settled)
    pids = {line[2] for line in oracle.lines()}
    assert len(pids) >= 3
    assert {Task.objects.get(pk=id).attempt_count for id in ids} == {1}
    assert "replaced after" in running.log()
    assert str(first[0]) in pids
    assert "died" not in running.log()


def test_workers_can_be_spawned(pool, oracle):
    pool(workers=1, start_method="spawn")
    assert fetch(async_task(MARK, "spawned"), wait=30_000).success


def test_crash_loop_at_boot_backs_off(pool, oracle, tmp_path):
    """Something in the project's code kills each worker, or what forks them, before it is ready."""
    broken = tmp_path / "broken"
    broken.touch()
    env = {"DJANGO_SETTINGS_MODULE": "tests.support.breaking_settings", "PGQ_TEST_BROKEN": str(broken)}
    running = pool(workers=2, ready=False, env=env)

    def failures() -> int:
        return running.log().count("the next one starts in")

    running.wait_for(lambda: failures() >= 9)
    began, count = time.monotonic(), failures()
    running.wait_for(lambda: failures() >= count + 3)
    # At first ten a second, by now less than one for each of the three places.
    assert time.monotonic() - began > 0.3
    running.wait_for(lambda: "ERROR" in running.log() and "nothing can be run: worker" in running.log())
    assert running.process.poll() is None
    broken.unlink()
    assert len(running.worker_pids()) == 2
    assert fetch(async_task(MARK, "after"), wait=20_000).success


# ------------------------------------------------------------------------------------------------- run once, queues


def test_run_once_runs_what_is_ready_and_ends(pool, oracle):
    ids = enqueue_many(MARK, range(300))
    later = async_task(MARK, "later", run_after=3600)
    running = pool("--run-once", workers=2, ready=False)
    assert running.wait() == 0
    assert Task.objects.count() == len(ids)
    assert QueuedTask.objects.get().id == later


def test_run_once_of_nothing_ends(pool):
    assert pool("--run-once", workers=2, ready=False).wait() == 0


@pytest.mark.parametrize(
    ("func", "settings"),
    [(MARK, {}), (MARK, {"threads": 3}), ("tests.functions.slots.anap", {"coroutines": 2})],
    ids=["one after the other", "threads", "coroutines"],
)
def test_max_tasks_are_started_and_no_more(func, settings, pool, oracle):
    ids = enqueue_many(func, range(200))
    running = pool("--max-tasks", "77", workers=3, ready=False, **settings)
    assert running.wait() == 0
    assert sum(oracle.count("start").values()) == Task.objects.filter(success=True, id__in=ids).count() == 77
    # The rest is as it was.
    assert QueuedTask.objects.filter(lock=None, attempts=0).count() == 123


def test_max_tasks_counts_attempts(pool, oracle):
    id = async_task(f"{TASKS}.fail", "fails", max_attempts=3)
    assert pool("--max-tasks", "2", workers=2, retry_backoff=0, tick=0.1, ready=False).wait() == 0
    assert (QueuedTask.objects.get(id=id).attempts, oracle.starts("fails")) == (2, 2)


def test_max_tasks_counts_neither_cancelled_tasks_nor_what_a_dead_worker_had_not_started(pool, oracle):
    for id in enqueue_many(MARK, [f"cancelled {number}" for number in range(5)]):
        QueuedTask.objects.filter(id=id).update(cancelled=True)
    enqueue_many(MARK, range(30))
    async_task(f"{TASKS}.die_once", "dies")
    enqueue_many(MARK, range(30, 100))
    running = pool("--max-tasks", "80", workers=1, tick=0.1, ready=False)
    assert running.wait() == 0
    starts = oracle.count("start")
    assert sum(starts.values()) == 80
    assert starts["dies"] == 2


def test_max_tasks_waits_for_the_last_ones_and_schedules_go_on_meanwhile(pool, oracle, tmp_path):
    go = tmp_path / "go"
    ids = [async_task(WAIT, number, str(go)) for number in range(2)]
    running = pool("--max-tasks", "2", workers=3, tick=0.1, ready=False)
    running.wait_for(lambda: "2 tasks were started: " in running.log())
    scheduled = schedule(MARK, "scheduled", schedule_type="O")
    running.wait_for(lambda: QueuedTask.objects.filter(schedule=scheduled.pk).exists())
    go.touch()
    assert running.wait() == 0
    assert Task.objects.filter(success=True, id__in=ids).count() == 2
    assert oracle.starts("scheduled") == 0


def test_run_once_ends_before_max_tasks_if_nothing_is_left(pool, oracle):
    enqueue_many(MARK, range(20))
    running = pool("--run-once", "--max-tasks", "1000", workers=2, ready=False)
    assert running.wait() == 0
    assert Task.objects.count() == 20


def test_max_tasks_is_a_number_above_zero():
    with pytest.raises(CommandError, match="--max-tasks: must be 1 or more, got 0"):
        call_command("pgq_worker", "--max-tasks", "0")


def test_queue_that_nothing_uses_is_told(pool):
    """Its name may be a slip of the pen."""
    async_task(MARK, queue="mail")
    schedule(MARK, queue="nightly", schedule_type="D", next_run=timezone.now() + timedelta(days=1))
    running = pool("--queues", "mail,nightly,mial", "--run-once", ready=False)
    assert running.wait() == 0
    assert running.log().count("nothing has been enqueued yet to 'mial': this pool waits for it") == 1


def test_pool_serves_all_queues_but_those_it_excludes(pool, oracle, session):
    """Tasks and schedules, whether the queue was there before or not."""
    ids = {queue: async_task(MARK, queue, queue=queue) for queue in ("a", "b")}
    for queue in ("b", "s"):
        schedule(MARK, f"scheduled-{queue}", queue=queue, schedule_type="O")
    running = pool("--exclude-queues", "b,c*", workers=1, exclude_queues=["a"])
    assert f"queues all but b, c*, pid {running.pid}" in running.log()
    assert fetch(ids["a"], wait=20_000)
    async_task(MARK, "c", queue="c.mail")
    assert fetch(async_task(MARK, "new", queue="new"), wait=20_000)
    wait_for(lambda: oracle.ends("scheduled-s") and QueuedTask.objects.count() == 2)
    assert {row.queue for row in QueuedTask.objects.all()} == {"b", "c.mail"}
    assert oracle.starts("scheduled-b") == 0
    [(queues, excluded)] = session().execute("SELECT queues, exclude_queues FROM pgq_worker").fetchall()
    assert (queues, excluded) == (None, ["b", "c*"])
    checks = session().execute("SELECT detail FROM pgq_check() WHERE \"check\" = 'queues'").fetchall()
    assert [detail for (detail,) in checks] == ["tasks are ready in queues that no running pool serves: b, c.mail"]
    [stat] = Stat.get_all()
    assert (stat.queues, stat.exclude_queues) == (None, ["b", "c*"])


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("--queues", "a,b", "--exclude-queues", "b"), {}, "--exclude-queues: 'b' is named by --queues as well"),
        (("--exclude-queues", "a,b"), {"queues": ["a", "b"]}, "nothing is left of PGQ['queues']"),
        (("--exclude-queues", "mail.*"), {"queues": ["mail.a"]}, "nothing is left of PGQ['queues']"),
    ],
)
def test_queues_both_served_and_excluded_are_refused(arguments, settings, said):
    with override_settings(PGQ=settings), pytest.raises(CommandError, match=re.escape(said)):
        call_command("pgq_worker", *arguments)


def test_pool_serves_only_its_queues(pool, oracle):
    ids = {queue: async_task(MARK, queue, queue=queue) for queue in ("a", "b", "c")}
    running = pool("--queues", "a,c*", workers=2)
    assert running.settings["workers"] == len(running.worker_pids())
    wait_for(lambda: oracle.ends("a") and oracle.ends("c"))
    # Tasks after it go, it does not.
    assert fetch(async_task(MARK, "a2", queue="a"), wait=20_000)
    wait_for(lambda: QueuedTask.objects.count() == 1)
    assert QueuedTask.objects.get().id == ids["b"]
    pool("--queues", "b", "--workers", "1")
    assert fetch(ids["b"], wait=20_000).success


# ------------------------------------------------------------------------------------------------- timeouts


def test_soft_timeout_is_raised_in_the_task(pool, oracle):
    running = pool(workers=1)
    (pid,) = running.worker_pids()
    id = async_task(NAP, "long", 600, timeout=0.3)
    task = fetch(id, wait=20_000)
    assert (task.success, task.exception) == (False, "pgq.errors.TaskTimeout")
    assert "0.3 seconds" in task.message
    assert (oracle.starts("long"), oracle.ends("long")) == (1, 0)
    assert fetch(async_task(MARK, "after"), wait=20_000)
    assert running.worker_pids() == [pid]


def test_timeout_is_an_attempt(pool, oracle):
    pool(workers=1, tick=0.1)
    id = async_task(NAP, "long", 600, timeout=0.2, max_attempts=2, retry_backoff=0)
    task = fetch(id, wait=20_000)
    assert (task.exception, task.attempt_count, oracle.starts("long")) == ("pgq.errors.TaskTimeout", 2, 2)


@pytest.mark.parametrize(("func", "attempts"), [("swallow", 1), ("nap_in_c", 2)])
def test_hard_timeout_kills_and_the_task_is_not_run_for_ever(func, attempts, pool, oracle):
    running = pool(workers=2, kill_after=0.5)
    before = running.worker_pids()
    id = async_task(f"{TASKS}.{func}", "stubborn", 600, timeout=0.3, max_attempts=attempts)
    task = wait_for(lambda: Task.objects.filter(pk=id).first())
    assert (task.success, task.exception) == (False, "pgq.errors.TaskTimeout")
    assert oracle.starts("stubborn") == task.attempt_count == attempts
    assert running.log().count(f"task {id} ({TASKS}.{func}) did not stop at its timeout") == attempts
    assert not any(map(is_alive, oracle.pids("stubborn")))
    assert fetch(async_task(MARK, "after"), wait=20_000)
    now = running.worker_pids()
    assert [pid for pid in before if pid not in oracle.pids("stubborn")] == [pid for pid in now if pid in before]


def test_terminated_connections_are_opened_anew(pool, oracle, session):
    running = pool(workers=2)
    pids = running.worker_pids()
    own = session()
    ids = enqueue_many(NAP, [(number, 0.005) for number in range(600)])
    for _ in range(4):
        done = Task.objects.count()
        wait_for(lambda done=done: Task.objects.count() > done)
        assert wait_for(lambda: terminate_all(own))
    wait_for(all_settled)
    assert Failure.objects.count() == 0
    assert Task.objects.count() == len(ids)
    # A connection that breaks at a commit leaves open whether it was; the receipt keeps it from being written twice,
    # and the task from running twice.
    assert set(oracle.count("start").values()) == {1}
    assert running.worker_pids() == pids
    # Idle, too.
    wait_for(lambda: terminate_all(own) >= 4)
    assert fetch(async_task(MARK, "after"), wait=20_000).success


# ------------------------------------------------------------------------------------------------- idle


def test_idle_pool_is_quiet_and_quick(pool, oracle, session):
    """Few queries while there is nothing to do, and no wait when there is."""
    pool(workers=2)
    own = session()
    fetch(async_task(MARK, "warm"), wait=20_000)
    counted = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"

    def transactions() -> int:
        return value(own, counted)

    # Sessions tell what they did up to ten seconds later, and autovacuum's transactions count too: so look until there
    # are three quiet seconds. A pool that is not quiet has none: who is active tells each second.
    looks = [(time.monotonic(), transactions())]
    rates: list[float] = []
    while time.monotonic() - looks[0][0] < 30 and not (rates and rates[-1] < 5):
        time.sleep(1)
        looks.append((time.monotonic(), transactions()))
        if len(looks) > 3:
            (began, before), (ended, after) = looks[-4], looks[-1]
            # Three of them were looks of our own.
            rates.append((after - before - 3) / (ended - began))
    print("idle:", *(f"{rate:.1f}" for rate in rates), "transactions/s")  # noqa: T201
    assert min(rates) < 5

    latencies = []
    for number in range(40):
        time.sleep(0.03)
        enqueued = time.monotonic()
        async_task(MARK, f"quick{number}")
        wait_for(lambda number=number: oracle.starts(f"quick{number}"), pause=0.001)
        latencies.append(oracle.times(f"quick{number}")[0] - enqueued)
    latencies.sort()
    print(f"latency: p50 {statistics.median(latencies) * 1000:.1f} ms, max {latencies[-1] * 1000:.1f} ms")  # noqa: T201
    # Without the wake-up it would be half of `poll`, which is a second.
    assert statistics.median(latencies) < 0.1


def test_result_wakes_who_waits_for_it(pool, oracle, tmp_path):
    pool(workers=1)
    gate = tmp_path / "gate"
    id = async_task(WAIT, "slow", str(gate))
    wait_for(lambda: oracle.starts("slow"))
    began = time.monotonic()
    assert result(id, wait=300) is None
    assert 0.3 <= time.monotonic() - began < 2

    import threading

    def open_gate() -> None:
        time.sleep(0.7)  # Long enough for the waiter to have begun to listen.
        gate.touch()

    opener = threading.Thread(target=open_gate)
    opener.start()
    assert result(id, wait=20_000) == "slow"
    woken = time.monotonic()
    opener.join()
    assert woken - oracle.times("slow", "end")[0] < 0.5


def test_wait_for_a_result_that_never_comes_ends():
    id = async_task(MARK, "never")
    began = time.monotonic()
    assert result(id, wait=1500) is None
    assert 1.5 <= time.monotonic() - began < 4
    assert result(id) is None


def test_report_says_what_runs(pool, oracle, tmp_path):
    running = pool(workers=2, retry=2)
    gate = tmp_path / "gate"
    id = async_task(WAIT, "slow", str(gate))
    report = running.wait_for(lambda: [row for row in running.report() if row["task"] == id])
    assert report[0]["pid"] == oracle.pids("slow")[0]
    assert WorkerPool.objects.get().status == "working"
    gate.touch()
    running.wait_for(lambda: sum(row["succeeded"] for row in running.report()) == 1)
    running.wait_for(lambda: WorkerPool.objects.get().status == "idle")
    assert queue_size() == 0
