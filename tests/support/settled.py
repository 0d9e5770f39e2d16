"""What must hold once a pool has settled all its tasks."""

from __future__ import annotations

from pgq.models import QueuedTask, Task
from tests.support.hand import value
from tests.support.site import Site


def wrong_entries(site: Site, func: str = "%") -> list[str]:
    """Successes without exactly one line, or with one that is not of the run that was accepted; and stray lines."""
    with site.session() as session:
        rows = session.execute(
            "SELECT t.id, count(l.task), bool_and(l.receipt = (t.result #>> '{}')::uuid)"
            "  FROM pgq_task t LEFT JOIN ledger l ON l.task = t.id WHERE t.success AND t.func LIKE %s GROUP BY t.id"
            " HAVING count(l.task) <> 1 OR NOT bool_and(l.receipt = (t.result #>> '{}')::uuid)",
            (func,),
        ).fetchall()
        strays = session.execute(
            "SELECT task FROM ledger l WHERE NOT EXISTS (SELECT FROM pgq_task t WHERE t.id = l.task AND t.success)"
        ).fetchall()
    return [f"I12: task {row[0]} has {row[1]} lines in the ledger" for row in rows] + [
        f"I12: stray {row}" for row in strays
    ]


TASKS = "tests.functions.oracle"
NAP, DIE, WAIT = f"{TASKS}.nap", f"{TASKS}.die", f"{TASKS}.wait_for_file"


def all_settled() -> bool:
    return not QueuedTask.objects.exists()


def assert_each_ran_once(oracle, ids: list[str]) -> None:
    starts = oracle.count("start")
    assert len(starts) == len(ids)
    assert set(starts.values()) == {1}
    assert set(oracle.count("end").values()) == {1}
    assert Task.objects.filter(success=True).count() == len(ids)
    assert set(Task.objects.values_list("id", flat=True)) == set(ids)


def terminate_all(session) -> int:
    return value(
        session,
        """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'pgq %%'""",
    )
