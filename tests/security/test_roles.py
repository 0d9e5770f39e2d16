"""Who may do what in PostgreSQL: the roles of migrations_sql/roles.sql, and the functions' search_path."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgq.enqueue.make import make_task
from pgq.records.options import TaskOptions
from pgq.status import metrics
from pgq.store import overview, queue, results
from tests.support.pools import ROOT, wait_for
from tests.support.site import Site

# Roles belong to the whole server.
pytestmark = pytest.mark.xdist_group("roles")

TASKS = "tests.faults.tasks"
GROUPS = ("pgq_producer", "pgq_worker", "pgq_inspector", "pgq_owner")
ROLES_SQL = ROOT / "migrations_sql" / "roles.sql"
LogIn = Callable[..., str]


@pytest.fixture
def log_in(site: Site) -> Iterator[LogIn]:
    """Return the connection string of a new login role that is a member of these roles; roles.sql has been run.

    (The group roles stay on the server, without any right once the database is gone: another test may use them.)
    """
    made: list[str] = []
    with site.session() as admin:
        may = admin.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone()
        if not may or not may[0]:
            pytest.skip("the tests' role may not create roles")
        for _twice in range(2):
            with admin.transaction():
                admin.execute(ROLES_SQL.read_bytes())

        def make(*groups: str) -> str:
            name, password = f"pgq_test_{uuid4().hex[:12]}", uuid4().hex
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
            )
            made.append(name)
            for group in groups:
                admin.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name)))
            return make_conninfo(site.dsn, user=name, password=password)

        yield make
        site.stop()
        for name in made:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


# ------------------------------------------------------------------------------------------------- the matrix

ALL = "*"
NEW_TASK = {
    "id", "func", "args", "kwargs", "options", "queue", "priority", "name", "group", "hook", "timeout", "max_attempts",
    "run_after", "remaining", "signature", "key", "unique_key", "unique_until", "expires_at",
}  # fmt: skip
PAYLOAD = {
    "spec",
    "args",
    "kwargs",
    "options",
    "result",
    "message",
    "traceback",
    "history",
    "signature",
    "receipt",
    "text",
    "log",
    "progress",
}
#: role -> object -> what it may do; with the columns, or ALL of them. What is not here must be refused.
MAY: dict[str, dict[str, dict[str, Any]]] = {
    "pgq_producer": {
        "pgq_queue": {"INSERT": NEW_TASK, "SELECT": {"id", "unique_key"}},
        "pgq_unique": {"SELECT": ALL, "INSERT": ALL, "UPDATE": {"task", "until"}},
        "pgq_lane": {"SELECT": {"queue", "priority"}, "INSERT": {"queue", "priority"}},
        "pgq_keyed": {
            "SELECT": {"queue", "key", "priority", "idle_since"}, "INSERT": {"queue", "key", "priority"},
            "UPDATE": {"idle_since"},
        },
        "pgq_keyed_missed": {"nextval": ALL},
        "pgq_position": {"nextval": ALL},
        "pgq_sleep_until": {"SELECT": ALL},
    },
    "pgq_worker": {
        "pgq_queue": {
            "SELECT": ALL, "INSERT": ALL, "DELETE": ALL,
            "UPDATE": {"position", "attempts", "crashes", "cancelled", "run_after", "remaining", "parked", "history",
                       "lock", "worker", "receipt", "strand", "unique_key", "unique_until", "ready_at"},
        },
        "pgq_task": {"SELECT": ALL, "INSERT": ALL, "DELETE": ALL, "UPDATE": {"history"}},
        "pgq_lane": {"SELECT": ALL, "INSERT": ALL, "UPDATE": {"low", "paused"}},
        "pgq_keyed": {"SELECT": ALL, "INSERT": ALL, "UPDATE": {"low", "idle_since"}, "DELETE": ALL},
        "pgq_unique": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_limit": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_rate": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_strand": {"SELECT": ALL, "nextval": ALL},
        "pgq_strand_low": {"SELECT": ALL, "nextval": ALL, "setval": ALL},
        "pgq_keyed_missed": {"SELECT": ALL, "nextval": ALL},
        "pgq_schedule": {
            "SELECT": ALL, "DELETE": ALL,
            "UPDATE": {"next_run", "repeats", "day", "wall_time", "task", "last_slot", "error", "retry_at"},
        },
        "pgq_worker": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_progress": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_metric_raw": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_metric": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_total": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_gauge": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_finding": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "pgq_mark": {"SELECT": ALL, "INSERT": ALL},
        "pgq_schema": {"SELECT": ALL},
        "pgq_position": {"SELECT": ALL, "nextval": ALL},
        "pgq_sleep_until": {"SELECT": ALL, "nextval": ALL, "setval": ALL},
        "pgq_wait_until": {"SELECT": ALL, "nextval": ALL, "setval": ALL},
    },
    "pgq_inspector": {
        "pgq_queue": {"SELECT": "all but the payload"},
        "pgq_task": {"SELECT": "all but the payload"},
        "pgq_schedule": {"SELECT": "all but the payload"},
        "pgq_lane": {"SELECT": ALL},
        "pgq_keyed": {"SELECT": ALL},
        "pgq_limit": {"SELECT": ALL},
        "pgq_unique": {"SELECT": ALL},
        "pgq_rate": {"SELECT": ALL},
        "pgq_strand": {"SELECT": ALL},
        "pgq_strand_low": {"SELECT": ALL},
        "pgq_keyed_missed": {"SELECT": ALL},
        "pgq_worker": {"SELECT": ALL},
        "pgq_progress": {"SELECT": "all but the payload"},
        "pgq_schema": {"SELECT": ALL},
        "pgq_queue_depth": {"SELECT": ALL},
        "pgq_metric": {"SELECT": ALL},
        "pgq_total": {"SELECT": ALL},
        "pgq_gauge": {"SELECT": ALL},
        "pgq_mark": {"SELECT": ALL},
        "pgq_finding": {"SELECT": ALL},
        "pgq_rates": {"SELECT": ALL},
        "pgq_functions": {"SELECT": ALL},
        "pgq_schedule_next": {"SELECT": ALL},
        "pgq_running": {"SELECT": "all but the payload"},
        "pgq_failures_by_function": {"SELECT": {"func", "exception", "failures", "last", "last_id"}},
        "pgq_position": {"SELECT": ALL},
        "pgq_sleep_until": {"SELECT": ALL},
        "pgq_wait_until": {"SELECT": ALL},
    },
}  # fmt: skip
OBJECTS = """
    SELECT c.relname, c.relkind::text,
           array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)
      FROM pg_class c
     WHERE c.relname LIKE 'pgq\\_%%' AND c.relkind IN ('r', 'p', 'v', 'S')
       -- Of partitions the rights of their table count.
       AND NOT (c.relispartition AND c.relname ~ '^pgq_(metric|gauge)_')
     ORDER BY 1
