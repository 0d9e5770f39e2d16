"""Why a task is not running: each reason, by the same statement."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from pgq.ground import ids
from pgq.status.why import STUCK, why
from pgq.tasks import async_iter, async_task, cancel, pause
from tests.support.admin import finished, queued, sql
from tests.support.pool_rows import make_pool

pytestmark = pytest.mark.django_db
NAME = "tests.functions.oracle.mark"
WORKER = "a" * 32
FREE = [{"number": 0, "id": WORKER, "pid": 11, "state": "idle"}]


def said(task: str) -> tuple[str, str]:
    verdict = why(task)
    return verdict.code, verdict.sentence


def test_each_reason_of_a_task_that_waits() -> None:
    task = async_task(NAME, 1, queue="mail")
    assert said(task) == ("no_pool", "No pool is running. Start one: manage.py pgq_worker.")
    make_pool(queues=["other"], workers=FREE)
    assert said(task)[0] == "unserved"
    assert "--queues mail" in said(task)[1]
    sql("UPDATE pgq_worker SET queues = '{other,mail}'")
    assert said(task) == (
        "next",
        "It is ready, the next one of its queue, and a worker is free; 0 of 1 workers that serve the queue are busy.",
    )
    sql("UPDATE pgq_worker SET exclude_queues = '{mail}'")
    assert said(task)[0] == "unserved"
    sql("UPDATE pgq_worker SET exclude_queues = NULL, workers = jsonb_set(workers, '{0,task}', '\"bb\"')")
    assert said(task)[0] == "busy"
    pause("mail")
    assert said(task) == ("paused", "Its queue is paused: no worker claims from mail until it is resumed.")
    sql("UPDATE pgq_queue SET parked = 'the key is not known'")
    assert said(task) == ("parked", "It is parked, since it cannot run as it is: the key is not known")
    # As pgq_cancel in psql does.
    sql("UPDATE pgq_queue SET parked = NULL, cancelled = true")
    assert said(task) == (
        "cancelled",
        "It is cancelled: the upkeep of a pool ends it as failed, without running it, within a second. "
        "Its queue mail is paused.",
    )
    # A pool that is silent, or that stops, serves nothing.
    other = async_task(NAME, 1)
    sql("UPDATE pgq_worker SET queues = NULL")
    assert said(other)[0] == "busy"
    sql("UPDATE pgq_worker SET status = 'stopping'")
    assert said(other)[0] == "no_pool"
    sql("UPDATE pgq_worker SET status = 'idle', heartbeat = now() - interval '1 minute'")
    assert said(other)[0] == "no_pool"


def test_times_retries_and_functions_that_no_worker_knows() -> None:
    make_pool(workers=FREE)
    task = async_task(NAME, 1, run_after=7200)
    code, sentence = said(task)
    assert code == "time"
    assert sentence.endswith(", in 2 h 0 min.")
    error = {"exception": "app.errors.Timeout", "message": "slow", "attempt": 1}
    sql("UPDATE pgq_queue SET attempts = 1, history = %s", json.dumps([error]))
    assert said(task)[0] == "retry"
    assert said(task)[1].startswith("Attempt 2 begins at ")
    assert said(task)[1].endswith(": the last one failed with app.errors.Timeout.")
    sql("UPDATE pgq_queue SET history = %s", json.dumps([{**error, "postponed": 2}]))
    assert said(task)[0] == "unknown_function"
    assert NAME in said(task)[1]
    sql("UPDATE pgq_queue SET history = '[7]', run_after = now() - interval '3 minutes'")
    assert said(task) == ("due", "Its time came 3 min ago: upkeep makes it ready, once a second.")


def test_how_many_go_before_it() -> None:
    make_pool(workers=FREE)
    tasks = [async_task(NAME, n, queue="mail") for n in range(4)]
    urgent = async_task(NAME, 9, queue="mail", priority=5)
    async_task(NAME, 9, queue="elsewhere", priority=5)
    async_task(NAME, 9, queue="elsewhere", priority=-5)
    verdict = why(tasks[3])
    assert verdict.code == "behind"
    assert (verdict.facts["ahead"], verdict.facts["ahead_exact"], verdict.facts["ahead_elsewhere"]) == (4, True, 1)
    assert (
        "behind 4 other tasks of its queue, and behind 1 of a higher priority in other queues or of other keys"
        in verdict.sentence
    )
    assert why(urgent).code == "next"
    pause("elsewhere")
    assert why(tasks[0]).facts["ahead_elsewhere"] == 0
    assert why(tasks[0]).facts["ahead"] == 1


def test_what_it_counts_is_bounded() -> None:
    make_pool(workers=FREE)
    sql("INSERT INTO pgq_queue (func, queue) SELECT 'by.hand', 'long' FROM generate_series(1, 10050)")
    verdict = why(async_task(NAME, 1, queue="long"))
    assert (verdict.facts["ahead"], verdict.facts["ahead_exact"]) == (10_000, False)
    assert "behind 10000 or more other tasks" in verdict.sentence


def test_how_long_it_takes_where_the_rate_of_the_queue_is_known() -> None:
    make_pool(workers=FREE)
    tasks = [async_task(NAME, number, queue="mail") for number in range(3)]
    assert "about" not in said(tasks[2])[1], "nothing has ended yet"
    # 90 have ended in five minutes: one in 3.3 s. What is not complete yet, older, or of another queue does not count.
    sql(
        "INSERT INTO pgq_metric (span, at, queue, func, succeeded, failed, retried)"
        " SELECT 1, date_trunc('minute', now()) - n * interval '1 minute', queue, 'f', 20, 10, 99"
        "   FROM generate_series(2, 20, 2) n, unnest('{mail,sms}'::text[]) queue"
        "  WHERE n IN (2, 4, 20) OR queue = 'sms'"
    )
    sql(
        "INSERT INTO pgq_metric (span, at, queue, func, discarded)"
        " VALUES (1, date_trunc('minute', now()) - interval '3 min', 'mail', 'g', 30)"
    )
    verdict = why(tasks[2])
    assert (verdict.facts["rate"], verdict.facts["eta_seconds"]) == (0.3, 10)
    assert verdict.sentence == (
        "It is ready, behind 2 other tasks of its queue, about 10 s at the rate of the last minutes;"
        " 0 of 1 workers that serve the queue are busy."
    )
    assert "about" not in said(tasks[0])[1], "it is the next one"
    # One that may come first at any time, in a queue whose rate is another.
    async_task(NAME, 9, queue="elsewhere", priority=5)
    assert "eta_seconds" not in why(tasks[2]).facts


def test_running_stopping_lost() -> None:
    task = async_task(NAME, 1)
    working = [{"number": 0, "id": WORKER, "pid": 11, "state": "working", "task": task, "seconds": 100}]
    make_pool(host="box", workers=working)
    sql("UPDATE pgq_queue SET lock = now(), worker = %s, receipt = %s, attempts = 1", WORKER, ids.new_id())
    assert said(task) == ("running", "It runs on shop (box, pid 11), attempt 1, for 2 min.")
    sql("UPDATE pgq_worker SET workers = %s", json.dumps([{**working[0], "task": "b" * 32}]))
    assert said(task)[0] == "claimed"
    assert cancel(task) == "running"
    assert said(task)[0] == "stopping"
    sql("UPDATE pgq_worker SET heartbeat = now() - interval '2 minutes'")
    code, sentence = said(task)
    assert code == "lost"
    assert "has not been heard of for 2 min" in sentence
    # Whatever stands there.
    sql("UPDATE pgq_worker SET workers = '{}'")
    assert said(task)[0] == "lost"


def test_a_collector_waits_for_others() -> None:
    make_pool(workers=FREE)
    whole = async_iter(NAME, [1, 2, 3])
    assert said(whole) == ("others", "It waits for 3 of 3 other tasks to end.")
    # As settling leaves it when the first of them has ended.
    sql("UPDATE pgq_queue SET remaining = 2 WHERE remaining = 3")
    finished(group=whole, options=json.dumps({"collector": whole}))
    assert said(whole)[1] == "It waits for 2 of 3 other tasks to end."


def test_ended_and_unknown() -> None:
    assert why(finished()).code == "succeeded"
    code, sentence = said(finished(False))
    assert (code, sentence.endswith("ago, after 2 s, with builtins.ValueError.")) == ("failed", True)
    assert why(ids.new_id()).code == "unknown"
    with pytest.raises(ValueError, match="task: must be the id of a task"):
        why("no id")


def test_the_command(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stuck:
        call_command("pgq_why", queued(parked="no such key"))
    assert stuck.value.code == 1
    assert "It is parked, since it cannot run as it is: no such key" in capsys.readouterr().out
    call_command("pgq_why", finished(), "--json")
    assert json.loads(capsys.readouterr().out)["code"] == "succeeded"
    with pytest.raises(SystemExit) as unknown:
        call_command("pgq_why", str(ids.new_id()))
    assert unknown.value.code == 2
    assert "paused" in STUCK


def test_an_inspector_may_ask() -> None:
    """Of the roles of roles.sql the one that sees no payloads: the last error and the size of a group are left out."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE pgq_asks")
        cursor.execute("GRANT USAGE ON SCHEMA public TO pgq_asks")
        cursor.execute(
            "GRANT SELECT (id, queue, priority, position, func, attempts, max_attempts, crashes, cancelled, run_after,"
            " remaining, parked, lock, worker, enqueued_at) ON pgq_queue TO pgq_asks"
        )
        cursor.execute("GRANT SELECT ON pgq_lane, pgq_worker TO pgq_asks")
        task = queued(remaining=2)
        cursor.execute("SET LOCAL ROLE pgq_asks")
        cursor.execute("SELECT code, sentence FROM pgq_why(%s)", [task])
        assert cursor.fetchone() == ("others", "It waits for 2 other tasks to end. No pool is running.")


