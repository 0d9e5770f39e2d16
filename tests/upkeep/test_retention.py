"""Retention: a week of results goes when all of it is old, and not before; nobody waits for that."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import sql

from pgq.conf import Settings
from pgq.store import overview
from pgq.upkeep import retention
from pgq.upkeep.chores import Upkeep
from pgq.upkeep.retention import Retention
from tests.support.pools import wait_for
from tests.support.retention import DAYS, Session, finish, id_in, look_at_all, monday, there


def run(kept: Retention, session: Session) -> None:
    look_at_all(kept, session)
    kept.drop(session)


def test_old_weeks_go_failures_too_and_young_ones_stay(own: Session, weeks: list[str]) -> None:
    for ago in (4, 3, 2):
        finish(own, ago, 5, days=25)
    finish(own, 0, 3, days=0)
    before = there(own)
    # The second of them has just become old.
    run(Retention((datetime.now(UTC) - monday(2)).total_seconds() / 86400 - 0.001, 0), own)
    assert before - there(own) == set(weeks[:2])
    assert own.execute("SELECT count(*) FROM pgq_task").fetchone() == (5 + 3,)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_a_week_is_looked_through_in_small_steps(
    own: Session, weeks: list[str], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(retention, "RESULTS_PER_LOOK", batch)
    finish(own, 3, 6)
    kept = Retention(DAYS, 0)
    # Each week ends with a look that finds nothing more; that of the others is the only one.
    assert look_at_all(kept, own) == -(-6 // batch) + 1
    kept.drop(own)
    assert there(own).isdisjoint(weeks)


def test_a_row_that_is_young_keeps_its_week_and_the_look_goes_on_there(
    own: Session, weeks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RESULTS_PER_LOOK", 2)
    ids = finish(own, 3, 6)
    young = ids[4]
    own.execute("UPDATE pgq_task SET stopped = now() WHERE id = %s", [young])
    kept = Retention(DAYS, 0)
    run(kept, own)
    assert there(own) & set(weeks) == {weeks[1]}
    # The four before it are not looked at again.
    assert kept.looks[weeks[1]].after == ids[3]
    own.execute("DELETE FROM pgq_task WHERE id = %s", [young])
    run(kept, own)
    assert weeks[1] not in there(own)


def assert_needed_until_the_queue_is_empty(own: Session, weeks: list[str]) -> None:
    kept = Retention(DAYS, 0)
    run(kept, own)
    assert there(own) & set(weeks) == {weeks[1]}
    own.execute("DELETE FROM pgq_queue")
    run(kept, own)
    assert weeks[1] not in there(own)


def test_a_live_task_keeps_its_week(own: Session, weeks: list[str]) -> None:
    own.execute("INSERT INTO pgq_queue (id, func, parked) VALUES (%s, 'f', 'no')", [id_in(3, 99)])
    finish(own, 3)
    assert_needed_until_the_queue_is_empty(own, weeks)


def test_what_a_collector_still_has_to_read_keeps_its_week(own: Session, weeks: list[str]) -> None:
    row = own.execute("INSERT INTO pgq_queue (func, remaining) VALUES ('f', 9) RETURNING id").fetchone()
    assert row is not None
    finish(own, 3, options=f'{{"collector": "{row[0].hex}"}}')
    # A row from psql may say anything there.
    finish(own, 2, options='{"collector": "nonsense"}')
    assert_needed_until_the_queue_is_empty(own, weeks)


@pytest.mark.parametrize("how", ["settled", "waits"])
def test_a_task_run_again_where_we_have_looked_is_seen(own: Session, weeks: list[str], how: str) -> None:
    finish(own, 3, 3)
    kept = Retention(DAYS, 0)
    look_at_all(kept, own)
    if how == "settled":
        own.execute("DELETE FROM pgq_task WHERE id = %s", [id_in(3)])
        finish(own, 3, days=0)
    else:
        own.execute("INSERT INTO pgq_queue (id, func) VALUES (%s, 'f')", [id_in(3)])
    kept.drop(own)
    assert there(own) & set(weeks) == {weeks[1]}
    run(kept, own)
    assert there(own) & set(weeks) == {weeks[1]}


def test_a_long_reader_delays_it_and_is_not_held_up(
    session: Callable[..., Session], own: Session, weeks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pgq")
    finish(own, 3)
    reader = session(autocommit=False)
    reader.execute("SELECT count(*) FROM pgq_task")
    kept = Retention(DAYS, 0)
    run(kept, own)
    assert set(weeks) <= there(own)
    assert "the tables are busy" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    # Nobody queues behind it, neither he nor another.
    reader.execute("SET LOCAL lock_timeout = '100ms'")
    assert reader.execute("SELECT count(*) FROM pgq_task").fetchone() == (1,)
    finish(own, 0)
    reader.rollback()
    run(kept, own)
    assert there(own).isdisjoint(weeks)


def test_a_role_that_does_not_own_the_tables_leaves_them_alone(
    session: Callable[..., Session], own: Session, weeks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pgq")
    finish(own, 3)
    role = sql.Identifier(f"pgq_test_stranger_{os.getpid()}")
    own.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        own.execute(sql.SQL("GRANT SELECT ON pgq_queue, pgq_task TO {}").format(role))
        stranger = session()
        stranger.execute(sql.SQL("SET ROLE {}").format(role))
        kept = Retention(DAYS, 0)
        run(kept, stranger)
        assert f"this role may not drop {weeks[1]}" in caplog.text
        # Its rights may also be taken away after the look.
        look_at_all(kept, own)
        caplog.clear()
        kept.drop(stranger)
        assert f"this role may not drop {weeks[1]}" in caplog.text
        assert set(weeks) <= there(own)
        assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    finally:
        own.execute(sql.SQL("DROP OWNED BY {}").format(role))
        own.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize("wrong", ["of the database", "of the host"])
def test_a_clock_that_was_set_forward_drops_nothing(
    own: Session, weeks: list[str], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=3650)

    if wrong == "of the host":
        monkeypatch.setattr(retention, "datetime", Later)
    else:
        monkeypatch.setattr(overview, "now", lambda cursor: Later.now(UTC))
    finish(own, 3)
    run(Retention(100, 0), own)
    assert set(weeks) <= there(own)


def test_more_days_than_there_have_been_drop_nothing(own: Session, weeks: list[str]) -> None:
    run(Retention(365_000, 0), own)
    assert set(weeks) <= there(own)


@pytest.mark.django_db(transaction=True)
def test_upkeep_does_it(own: Session, weeks: list[str]) -> None:
    finish(own, 3, 10)
    chores = Upkeep(Settings(keep_days=DAYS, tick=0.01), "default")

    def gone() -> bool:
        chores.tick(own)
        return there(own).isdisjoint(weeks)

    wait_for(gone, "the old weeks are gone")
