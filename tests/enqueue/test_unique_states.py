"""Whatever happens to unique tasks in whatever order, nothing fails on their keys, and no key has two tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgq.conf import get_settings
from pgq.execution import call as calling
from pgq.execution import inline, prepare, settle
from pgq.models import QueuedTask, Task
from pgq.records import Blame, Claim, Report
from pgq.store import lanes, leases, queue
from pgq.store.caller import callers_cursor
from pgq.tasks import Unique, cancel, pause, resume, retry
from tests.functions import unique
from tests.support.hand import WORKER

pytestmark = pytest.mark.django_db

SINCE = datetime(2000, 1, 1, tzinfo=UTC)
STEPS = (
    *("enqueue start", "enqueue end", "enqueue replace", "enqueue cancel"),
    *("claim", "settle", "fail", "release", "crash", "rescue", "park", "postpone"),
    *("cancel", "retry", "due", "pause", "resume"),
)


def enqueue(how: str, key: int) -> None:
    rule = Unique(
        "order", until="end" if how == "end" else "start", conflict=how if how in ("replace", "cancel") else "skip"
    )
    holder = QueuedTask.objects.filter(unique_key=f"tests.functions.unique.until_end:{key}").first()
    id = unique.until_end.using(unique=rule, max_attempts=0).enqueue(key, "fail" if how == "end" else "")
    if holder is None or how == "cancel":
        assert id.created
    else:
        assert (id, id.created) == (holder.pk, False)


def take(step: str, held: list[Claim], cursor: Any) -> None:
    """Take one step of a worker's or an operator's."""
    rows = list(QueuedTask.objects.order_by("id"))
    if step == "claim":
        held += queue.claim(cursor, limit=2, worker=WORKER, receipt=uuid4())
    elif step in ("settle", "fail") and held:
        claimed = held.pop(0)
        ready = prepare.ready(claimed, get_settings())
        report = ready if isinstance(ready, Report) else calling.run_call(ready, get_settings())
        settle.write(cursor, [report], "tests")
    elif step == "release" and held:
        leases.release(cursor, [held.pop()])
    elif step == "crash" and held:
        leases.release_worker(cursor, WORKER, Blame(held[0].id, True, "{}"), since=SINCE)
        held.clear()
    elif step == "rescue":
        leases.rescue_expired(cursor, since=SINCE, before=datetime.now(UTC) + timedelta(days=1), age=-60, error="{}")
        held.clear()
    elif step == "park" and held:
        claimed = held.pop()
        queue.park(cursor, [(claimed.id, claimed.receipt, "odd")])
    elif step == "postpone" and held:
        claimed = held.pop()
        queue.postpone(cursor, [(claimed.id, claimed.receipt, 60.0, "{}")])
    elif step == "cancel" and rows:
        cancel(rows[0].pk)
    elif step == "retry":
        for id in [*Task.objects.values_list("pk", flat=True)[:1], *(row.pk for row in rows[:1])]:
            retry(id)
    elif step == "due":
        QueuedTask.objects.exclude(run_after=None).update(run_after=datetime.now(UTC) - timedelta(seconds=1))
        lanes.due(cursor, limit=100)
    elif step in ("pause", "resume"):
        (pause if step == "pause" else resume)("default")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1)), max_size=30))
def test_any_order_of_steps(steps):
    QueuedTask.objects.all().delete()
    Task.objects.all().delete()
    resume("default")
    held: list[Claim] = []
    with callers_cursor("default") as cursor:
        for step, key in steps:
            what, _, how = step.partition(" ")
            if what == "enqueue":
                enqueue(how, key)
            else:
                take(step, held, cursor)
            for row in QueuedTask.objects.exclude(lock=None):
                # A task that is unique until a worker has it gives up its key with the claim.
                assert row.unique_key is None or row.unique_until == "end"
    resume("default")
    QueuedTask.objects.update(parked=None, lock=None, worker=None, receipt=None)
    assert inline.drain(200) is not None