def test_limits_and_keys() -> None:
    make_pool(workers=FREE)
    first, second, other = (queued(key=key) for key in ("mail:7", "mail:7", "mail:8"))
    assert said(first)[0] == said(other)[0] == "next"
    assert "behind 1 other tasks of its key" in said(second)[1]
    sql("INSERT INTO pgq_limit (scope, name, concurrency) VALUES ('key', 'mail', 1)")
    assert said(second)[0] == "behind"
    sql("UPDATE pgq_queue SET lock = now(), worker = %s, receipt = %s, strand = 5 WHERE id = %s", WORKER, WORKER, first)
    assert said(second) == ("held", "It is ready, and held by the limit of its key mail:7: 1 of 1 run.")
    assert said(other)[0] == "next", "each key has a limit of its own"
    sql("UPDATE pgq_limit SET concurrency = NULL, rate = 2, period = 60")
    assert said(second)[0] == "next"
    sql(
        "INSERT INTO pgq_rate (scope, name, not_before, limited_at)"
        " SELECT 'key', 'mail:7', now() + interval '40.2 s', updated_at FROM pgq_limit"
    )
    assert said(second)[1].startswith("It is ready, and held by the limit of its key mail:7: the next may start in ")
    sql("INSERT INTO pgq_limit (scope, name, concurrency) VALUES ('queue', 'default', 0)")
    assert said(other) == ("held", "It is ready, and held by the limit of its queue default: 1 of 0 run.")
    plain = async_task(NAME, 1)
    assert said(plain)[0] == "held"


def test_a_strict_key_is_held_by_what_goes_before_and_higher_priorities_of_other_keys_are_counted() -> None:
    make_pool(workers=FREE)
    sql("INSERT INTO pgq_limit (scope, name, strict) VALUES ('key', 'ship', true)")
    first, second = queued(key="ship:7"), queued(key="ship:7")
    sql("UPDATE pgq_queue SET attempts = 1, run_after = now() + interval '40.4 s' WHERE id = %s", first)
    code, sentence = said(second)
    assert (code, sentence) == (
        "held",
        f"It is ready, and held by the strict order of its key ship:7: {first} before it waits for attempt 2, in 40 s.",
    )
    sql("UPDATE pgq_queue SET run_after = NULL, parked = 'broken' WHERE id = %s", first)
    assert said(second)[1].endswith(f"{first} before it is parked.")
    plain = async_task(NAME, 1)
    for number in range(3):
        queued(key=f"mail:{number}", queue="other", priority=5)
    assert "behind 3 of a higher priority in other queues or of other keys" in said(plain)[1]