"""
BY_COLUMN = {
    "SELECT": "SELECT {column} FROM {object} LIMIT 0",
    "INSERT": "INSERT INTO {object} ({column}) SELECT NULL WHERE false",
    "UPDATE": "UPDATE {object} SET {column} = NULL WHERE false",
}
WHOLE = {
    "DELETE": "DELETE FROM {object} WHERE false",
    "TRUNCATE": "TRUNCATE {object}",
    "TRIGGER": "CREATE TRIGGER mine BEFORE INSERT ON {object} FOR EACH STATEMENT EXECUTE FUNCTION pgq_queue_inserted()",
    "ALTER": "ALTER TABLE {object} ADD COLUMN mine integer",
    "DROP": "DROP TABLE {object} CASCADE",
    "GRANT": "GRANT SELECT ON {object} TO PUBLIC",
}
OF_SEQUENCE = {
    "SELECT": "SELECT last_value FROM {object}", "nextval": "SELECT nextval('{object}')",
    "setval": "SELECT setval('{object}', 5)", "ALTER": "ALTER SEQUENCE {object} CACHE 2",
    "DROP": "DROP SEQUENCE {object} CASCADE",
}  # fmt: skip


def permitted(session: psycopg.Connection[Any], statement: str) -> bool:
    """Whether PostgreSQL lets this role do it; it is undone. (Other errors come after the rights were looked at.)"""
    try:
        with session.transaction(force_rollback=True):
            session.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.Error as error:
        return "permission denied" not in str(error)
    return True


def tried(session: psycopg.Connection[Any], name: str, kind: str, columns: list[str]) -> dict[str, Any]:
    """Try each verb on one object, on each column where there is one; return what was let through."""
    found: dict[str, Any] = {}
    if kind == "S":
        return {verb: ALL for verb, text in OF_SEQUENCE.items() if permitted(session, text.format(object=name))}
    for verb, text in BY_COLUMN.items():
        if kind == "v" and verb != "SELECT":
            continue
        good = {column for column in columns if permitted(session, text.format(object=name, column=f'"{column}"'))}
        if good:
            found[verb] = ALL if good == set(columns) else good
    row = session.execute("SELECT has_any_column_privilege(%s, 'REFERENCES')", (name,)).fetchone()
    if row is not None and row[0]:
        found["REFERENCES"] = ALL
    for verb, text in WHOLE.items():
        if kind != "v" and verb != "GRANT" and permitted(session, text.format(object=name)):
            found[verb] = ALL
    return found


@pytest.mark.fault("S16")
def test_each_role_may_do_just_what_its_work_needs(site: Site, log_in: LogIn) -> None:
    with site.session() as admin:
        objects = admin.execute(OBJECTS).fetchall()
        partitions = {row[0] for row in admin.execute("SELECT inhrelid::regclass::text FROM pg_inherits")}
    assert {"pgq_queue", "pgq_task", "pgq_position", "pgq_running"} <= {name for name, _, _ in objects}
    for role, expected in MAY.items():
        with psycopg.connect(log_in(role), autocommit=True) as session:
            for name, kind, columns in objects:
                may = dict(expected.get(name, {}))
                for verb, which in may.items():
                    if which == "all but the payload":
                        may[verb] = set(columns) - PAYLOAD
                assert name not in partitions or not may
                assert tried(session, name, kind, columns) == may, f"{role} on {name}"
    with psycopg.connect(log_in(), autocommit=True) as session:
        for name, kind, columns in objects:
            assert tried(session, name, kind, columns) == {}, f"anybody on {name}"


@pytest.mark.fault("S16")
def test_the_owner_may_do_everything_and_is_nobodys_member(site: Site, log_in: LogIn) -> None:
    with psycopg.connect(log_in("pgq_owner"), autocommit=True) as owner:
        for path in sorted((ROOT / "migrations_sql").glob("*.up.sql")):
            with owner.transaction():
                owner.execute(path.read_bytes())
        assert results.make_partitions(owner.cursor()) == 0
        owner.execute("DROP TABLE pgq_task_other; CREATE TABLE pgq_task_other PARTITION OF pgq_task DEFAULT")
        owner.execute("SELECT pgq_make_partitions('12 weeks')")
        for name, kind, columns in owner.execute(OBJECTS).fetchall():
            done = set(tried(owner, name, kind, columns))
            assert done >= ({"SELECT"} if kind == "v" else {"SELECT", "ALTER", "DROP"}), name
    with site.session() as admin:
        # A partition that anybody made belongs to the owner, who will drop it.
        owners = {
            row[0]
            for row in admin.execute(
                "SELECT relowner::regrole::text FROM pg_class WHERE relname LIKE 'pgq\\_task\\_2%' AND relkind = 'r'"
            )
        }
        assert owners == {"pgq_owner"}
        closure = admin.execute(
            "SELECT a.rolname, b.rolname FROM pg_roles a, pg_roles b WHERE a.rolname = ANY (%s) AND a <> b"
            " AND (b.rolname = ANY (%s) OR b.rolname LIKE 'pg\\_%%') AND pg_has_role(a.oid, b.oid, 'MEMBER')",
            (list(GROUPS), list(GROUPS)),
        ).fetchall()
        attributes = admin.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) AND (rolcanlogin OR rolsuper OR rolcreaterole"
            " OR rolcreatedb OR rolbypassrls OR rolreplication)",
            (list(GROUPS),),
        ).fetchall()
    assert closure == attributes == []


ENQUEUE = """
import django
django.setup()
from pgq.tasks import Unique, async_iter, async_task, enqueue_many, schedule
async_task("tests.faults.tasks.work")
async_task("tests.faults.tasks.work", queue="a lane of its own", priority=7)
async_task("tests.faults.tasks.work", run_after=0.2)
enqueue_many("tests.faults.tasks.work", [(), ()])
async_iter("tests.faults.tasks.work", [0.0, 0.01])
for unique, more in ((Unique(until=60), {}), (Unique(), {"run_after": 1.0})):
    ids = [async_task("tests.faults.tasks.work", q_options={"unique": unique}, **more) for _ in range(2)]
    assert ids[0] == ids[1] and not ids[1].created
