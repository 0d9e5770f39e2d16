"""Progress in the table: fenced by the receipt, bounded, pruned when its task is gone."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from pgq.conf import get_settings
from pgq.execution import context as contexts
from pgq.execution import progress as writing
from pgq.ground.ids import new_id
from pgq.models import Progress
from pgq.records import Call, Claim
from pgq.records import Progress as Said
from pgq.records.options import NO_OPTIONS
from pgq.store import progress
from pgq.upkeep.chores import Upkeep
from tests.support.hand import claim, expire, fill, settle
from tests.support.hand import run as run_claim

pytestmark = pytest.mark.django_db(transaction=True)


def lines(*texts: str) -> str:
    return json.dumps([{"message": text} for text in texts])


def said(task: Claim, done: float | None = None, total: float | None = None, log: str = "[]") -> Said:
    return Said(task.id, task.receipt, done, total, None if done is None else "text", log)


def write(session: psycopg.Connection[Any], *all: Said, lock_ms: int = 10_000) -> set[UUID]:
    return progress.write_progress(session.cursor(), all, lock_ms=lock_ms)


def texts(id: UUID) -> list[str]:
    return [line["message"] for line in Progress.objects.get(pk=id).log]


def test_only_with_the_receipt(session):
    own = session()
    fill(3)
    rescued, settled, _ = claim(own)
    settle(own, run_claim(settled))
    expire(own, since=rescued.enqueued_at)
    again, good = claim(own)
    assert again.id == rescued.id
    for stale in (rescued, settled, again._replace(receipt=uuid4())):
        assert write(own, said(stale, 1)) == set(), "its lease is lost"
    assert write(own, said(good, 1)) == {good.id}
    assert list(Progress.objects.values_list("task", "done")) == [(good.id.hex, 1)]


def test_a_word_replaces_the_one_before_and_lines_are_added(session):
    own = session()
    fill(2)
    one, other = claim(own)
    write(own, said(one, 1, 5, lines("a")), said(other, log=lines("x")))
    write(own, said(one, log=lines("b", "c")), said(other, 0.5))
    first, second = (Progress.objects.get(pk=task.id) for task in (one, other))
    assert (first.done, first.total, first.text, texts(one.id)) == (1, 5, "text", ["a", "b", "c"])
    assert (second.done, second.total, second.text, texts(other.id)) == (0.5, None, "text", ["x"])
    # What is not known any more is not left over.
    write(own, said(one, 2))
    first.refresh_from_db()
    assert (first.done, first.total) == (2, None)


def test_the_newest_two_hundred_lines_stay_and_64_kb_of_them(session):
    own = session()
    fill(1)
    [task] = claim(own)
    for begin in range(0, 300, 100):
        write(own, said(task, log=lines(*map(str, range(begin, begin + 100)))))
    assert texts(task.id) == [str(number) for number in range(100, 300)]
    write(own, said(task, log=lines(*("y" * 10_000 for _ in range(3)))))
    assert len(texts(task.id)) == 200
    write(own, said(task, log=lines(*("z" * 10_000 for _ in range(4)))))
    assert [text[0] for text in texts(task.id)] == ["y", "y", "z", "z", "z", "z"]
    write(own, said(task, log=lines("w" * 70_000)))
    assert texts(task.id) == []


def test_it_waits_neither_for_a_renewal_nor_long_for_a_row_that_is_locked(session):
    own, other = session(), session(autocommit=False)
    fill(2)
    one, two = claim(own)
    other.execute("UPDATE pgq_queue SET lock = clock_timestamp() WHERE id = %s", (one.id,))
    other.execute("SELECT FROM pgq_queue WHERE id = %s FOR UPDATE", (two.id,))
    assert write(own, said(one, 1), said(two, 1), lock_ms=100) == {one.id}
    other.execute("SELECT FROM pgq_progress FOR UPDATE")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        write(own, said(one, 2), lock_ms=100)
    other.rollback()
    assert write(own, said(one, 2)) == {one.id}
    # The limit is that statement's alone.
    with own.transaction():
        own.execute("SET LOCAL lock_timeout = '7s'")
        write(own, said(one, 3))
        assert own.execute("SHOW lock_timeout").fetchone() == ("7s",)


@pytest.fixture
def context(session, monkeypatch):
    """The context of a claimed task in a process whose guard is the test."""
    monkeypatch.setattr(contexts._Writing, "states", {})
    fill(1)
    [claimed] = claim(session())
    return contexts.make(Call(claimed, NO_OPTIONS, True, print, (), {}, 0.0))


def test_what_cannot_be_written_is_put_back(context, session):
    own, other = session(), session(autocommit=False)
    id = UUID(context.id)
    context.progress(1)
    context.log.info("a")
    writing.write_unwritten(own.cursor())
    other.execute("SELECT FROM pgq_progress FOR UPDATE")
    context.log.info("b")
    context.progress(2)
    writing.write_unwritten(own.cursor())
    assert contexts.is_anything_unwritten()
    context.log.info("c")
    other.rollback()
    own.close()
    with pytest.raises(psycopg.Error):
        writing.write_unwritten(own.cursor())
    writing.write_unwritten(session().cursor())
    assert not contexts.is_anything_unwritten()
    assert (texts(id), Progress.objects.get().done) == (["a", "b", "c"], 2)
    # The row is locked: it is about to leave, so the rest goes with the settlement.
    other.execute("SELECT FROM pgq_queue FOR UPDATE")
    context.log.info("d")
    writing.write_unwritten(session().cursor())
    assert contexts.messages(context) == ["d"]
    assert contexts.said(context).log.count("message") == 1
    contexts.end(context)
    assert contexts.said(context).log.count("message") == 1


def test_what_is_put_back_into_a_full_log_is_what_is_oldest(context, session):
    context.log.info("old")
    with contexts.taken() as (found, _):
        assert len(found) == 1
        for number in range(250):
            context.log.info("%d", number)
    assert contexts.messages(context) == [str(number) for number in range(50, 250)]
    with contexts.taken():
        pass
    assert contexts.messages(context) == [str(number) for number in range(50, 250)]


def test_upkeep_deletes_those_whose_tasks_are_gone(session):
    own = session()
    fill(2)
    queued, finished = claim(own)
    write(own, said(queued, 1), said(finished, 1))
    settle(own, run_claim(finished))
    gone, young = new_id(), new_id()
    own.execute("INSERT INTO pgq_progress (task) VALUES (%s), (%s)", (gone, young))
    own.execute("UPDATE pgq_progress SET updated_at = now() - interval '2 minutes' WHERE task <> %s", (young,))
    pruned = progress.prune_progress(own.cursor(), after=UUID(int=0), limit=3)
    assert (pruned.last, pruned.count) == (sorted([queued.id, finished.id, gone, young])[2], 1)
    assert progress.prune_progress(own.cursor(), after=pruned.last, limit=3) == progress.Pruned(None, 0)
    own.execute("DELETE FROM pgq_task")
    upkeep = Upkeep(get_settings(), "default")
    upkeep.tick(own)
    assert set(Progress.objects.values_list("task", flat=True)) == {queued.id.hex, young.hex}
    assert upkeep.pruning._progress_after == UUID(int=0)


def test_what_postgresql_refuses_is_logged_once_and_written_when_it_may_be(context, session, caplog, monkeypatch):
    monkeypatch.setattr(writing._Logged, "once", False)
    own = session()
    own.execute("ALTER TABLE pgq_progress ADD CONSTRAINT never CHECK (done < 0)")
    try:
        context.progress(1, 2, "secret")
        for _ in range(3):
            writing.write_unwritten(own.cursor())
    finally:
        own.execute("ALTER TABLE pgq_progress DROP CONSTRAINT never")
    [line] = [record.getMessage() for record in caplog.records if "progress" in record.getMessage()]
    assert "cannot be written while they run" in line
    assert "secret" not in line
    writing.write_unwritten(own.cursor())
    assert Progress.objects.get().text == "secret"
