"""Limits and lanes of keys in every order of the steps of two sessions; and wrong variants, which must be found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgq.conf import ALL
from pgq.store import keyed, leases
from pgq.store.keyed import ABOVE_ALL, LaneOfKey
from pgq.store.texts import sql
from tests.support.explorer import Connection, Session, Step, explore
from tests.support.pools import connect

pytestmark = pytest.mark.django_db(transaction=True)

LANE = LaneOfKey(0, "q", "k")


def begin(monitor: Connection, concurrency: int | None = 1, rows: int = 4) -> None:
    monitor.execute("TRUNCATE pgq_queue, pgq_keyed, pgq_limit, pgq_rate")
    if concurrency is not None:
        monitor.execute("SELECT pgq_set_limit('k', %s)", (concurrency,))
    monitor.execute(
        "INSERT INTO pgq_queue (func, queue, key) SELECT 'f', 'q', 'k' FROM generate_series(1, %s)", (rows,)
    )


def over(concurrency: int) -> Callable[[Connection, bool], str | None]:
    def wrong(monitor: Connection, ended: bool) -> str | None:
        [(strands,)] = monitor.execute("SELECT count(DISTINCT strand) FROM pgq_queue WHERE lock IS NOT NULL").fetchall()
        return f"{strands} at a time" if strands > concurrency else None

    return wrong


class Claimer:
    """Claims from the lanes that have room, in the steps that PostgreSQL sees."""

    def __init__(self, *, locking: bool = True, locking_late: bool = False, ends: str = "settle") -> None:
        self.worker, self.locking, self.locking_late, self.ends = uuid4(), locking, locking_late, ends
        self.claims: list[Any] = []

    def steps(self) -> list[Step]:
        late = [self.lock] if self.locking_late else []
        return [self.choose, *late, self.claim, lambda session: session.execute("COMMIT"), self.end]

    def choose(self, session: Connection) -> None:
        session.execute("BEGIN")
        locking = self.locking and not self.locking_late
        self.chosen = keyed.choose(
            session.cursor(), lanes=8, below=ABOVE_ALL, queues=ALL, after="", keys={}, locking=locking
        )

    def lock(self, session: Connection) -> None:
        text = "SELECT pg_try_advisory_xact_lock(hashtextextended('pgq_limit key k', 0))"
        [(mine,)] = session.execute(text).fetchall()
        if not mine:
            self.chosen.queues.clear()

    def claim(self, session: Connection) -> None:
        if self.chosen.queues:
            self.claims = keyed.claim_keyed(
                session.cursor(), self.chosen, limit=1, share=1, places=1, worker=self.worker, receipt=uuid4()
            )

    def end(self, session: Connection) -> None:
        if self.ends == "settle":
            session.execute("DELETE FROM pgq_queue WHERE worker = %s", (self.worker,))
        elif self.ends == "release" and self.claims:
            leases.release(session.cursor(), self.claims)


def scripts(concurrency: int, *claimers: dict[str, Any]) -> Callable[[Connection], Sequence[Sequence[Step]]]:
    def start(monitor: Connection) -> Sequence[Sequence[Step]]:
        begin(monitor, concurrency)
        return [Claimer(**given).steps() for given in claimers]

    return start


@pytest.mark.parametrize(("ends", "most"), [("settle", None), ("release", 30), ("never", 20)])
def test_never_over_the_limit(ends, most):
    assert explore(connect, scripts(1, {"ends": ends}, {}), over(1), most=most) == []


def test_three_sessions_and_two_places():
    assert explore(connect, scripts(2, {}, {"ends": "release"}, {}), over(2), most=30) == []


def test_found_without_the_lock():
    assert explore(connect, scripts(1, {"locking": False}, {"locking": False}), over(1), first=True)


def test_found_if_what_was_counted_before_the_lock_is_believed(monkeypatch):
    late = {"locking_late": True}
    # The statement counts anew: so a lock that comes late does no harm.
    assert explore(connect, scripts(1, late, late), over(1), most=30) == []

    def believing(name: str, **parts: Any) -> str:
        text = sql(name, **parts)
        return text.replace("> bound.low", "> bound.low + 1000000000") if name == "claim_keyed" else text

    monkeypatch.setattr(keyed, "sql", believing)
    assert explore(connect, scripts(1, late, late), over(1), most=120, first=True)


def test_what_was_counted_before_the_lock_was_there_is_counted_anew(session):
    """`choose` may count, and then get the lock that another claim has released since: both in one statement."""
    one, two, gate = session(), session(), session()
    begin(one)
    # Between the snapshot of that statement and its lock this one waits at a gate.
    two.execute(
        """CREATE FUNCTION public.pg_try_advisory_xact_lock(bigint) RETURNS boolean LANGUAGE plpgsql AS $$
           BEGIN
               PERFORM pg_advisory_xact_lock(4711);
               RETURN pg_catalog.pg_try_advisory_xact_lock($1);
           END $$"""
    )
    two.execute("SET search_path = public, pg_catalog")
    first, second = Claimer(ends="never"), Claimer(ends="never")
    stepping = Session(lambda: two)
    try:
        choose, claim, commit, _ = first.steps()
        choose(one)
        claim(one)
        gate.execute("SELECT pg_advisory_lock(4711)")
        stepping.take(second.choose)
        stepping.wait(gate)
        assert stepping.is_busy()
        commit(one)
        gate.execute("SELECT pg_advisory_unlock(4711)")
        stepping.wait(gate)
        assert second.chosen.queues == ["q"], "it was counted as empty, and the lock was to be had"
        stepping.take(second.claim)
        stepping.take(lambda session: session.execute("COMMIT"))
        stepping.wait(gate)
        assert over(1)(gate, True) is None
    finally:
        one.execute("DROP FUNCTION public.pg_try_advisory_xact_lock(bigint)")
        stepping.close()


def test_a_limit_that_is_set_between_choosing_and_claiming_holds():
    """What is claimed under no limit's lock would count for none."""

    def start(monitor: Connection) -> Sequence[Sequence[Step]]:
        begin(monitor, None)
        monitor.execute("SELECT pgq_drop_limit('k')")
        several = [Claimer(ends="never"), Claimer(ends="never")]
        return [
            *(one.steps()[:3] for one in several),
            [lambda session: session.execute("SELECT pgq_set_limit('k', 1)")],
        ]

    def wrong(monitor: Connection, ended: bool) -> str | None:
        # Each claim takes one task, and claims of before the limit do not count.
        [(running,)] = monitor.execute(
            "SELECT count(*) FROM pgq_queue WHERE lock > (SELECT updated_at FROM pgq_limit)"
        ).fetchall()
        return f"{running} at a time" if running > 1 else None

    assert explore(connect, start, wrong, most=25) == []


