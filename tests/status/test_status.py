"""Stat, Cluster and the counts behind the commands."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.db import connection
from django.test import override_settings
from psycopg.types.json import Jsonb

from pgq import status
from pgq.cluster import Cluster
from pgq.errors import PgqError
from pgq.ground import events
from pgq.pool.worker.exchange import flush_tally
from pgq.status import Stat, Status, snapshot
from pgq.status.snapshot import Count
from pgq.store import overview, pools
from pgq.tasks import async_task, enqueue_many, pause
from pgq.upkeep.metrics import fold
from tests.support.hand import MARK, Hand
from tests.support.pool_rows import ID, WORKERS, make_pool
from tests.support.pools import Oracle, wait_for


@pytest.fixture
def hand(transactional_db: None, oracle: Oracle) -> Iterator[Hand]:
    hand = Hand()
    yield hand
    hand.close()


@pytest.mark.django_db
class TestStat:
    def test_has_django_qs_attributes(self):
        make_pool(workers=WORKERS, queues=["a", "b"])
        (stat,) = Stat.get_all()
        assert (stat.cluster_id, stat.host, stat.pid, stat.sentinel) == (
            ID, socket.gethostname(), os.getpid(), os.getpid(),
        )  # fmt: skip
        assert stat.workers == [11]
        assert stat.status == Status.WORKING == "Working"
        assert 3599 < stat.uptime() < 3700
        assert stat.tob < stat.timestamp
        assert (stat.task_q_size, stat.done_q_size, stat.reincarnations, stat.pusher, stat.monitor) == (0, 0, 0, 0, 0)
        assert stat.empty_queues()
        assert stat.key == Stat.get_key(ID) == f"pgq:cluster:{ID}"
        assert stat.queues == ["a", "b"]

    @pytest.mark.parametrize("arguments", [(ID,), (str(ID),), (ID.hex,), (os.getpid(), ID), (None, ID)])
    def test_get_finds_by_id_with_or_without_pid(self, arguments):
        make_pool()
        assert Stat.get(*arguments).status == "Working"
        assert Stat.get(pid=os.getpid(), cluster_id=ID).cluster_id == ID

    def test_a_pool_that_is_not_there_has_stopped(self):
        found = Stat.get(5, ID)
        assert type(found) is Status
        assert (found.status, found.pid, found.workers) == ("Stopped", 5, [])

    def test_a_silent_pool_has_stopped(self):
        make_pool(silent=status.ALIVE + 1)
        assert Stat.get_all() == []
        assert Stat.get(ID).status == "Stopped"

    @pytest.mark.parametrize("wrong", ["x", 5, None])
    def test_get_refuses_what_is_no_id(self, wrong):
        with pytest.raises(ValueError, match="cluster_id: must be the id of a pool"):
            Stat.get(wrong)

    @pytest.mark.parametrize("workers", [{}, "text", [1, None, {"number": "x"}], [{"number": 1, "state": 5}]])
    def test_workers_that_no_supervisor_wrote_are_left_out(self, workers):
        make_pool(workers=workers)
        assert Stat.get_all()[0].processes == []

    def test_task_q_size_is_what_is_claimed_and_not_running(self, hand):
        enqueue_many(MARK, [(1,), (2,), (3,)])
        with connection.cursor() as cursor:
            cursor.execute("UPDATE pgq_queue SET lock = now(), worker = %s, receipt = %s", ["a" * 32, uuid4()])
        make_pool(workers=WORKERS)
        (stat,) = Stat.get_all()
        assert stat.task_q_size == 2
        assert not stat.empty_queues()


@pytest.mark.django_db
class TestCounts:
    def test_states(self):
        enqueue_many(MARK, [(n,) for n in range(7)])
        enqueue_many(MARK, [(n,) for n in range(2)], run_after=60)
        enqueue_many(MARK, [(8,)], then=MARK)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE pgq_queue SET parked = 'x' WHERE args = '[0]' AND run_after IS NULL")
            counts = snapshot.queued(cursor)
        assert (str(counts.ready), str(counts.waiting), str(counts.parked), str(counts.running)) == ("7", "3", "1", "0")
        assert str(counts.total) == "11"

    def test_more_than_the_limit_is_a_lower_bound_or_an_estimate(self):
        with connection.cursor() as cursor:
            # PostgreSQL may believe what another test had in it.
            cursor.execute("ANALYZE pgq_queue")
        enqueue_many(MARK, [(n,) for n in range(30)])
        with connection.cursor() as cursor:
            assert str(snapshot.queued(cursor, limit=10).ready) == "10+"
            cursor.execute("ANALYZE pgq_queue")
            assert str(snapshot.queued(cursor, limit=10).ready) == "~30"
            assert snapshot.queued(cursor, limit=10).ready.as_json() == {"count": 30, "exact": False}

    def test_sums_say_how_exact_they_are(self):
        assert str(snapshot._sum([Count(5), Count(10, "+")])) == "15+"
        assert str(snapshot._sum([Count(5, "+"), Count(10, "~")])) == "~15"

    def test_results_beyond_the_limit_are_estimated_over_partitions(self, hand):
        enqueue_many(MARK, [(n,) for n in range(30)])
        hand.work()
        with connection.cursor() as cursor:
            assert str(snapshot.finished(cursor).successes) == "30"
            cursor.execute("ANALYZE pgq_task")
            assert str(snapshot.finished(cursor, limit=10).successes) == "~30"

    @override_settings(PGQ={"save_limit": 10})
    def test_rates_do_not_depend_on_what_is_kept(self, hand):
        with connection.cursor() as cursor:
            assert snapshot.throughput(cursor) == snapshot.Throughput(0.0, None, 0)
            assert snapshot.snapshot(cursor).rates == {}
        events.settle.listen(hand.exchange.tally.note)
        try:
            enqueue_many(MARK, [(n,) for n in range(30)], queue="a", save=False)
            hand.work()
        finally:
            events.settle.forget(hand.exchange.tally.note)
        flush_tally(hand.exchange)
        with connection.cursor() as cursor:
            # As if two minutes had passed.
            cursor.execute("UPDATE pgq_metric_raw SET at = at - interval '2 minutes'")
            fold(cursor)
            last = "date_trunc('minute', now() - interval '30 s') - interval '1 minute'"
            cursor.execute(f"UPDATE pgq_metric SET at = {last} WHERE span = 1")
            seen = snapshot.throughput(cursor)
            assert (seen.ended, seen.rate) == (30, pytest.approx(30 / 86_400))
            assert 0 < seen.average < 1
            assert snapshot.snapshot(cursor).rates == {"a": 0.5}

    def test_depths_of_many_lanes_are_bounded_together(self, monkeypatch):
        monkeypatch.setattr(snapshot, "_DEPTHS_LIMIT", 2500)
        enqueue_many(MARK, [(n,) for n in range(1001)], queue="a")
        with connection.cursor() as cursor:
            assert [(one.ready, one.more) for one in snapshot.queue_depths(cursor)] == [(1000, True)]
            cursor.execute("INSERT INTO pgq_lane SELECT 'b' || n FROM generate_series(1, 9) n")
            assert (snapshot.queue_depths(cursor)[0].ready, snapshot.queue_depths(cursor)[0].more) == (100, True)

    def test_snapshot(self, hand):
        async_task("tests.functions.oracle.fail", 1)
        hand.work()
        enqueue_many(MARK, [(1,), (2,)], queue="mail")
        pause("mail")
        make_pool(uuid4(), silent=100)
        id = enqueue_many(MARK, [(3,)])[0]
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE pgq_queue SET lock = now(), worker = %s, receipt = %s WHERE id = %s", ["a" * 32, uuid4(), id]
            )
        make_pool(workers=[{**WORKERS[0], "task": id}])
        with connection.cursor() as cursor:
            first = snapshot.snapshot(cursor)
        assert [stat.cluster_id for stat in first.pools] == [ID]
        assert len(first.silent) == 1
        depths = {queue.queue: queue for queue in first.queues}
        assert (depths["mail"].ready, depths["mail"].paused, depths["default"].running) == (2, True, 1)
        assert depths["mail"].oldest >= 0
        (running,) = first.running
        assert (running.id.hex, running.pid) == (id, 11)
        assert running.seconds > 3
        assert [failure.exception for failure in first.failures] == ["builtins.ValueError"]
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE pgq_worker SET heartbeat = heartbeat + interval '500 ms', workers = %s WHERE id = %s",
                [Jsonb([{**WORKERS[0], "succeeded": 25}]), ID],
            )
            second = snapshot.snapshot(cursor, first)
            assert second.pool_rates == {ID: 40.0}
            # No new heartbeat, so nothing new is known.
            assert snapshot.snapshot(cursor, second).pool_rates == {ID: 40.0}

    def test_running_survives_what_others_write(self):
        make_pool(workers=[{"number": 0, "state": "working", "id": "nonsense", "task": None}])
        with connection.cursor() as cursor:
            assert overview.running(cursor, alive=60, limit=5) == []
            assert pools.pools(cursor)[0].claimed == 0


class TestCluster:
    @pytest.fixture
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        from tests.support.pools import ROOT, test_dsn

        monkeypatch.chdir(ROOT)
        return {
            "DATABASE_URL": test_dsn(), "DJANGO_SETTINGS_MODULE": "tests.support.pool_settings",
            "PGQ_TEST_SETTINGS": '{"workers": 1}',
        }  # fmt: skip

    def test_life(self, transactional_db, environment, oracle):
        cluster = Cluster(env=environment)
        states = (cluster.is_starting, cluster.is_running, cluster.is_stopping, cluster.has_stopped)
        assert not any(states)
        assert cluster.stop() is False
        pid = cluster.start()
        try:
            assert pid == cluster.pid != os.getpid()
            wait_for(lambda: cluster.is_running, "the pool runs")
            assert cluster.stat.sentinel == pid
            assert cluster.stat.cluster_id == cluster.cluster_id
            assert len(cluster.name.split("-")) == 4
            assert cluster.start() == pid
            async_task(MARK, "here")
            wait_for(lambda: oracle.ends("here") == 1)
        finally:
            assert cluster.stop() is True
        assert cluster.has_stopped
        assert not cluster.is_running
        assert cluster.stat.status == "Stopped"

    def test_a_pool_that_cannot_start_is_an_error(self, transactional_db, environment):
        cluster = Cluster(arguments=["--workers", "0"], env=environment)
        with pytest.raises(PgqError, match="exit code 1 before it had started"):
            cluster.start()
        assert cluster.has_stopped
