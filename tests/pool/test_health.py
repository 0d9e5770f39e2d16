"""/health: green while tasks are claimed, red soon after they are not, green again when they are. On real pools."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.urls import path

from pgq import conf
from pgq.health import health
from pgq.tasks import async_task, enqueue_many, pause, resume
from tests.support.hand import MARK
from tests.support.health import ask
from tests.support.pool_rows import WORKERS, make_pool
from tests.support.pools import Pool, wait_for
from tests.support.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)

urlpatterns = [path("health", health)]

#: Settings of the pools: a lease of two seconds, so that two lease periods are soon over.
RETRY = 2.0
#: Two lease periods, the bound of the promise, and what a busy machine adds.
BOUND = 2 * RETRY + 6.0

NAP = "tests.functions.oracle.nap"


class Watched:
    """A pool and its port."""

    def __init__(self, pool: Pool, port: int) -> None:
        self.pool, self.port = pool, port

    def code(self) -> int:
        return ask(self.port)[0]

    def lives(self) -> bool:
        return ask(self.port, path="/health/live") == (200, b'{"status": "ok"}')

    def turns(self, code: int, what: str, timeout: float = BOUND) -> None:
        self.pool.wait_for(lambda: self.code() == code, f"/health answers {code}: {what}", timeout)


@pytest.fixture
def watched(pool: Callable[..., Pool]) -> Callable[..., Watched]:
    def start(workers: int = 2, **settings: Any) -> Watched:
        port = free_port()
        running = pool("--health-port", str(port), workers=workers, retry=RETRY, **settings)
        watched = Watched(running, port)
        watched.turns(200, "all is well")
        return watched

    return start


# ------------------------------------------------------------------------------------------------- a pool's own


def test_a_pool_answers_probes_and_nothing_else(watched):
    port = watched().port
    assert ask(port) == (200, b'{"status": "ok"}')
    assert ask(port, "HEAD") == (200, b"")
    assert ask(port, path="/health/?verbose") == (200, b'{"status": "ok"}')
    assert ask(port, path="/health/ready") == (200, b'{"status": "ok"}')
    assert ask(port, "POST")[0] == 405
    assert ask(port, path="/metrics")[0] == 404
    assert ask(port, path="/health" + "x" * 20_000)[0] == 431

    for request in (b"\r\n\r\n", b"GET\r\n\r\n", b"GET /health\r\n\r\n", b"\0" * 9000, b"GET /health HTTP/2\n\n"):
        assert say(port, request).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), request[:20]


def say(port: int, request: bytes) -> bytes:
    """Send what need not be a request; return the beginning of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(request)
        return client.recv(100)


def test_it_is_ready_when_a_worker_is(pool):
    port = free_port()
    starting = pool("--health-port", str(port), ready=False, workers=1, retry=RETRY)
    codes = []
    starting.wait_for(lambda: codes.append(ask(port)[0]) or codes[-1] == 200, "ready")
    # Not there yet; there, and without a worker (which we may have been too slow to see); ready.
    assert sorted(set(codes), key=codes.index) in ([0, 503, 200], [503, 200], [0, 200], [200])


def test_slow_clients_keep_nobody_waiting(watched, oracle):
    running = watched()
    slow = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(2)]
    slow[0].sendall(b"GET /health HT")
    slowest = 0.0
    for number in range(20):
        began = time.monotonic()
        assert running.code() == 200
        async_task(MARK, number)
        wait_for(lambda number=number: oracle.ends(number) == 1)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2.0
    # They had their two seconds.
    for client in slow:
        client.settimeout(5)
        assert client.recv(100) == b""
        client.close()


def test_many_slow_clients_lock_out_no_probe(watched):
    running = watched()
    slow = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(150)]
    assert running.code() == 200
    for client in slow:
        client.close()


def test_killed_sessions_are_made_anew(watched, session):
    running = watched()
    own = session()
    own.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'pgq %' AND datname = current_database()"
    )
    wait_for(lambda: "PostgreSQL:" in running.pool.log())
    running.turns(200, "connected again")


def test_without_postgresql_it_is_red(watched, session):
    """As long as nobody may connect and the sessions are killed."""
    running = watched()
    admin = session(dbname="postgres")
    name = connection.settings_dict["NAME"]
    admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        # Not those of the tests that run beside this one.
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'pgq %%' AND datname = %s",
            (name,),
        )
        running.turns(503, "no connection")
        assert ask(running.port, path="/health/ready")[0] == 503
        assert running.lives(), "a restart would help nothing"
    finally:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    running.turns(200, "connected again")


