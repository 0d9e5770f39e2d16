"""pgq_check: each check fires on real rows and sessions, says what to do, and is content again afterwards."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgq.conf import ALL
from pgq.status import findings
from pgq.store import lanes, schema
from pgq.store import pools as store_pools
from pgq.store.overview import Finding
from pgq.tasks import async_task, enqueue_many, pause, resume, schedule
from tests.support.environment import environment
from tests.support.hand import MARK
from tests.support.pool_rows import ID, WORKERS, make_pool
from tests.support.pools import ROOT, connect, test_dsn, wait_for
from tests.support.schema import fresh_database, up

pytestmark = pytest.mark.django_db(transaction=True)

Session = psycopg.Connection[Any]

CHECKS = [
    "schema", "locks", "pools", "queues", "claims", "paused", "due", "schedules", "leases", "workers", "leader",
    "lanes", "watermarks", "trigger", "results", "collectors", "parked", "partitions", "versions", "clocks", "horizon",
    "vacuum", "notifications", "rights",
]  # fmt: skip
#: Those of the command, which knows the code.
OF_COMMAND = [*CHECKS, "code", "limits"]


class Checked:
    """What a role of the database sees."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def all(self, patience: str = "5 minutes", needed: int = schema.VERSION) -> dict[str, Finding]:
        # By its full name: the test may have left the search_path elsewhere.
        rows = self.session.execute("SELECT * FROM public.pgq_check(%s, %s)", (patience, needed)).fetchall()
        return {row[0]: Finding(*row) for row in rows}

    def __call__(self, check: str, **parameters: Any) -> Finding:
        found = self.all(**parameters)[check]
        assert bool(found.advice) == (found.status != "ok"), found
        return found

    def assert_only(self, check: str, status: str, detail: str, advice: str = "", **parameters: Any) -> None:
        """That check says this, and all others say that they are content."""
        found = self.all(**parameters)
        assert {name: item for name, item in found.items() if item.status != "ok" and name != check} == {}
        assert found[check].status == status
        assert re.search(detail, found[check].detail), found[check].detail
        assert re.search(advice, found[check].advice), found[check].advice

    def assert_content(self, **parameters: Any) -> None:
        assert [item for item in self.all(**parameters).values() if item.status != "ok"] == []


