"""Numbers over time: what is settled is counted once, wherever a process dies on the way to the tables."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from time import sleep
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from pgq.conf import get_settings
from pgq.execution import ending
from pgq.execution.tally import Tally
from pgq.ground import events, histogram
from pgq.models import QueuedTask, Task
from pgq.models.metrics import Gauge, Mark, Metric, Total
from pgq.pool.former_ids import FormerId, FormerIds
from pgq.pool.worker.exchange import flush_tally
from pgq.records import Blame
from pgq.status import metrics
from pgq.status import series as status_series
from pgq.store import lanes, series
from pgq.store.metrics import LENGTH, OTHER
from pgq.tasks import async_task, cancel, cancel_many, enqueue_many
from pgq.upkeep import gauges
from pgq.upkeep import metrics as folding
from tests.support.hand import MARK, WORKER, Hand, claim, run, settle
from tests.support.pool_rows import WORKERS, make_pool

FAIL = "tests.functions.oracle.fail"


@pytest.fixture
def hand(transactional_db, oracle):
    hand = Hand()
    events.settle.listen(hand.exchange.tally.note)
    yield hand
    events.settle.forget(hand.exchange.tally.note)
    hand.close()


def fold(session) -> int:
    with session.transaction():
        return folding.fold(session.cursor())


def look(call, *arguments, **named):
    with connection.cursor() as cursor:
        now = metrics.now(cursor)
        return call(cursor, *arguments, **named, start=now - timedelta(hours=1), end=now)


def all_reports() -> int:
    with connection.cursor() as cursor:
        return sum(total.counts.all for total in metrics.totals(cursor))


# ------------------------------------------------------------------------------------------------- histograms

TIMES = st.lists(st.integers(0, 10**12), min_size=1, max_size=50)


def histogram_of(times):
    counts: dict[int, int] = {}
    for time in times:
        counts[histogram.bucket(time)] = counts.get(histogram.bucket(time), 0) + 1
    return counts


@given(st.integers(0, histogram.LONGEST))
def test_a_time_lies_in_its_bucket(time):
    number = histogram.bucket(time)
    assert number < histogram.SIZE
    assert histogram.begin(number) * 1e6 <= time * (1 + 1e-9)
    assert time < histogram.begin(histogram.following(number)) * 1e6


@given(TIMES, TIMES, TIMES)
def test_histograms_add_up_in_any_order(a, b, c):
    def add(*histograms):
        return histogram.merged([histogram.dense(one) for one in histograms])

    x, y, z = map(histogram_of, (a, b, c))
    assert add(add(x, y), z) == add(x, add(y, z)) == add(z, x, y) == histogram_of(a + b + c)


@given(TIMES, st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(times, share):
    true = sorted(times)[max(-int(-share * len(times) // 1) - 1, 0)]
    found = histogram.quantile(histogram_of(times), share)
    number = histogram.bucket(true)
    assert histogram.begin(number) <= found <= histogram.begin(histogram.following(number))


def test_histograms_that_are_read_are_the_sums_of_those_that_are_kept(session):
    own, end = session(), datetime.now(UTC)
    chance = random.Random(7)
    kept = []
    for number in range(60):
        runs, waits = (
            histogram_of([chance.randrange(10 ** chance.randint(0, 9)) for _ in range(30)]) for _ in range(2)
        )
        queue, at = f"queue {number % 3}", end - timedelta(minutes=1 + number)
        # A row of what did not run has no histogram of runs.
        row = (histogram.dense({}) if number % 7 == 0 else histogram.dense(runs)), histogram.dense(waits)
        kept.append((queue, row))
        own.execute(
            "INSERT INTO pgq_metric (span, at, queue, func, run_from, run_hist, wait_from, wait_hist)"
            " VALUES (1, date_trunc('minute', %s::timestamptz), %s, 'f', %s, %s, %s, %s)",
            [at, queue, *row[0], *row[1]],
        )
    wanted = series.Wanted(1, end - timedelta(hours=2), end)
    # The bound is one of rows, not of buckets.
    found = series.histograms(own.cursor(), wanted, "run", "wait", key="queue", step=0, limit=3)
    for place, one in enumerate(found):
        expected = {name: histogram.merged(row[place] for queue, row in kept if queue == name) for name, _ in kept}
        assert {queue: counts for (_, queue), counts in one.items()} == expected
    # What somebody has written by hand.
    own.execute("UPDATE pgq_metric SET run_from = 32000 WHERE queue = 'queue 1'")
    (beyond,) = series.histograms(own.cursor(), wanted, "run", key="queue", step=0, limit=3)
    assert {queue for _, queue in beyond} == {"queue 0", "queue 2"}
    assert series.histograms(own.cursor(), wanted._replace(queue="none"), "run", key=None, step=60, limit=3) == ({},)


def test_sql_knows_the_same_buckets(session):
    own = session()
    assert [row[0] for row in own.execute("SELECT pgq_bucket(n) FROM generate_series(0, 80) n")] == [
        pytest.approx(histogram.begin(number)) for number in range(81)
    ]
    counts = histogram_of([0, 1, 3, 900, 1500, 1500, 80_000, 10**7])
    for share in (0.1, 0.5, 0.9, 1.0):
        [(found,)] = own.execute(
            "SELECT pgq_quantile(%s::int[], %s::bigint[], %s)", [list(counts), list(counts.values()), share]
        ).fetchall()
        assert found == pytest.approx(histogram.quantile(counts, share))
    [(added,)] = own.execute("SELECT pgq_hist_add(4, '{1,2}', 7, '{5}')").fetchall()
    assert added == [1, 2, 0, 5]


# ------------------------------------------------------------------------------------------------- from settled to read


def test_what_was_settled_can_be_read(hand, session):
    own = session()
    enqueue_many(MARK, [(n,) for n in range(5)], queue="a")
    async_task(FAIL, "x", queue="b")
    async_task(FAIL, "y", queue="b", max_attempts=2)
    async_task("tests.functions.oracle.discard", "z", queue="b")
    hand.work()
    flush_tally(hand.exchange)
    assert fold(own) == 1
    assert fold(own) == 0
    functions = {(one.queue, one.func): one for one in look(metrics.functions)}
    assert functions["a", MARK].counts == metrics.Counts(succeeded=5)
    assert functions["b", FAIL].counts == metrics.Counts(failed=1, retried=1)
    assert functions["b", "tests.functions.oracle.discard"].counts == metrics.Counts(discarded=1)
    times = functions["a", MARK].run
    assert times.number == 5
    assert 0 < times.median <= times.p99 <= times.longest < 5
    assert 0 < functions["a", MARK].wait.longest < 30
    # The same in each span, in the counters, by queue, by outcome, and in SQL.
    assert {span: sum(row.succeeded for row in Metric.objects.filter(span=span)) for span in (1, 10, 60, 1440)} == {
        1: 5, 10: 5, 60: 5, 1440: 5,
    }  # fmt: skip
    assert all_reports() == 8
    assert {one.key: one.total for one in look(metrics.series, "ended", by="queue")} == {"a": 5, "b": 2}
    by_outcome = {one.key: one.total for one in look(metrics.series, "ended", by="outcome")}
    assert {key: total for key, total in by_outcome.items() if total} == {"succeeded": 5, "failed": 1, "discarded": 1}
    [median] = look(metrics.series, "run_median", queue="a")
    assert [point.value for point in median.points if point.value is not None] == [times.median]
    rows = own.execute("SELECT queue, func, succeeded, failed, retried, discarded FROM pgq_functions ORDER BY 1, 2")
    assert rows.fetchall()[0] == ("a", MARK, 5, 0, 0, 0)


def test_what_ends_without_a_worker_is_counted_with_its_transaction(transactional_db, session, caplog):
    """By cancel in Python, by pgq_cancel in psql, with a hook or without one; and by upkeep, whose time is over."""
    own = session()
    settings = get_settings()
    plain = enqueue_many(MARK, [(n,) for n in range(3)], queue="q" * 300)
    hooked = async_task(MARK, 3, hook=FAIL, run_after=60)
    for _ in range(2):
        async_task(MARK, 4, q_options={"expires": 0.001})
    cut = async_task(FAIL, 5)
    with transaction.atomic():
        assert cancel_many([*plain, hooked]) == dict.fromkeys([*plain, hooked], "queued")
        transaction.set_rollback(True)
    fold(own)
    assert all_reports() == 0
    assert cancel(plain[0]) == "queued"
    assert cancel_many([plain[1], hooked]) == dict.fromkeys([plain[1], hooked], "queued")
    assert cancel(plain[0]) == "finished"
    for id in (plain[2], plain[2]):
        own.execute("SELECT pgq_cancel(%s)", [id])
    own.execute("UPDATE pgq_queue SET cancelled = true WHERE id = %s", [cut])
    sleep(0.01)
    with own.transaction():
        told = ending.for_upkeep(settings, own.cursor(), 100)
    assert len(told) == 3
    fold(own)
    with connection.cursor() as cursor:
        found = {(total.queue, total.func): total.counts for total in metrics.totals(cursor)}
    assert found == {
        ("q" * LENGTH, MARK): metrics.Counts(cancelled=3),
        ("default", MARK): metrics.Counts(cancelled=1, failed=2),
        ("default", FAIL): metrics.Counts(cancelled=1),
    }
    assert sum(counts.ended for counts in found.values()) == Task.objects.count()
    # Nobody ran them: they tell nothing of times.
    [row] = own.execute("SELECT sum(run_us_sum + wait_us_sum) FROM pgq_total").fetchall()
    assert row == (0,)
    # Who may not count, may cancel.
    last = async_task(MARK, 6)
    own.execute("ALTER TABLE pgq_metric_raw RENAME TO pgq_gone")
    try:
        assert cancel(last) == "queued"
        own.execute("SELECT pgq_cancel(%s)", [async_task(MARK, 7)])
    finally:
        own.execute("ALTER TABLE pgq_gone RENAME TO pgq_metric_raw")
    assert "cannot be counted" in caplog.text
    assert (QueuedTask.objects.filter(func=MARK).count(), all_reports()) == (0, 7)


def test_a_flush_that_is_sent_twice_is_counted_once(hand, session):
    """Its worker does not know whether the commit took place; meanwhile the leader may have added it up."""
    own = session()
    enqueue_many(MARK, [(n,) for n in range(3)])
    hand.work()
    tally = hand.exchange.tally
    assert tally.write(own)
    assert fold(own) == 1
    enqueue_many(MARK, [(n,) for n in range(2)])
    hand.work()
    assert tally.write(own)
    tally.confirm()
    assert tally.write(own)
    tally.confirm()
    assert tally.due_at() is None
    assert fold(own) == 1
    assert all_reports() == 5


def test_a_leader_that_dies_while_folding_counts_nothing(hand, session):
    own, leader = session(), session()
    enqueue_many(MARK, [(n,) for n in range(3)])
    hand.work()
    flush_tally(hand.exchange)

    def fold_and_die():
        with leader.transaction():
            assert folding.fold(leader.cursor()) == 1
            own.execute("SELECT pg_terminate_backend(%s)", [leader.info.backend_pid])

    with pytest.raises(psycopg.OperationalError):
        fold_and_die()
    assert all_reports() == 0
    assert fold(own) == 1
    assert all_reports() == 3


def test_a_missing_table_keeps_nothing_from_being_settled(hand, session):
    own = session()
    async_task(MARK, 1)
    hand.work()
    own.execute("ALTER TABLE pgq_metric_raw RENAME TO pgq_gone")
    try:
        flush_tally(hand.exchange)
        async_task(MARK, 2)
        hand.exchange.tally._next = 0.0
        hand.work()
    finally:
        own.execute("ALTER TABLE pgq_gone RENAME TO pgq_metric_raw")
    flush_tally(hand.exchange)
    assert fold(own) == 2
    assert all_reports() == 2


def test_what_no_worker_wrote_is_left_out(transactional_db, session, caplog):
    own = session()
    for body in ("{}", "[1]", '[["q", "f", "succeeded", -1, 0, 0, [null, null], 0, 0, [null, null]]]', "null",
                 '[["q", "f", "succeeded", 1, 0, 0, [0, {}], 0, 0, [5, [1e300]]]]'):  # fmt: skip
        own.execute("INSERT INTO pgq_metric_raw (worker, seq, body) VALUES (pgq_uuid7(), 0, %s::jsonb)", [body])
    assert fold(own) == 5
    assert Total.objects.count() == 0


def test_functions_beyond_the_bound_are_added_up(transactional_db, session, monkeypatch):
    monkeypatch.setattr(folding, "PAIRS", 2)
    monkeypatch.setattr(folding, "TOTALS", 2)
    monkeypatch.setattr(folding, "QUEUES", 1)
    own = session()
    nothing = "[null, null]"
    for number in range(4):
        entries = ", ".join(
            f'["q{queue}", "f{number}", "failed", 1, 0, 0, {nothing}, 0, 0, {nothing}]' for queue in range(2)
        )
        own.execute("INSERT INTO pgq_metric_raw (worker, seq, body) VALUES (pgq_uuid7(), 0, %s)", [f"[{entries}]"])
        fold(own)
    assert sum(row.failed for row in Metric.objects.filter(span=60)) == 8
    assert {(row.queue, row.func) for row in Total.objects.all()} == {
        ("q0", "f0"), ("q1", "f0"), ("q0", OTHER), (OTHER, OTHER),
    }  # fmt: skip
    assert all_reports() == 8


# ------------------------------------------------------------------------------------------------- gauges


def test_gauges(hand, session):
    own = session()
    enqueue_many(MARK, [(n,) for n in range(7)], queue="a")
    enqueue_many(MARK, [(n,) for n in range(2)], queue="b", run_after=60)
    with own.transaction():
        gauges.note(own)
        gauges.note(own)
    with connection.cursor() as cursor:
        found = metrics.gauges(cursor)
        seen = metrics.forecast(cursor, "a")
    assert [(one.queue, one.ready, one.waiting, one.exact) for one in found] == [
        ("", 7, 2, True), ("a", 7, 0, True), ("b", 0, 2, True),
    ]  # fmt: skip
    assert Gauge.objects.count() == 12
    assert (seen.ready, seen.growing) == (7, True)


def test_workers_of_a_pool_that_serves_queues_by_patterns(hand, session):
    own = session()
    make_pool(queues=["ma*"], workers=WORKERS)
    for queue in ("mail", "sms"):
        enqueue_many(MARK, [(1,)], queue=queue)
    with own.transaction():
        gauges.note(own)
    with connection.cursor() as cursor:
        found = {gauge.queue: gauge.workers for gauge in metrics.gauges(cursor)}
    assert found == {"": 2, "mail": 2, "sms": 0}


def test_a_queue_that_cannot_be_counted_is_estimated(hand, session, monkeypatch):
    monkeypatch.setattr("pgq.status.snapshot._DEPTHS_LIMIT", 1)
    own = session()
    enqueue_many(MARK, [(n,) for n in range(300)], queue="a")
    with own.transaction():
        gauges.note(own)
    with connection.cursor() as cursor:
        [_, gauge] = metrics.gauges(cursor)
    assert (gauge.ready, gauge.exact) == (300, False)


def test_a_release_is_marked_once(transactional_db, session):
    own = session()
    for _ in range(2):
        own.execute("SELECT pgq_mark('v1', 'release')")
        own.execute("SELECT pgq_mark('look here')")
    assert sorted(Mark.objects.values_list("label", "kind")) == [
        ("look here", "mark"), ("look here", "mark"), ("v1", "release"),
    ]  # fmt: skip


def test_a_tally_has_a_bound(monkeypatch):
    monkeypatch.setattr("pgq.execution.tally._PAIRS_AT_MOST", 1)
    tally = Tally()
    for key in (("q", "f", "failed"), ("q" * 300, "g", "failed"), ("r", "h", "failed")):
        tally._entry(*key)
    assert list(tally._entries) == [("q", "f", "failed"), (OTHER, OTHER, "failed")]


def test_attempts_that_end_with_their_workers_are_counted(transactional_db, session):
    own = session()
    enqueue_many(MARK, [(n,) for n in range(3)])
    claimed = claim(own, 3)
    since = min(task.enqueued_at for task in claimed)
    [charged] = [task for task in claimed if task.position == min(one.position for one in claimed)]
    former_ids = FormerIds()
    former_ids.release(own.cursor(), FormerId(WORKER, Blame(charged.id, True, "{}")), since)
    fold(own)
    with connection.cursor() as cursor:
        [total] = metrics.totals(cursor)
    assert total.counts == metrics.Counts(crashed=1)
    # It has been ready since then, not since it was enqueued.
    rows = own.execute("SELECT ready_at IS NOT NULL FROM pgq_queue ORDER BY id").fetchall()
    assert rows == [(True,), (False,), (False,)]


def test_the_wait_begins_when_a_task_could_run(transactional_db, oracle, session):
    own = session()
    retried = async_task(MARK, "a", run_after=3600)
    own.execute("UPDATE pgq_queue SET enqueued_at = now() - interval '1 day', run_after = now() - interval '100 s'")
    lanes.due(own.cursor(), limit=10)
    [task] = claim(own)
    assert task.waited == pytest.approx(100, abs=5)
    settle(own, run(task))
    own.execute("SELECT pgq_retry(%s)", [retried])
    [task] = claim(own)
    assert task.waited < 5


def test_a_series_tells_those_with_the_most_apart(transactional_db, session, monkeypatch):
    monkeypatch.setattr("pgq.status.series.KEYS", 3)
    own = session()
    nothing = "[null, null]"
    for number in range(5):
        entry = f'["q", "f{number}", "failed", {number + 1}, 0, 0, [4, [{number + 1}]], 0, 0, {nothing}]'
        own.execute("INSERT INTO pgq_metric_raw (worker, seq, body) VALUES (pgq_uuid7(), 0, %s)", [f"[{entry}]"])
    fold(own)
    found = {one.key: one.total for one in look(metrics.series, "failed", by="func")}
    assert found == {"f4": 5, "f3": 4, OTHER: 6}
    assert {one.key for one in look(metrics.series, "run_median", by="func")} == {"f4", "f3", OTHER}
    assert [one.total for one in look(metrics.series, "failed")] == [15]
    for wrong in ({"metric": "x"}, {"metric": "ready", "by": "func"}, {"metric": "failed", "step": 7}):
        with pytest.raises(ValueError, match=r"^(metric|by|step): "):
            look(metrics.series, **wrong)


def test_a_series_over_a_change_of_the_clock_loses_nothing(transactional_db):
    """The times are given in a zone that had the change in these days."""
    berlin = ZoneInfo("Europe/Berlin")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgq_metric (span, at, queue, func, succeeded)"
            " SELECT 1440, at, 'q', 'f', 24 FROM generate_series('2025-03-28Z', '2025-03-31Z', interval '1 day') at"
        )
        [days] = metrics.series(
            cursor,
            "succeeded",
            start=datetime(2025, 3, 28, 12, tzinfo=berlin),
            end=datetime(2025, 4, 1, 2, tzinfo=berlin),
            step=86_400,
        )
    assert [point.value for point in days.points] == [24, 24, 24, 24]


def test_of_many_queues_those_with_the_most_are_told_apart_to_the_end(transactional_db, monkeypatch):
    with connection.cursor() as cursor:
        minute = metrics.now(cursor).replace(second=0, microsecond=0)
        # Queue n has n ready tasks, one more each minute, and n that end: so n + 1 arrive.
        cursor.execute(
            "INSERT INTO pgq_gauge (span, at, queue, ready, running, waiting, parked)"
            " SELECT 1, %s - ago * interval '1 minute', CASE WHEN n = 0 THEN '' ELSE 'q' || n END,"
            " CASE WHEN n = 0 THEN 30 * 31 / 2 + 30 * (4 - ago) ELSE n + 4 - ago END, 0, 0, 0"
            " FROM generate_series(0, 30) n, generate_series(0, 4) ago",
            [minute],
        )
        cursor.execute(
            "INSERT INTO pgq_metric (span, at, queue, func, succeeded)"
            " SELECT 1, %s - ago * interval '1 minute', 'q' || n, 'f', n"
            " FROM generate_series(1, 30) n, generate_series(1, 4) ago",
            [minute],
        )
        # Of all queues there are more rows than one statement returns.
        monkeypatch.setattr(status_series, "ROWS", 5 * 30)
        start, end = minute - timedelta(minutes=4), minute + timedelta(minutes=1)
        ready = metrics.series(cursor, "ready", start=start, end=end, by="queue")
        assert [one.key for one in ready] == [f"q{n}" for n in range(30, 9, -1)]
        assert [point.value for point in ready[0].points] == [30, 31, 32, 33, 34]
        arrived = metrics.series(cursor, "arrived", start=start, end=minute, by="queue")
        assert {one.key: {point.value for point in one.points} for one in arrived if one.key != OTHER} == {
            f"q{n}": {n + 1} for n in range(30, 11, -1)
        }
        assert arrived[-1].key == OTHER
        assert {point.value for point in arrived[-1].points} == {sum(range(2, 13))}