def test_a_strict_key_keeps_its_order_if_a_task_is_given_back_between_choosing_and_claiming(session):
    """The watermark has passed it, and is lowered by what gives it back: `choose` has read the former one."""
    one, two = session(), session()
    begin(one, None, rows=3)
    one.execute("SELECT pgq_set_limit('k', strict => true)")
    first, second = Claimer(ends="release"), Claimer(ends="never")
    for step in first.steps()[:3]:
        step(one)
    [(last,)] = one.execute("SELECT last_value FROM pgq_position").fetchall()
    with one.transaction():
        keyed.advance_keyed(one.cursor(), [LANE], safe=last, idle=False)
    second.choose(two)
    first.end(one)
    second.claim(two)
    two.execute("COMMIT")
    assert [claim.id for claim in second.claims] == [claim.id for claim in first.claims]


def test_giving_back_never_meets_another_task_s_unique_key():
    """The key went with the claim; meanwhile another call has it."""
    insert = "INSERT INTO pgq_queue (func, queue, key, unique_key) VALUES ('f', 'q', 'k', 'k') ON CONFLICT DO NOTHING"

    def start(monitor: Connection) -> Sequence[Sequence[Step]]:
        begin(monitor, 1, rows=0)
        monitor.execute(insert)
        claimer = Claimer(ends="release")
        return [claimer.steps(), [lambda session: session.execute(insert)]]

    def wrong(monitor: Connection, ended: bool) -> str | None:
        [(of_key,)] = monitor.execute("SELECT count(*) FROM pgq_queue WHERE unique_key = 'k'").fetchall()
        return f"{of_key} have the key" if of_key > 1 else None

    assert explore(connect, start, wrong) == []