"""


@pytest.mark.fault("S16")
def test_a_pool_and_a_producer_with_their_roles_do_their_work(site: Site, log_in: LogIn) -> None:
    site.pool_dsn = log_in("pgq_worker")
    with site.session() as admin:
        admin.execute(
            "INSERT INTO pgq_schedule (name, func, schedule_type, seconds) VALUES ('often', %s, 'S', 0.5)",
            (f"{TASKS}.registered",),
        )
    pool = site.start(workers=2)
    producer = log_in("pgq_producer")
    environment = {
        **os.environ, "DATABASE_URL": producer, "DJANGO_SETTINGS_MODULE": "tests.support.fault_settings",
        "PGQ_TEST_SETTINGS": "{}", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", ENQUEUE], env=environment, cwd=ROOT, check=True, timeout=60)
    with psycopg.connect(producer, autocommit=True) as session:
        assert session.execute("SELECT pgq_enqueue(%s)", (f"{TASKS}.registered",)).fetchone()
        queue.enqueue_many(
            session.cursor(), [make_task(f"{TASKS}.fail", options=TaskOptions(max_attempts=2, retry_backoff=0))]
        )
        queue.enqueue(session.cursor(), make_task(f"{TASKS}.die"))
    wait_for(
        lambda: site.value("SELECT count(*) FILTER (WHERE success) = 9 AND count(*) FILTER (WHERE NOT success) = 2"
                           " FROM pgq_task WHERE schedule IS NULL"),
        "all have run: retried, rescued, collected (and the parts are forgotten)",
    )  # fmt: skip
    wait_for(lambda: site.value("SELECT count(*) > 2 FROM pgq_task WHERE schedule IS NOT NULL"), "schedules fire")
    assert site.value("SELECT low > 0 FROM pgq_lane WHERE queue = 'default' AND priority = 0")
    assert "denied" not in pool.log()
    assert "failed: must be" not in pool.log()


@pytest.mark.fault("S16")
def test_inspectors_tools_work_and_show_no_payload(site: Site, log_in: LogIn) -> None:
    site.start(workers=1)
    site.enqueue("fail")
    site.drain()
    with psycopg.connect(log_in("pgq_inspector"), autocommit=True) as session:
        cursor = session.cursor()
        overview.queue_counts(cursor, limit=100)
        overview.queue_depths(cursor, limit=100, most=100)
        metrics.rates(cursor)
        metrics.forecast(cursor)
        metrics.findings(cursor)
        metrics.totals(cursor)
        overview.finished_counts(cursor, limit=100)
        overview.schedule_counts(cursor)
        assert session.execute("SELECT func FROM pgq_failures_by_function").fetchall() == [(f"{TASKS}.fail",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            overview.latest_failures(cursor, limit=5)  # it has the messages


# ------------------------------------------------------------------------------------------------- search_path


@pytest.mark.fault("S15")
def test_functions_run_as_their_callers_and_pin_their_path(site: Site) -> None:
    with site.session() as admin:
        functions = admin.execute(
            "SELECT proname::text, prosecdef, proconfig, prosrc FROM pg_proc WHERE proname LIKE 'pgq\\_%'"
        ).fetchall()
    assert {"pgq_queue_inserted", "pgq_wake", "pgq_cancel", "pgq_retry"} <= {name for name, *_ in functions}
    for name, definer, config, source in functions:
        assert not definer, name
        if config is None:
            assert not re.search(r"\bpgq_(?!uuid7)", source), f"{name} touches a table and pins no path"
        else:
            assert "search_path=public, pg_temp" in config, name


@pytest.mark.fault("S15")
def test_shadows_of_tables_and_functions_catch_nothing(site: Site) -> None:
    with site.session() as own:
        tables = ["pgq_queue", "pgq_lane", "pgq_task", "pgq_task_other", "pgq_schema"]
        own.execute("CREATE SCHEMA elsewhere")
        for name in tables:
            own.execute(f"CREATE TABLE elsewhere.{name} AS SELECT * FROM public.{name} LIMIT 0")
            own.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM public.{name} LIMIT 0")
        for name in ("pgq_sleep_until", "pgq_position"):
            own.execute(f"CREATE TEMP SEQUENCE {name}")
        own.execute(
            "CREATE FUNCTION elsewhere.pgq_wake() RETURNS void LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'a shadow was called'; END $$"
        )
        own.execute("SET search_path = elsewhere, public")
        row = own.execute("SELECT public.pgq_enqueue('x', queue => 'q')").fetchone()
        assert row is not None
        for call in ("pgq_pause('q')", "pgq_resume('q')", "pgq_wake()", "pgq_make_partitions()"):
            own.execute(f"SELECT public.{call}")
        assert own.execute("SELECT public.pgq_cancel(%s)", row).fetchone() == ("queued",)
        assert own.execute("SELECT public.pgq_retry(%s)", row).fetchone() == (True,)
        for name in tables:
            shadows = own.execute(
                f"SELECT (SELECT count(*) FROM elsewhere.{name}), (SELECT count(*) FROM pg_temp.{name})"
            )
            assert shadows.fetchone() == (0, 0), name
        assert own.execute("SELECT queue, paused FROM public.pgq_lane").fetchall() == [("q", False)]
