"""From Django-Q's tables into pgq's. Django-Q itself need not be installed: its tables are read as they are.

It can be repeated. A schedule notes its id there in its options. A task gets an id made from the old one and its time,
so it is always the same, and stands in the right place among the others. A queued task and a schedule are also marked
as taken in Django-Q's own tables (the lock of the one and the next run of the other are set to the year 9000), so that
no cluster there runs or fires it a second time.

What is trusted:

* The payload of a queued task is signed with SECRET_KEY. It is unpickled once that is verified, as Django-Q does.
* Schedules are not signed. Write access to that table must not mean that any function can be called. So a schedule is
  imported only if its function is registered here, or if the operator says that the table can be trusted.
* Pickles of finished tasks are not signed. They are read with a few harmless types only (see unpickle.py),
  unless the operator says that the table can be trusted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from django.db import connections, transaction

from pgq.conf import get_settings
from pgq.contrib.django_q.plan import TABLES, Plan, Row, Tally
from pgq.contrib.django_q.queued import QueuedTasks
from pgq.contrib.django_q.results import Results
from pgq.contrib.django_q.schedules import Schedules
from pgq.store import django_q
from pgq.store.caller import callers_cursor

#: Rows read and written at a time.
BATCH = 500


def run(plan: Plan, progress: Callable[[str, int], None] = lambda kind, read: None) -> dict[str, Tally]:
    """Import what was asked for and is there; return what became of it, by kind.

    Args:
        progress: Called after each batch with a kind and how many of its rows were read.

    Raises:
        LookupError: The database has none of the tables.
    """
    settings = get_settings()
    kinds = _kinds(plan)
    wanted = {str(row["task"]) for row in _schedule_rows(plan) if row.get("task")} if "schedules" in kinds else set()
    results = Results(plan, settings, wanted)
    queued, schedules = QueuedTasks(plan, settings), Schedules(plan, settings, results.new_ids)
    for kind, importer in (("results", results), ("queued", queued)):
        for batch in _batches(plan, kind) if kind in kinds else ():
            with _transaction(plan, settings.database):
                importer.write(batch)
            progress(kind, importer.tally.read)
    if "schedules" in kinds:
        # Read anew: a cluster that still runs has fired some meanwhile.
        schedules.write(_schedule_rows(plan))
    tallies = {"results": results.tally, "queued": queued.tally, "schedules": schedules.tally}
    return {kind: tallies[kind] for kind in kinds}


def _kinds(plan: Plan) -> list[str]:
    """Return the kinds that were asked for and have a table."""
    with callers_cursor(plan.source) as cursor:
        there = set(connections[plan.source].introspection.table_names(cursor))
    kinds = [kind for kind, table in TABLES.items() if kind in plan.kinds and table in there]
    if not kinds:
        names = ", ".join(TABLES[kind] for kind in plan.kinds)
        raise LookupError(f"the database {plan.source!r} has no table {names}")
    return kinds


def _schedule_rows(plan: Plan) -> list[Row]:
    return [row for batch in _batches(plan, "schedules") for row in batch]


def _batches(plan: Plan, kind: str) -> Iterator[list[Row]]:
    after: int | str = "" if kind == "results" else 0
    while True:
        with callers_cursor(plan.source) as cursor:
            rows = django_q.django_q_rows(cursor, kind, after=after, limit=BATCH)
        if rows:
            yield rows
        if len(rows) < BATCH:
            return
        after = rows[-1]["id"]


@contextlib.contextmanager
def _transaction(plan: Plan, database: str) -> Iterator[None]:
    # The outer one is the source's: should this process die between the two commits, the tasks are here, and a second
    # run finds them.
    with transaction.atomic(using=plan.source), transaction.atomic(using=database):
        yield
        if plan.dry_run:
            for alias in {plan.source, database}:
                transaction.set_rollback(True, using=alias)