# ------------------------------------------------------------------------------------------------- lanes


def lost(monitor: Connection, ended: bool) -> str | None:
    """At the end a claim must find each ready row."""
    if not ended:
        return None
    [(count,)] = monitor.execute(
        """SELECT count(*) FROM pgq_queue q
            WHERE lock IS NULL AND NOT EXISTS (SELECT FROM pgq_keyed k WHERE k.queue = q.queue AND k.key = q.key
                  AND k.priority = q.priority AND k.idle_since IS NULL AND k.low < q.position)"""
    ).fetchall()
    return f"{count} rows are not found" if count else None


def marking(*, sweeping: bool) -> Callable[[Connection], Sequence[Sequence[Step]]]:
    """A session inserts; upkeep marks the lane as idle, and sweeps when what was open then has ended."""

    def start(monitor: Connection) -> Sequence[Sequence[Step]]:
        begin(monitor, None, rows=1)
        monitor.execute("DELETE FROM pgq_queue")
        [(last,)] = monitor.execute("SELECT last_value FROM pgq_position").fetchall()

        def mark(session: Connection) -> None:
            session.execute("BEGIN")
            keyed.advance_keyed(session.cursor(), [LANE], safe=last, idle=True)

        def end(session: Connection) -> None:
            session.execute("COMMIT")

        def insert(session: Connection) -> None:
            session.execute("BEGIN")
            session.execute("INSERT INTO pgq_queue (func, queue, key) VALUES ('f', 'q', 'k')")

        return [[insert, end], [mark, end]]

    def wrong(monitor: Connection, ended: bool) -> str | None:
        if ended and sweeping:
            keyed.sweep_keyed(monitor.cursor())
        return lost(monitor, ended)

    start.wrong = wrong  # type: ignore[attr-defined]
    return start


def test_no_row_is_lost_in_an_idle_lane():
    start = marking(sweeping=True)
    assert explore(connect, start, start.wrong) == []  # type: ignore[attr-defined]


def test_found_without_the_sweep_that_follows_a_mark():
    start = marking(sweeping=False)
    assert explore(connect, start, start.wrong)  # type: ignore[attr-defined]


def test_a_task_that_is_given_back_is_above_the_watermark():
    """Upkeep moves it, in the meantime, to what it believes to be the end."""

    def start(monitor: Connection) -> Sequence[Sequence[Step]]:
        begin(monitor, 1, rows=1)
        claimer = Claimer()
        for step in claimer.steps()[:3]:
            step(monitor)
        [(last,)] = monitor.execute("SELECT last_value FROM pgq_position").fetchall()

        def release(session: Connection) -> None:
            session.execute("BEGIN")
            leases.release(session.cursor(), claimer.claims)

        def advance(session: Connection) -> None:
            session.execute("BEGIN")
            keyed.advance_keyed(session.cursor(), [LANE], safe=last, idle=False)

        def end(session: Connection) -> None:
            session.execute("COMMIT")

        return [[release, end], [advance, end]]

    assert explore(connect, start, lost) == []


def test_the_row_itself_refuses_a_strand_without_a_lease(session):
    """So no statement that ends a lease can forget it."""
    own = session()
    begin(own)
    claimer = Claimer(ends="never")
    for step in claimer.steps():
        step(own)
    with pytest.raises(psycopg.errors.CheckViolation, match="pgq_queue_strand_check"):
        own.execute("UPDATE pgq_queue SET lock = NULL, worker = NULL, receipt = NULL")
