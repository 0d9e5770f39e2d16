"""What tasks say of themselves in a pool: seen while they run, written seldom, kept when a worker is killed."""

from __future__ import annotations

import pytest

from pgq.models import Progress, QueuedTask
from pgq.tasks import async_task, cancel, enqueue_many, fetch
from tests.functions import context as functions
from tests.support.pools import wait_for
from tests.support.settled import all_settled

pytestmark = pytest.mark.django_db(transaction=True)

WRITES = """
    CREATE TABLE context_writes (task uuid);
    CREATE FUNCTION context_write() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO context_writes VALUES (new.task); RETURN new; END';
    CREATE TRIGGER context_write AFTER INSERT OR UPDATE ON pgq_progress FOR EACH ROW EXECUTE FUNCTION context_write();
"""


@pytest.fixture
def writes(session):
    """Counts the writes of a task's progress."""
    own = session()
    own.execute(WRITES)
    yield lambda id: own.execute("SELECT count(*) FROM context_writes WHERE task = %s", (id,)).fetchone()[0]
    own.execute("DROP FUNCTION context_write CASCADE; DROP TABLE context_writes")


def messages(id: str) -> list[str]:
    progress = Progress.of(id)
    return [line["message"] for line in progress.log] if progress else []


def said(id: str) -> tuple[object, ...] | None:
    progress = Progress.of(id)
    return (progress.done, progress.total, progress.text) if progress else None


def test_what_is_said_a_thousand_times_a_second_is_written_once_a_second(pool, oracle, writes):
    running = pool(workers=1)
    id = functions.thousand_a_second.enqueue("a", 3.0)
    wait_for(lambda: (QueuedTask.objects.filter(pk=id).count() and said(id)) or oracle.ends("a"))
    assert not oracle.ends("a"), "it is seen while the task runs"
    count = fetch(id, wait=30_000).result
    assert count > 200
    assert 2 <= writes(id) <= 6
    done, total, text = said(id)
    assert (total, text) == (3.0, f"step {count}")
    assert 2.9 < done < 3
    assert len(messages(id)) == count // 100
    assert f"task {id}: step 100\n" in running.log()


@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_seen_while_it_runs_and_sees_that_it_is_cancelled(pool, oracle, tmp_path, threads):
    """In the main thread or another, and on the loop."""
    pool(workers=1, threads=threads)
    plain, on_the_loop = "tests.functions.context.work_until", "tests.functions.context.awork_until"
    for path in (plain, on_the_loop) if threads == 1 else (plain,):
        id = async_task(path, "stubborn", str(tmp_path / "never"))
        wait_for(lambda: said(id), "it is seen")  # noqa: B023
        assert said(id) == (1, 4, "stubborn waits")
        assert QueuedTask.objects.get(pk=id).state == "running"
        assert cancel(id) == "running"
        assert fetch(id, wait=30_000).result == "saw it"
        if path == plain:
            lines = messages(id)
            assert (lines[0], lines[-1]) == ("stubborn waits in attempt 1", "stubborn is cancelled")


def test_those_that_run_beside_each_other_are_written_by_one_statement(pool, oracle, tmp_path, session, writes):
    pool(workers=1)
    go = tmp_path / "go"
    ids = enqueue_many("tests.functions.context.awork_until", [(number, str(go)) for number in range(20)])
    wait_for(lambda: Progress.objects.count() == 20)
    # One transaction each second at most: what began together has one, or two.
    assert session().execute("SELECT count(DISTINCT xmin::text) FROM pgq_progress").fetchone()[0] <= 3
    go.touch()
    wait_for(all_settled)
    assert {said(id) for id in ids} == {(4, 4, None)}
    assert max(map(writes, ids)) <= 3


def test_a_killed_worker_leaves_what_was_written_and_the_next_attempt_adds_to_it(pool, oracle, tmp_path):
    go = tmp_path / "go"
    pool(workers=1)
    id = async_task("tests.functions.context.die_first", "a", str(go))
    wait_for(lambda: messages(id) == ["attempt 1"])
    go.touch()
    assert fetch(id, wait=30_000).success
    assert messages(id) == ["attempt 1", "attempt 2"]
    assert said(id) == (2, 2, None)
    id = functions.two_attempts.enqueue()
    atomic = functions.two_atomic_attempts.enqueue()
    assert fetch(id, wait=30_000).success
    assert messages(id) == ["attempt 1 begins", "attempt 2 begins", "done"]
    assert fetch(atomic, wait=30_000).success
    assert messages(atomic) == ["attempt 1", "attempt 2"]
    id = functions.say_from_a_thread.enqueue()
    assert fetch(id, wait=30_000).success
    assert said(id) == (5, 10, "from a thread")


def test_neither_a_locked_row_nor_a_lost_connection_holds_up_a_task(pool, oracle, tmp_path, session):
    go = tmp_path / "go"
    running = pool(workers=1)
    id = async_task("tests.functions.context.work_until", "a", str(go))
    wait_for(lambda: said(id))
    own = session(autocommit=False)
    own.execute("SELECT FROM pgq_progress WHERE task = %s FOR UPDATE", (id,))
    go.touch()
    assert fetch(id, wait=30_000).result == "went on"
    own.rollback()
    assert said(id) == (1, 4, "a waits")
    assert "what 1 tasks said of their progress is not kept" in running.log()
    # The guard's connection is cut while a task runs.
    id = async_task("tests.functions.context.work_until", "c", str(tmp_path / "later"))
    wait_for(lambda: said(id))
    session().execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'pgq worker%' AND datname = current_database()"
    )
    assert cancel(id) == "running"
    assert fetch(id, wait=30_000).result == "saw it"
    assert messages(id)[-1] == "c is cancelled"
    assert "cannot be written" not in running.log()