def test_while_the_queue_is_locked_it_is_red_and_answers(watched, session):
    running = watched()
    locker = session(autocommit=False)
    locker.execute("LOCK TABLE pgq_queue IN ACCESS EXCLUSIVE MODE")
    running.turns(503, "the table is locked")
    began = time.monotonic()
    assert running.code() == 503
    assert time.monotonic() - began < 1
    locker.rollback()
    running.turns(200, "the lock is gone")


def test_ready_rows_that_nobody_can_claim_turn_it_red(watched, session, oracle):
    """Somebody holds the locks of the rows: claims pass them over, and free workers sleep beside ready tasks."""
    running = watched()
    pause("default")
    async_task(MARK, "held")
    holder = session(autocommit=False)
    holder.execute("SELECT FROM pgq_queue FOR UPDATE")
    resume("default")
    running.turns(503, "a task is ready, and nobody gets it")
    assert oracle.starts("held") == 0
    holder.rollback()
    wait_for(lambda: oracle.ends("held") == 1)
    running.turns(200, "it was claimed")


def test_frozen_idle_workers_turn_it_red(watched, oracle):
    running = watched()
    pids = running.pool.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    async_task(MARK, "frozen")
    running.turns(503, "the workers are frozen")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: oracle.ends("frozen") == 1)
    running.turns(200, "the workers run")


def test_one_frozen_worker_beside_one_that_is_long_busy_turns_it_red(watched, oracle):
    """Nobody starts anything, though one place is not busy."""
    running = watched()
    async_task(NAP, "long", 60)
    wait_for(lambda: oracle.starts("long") == 1)
    busy = oracle.pids("long")[0]
    (free,) = set(running.pool.worker_pids()) - {busy}
    assert running.code() == 200
    os.kill(free, signal.SIGSTOP)
    async_task(MARK, "waits")
    running.turns(503, "a task is ready, a worker is frozen, the other one busy")
    assert oracle.starts("waits") == 0
    os.kill(free, signal.SIGCONT)
    wait_for(lambda: oracle.ends("waits") == 1)
    running.turns(200, "it was claimed")


def test_a_worker_frozen_in_a_task_counts_as_free(watched, oracle):
    running = watched(workers=1)
    async_task(NAP, "frozen", 1)
    wait_for(lambda: oracle.starts("frozen") == 1)
    (pid,) = oracle.pids("frozen")
    os.kill(pid, signal.SIGSTOP)
    async_task(MARK, "waits")
    running.turns(503, "the only worker is frozen")
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: oracle.ends("waits") == 1)
    running.turns(200, "it runs again")


def test_busy_is_well(watched, oracle):
    """All workers have long tasks and others wait: that is a backlog, and no trouble."""
    running = watched(workers=1)
    async_task(NAP, "long", BOUND)
    enqueue_many(MARK, range(10))
    wait_for(lambda: oracle.starts("long") == 1)
    until = time.monotonic() + 2 * RETRY + 2
    while time.monotonic() < until:
        assert running.code() == 200
        time.sleep(0.2)
    assert oracle.ends(0) == oracle.ends("long") == 0


def test_all_queues_paused_is_red_while_tasks_are_ready(watched, oracle):
    running = watched()
    async_task(MARK, "before")
    wait_for(lambda: oracle.ends("before") == 1)
    pause("default")
    async_task(MARK, "paused")
    running.turns(503, "all is paused")
    async_task(MARK, "other", queue="other")
    wait_for(lambda: oracle.ends("other") == 1)
    running.turns(200, "another queue is served")
    assert oracle.starts("paused") == 0
    resume("default")
    wait_for(lambda: oracle.ends("paused") == 1)
    assert running.code() == 200


def test_a_pool_whose_workers_die_at_once_is_red(watched):
    running = watched(workers=1)
    codes = []

    def killed_once_more() -> bool:
        for row in running.pool.report():
            with contextlib.suppress(KeyError, ProcessLookupError):
                os.kill(row["pid"], signal.SIGKILL)
        codes.append(running.code())
        return 503 in codes

    wait_for(killed_once_more, "red", BOUND)
    running.turns(200, "a worker is there")


