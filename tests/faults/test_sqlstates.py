"""F20: PostgreSQL refuses statements, always or for a while: nothing is lost, nothing doubled."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support import fault_table as table
from tests.support.firing import SETTINGS, armed, every_second, judge, strike
from tests.support.outages import LINES, lines_per_second
from tests.support.pools import until, wait_for
from tests.support.site import Site

#: What an administrator may have said for the role, with the application's own statements in mind.
STINGY = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "20ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "5ms",
    "idle_session_timeout": "1s",
}
STATES = ("40001", "40P01", "55P03", "57014", "25P03", "57P01", "53100", "53200", "25006", "08006", "XX000")
POINTS = (
    "claim.locked", "receipt.pre", "receipt.written", "release.pre", "renew.pre", "renew.post", "lead.acquired",
    "sched.read", "sched.inserted", "sched.advanced",
)  # fmt: skip


@pytest.fixture
def role(site: Site) -> Iterator[sql.Identifier]:
    """A role of its own for the pools; it may do all with the site's tables."""
    name = str(conninfo_to_dict(site.dsn)["dbname"]).replace("fault", "role")
    role = sql.Identifier(name)
    with site.session() as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        session.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(role))
        session.execute(sql.SQL("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {}").format(role))
    site.pool_dsn = make_conninfo(site.dsn, user=name)
    yield role
    site.destroy()
    with site.session() as session:
        session.execute(sql.SQL("DROP OWNED BY {}").format(role))
        session.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.fault("F20", short=1, full=3)
def test_a_role_with_stingy_settings(site, role, rounds, note):
    """They are the application's: a pool says for its own sessions what they need."""
    with site.session() as session:
        for name, value in STINGY.items():
            session.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.Identifier(name), sql.Literal(value)))
    pool = site.start(**{**SETTINGS, "workers": 2})
    firsts = every_second(site, 2)
    for _ in range(rounds):
        site.enqueue("work", 200)
        site.enqueue("work", 10, 0.1)
        note.round(recovery=site.recovery())
    enough(site)
    judge(site, firsts, note)
    trouble = [line for line in pool.log().splitlines() if re.search(r"WARNING|ERROR", line)]
    assert not trouble, trouble[:3]


@pytest.mark.fault("F20", short=1, full=1)
@pytest.mark.parametrize("state", STATES if table.FULL else STATES[:1])
def test_each_statement_fails_for_a_while(site, tmp_path: Path, note, state):
    trouble = tmp_path / "trouble"
    points = [{"at": point, "do": f"raise:{state}", "while": str(trouble)} for point in POINTS]
    pool = site.start(**{**SETTINGS, "workers": 2, "failpoints": points, "retry": 12.0})
    firsts = every_second(site, 2)
    # Enough that some are claimed behind others, and given back.
    site.enqueue("work", 20, 0.02)
    site.busy_pid()
    trouble.touch()
    for point in ("receipt.pre", "lead.acquired", "renew.pre"):
        wait_for(lambda point=point: hits(site, point) >= 3, f"{point} fails")
    trouble.unlink()
    site.enqueue("work", 20, 0.02)
    note.round(recovery=site.recovery())
    enough(site)
    site.drain()
    judge(site, firsts, note)
    assert lines_per_second(pool, "WARNING") + lines_per_second(pool, "ERROR") <= 2 * LINES


@pytest.mark.fault("F20", short=1, full=3)
@pytest.mark.parametrize("state", ["53100", "25006"])
def test_a_schedule_that_postgresql_refused_is_soon_tried_again(site, tmp_path, rounds, note, state):
    """It is not the schedule's fault, so it need not wait as long as one that is wrong."""
    site.start(**SETTINGS, failpoints=armed(tmp_path, f"raise:{state}"))
    firsts = every_second(site, 1)
    for _ in range(rounds):
        strike(site, tmp_path, "sched.inserted")
        note.round(recovery=site.recovery())
    enough(site)
    judge(site, firsts, note)


def enough(site: Site) -> None:
    """Wait until the schedules have fired often enough to tell something."""
    wait_for(lambda: site.value("SELECT count(*) FROM pgq_task WHERE schedule IS NOT NULL") >= 6, "the schedules fire")


def hits(site: Site, point: str) -> int:
    return sum(line[:2] == ["failpoint", point] for line in site.oracle.lines())


def lock_tables(session: psycopg.Connection[Any]) -> None:
    """Lock one after another; a statement of the pool may hold the next and want the one before."""
    while True:
        with contextlib.suppress(psycopg.errors.DeadlockDetected), session.transaction():
            session.execute("LOCK TABLE pgq_queue, pgq_task, pgq_lane, pgq_schedule IN ACCESS EXCLUSIVE MODE")
            return


@pytest.mark.fault("F20", short=1, full=3)
def test_the_tables_are_locked(site, rounds, note):
    """An ALTER TABLE that takes its time: everybody waits, and nobody gives up a task that runs."""
    site.start(workers=2, retry=30.0)
    for _ in range(rounds):
        (long,) = site.enqueue("work", 1, 1.0)
        until(lambda long=long: site.runs().get(long), 30)
        with site.session() as session, session.transaction():
            lock_tables(session)
            until(lambda long=long: site.runs()[long][0].ended, 30)
        note.round(recovery=site.recovery())
    site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()
