"""Pools in which nothing can run, or hardly: they say why, and do not spin; one that runs once ends with 1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgq.models import Task
from pgq.store import schema
from pgq.tasks import enqueue_many
from tests.support.health import ask
from tests.support.pools import ROOT, connect, test_dsn
from tests.support.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)

MARK, NAP = "tests.functions.oracle.mark", "tests.functions.oracle.nap"


# ------------------------------------------------------------------------------------------------- memory


def test_a_worker_that_is_too_large_from_the_start_is_of_use_first(pool, oracle):
    """Somebody meant megabytes."""
    ids = enqueue_many(NAP, [(number, 0.05) for number in range(40)])
    running = pool("--run-once", workers=1, max_rss=300, ready=False)
    assert running.wait() == 0
    assert Task.objects.filter(success=True).count() == len(ids)
    assert running.log().count("max_rss is 300 kB, and a worker takes") == 1
    # Two seconds of work: a new worker for each second, not for each task.
    assert 2 <= len({line[2] for line in oracle.lines()}) <= 10


# ------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def empty_database(transactional_db: None) -> Iterator[str]:
    """The DSN of a database without tables."""
    name = f"pgq_empty_{os.getpid()}"
    with connect() as session:
        session.execute(f"CREATE DATABASE {name}")
        yield make_conninfo(test_dsn(), dbname=name)
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_without_its_tables_a_pool_waits_for_migrate(empty_database, pool, oracle):
    once = pool("--run-once", dsn=empty_database, ready=False)
    assert once.wait() == 1
    assert "there are none: run manage.py migrate pgq" in once.log()

    port = free_port()
    running = pool(dsn=empty_database, allowed=[MARK], health_port=port, ready=False, cold=True)
    running.wait_for(lambda: "there are none: run manage.py migrate pgq" in running.log())
    running.wait_for(lambda: ask(port)[0] == 503 and "/health: this release needs its tables" in running.log())
    with psycopg.connect(empty_database, autocommit=True) as session:
        names = sorted(file.name.removesuffix(".up.sql") for file in (ROOT / "migrations_sql").glob("*.up.sql"))
        session.execute(schema.read(names[0], "up"))
        running.wait_for(lambda: "those of version 1 are there: run manage.py migrate pgq" in running.log())
        # One sentence each, and no child was started to meet the same.
        assert running.log().count("ERROR") == 2
        assert list(running.processes()) == [running.pid]
        for name in names[1:]:
            session.execute(schema.read(name, "up"))
        session.execute("INSERT INTO pgq_queue (func, args) VALUES (%s, '[\"late\"]')", (MARK,))
        running.wait_for(lambda: session.execute("SELECT true FROM pgq_task").fetchone(), "it has run and is settled")
        assert oracle.ends("late") == 1

        # Somebody takes them away. One chore may be in the middle; after that, each process says it in a sentence.
        for name in reversed(names):
            session.execute(schema.read(name, "down"))
        running.wait_for(lambda: "upkeep: PostgreSQL: this release needs its tables" in running.log())
        # Once before there were tables, and once now; in between it may have met any version.
        gone = "ERROR .*nothing can be run: this release .* and there are none"
        running.wait_for(lambda: len(re.findall(gone, running.log())) == 2)
        assert running.log().count("Traceback") <= 1
    running.stop()


# ------------------------------------------------------------------------------------------------- no server


def test_a_database_that_is_not_there(transactional_db, oracle):
    """Nobody knows whether it will be, so this takes some seconds; here, not ten of them."""
    script = (
        "import django; django.setup(); from pgq.pool import session; session._GIVE_UP_SECONDS = 0.5;"
        "from django.core.management import execute_from_command_line as run;"
        "run(['manage.py', 'pgq_worker', '--run-once'])"
    )
    environment = {
        **os.environ, "DATABASE_URL": make_conninfo(test_dsn(), dbname="pgq_nowhere"),
        "DJANGO_SETTINGS_MODULE": "tests.support.pool_settings", "PGQ_TEST_SETTINGS": "{}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "nothing could be run: " in done.stderr
    assert 'database "pgq_nowhere" does not exist' in done.stderr.splitlines()[-1]


# ------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize("who", ["worker 0", "upkeep"])
def test_children_that_never_start(who, pool, tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.support.breaking_settings", "PGQ_TEST_BROKEN": str(broken),
        "PGQ_TEST_BREAKS": f"pgq {who}",
    }  # fmt: skip
    once = pool("--run-once", workers=1, start_method="spawn", ready=False, env=env)
    assert once.wait() == 1
    assert f"nothing could be run: {who} died while starting, with exit code 3" in once.log()
