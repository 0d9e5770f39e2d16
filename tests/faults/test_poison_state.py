"""F35-F37: tasks that leave the session, the process or the machine other than they found it."""

from __future__ import annotations

import pytest
from psycopg import sql

from pgq.pool.worker import connections
from tests.support import poison
from tests.support.mixing import Mixture
from tests.support.pools import is_alive, until


@pytest.mark.fault("F35", short=1, full=4)
def test_the_next_task_finds_a_clean_session(site, rounds, note):
    with site.session() as session:
        session.execute("CREATE SCHEMA elsewhere")
    site.start(workers=2)
    for _ in range(rounds):
        mixture = Mixture(site, "abuse_session", poison.SESSIONS, database=True, canaries=5, timeout=20)
        site.drain()
        note.round(mixture.judge(dict.fromkeys(poison.SESSIONS, "")), site.recovery())
        site.drain()
    note.violations += site.stop()


@pytest.mark.parametrize(
    ("statement", "lasts"),
    [
        ("SET search_path TO a", True), ("select 1; set role b", True), ("-- why\nSET a = 1", True),
        ("/* why */ RESET ALL", True), ("SELECT set_config('a', 'b', false)", True), ("LISTEN a", True),
        ("SELECT pg_try_advisory_lock_shared(1)", True), ("CREATE TEMPORARY TABLE a ()", True),
        ("SELECT 1 INTO TEMP a", True), (b"SET a = 1", True),
        (sql.SQL("SET a = {}").format(sql.Literal(1)), True), (" " * 20_000 + "SET a = 1", True),
        ("SET LOCAL a = 1", False), ("UPDATE a SET b = 1", False), ("SELECT set_config('a', 'b', true)", False),
        ("SET TRANSACTION READ ONLY", False), ("SELECT pg_advisory_xact_lock(1)", False), ("SELECT 1", False),
    ],
)  # fmt: skip
def test_which_statements_leave_something_in_their_session(statement, lasts):
    assert connections._leaves_something(statement) is lasts


@pytest.mark.fault("F36", short=1, full=4)
def test_the_next_task_finds_a_clean_process(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        mixture = Mixture(site, "abuse_process", poison.STATES, timeout=20)
        site.drain()
        wrong = mixture.judge(dict.fromkeys(poison.STATES, ""))
        # None of it takes a worker down with the task still in its hands.
        wrong += [f"I5: {name}: {ended}" for name, ended in mixture.ended().items() if ended.starts != 1]
        note.round(wrong, site.recovery())
        site.drain()
    log = pool.log()
    for said in ("changed the umask", "file descriptor", "the resource limits", "the priority"):
        assert said in log
    note.violations += site.stop()


@pytest.mark.fault("F36", short=1, full=3)
def test_a_timeout_works_after_a_task_that_spoiled_the_signals(site, rounds, note):
    site.start(workers=1, kill_after=20.0)
    for _ in range(rounds):
        for name in ("signals ignored", "signals blocked", "wake-up file"):
            Mixture(site, "abuse_process", [name], canaries=0)
            mixture = Mixture(site, "hang", ["spins"], canaries=1, timeout=0.3)
            site.drain(15)
            # Raised in the task, not by a kill.
            note.round(mixture.judge({"spins": "the task ran longer than its timeout"}))
    note.violations += site.stop()


@pytest.mark.fault("F37", short=1, full=4)
def test_what_a_task_started_ends_with_its_worker(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        before = pool.worker_pids()
        mixture = Mixture(site, "leave_children", poison.CHILDREN, timeout=20)
        site.drain()
        wrong = mixture.judge(dict.fromkeys(poison.CHILDREN, ""))
        children = mixture.children()
        wrong += [f"{name} started nothing" for name in children if not children[name] and name != "threads"]
        wrong += [
            f"I5: {name} started {ended.starts} times" for name, ended in mixture.ended().items() if ended.starts > 1
        ]
        # A fork ends where its worker goes on.
        wrong += survivors({name: pids for name, pids in children.items() if name.startswith("fork")})
        if "lease was lost" in pool.log():
            wrong.append("I3: a fork settled what its worker had in hand")
        for pid in before:
            site.kill(pid)
        wrong += survivors(children)
        note.round(wrong, site.recovery())
        site.drain()
        note.violations += sessions_left(site, before)
    note.violations += site.stop()


@pytest.mark.fault("F37", short=1, full=3)
def test_what_a_task_started_ends_with_its_pool(site, rounds, note):
    for _ in range(rounds):
        site.start(workers=2)
        mixture = Mixture(site, "leave_children", poison.CHILDREN, canaries=2, timeout=20)
        site.drain()
        note.round(site.stop() + survivors(mixture.children()))


def survivors(children: dict[str, list[int]]) -> list[str]:
    """I9: which of these live, three seconds later."""
    try:
        until(lambda: not any(is_alive(pid) for pids in children.values() for pid in pids), 3.0)
    except TimeoutError:
        return [f"I9: {name} left {pid}" for name, pids in children.items() for pid in pids if is_alive(pid)]
    return []


def sessions_left(site, workers: list[int]) -> list[str]:
    """I9: sessions of dead workers that something holds open."""
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgq worker'"
    )
    try:
        until(lambda: site.value(count) <= len(workers), 3.0)
    except TimeoutError:
        return [f"I9: {site.value(count)} sessions of {len(workers)} workers"]
    return []
