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
from pgq import store
from pgq.models import Schedule
from pgq.records import Claim
from tests.core.helpers import WORKER

pytestmark = pytest.mark.django_db(transaction=True)

NOW, ID = datetime.now(UTC), UUID(int=0)
OLD = store.Old(None, None, None, None)
RECORDS: list[tuple[type, Callable[[Any], object]]] = [
    (store.Deleted, lambda cursor: store.prune(cursor, keep=0, limit=1)),
    (store.Deleted, lambda cursor: store.prune(cursor, keep=0, limit=1, per="func")),
    (store.Deleted, lambda cursor: store.clean(cursor, OLD, after=ID, to=ID, limit=1)),
    (store.Due, lambda cursor: store.due_schedules(cursor, queues=None, limit=1, now=None)),
    (store.Expired, lambda cursor: store.expired(cursor, NOW)),
    (store.FailedTask, lambda cursor: store.latest_failures(cursor, limit=1)),
    (store.Finding, lambda cursor: store.check(cursor, needed=0)),
    (store.LeaderHolder, store.leader_holder),
    (store.Leases, lambda cursor: store.oldest_lease(cursor, since=NOW)),
    (store.Outlook, store.outlook),
    (store.PoolRow, store.pools),
    (store.QueueCounts, lambda cursor: store.queue_counts(cursor, limit=1)),
    (store.QueueDepth, lambda cursor: store.queue_depths(cursor, limit=1)),
    (store.Recent, lambda cursor: store.recent(cursor, seconds=1, limit=1)),
    (store.RunningTask, lambda cursor: store.running(cursor, alive=1, limit=1)),
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
    *columns, receipt = Claim._fields
    assert receipt == "receipt"
    store.claim(cursor, limit=1, worker=WORKER, receipt=uuid4(), queues=None)
    assert [column.name for column in cursor.description] == columns
    store.claim_one(cursor, ID, worker=WORKER, receipt=uuid4())
    assert [column.name for column in cursor.description] == columns


def test_a_schedule_that_is_due_is_the_same_read_by_the_model(session):
    Schedule.objects.create(name="s", func="app.f", args=(1, "a"), kwargs={"b": 2}, schedule_type="H", jitter=3)
    [due] = store.due_schedules(session().cursor(), queues=None, limit=1, now=None)
    assert store.Due.of(Schedule.objects.get(), now=due.now) == due