OTHERS = """SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""


@pytest.fixture(autouse=True)
def _no_dead_rows_of_others(transactional_db: None) -> None:
    """One test rolls 300,000 rows back; and sessions tell of what they wrote, and of a TRUNCATE, some seconds later."""
    with connection.cursor() as cursor:

        def alone() -> bool:
            cursor.execute(OTHERS)
            return bool(cursor.fetchone() == (0,))

        wait_for(alone, "the sessions of the test before are gone")
        cursor.execute("SELECT pg_stat_reset()")


@pytest.fixture
def checked(session: Callable[..., Session]) -> Checked:
    """With one pool that serves everything."""
    make_pool(workers=WORKERS)
    checked = Checked(session())
    checked.assert_content()
    return checked


@pytest.fixture
def own(session: Callable[..., Session]) -> Session:
    """Where the test writes what pgq never would."""
    return session()


def put(own: Session, **columns: Any) -> UUID:
    """Insert a row that was enqueued an hour ago."""
    columns = {"func": MARK, "enqueued_at": sql.SQL("now() - interval '1 hour'"), **columns}
    statement = sql.SQL("INSERT INTO pgq_queue ({}) VALUES ({}) RETURNING id").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(map(sql.SQL("{}").format, columns.values())),
    )
    id: UUID = own.execute(statement).fetchone()[0]  # type: ignore[index]
    return id


def test_one_row_for_each_check_always(checked):
    assert list(checked.all()) == CHECKS


def test_a_new_installation_lacks_only_a_pool(session):
    checked = Checked(session())
    checked.assert_only("pools", "problem", "^no pool is running$", "manage.py pgq_worker")


def test_schema(checked, own):
    there = schema.VERSION
    assert checked("schema", needed=there + 1).status == "problem"
    assert checked("schema", needed=there + 1).detail == f"version {there}, missing: {there + 1}"
    newer = f"^version {there}; this code is made for version {there - 1}$"
    checked.assert_only("schema", "warning", newer, "Normal during a deploy", needed=there - 1)
    assert own.execute("SELECT status FROM pgq_check() WHERE \"check\" = 'schema'").fetchone() == ("ok",)
    own.execute("DELETE FROM pgq_schema WHERE version = 1")
    try:
        checked.assert_only("schema", "problem", "missing: 1", "manage.py migrate pgq")
    finally:
        own.execute("INSERT INTO pgq_schema VALUES (1)")
    checked.assert_content()


@pytest.mark.parametrize("mode", ["SHARE", "EXCLUSIVE"])
def test_locks_that_let_us_read(checked, session, mode):
    locker = session(autocommit=False)
    locker.execute(f"LOCK TABLE pgq_queue IN {mode} MODE")
    wait_for(lambda: checked("locks").status == "problem", "two seconds old")
    checked.assert_only("locks", "problem", f"on pgq_queue by pid {locker.info.backend_pid} ",
                        f"pg_terminate_backend\\({locker.info.backend_pid}\\)")  # fmt: skip
    locker.rollback()
    checked.assert_content()


def test_a_locked_table_is_reported_and_not_waited_for(checked, session):
    locker = session(autocommit=False)
    locker.execute("LOCK TABLE pgq_queue IN ACCESS EXCLUSIVE MODE")
    began = time.monotonic()
    found = checked.all()
    assert time.monotonic() - began < 3
    blind = {name for name, item in found.items() if "could not be checked" in item.detail}
    assert {"claims", "queues", "leases", "workers", "watermarks", "results", "collectors"} <= blind
    assert all(found[name].status == "problem" for name in blind)
    locker.rollback()
    checked.assert_content()


def test_pools(checked, own):
    own.execute("UPDATE pgq_worker SET heartbeat = now() - interval '50 s'")
    checked.assert_only("pools", "problem", "no pool is running; shop on .* has been silent for 5. s", "pgq_worker")
    make_pool(id=uuid4(), workers=[])
    checked.assert_only("pools", "warning", "1 running; shop on", "Look at its host")
    own.execute("UPDATE pgq_worker SET heartbeat = now(), status = 'stopping'")
    checked.assert_only("pools", "problem", "no pool is running")


def test_queues(checked, own):
    own.execute("UPDATE pgq_worker SET queues = '{mail}'")
    async_task(MARK, queue="mail")
    checked.assert_content()
    async_task(MARK, queue="print")
    checked.assert_only("queues", "problem", "no running pool serves: print$", "--queues")
    own.execute("UPDATE pgq_worker SET queues = '{mail,print}'")
    checked.assert_content()
    own.execute("UPDATE pgq_worker SET queues = NULL, exclude_queues = '{mail}'")
    checked.assert_only("queues", "problem", "no running pool serves: mail$", "--queues")
    own.execute("UPDATE pgq_worker SET exclude_queues = '{other}'")
    checked.assert_content()


def test_claims_where_a_pool_says_that_it_stalls(checked, own):
    own.execute("UPDATE pgq_worker SET stalled_since = clock_timestamp() - interval '5 s'")
    # It has as much time as /health gives it.
    checked.assert_content()
    own.execute("UPDATE pgq_worker SET stalled_since = clock_timestamp() - interval '11 s'")
    checked.assert_only("claims", "problem", "shop on .*: ready tasks wait since 1. s though a worker is free", "locks")
    own.execute("UPDATE pgq_worker SET stalled_since = NULL")
    checked.assert_content()


def test_claims_where_no_worker_is_ready(checked, own):
    own.execute("""UPDATE pgq_worker SET workers = '[{"number": 0, "state": "restarting"}]'""")
    checked.assert_content()
    async_task(MARK)
    checked.assert_only("claims", "problem", "^0 workers, 0 of them busy; the first ready task was enqueued 0 s ago")


def test_claims_of_a_real_pool(pool, session, oracle):
    """From the frozen worker to the finding, and back."""
    checked = Checked(session())
    running = pool(workers=1, retry=2)
    (pid,) = running.worker_pids()
    os.kill(pid, 19)
    async_task(MARK, "frozen")
    wait_for(lambda: checked("claims").status == "problem", "the pool has noticed", 20)
    os.kill(pid, 18)
    wait_for(lambda: oracle.ends("frozen") == 1)
    wait_for(lambda: checked("claims").status == "ok", "the pool has noticed", 20)


def test_paused(checked):
    pause("default")
    checked.assert_content()
    async_task(MARK)
    checked.assert_only("paused", "problem", "paused queues: default$", "pgq_resume")
    async_task(MARK, queue="other")
    # Something can be claimed.
    checked.assert_only("paused", "warning", "paused queues: default$")
    resume("default")
    checked.assert_content()


def test_due(checked, own):
    id = put(own, run_after=sql.SQL("now() - interval '40 s'"))
    checked.assert_only("due", "problem", "due for 4. s", "Upkeep")
    own.execute("UPDATE pgq_queue SET run_after = now() + interval '1 h' WHERE id = %s", (id,))
    checked.assert_content()


def test_schedules(checked, own):
    schedule(MARK, name="nightly", schedule_type="D", next_run=None)
    own.execute("UPDATE pgq_schedule SET next_run = now() + interval '1 h'")
    checked.assert_content()
    own.execute("UPDATE pgq_schedule SET error = 'no such function'")
    checked.assert_only(
        "schedules", "problem", "^1 with errors, such as nightly: no such function$", "pgq_schedule_next"
    )
    own.execute("UPDATE pgq_schedule SET error = NULL, next_run = now() - interval '90 s'")
    checked.assert_only("schedules", "problem", "overdue for 9. s", "scheduler")
    own.execute("UPDATE pgq_schedule SET paused = true")
    checked.assert_content()


def claimed(own: Session, worker: str, age: timedelta) -> None:
    put(own, lock=sql.SQL("now() - {} * interval '1 s'").format(age.total_seconds()), worker=worker, receipt=uuid4())


@pytest.mark.parametrize("age", [timedelta(minutes=5), timedelta(days=800)])
def test_leases(checked, own, age):
    claimed(own, "a" * 32, timedelta(seconds=50))
    checked.assert_content()
    claimed(own, "a" * 32, age)
    checked.assert_only(
        "leases", "problem", f"^1 leases have run out, the oldest was granted {age.total_seconds():.0f}", "Upkeep"
    )
    own.execute("UPDATE pgq_worker SET retry = 1e9")
    checked.assert_content()


def test_workers(checked, own):
    claimed(own, "c" * 32, timedelta(seconds=5))
    # Its pool may not have said so yet.
    checked.assert_content()
    claimed(own, "c" * 32, timedelta(seconds=20))
    checked.assert_only(
        "workers", "warning", "^1 tasks are claimed by workers that no pool reports", "leases have run out"
    )
    own.execute("UPDATE pgq_queue SET worker = %s", ("a" * 32,))
    checked.assert_content()


def test_leader(checked, session):
    leader = session(autocommit=False)
    assert store_pools.lead(leader.cursor())
    pid = leader.info.backend_pid
    assert checked("leader") == Finding("leader", "ok", checked("leader").detail, "")
    assert re.match(f"pid {pid} .* holds the key now", checked("leader").detail)
    assert re.match(f"pid {pid} .* has held the key", checked("leader", patience="0").detail)
    assert f"pg_terminate_backend({pid})" in checked("leader", patience="0").advice
    leader.rollback()
    checked.assert_content(patience="0")


@pytest.mark.parametrize("queue", ["!", "default", "zzz"])
def test_lanes(checked, own, queue):
    """Before, between and after those that there are."""
    for other in ("a", "m"):
        put(own, queue=other)
    put(own, queue=queue, priority=3)
    checked.assert_content()
    own.execute("DELETE FROM pgq_lane WHERE queue = %s", (queue,))
    checked.assert_only(
        "lanes", "problem", f"no worker claims them: {queue} \\(priority 3\\)$", "Upkeep makes the lane"
    )
    lanes.sweep(own.cursor())
    checked.assert_content()


def test_lanes_without_any(checked, own):
    put(own)
    own.execute("DELETE FROM pgq_lane")
    checked.assert_only("lanes", "problem", "default")


@pytest.mark.parametrize("low", [0, 10, 5_000_000])
def test_watermarks(checked, own, low):
    """Just above the row, and far above."""
    put(own)
    checked.assert_content()
    own.execute("UPDATE pgq_lane SET low = (SELECT max(position) FROM pgq_queue) + %s", (low,))
    checked.assert_only("watermarks", "problem", r"default \(priority 0\): position \d+, watermark \d+", "SET low = 0")
    lanes.sweep(own.cursor())
    checked.assert_content()


def test_trigger(checked, own):
    own.execute("ALTER TABLE pgq_queue DISABLE TRIGGER pgq_queue_inserted")
    try:
        checked.assert_only("trigger", "problem", "disabled", "ENABLE TRIGGER pgq_queue_inserted")
    finally:
        own.execute("ALTER TABLE pgq_queue ENABLE TRIGGER pgq_queue_inserted")
    own.execute("ALTER TRIGGER pgq_queue_inserted ON pgq_queue RENAME TO gone")
    try:
        checked.assert_only("trigger", "problem", "missing", "0001_initial.up.sql")
    finally:
        own.execute("ALTER TRIGGER gone ON pgq_queue RENAME TO pgq_queue_inserted")
    checked.assert_content()


def test_results(checked, own):
    id = put(own)
    own.execute(
        "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue)"
        " VALUES (%s, true, now(), now(), now(), %s, 'default')",
        (id, MARK),
    )
    checked.assert_only("results", "problem", f"^1 live tasks have a result already, such as {id}$", "DELETE")
    own.execute("DELETE FROM pgq_queue")
    checked.assert_content()


def test_collectors(checked, own):
    enqueue_many(MARK, [(1,), (2,)], then=MARK)
    enqueue_many(MARK, [(3,)], then=MARK, group="named")
    own.execute("UPDATE pgq_queue SET enqueued_at = now() - interval '1 h'")
    checked.assert_content()
    own.execute("DELETE FROM pgq_queue WHERE remaining IS NULL AND args = '[3]'")
    (lost,) = own.execute("SELECT id FROM pgq_queue WHERE remaining = 1").fetchone()
    checked.assert_only(
        "collectors", "problem", f"^1 collectors wait for tasks that are gone, such as {lost}$", str(lost)
    )
    # As the advice says.
    advice = checked("collectors").advice
    own.execute(re.search(r"UPDATE .*?;", advice).group())
    checked.assert_content()
    assert own.execute("SELECT count(*) FROM pgq_queue WHERE id = %s AND remaining IS NULL", (lost,)).fetchone() == (1,)


def test_parked(checked, own):
    for number in range(5):
        put(own, parked="NotAllowed: x" if number else "Unreadable: y")
    checked.assert_only("parked", "warning", "^5 tasks .*; 4: NotAllowed: x; 1: Unreadable: y$", "pgq_retry")
    own.execute("SELECT pgq_retry(id) FROM pgq_queue")
    checked.assert_content()


def test_partitions(checked, own):
    own.execute("BEGIN")
    (name,) = own.execute(
        "SELECT 'pgq_task_' || to_char(date_trunc('week', now() + interval '7 days', 'UTC') AT TIME ZONE 'UTC',"
        " 'YYYYMMDD')"
    ).fetchone()
    own.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    # Seen from within the transaction, which is rolled back.
    within = Checked(own)
    within.assert_only("partitions", "warning", f"^missing: {name}$", "pgq_make_partitions")
    own.execute(
        "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue)"
        " VALUES (pgq_uuid7(now() + interval '7 days'), true, now(), now(), now(), %s, 'default')",
        (MARK,),
    )
    within.assert_only("partitions", "warning", f"^missing: {name}; 1 results of these weeks are in pgq_task_other$")
    own.execute("ROLLBACK")
    checked.assert_content()


def test_versions(checked, own):
    make_pool(id=uuid4(), name="old")
    checked.assert_content()
    own.execute("UPDATE pgq_worker SET version = '8' WHERE name = 'old'")
    checked.assert_only("versions", "warning", "8: old on .*; 9: shop on", "Restart the old ones")
    own.execute("UPDATE pgq_worker SET heartbeat = now() - interval '1 h' WHERE name = 'old'")
    assert checked("versions") == Finding("versions", "ok", "9", "")


@pytest.mark.parametrize("skews", [(3.0, 0.0), (-60.0, 0.0), (1.5, -1.5)])
def test_clocks(checked, own, skews):
    make_pool(id=uuid4(), host="other")
    for host, skew in zip(("other", os.uname().nodename), skews, strict=True):
        own.execute("UPDATE pgq_worker SET clock_skew = %s WHERE host = %s", (skew, host))
    checked.assert_only("clocks", "warning", "clocks differ from the database's", "NTP")
    own.execute("UPDATE pgq_worker SET clock_skew = 0.5")
    checked.assert_content()


def test_a_heartbeat_says_what_its_clock_shows(session):
    own = session()
    for ahead in (0.0, 100.0):
        store_pools.heartbeat(own.cursor(), id=ID, name="a", host="h", pid=1, queues=ALL, status="idle", version="1",
                        workers="[]", retry=30.0, clock=time.time() + ahead, stalled=7.0)  # fmt: skip
        skew, retry, stalled = own.execute(
            "SELECT clock_skew, retry, extract(epoch FROM now() - stalled_since)::float8 FROM pgq_worker"
        ).fetchone()
        assert skew == pytest.approx(ahead, abs=1)
        assert retry == 30
        assert stalled == pytest.approx(7, abs=1)


def test_horizon_pinned_by_a_session(checked, session):
    reader = session(autocommit=False)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT 1 FROM pgq_queue")
    pid = reader.info.backend_pid
    # Not for long enough to be mentioned.
    checked.assert_content()
    checked.assert_only(
        "horizon", "warning", f"pid {pid} .* idle in transaction since", f"backend\\({pid}\\);$", patience="0"
    )
    reader.rollback()
    checked.assert_content(patience="0")


def test_horizon_pinned_by_a_prepared_transaction(checked, own):
    if own.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
        pytest.skip("the server allows no prepared transactions")
    own.execute("BEGIN")
    own.execute("SELECT pg_current_xact_id()")
    own.execute("PREPARE TRANSACTION 'left behind'")
    try:
        checked.assert_only(
            "horizon", "warning", "prepared transaction left behind", "ROLLBACK PREPARED 'left behind'", patience="0"
        )
    finally:
        own.execute("ROLLBACK PREPARED 'left behind'")
    checked.assert_content(patience="0")


def test_vacuum_that_is_off(checked, own):
    own.execute("ALTER TABLE pgq_queue SET (autovacuum_enabled = off)")
    try:
        checked.assert_only("vacuum", "warning", "^autovacuum is off for pgq_queue$", "Turn autovacuum on")
    finally:
        own.execute("ALTER TABLE pgq_queue RESET (autovacuum_enabled)")
    checked.assert_content()


def test_vacuum_that_cannot_keep_up(checked, own):
    own.execute("ALTER TABLE pgq_lane SET (autovacuum_enabled = on)")
    try:
        # A session that ends says at once what it did, others up to ten seconds later.
        with connect() as brief:
            brief.execute("INSERT INTO pgq_lane SELECT 'q' || n, 0 FROM generate_series(1, 120000) n")
            brief.execute("DELETE FROM pgq_lane")
        wait_for(lambda: checked("vacuum").status == "warning", "the statistics are there")
        assert re.search("pgq_lane has 1[12]0000 dead rows beside 0 living", checked("vacuum").detail)
        assert "horizon" in checked("vacuum").advice
    finally:
        own.execute("ALTER TABLE pgq_lane RESET (autovacuum_enabled)")
    own.execute("VACUUM pgq_lane")
    wait_for(lambda: checked("vacuum").status == "ok")


def test_notifications(checked, own):
    """Filling gigabytes takes too long: the bound is lowered in a copy of the function."""
    (definition,) = own.execute("SELECT pg_get_functiondef('pgq_check'::regproc)").fetchone()
    assert definition.count("> 0.1 THEN") == 1
    own.execute("BEGIN")
    own.execute(definition.replace("> 0.1 THEN", "> -1 THEN"))
    Checked(own).assert_only("notifications", "warning", "0.0 % full", "listens")
    own.execute("ROLLBACK")
    checked.assert_content()


# ------------------------------------------------------------------------------------------------- who may ask


@pytest.fixture
def stranger(own: Session) -> Iterator[Session]:
    """A session of a role that may do nothing but log in."""
    name = f"stranger_{uuid4().hex[:8]}"
    own.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    session = None
    try:
        session = psycopg.connect(
            make_conninfo(**{**conninfo_to_dict(test_dsn()), "user": name, "password": "x"}), autocommit=True
        )
        yield session
    finally:
        if session is not None:
            session.close()
        own.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_without_rights_it_says_so(checked, own, stranger, session):
    reader = session(autocommit=False)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT 1 FROM pgq_queue")
    own.execute("SELECT 1")
    limited = Checked(stranger)
    found = limited.all(patience="0")
    assert list(found) == CHECKS
    assert found["claims"].status == "warning"
    assert "permission denied" in found["claims"].detail
    own.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {stranger.info.user}")
    found = limited.all(patience="0")
    assert {name for name, item in found.items() if item.status != "ok"} == {"rights"}
    assert f"GRANT pg_read_all_stats TO {stranger.info.user};" == found["rights"].advice
    own.execute(found["rights"].advice)
    found = limited.all(patience="0")
    assert {name for name, item in found.items() if item.status != "ok"} == {"horizon"}


def test_it_only_reads(checked, own):
    own.execute("SET default_transaction_read_only = on")
    Checked(own).assert_content()


# ------------------------------------------------------------------------------------------------- a long queue


@pytest.mark.slow
def test_many_rows_and_as_many_dead_ones_take_no_time(django_db_setup):
    rows = 1_000_000 if os.environ.get("PGQ_TEST_FULL") else 200_000
    with fresh_database("check") as database:
        up(database)
        database.execute("SET synchronous_commit = off")
        fill = (
            "INSERT INTO pgq_queue (func, queue, priority)"
            " SELECT 'a.b', 'q' || n %% 20, n / 20 %% 5 FROM generate_series(1, %s) n"
        )
        database.execute(fill, (rows,))
        database.execute("VACUUM ANALYZE pgq_queue")
        assert _seconds(database) < 1.0
        with psycopg.connect(database.info.dsn) as pin:
            pin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            pin.execute("SELECT 1 FROM pgq_queue LIMIT 1")
            # As if all had been claimed and settled: dead entries in each index, and the watermarks have passed them.
            database.execute(
                "UPDATE pgq_queue SET lock = clock_timestamp() - random() * interval '1 h', worker = gen_random_uuid(),"
                " receipt = gen_random_uuid()"
            )
            database.execute("DELETE FROM pgq_queue")
            database.execute("UPDATE pgq_lane SET low = (SELECT last_value FROM pgq_position)")
            database.execute(fill, (rows // 10,))
            assert _seconds(database) < 2.5


def _seconds(database: Session) -> float:
    """The best of three: the machine has other things to do."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        assert len(database.execute("SELECT * FROM pgq_check()").fetchall()) == len(CHECKS)
        times.append(time.monotonic() - began)
    print(f"pgq_check: {min(times):.3f} s")  # noqa: T201
    return min(times)