def test_a_stopping_pool_is_red(watched, oracle):
    running = watched(workers=1)
    async_task(NAP, "last", 2)
    wait_for(lambda: oracle.starts("last") == 1)
    running.pool.signal(signal.SIGTERM)
    running.turns(503, "it claims nothing any more")
    assert running.lives(), "a kill would cost the task"
    assert running.pool.wait() == 0
    assert oracle.ends("last") == 1


def test_a_frozen_supervisor_does_not_live(watched):
    running = watched(workers=1)
    assert running.lives()
    running.pool.signal(signal.SIGSTOP)
    # The kernel takes the connection; the answer is the loop's.
    assert ask(running.port, path="/health/live")[0] == 0
    running.pool.signal(signal.SIGCONT)
    wait_for(running.lives)


def test_a_taken_port_keeps_no_task_from_running(pool, oracle):
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        running = pool("--health-port", str(port), workers=1)
        async_task(MARK, 1)
        wait_for(lambda: oracle.ends(1) == 1)
        assert f"/health cannot listen on 127.0.0.1:{port} (PGQ['health_host'], PGQ['health_port'])" in running.log()
    Watched(running, port).turns(200, "the port is free")
    assert running.log().count("cannot listen") == 1


def test_reload_takes_the_port_again(watched):
    running = watched()
    running.pool.signal(signal.SIGHUP)
    wait_for(lambda: running.pool.log().count("/health is answered on") == 2)
    running.turns(200, "it has started anew")


def test_without_the_setting_nobody_listens(pool):
    running = pool(workers=1)
    inodes = set()
    for entry in os.listdir(f"/proc/{running.pid}/fd"):
        target = os.readlink(f"/proc/{running.pid}/fd/{entry}")
        inodes.add(target.removeprefix("socket:[").rstrip("]"))
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    assert not [row for row in rows if row[3] == "0A" and row[9] in inodes]


@pytest.mark.parametrize("wrong", [0, -1, 70_000, "8080", True, 80.5])
def test_wrong_ports_are_named(wrong):
    (problem,) = conf.read("PGQ", {"health_port": wrong})[1]
    assert problem.key == "health_port"
    assert problem.hint == "Make it the number of a port, or None."


# ------------------------------------------------------------------------------------------------- the view


@pytest.fixture
def client() -> Iterator[Client]:
    with override_settings(ROOT_URLCONF=__name__):
        yield Client()


class TestView:
    def test_no_pool_is_a_problem(self, client):
        answer = client.get("/health")
        assert (answer.status_code, json.loads(answer.content)) == (503, {"status": "problem"})

    def test_a_pool_is_ok(self, client):
        make_pool(workers=WORKERS)
        answer = client.get("/health")
        assert (answer.status_code, json.loads(answer.content)) == (200, {"status": "ok"})
        assert "no-store" in answer["Cache-Control"]
        assert client.head("/health").content == b""
        assert client.post("/health").status_code == 405

    def test_it_needs_no_account(self):
        middleware = ["django.contrib.sessions.middleware.SessionMiddleware",
                      "django.contrib.auth.middleware.AuthenticationMiddleware",
                      "django.contrib.auth.middleware.LoginRequiredMiddleware"]  # fmt: skip
        with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware):
            assert Client().get("/health").status_code == 503

    def test_says_no_names(self, client):
        make_pool(silent=60, name="secret-pool", queues=["secret-queue"])
        async_task(MARK, "secret-argument", queue="other-secret")
        assert b"secret" not in client.get("/health").content

    def test_without_tables_it_is_a_problem(self, client):
        with connection.cursor() as cursor:
            cursor.execute("ALTER FUNCTION pgq_check RENAME TO gone")
        try:
            assert client.get("/health").status_code == 503
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER FUNCTION gone RENAME TO pgq_check")

    def test_a_locked_table_is_a_problem_and_no_wait(self, client, session):
        make_pool(workers=WORKERS)
        locker = session(autocommit=False)
        locker.execute("LOCK TABLE pgq_queue IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        assert client.get("/health").status_code == 503
        assert time.monotonic() - began < 3
        locker.rollback()
        assert client.get("/health").status_code == 200

    def test_of_a_real_pool(self, client, pool):
        running = pool(workers=1, retry=RETRY)
        assert client.get("/health").status_code == 200
        (pid,) = running.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        async_task(MARK, "frozen")
        wait_for(lambda: client.get("/health").status_code == 503, "red", BOUND)
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: client.get("/health").status_code == 200, "green again", BOUND)
