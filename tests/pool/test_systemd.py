"""What the supervisor tells systemd, with a socket in place of systemd's."""

from __future__ import annotations

import os
import signal
import socket
import uuid

import pytest

from pgq.conf import get_settings
from pgq.pool.supervisor import Supervisor
from pgq.tasks import async_task, result
from tests.support.pools import wait_for

#: Seconds. An idle loop turns less often by itself.
WATCHDOG = 0.6


@pytest.mark.django_db(transaction=True)
def test_a_pool_under_systemd(pool, oracle, notify_socket, tmp_path):
    """Ready when tasks run; silent while it is stopped; reloading and ready anew; stopping, and for how long."""
    systemd = notify_socket(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
    running = pool(workers=1, grace=40, retry=60, env=env, ready=False)
    ready = systemd.wait_for(lambda message: "READY" in message)
    assert ready["READY"] == "1"
    assert ready["STATUS"] == "1 workers, 0 tasks run"
    assert running.worker_pids()

    # A program that a task starts must not speak for the pool.
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC")
    assert [result(async_task("os.getenv", name, "not there"), wait=20_000) for name in names] == ["not there"] * 2

    systemd.empty()
    for _ in range(2):
        systemd.wait_for(lambda message: message.get("WATCHDOG") == "1")
    running.signal(signal.SIGSTOP)
    systemd.empty()
    assert systemd.next(2 * WATCHDOG) is None, "systemd would kill it now"
    running.signal(signal.SIGCONT)
    systemd.wait_for(lambda message: message.get("WATCHDOG") == "1")

    running.signal(signal.SIGHUP)
    reloading = systemd.wait_for(lambda message: message.get("RELOADING") == "1")
    assert reloading["MONOTONIC_USEC"].isdecimal()
    systemd.wait_for(lambda message: message.get("READY") == "1")
    systemd.wait_for(lambda message: message.get("WATCHDOG") == "1")

    async_task("tests.functions.oracle.nap", "last", 1)
    wait_for(lambda: oracle.starts("last") == 1)
    running.signal(signal.SIGTERM)
    stopping = systemd.wait_for(lambda message: message.get("STOPPING") == "1")
    assert stopping["STATUS"] == "1 workers, 1 tasks run; the pool is stopping"
    assert 40e6 < int(stopping["EXTEND_TIMEOUT_USEC"]) < 60e6, "systemd waits at least for the grace"
    assert running.wait() == 0
    assert not any("READY" in message for message in systemd.seen[systemd.seen.index(stopping) :])


@pytest.fixture
def supervisor(monkeypatch):
    """Make a supervisor that does not run, with that environment."""
    made = []

    def make(**variables):
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        made.append(Supervisor(get_settings()))
        return made[-1]

    yield make
    for one in made:
        one.selector.close()


def test_without_postgresql_it_is_ready_after_a_while(supervisor, notify_socket):
    """Else `systemctl start` would fail as long as PostgreSQL is away. An abstract socket; no grace, no watchdog."""
    systemd = notify_socket(f"@pgq-test-{uuid.uuid4().hex}")
    waiting = supervisor(NOTIFY_SOCKET=systemd.name).watchers.systemd
    waiting.tell()
    assert systemd.next() == {"STATUS": "0 workers, 0 tasks run; there is no connection to PostgreSQL"}
    waiting.tell()
    assert systemd.next(0) is None, "neither ready nor due"
    waiting.ready_by = 0
    waiting.tell()
    assert systemd.next() == {
        "READY": "1",
        "STATUS": "0 workers, 0 tasks run; there is no connection to PostgreSQL",
    }
    waiting.stopping(restart=False, kill_at=None)
    assert set(systemd.next()) == {"STOPPING", "STATUS"}, "how long the drain may take is the unit's to say"


def test_without_systemd_nothing_is_sent(supervisor, monkeypatch):
    alone = supervisor().watchers.systemd
    monkeypatch.setattr(socket, "socket", None)
    alone.tell()
    alone.stopping(restart=True, kill_at=1.0)
    assert alone.next == float("inf"), "it wakes no loop"


def test_a_socket_that_is_gone_stops_no_pool(supervisor, tmp_path):
    lonely = supervisor(NOTIFY_SOCKET=str(tmp_path / "gone"), WATCHDOG_USEC="1000000").watchers.systemd
    lonely.ready_by = 0
    lonely.tell()
    assert not lonely.ready, "it is told again"


@pytest.mark.parametrize("own", [True, False])
def test_the_watchdog_of_another_process_is_left_alone(supervisor, notify_socket, tmp_path, own):
    systemd = notify_socket(tmp_path / "notify")
    variables = {
        "NOTIFY_SOCKET": systemd.name,
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid() if own else 1),
    }
    supervisor(**variables).watchers.systemd.tell()
    assert ("WATCHDOG" in systemd.next()) is own


def test_what_is_no_address_is_named(supervisor, caplog):
    assert supervisor(NOTIFY_SOCKET="vsock:2:1234").watchers.systemd.address is None
    assert "NOTIFY_SOCKET is 'vsock:2:1234'" in caplog.text