# ------------------------------------------------------------------------------------------------- the command


def run(*arguments: str, code: int | None = None, **options: Any) -> str:
    out = io.StringIO()
    if code is None:
        call_command("pgq_check", *arguments, stdout=out, **options)
    else:
        with pytest.raises(SystemExit) as left:
            call_command("pgq_check", *arguments, stdout=out, **options)
        assert left.value.code == code
    return out.getvalue()


class TestCommand:
    @pytest.fixture(autouse=True)
    def _wide(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)

    def test_content(self, checked):
        shown = run()
        lines = shown.splitlines()
        assert [line.split()[0] for line in lines[1:]] == OF_COMMAND
        assert all(line.split()[1] == "ok" for line in lines[1:])
        assert "\x1b" not in shown

    def test_a_warning_is_no_failure(self, checked, own):
        put(own, parked="\x1b[31mred")
        shown = run()
        assert re.search(r"parked +warning +1 tasks cannot run as they are; 1: \\x1b\[31mred\n +Mend the cause", shown)

    def test_a_problem_is(self):
        shown = run(code=1)
        assert re.search(r"pools +problem +no pool is running\n +Nothing is claimed until a pool runs", shown)

    def test_json(self, checked, own):
        said = json.loads(run("--json"))
        assert said["status"] == "ok"
        assert [item["check"] for item in said["checks"]] == OF_COMMAND
        put(own, parked="x")
        assert json.loads(run("--json"))["status"] == "warning"
        own.execute("DELETE FROM pgq_worker")
        said = json.loads(run("--json", code=1))
        assert said["status"] == "problem"
        (pools,) = [item for item in said["checks"] if item["check"] == "pools"]
        assert set(pools) == {"check", "status", "detail", "advice"}

    def test_colours(self, checked):
        assert "\x1b[32m" in run(force_color=True)
        assert "\x1b" not in run(no_color=True)

    def test_code_that_is_newer_than_the_tables(self, checked, monkeypatch):
        there = schema.VERSION
        monkeypatch.setattr(schema, "VERSION", there + 1)
        assert re.search(rf"schema +problem +version {there}, missing: {there + 1}", run(code=1))

    def test_without_the_function_it_is_2(self, own):
        own.execute("ALTER FUNCTION pgq_check RENAME TO gone")
        try:
            with pytest.raises(CommandError, match=r"Run: manage\.py migrate pgq") as error:
                run()
        finally:
            own.execute("ALTER FUNCTION gone RENAME TO pgq_check")
        assert error.value.returncode == 2

    def test_exit_codes_of_the_process(self, transactional_db):
        def code(**more: str) -> tuple[int, str]:
            done = subprocess.run(
                [sys.executable, "-m", "django", "pgq_check"],
                env=environment(**more),
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, done.stdout + done.stderr

        make_pool(workers=WORKERS)
        assert code()[0] == 0
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM pgq_worker")
        assert code()[0] == 1
        number, said = code(DATABASE_URL="postgresql://127.0.0.1:1/nowhere")
        assert number == 2
        assert "PostgreSQL cannot be reached" in said


def test_overall_is_the_worst():
    def status(*all: str) -> str:
        return findings.overall(Finding("x", status, "", "") for status in all)

    assert status("ok", "warning", "ok") == "warning"
    assert status("problem", "warning") == "problem"
    assert status("ok") == "ok"
    # What has checked nothing has not found all well.
    assert status() == "problem"


def test_the_documentation_names_each_check():
    text = (ROOT / "docs" / "reference" / "checks.md").read_text()
    for check in OF_COMMAND:
        assert f"`{check}`" in text, check
