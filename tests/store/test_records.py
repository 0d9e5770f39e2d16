"""Records of the store: a statement's columns are named as its record's fields; those of a claim stand in order."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import pgq
from pgq.conf import ALL
from pgq.models import Schedule
from pgq.records import Claim, TaskState
from pgq.store import (
    bulk,
    failures,
    firings,
    flows,
    keyed,
    lanes,
    leases,
    limits,
    monitor,
    overview,
    pools,
    queue,
    queues,
    results,
    schedules,
    series,
    statistics,
    unique,
)
from tests.support.hand import WORKER

pytestmark = pytest.mark.django_db(transaction=True)

NOW, ID = datetime.now(UTC), UUID(int=0)
OLD = results.Old(None, None, None, None)
ANY_TASK = bulk.Match(["ready"], None, None, None, None, None, None)
RECORDS: list[tuple[type, Callable[[Any], object]]] = [
    (results.Expiry, lambda cursor: results.expire(cursor, now=datetime.now(UTC), limit=1)),
    (results.Deleted, lambda cursor: results.prune(cursor, keep=0, limit=1)),
    (results.Deleted, lambda cursor: results.prune(cursor, keep=0, limit=1, per="func")),
    (results.Deleted, lambda cursor: results.clean(cursor, OLD, after=ID, to=ID, limit=1)),
    (schedules.Due, lambda cursor: schedules.due_schedules(cursor, limit=1, now=None)),
    (results.Expired, lambda cursor: results.expired(cursor, NOW)),
    (overview.FailedTask, lambda cursor: overview.latest_failures(cursor, limit=1)),
    (overview.Finding, lambda cursor: overview.check(cursor, needed=0)),
    (pools.LeaderHolder, pools.leader_holder),
    (leases.Leases, lambda cursor: leases.oldest_lease(cursor, since=NOW)),
    (lanes.Outlook, lanes.outlook),
    (bulk.Looked, lambda cursor: bulk.look_queued(cursor, ANY_TASK, after=ID, wanted=True)),
    (bulk.Looked, lambda cursor: bulk.look_failed(cursor, ANY_TASK, after=ID, cancelled="", wanted=True)),
    (lanes.Marks, lanes.marks),
    (keyed.LaneLook, lambda cursor: keyed.look_at_lanes(cursor, behind=keyed.FIRST_LANE, limit=1)),
    (keyed.Chosen, lambda cursor: keyed.choose(cursor, lanes=1, below=9, queues=ALL, after="", keys={})),
    (limits.LimitState, lambda cursor: limits.limits(cursor, most=1, bound=1)),
    (pools.PoolRow, pools.pools),
    (overview.QueueCounts, lambda cursor: overview.queue_counts(cursor, limit=1)),
    (overview.QueueDepth, lambda cursor: overview.queue_depths(cursor, limit=1, most=1)),
    (series.Gauge, lambda cursor: series.latest_gauges(cursor, limit=1)),
    (series.Gauge, lambda cursor: series.gauge_series(cursor, series.Wanted(1, NOW, NOW), limit=1)),
    (series.Mark, lambda cursor: series.marks(cursor, start=NOW, end=NOW, limit=1)),
    (series.KeptFinding, series.findings),
    (overview.RunningTask, lambda cursor: overview.running(cursor, alive=1, limit=1)),
    (unique.Holder, lambda cursor: unique.hold(cursor, "unique_key", "x")),
    (TaskState, lambda cursor: results.task_state(cursor, ID)),
    (failures.FailureGroup, lambda cursor: failures.fingerprints(cursor, limit=1, most=1)),
    (failures.FailureRow, lambda cursor: failures.alike(cursor, fingerprint="x", limit=1, most=1)),
    (firings.Firing, lambda cursor: firings.firings(cursor, [1], limit=1)),
    (flows.RecentGroup, lambda cursor: flows.recent_groups(cursor, limit=1, most=1)),
    (flows.FlowTask, lambda cursor: flows.flow(cursor, "g", limit=1)),
    (monitor.FailureGroup, lambda cursor: monitor.failure_groups(cursor, limit=1)),
    (monitor.Upcoming, lambda cursor: monitor.upcoming(cursor, limit=1)),
    (queues.LaneState, lambda cursor: queues.lanes_of(cursor, "q", limit=1)),
    (queues.ReadyTask, lambda cursor: queues.head(cursor, "q", limit=1)),
    (statistics.TableStatistics, statistics.table_statistics),
    (statistics.ServerStatistics, statistics.server_statistics),
    (statistics.Server, statistics.server),
]


def names_of(kind: Any) -> list[str]:
    return list(kind._fields) if hasattr(kind, "_fields") else [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(("kind", "look"), RECORDS)
def test_columns_are_named_as_the_fields(kind, look, session):
    cursor = session().cursor()
    look(cursor)
    assert [column.name for column in cursor.description] == names_of(kind)


def test_each_record_is_among_them() -> None:
    calls = [
        node.args[1].id
        for path in Path(pgq.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "records"
        if isinstance(node.args[1], ast.Name)
    ]
    assert set(calls) == {kind.__name__ for kind, _ in RECORDS}


def test_a_claim_has_its_columns_in_this_order(session):
    """Claims are made by place: by name each would take several times as long."""
    cursor = session().cursor()
    *columns, receipt, worker = Claim._fields
    assert (receipt, worker) == ("receipt", "worker")
    queue.claim(cursor, limit=1, worker=WORKER, receipt=uuid4())
    assert [column.name for column in cursor.description] == columns
    queue.claim_one(cursor, ID, worker=WORKER, receipt=uuid4())
    assert [column.name for column in cursor.description] == columns


def test_a_schedule_that_is_due_is_the_same_read_by_the_model(session):
    Schedule.objects.create(name="s", func="app.f", args=(1, "a"), kwargs={"b": 2}, schedule_type="H", jitter=3)
    [due] = schedules.due_schedules(session().cursor(), limit=1, now=None)
    assert schedules.Due.of(Schedule.objects.get(), now=due.now) == due
