"""Pools of several databases: one server dies, and the queues of the other go on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.support.health import ask
from tests.support.pools import processes_of_session, wait_for
from tests.support.ports import free_port
from tests.support.projects import Project, clean_environment
from tests.support.site import OwnServer

SETTINGS = """
DATABASES["second"] = database_from_url({second!r})
for each in DATABASES.values():
    each.update(OPTIONS={{"connect_timeout": 3}}, ATOMIC_REQUESTS=True)
PGQ = {{"databases": {{"second": ["reports"]}}, "workers": 1, "poll": 0.1, "health_port": {port}}}
ROOT_URLCONF = "project.urls"
"""
TASKS = """
import os
from pgq.tasks import task

@task(max_attempts=0)
def mark(number, alias):
    with open("marks", "a") as marks:
        marks.write(f"{alias} {number}\\n")
"""
URLS = "from django.urls import path\nfrom pgq.health import health\nurlpatterns = [path('health', health)]\n"
#: What each way to look says, and how long it takes; with a result and an enqueue beside the one that is away.
LOOK = """
import asyncio, contextlib, io, json, sys, time
from django.core.management import call_command
from django.test import Client
from django.db.utils import OperationalError
from pgq.tasks import afetch, async_task, fetch
from shop.tasks import mark

queue, other = sys.argv[1:]
seen = {}
for name in ("pgq_check", "pgq_info", "pgq_monitor"):
    out, began = io.StringIO(), time.monotonic()
    with contextlib.suppress(SystemExit):
        call_command(name, json=True, stdout=out, **({"run_once": True} if name == "pgq_monitor" else {}))
    seen[name] = json.loads(out.getvalue())
    seen["slowest"] = max(seen.get("slowest", 0), time.monotonic() - began)
answer = Client().get("/health", HTTP_HOST="localhost")
seen["health"] = [answer.status_code, answer.json()]
id = async_task(mark, -1, "call", queue=queue)
assert fetch(id, wait=20_000).success
id = async_task(mark, -1, "call", queue=queue)
assert asyncio.run(afetch(id, wait=20_000)).success
try:
    async_task(mark, -1, "call", queue=other)
except OperationalError:
    print(json.dumps(seen))
"""


class Feed(threading.Thread):
    """Enqueues to each database all the time, and keeps what was committed."""

    def __init__(self, places: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        super().__init__(daemon=True)
        self.places, self.committed, self.ended = places, Counter[str](), threading.Event()

    def run(self) -> None:
        number, sessions = 0, dict[str, psycopg.Connection]()
        while not self.ended.wait(0.03):
            for alias, (dsn, queues) in self.places.items():
                number += 1
                queue = queues[number % len(queues)]
                try:
                    if alias not in sessions:
                        sessions[alias] = psycopg.connect(dsn, autocommit=True)
                    sessions[alias].execute(
                        "INSERT INTO pgq_queue (func, args, queue) VALUES ('shop.tasks.mark', %s::jsonb, %s)",
                        (json.dumps([number, alias]), queue),
                    )
                    self.committed[f"{alias} {number}"] += 1
                except psycopg.Error:
                    # Whether the last one was committed is not known, so it is none of those that must run.
                    sessions.pop(alias, None)
        for session in sessions.values():
            session.close()


@pytest.mark.slow
def test_one_server_dies_and_the_queues_of_the_other_go_on(tmp_path):
    servers = {"default": OwnServer(), "second": OwnServer()}
    port = free_port()
    try:
        apps = {"shop": {"tasks.py": TASKS}}
        shop = Project(tmp_path / "shop", servers["default"].dsn, apps=apps)
        shop.configure(SETTINGS.format(second=servers["second"].dsn, port=port))
        (shop.folder / "project/urls.py").write_text(URLS)
        for alias in servers:
            shop.manage("migrate", "pgq", f"--database={alias}")
        (shop.folder / "marks").touch()
        feed = Feed(
            {"default": (servers["default"].dsn, ("default", "mail")), "second": (servers["second"].dsn, ("reports",))}
        )
        with _pools(shop) as pools:
            _exercise(shop, servers, feed, pools)
    finally:
        for server in servers.values():
            with contextlib.suppress(Exception):
                server.remove()


def _marks(shop: Project) -> Counter[str]:
    return Counter((shop.folder / "marks").read_text().split("\n")[:-1])


def _exercise(shop, servers, feed, pools):
    def count(alias):
        return sum(1 for mark in _marks(shop) if mark.startswith(alias))

    feed.start()
    for alias in servers:
        wait_for(lambda alias=alias: count(alias) > 10, f"tasks of {alias} run", 60)
    for away, there in (("default", "second"), ("second", "default")):
        servers[away].kill()
        queues = {"default": "mail", "second": "reports"}
        seen = json.loads(shop.python(LOOK, queues[there], queues[away]).stdout)
        assert seen["slowest"] < 10
        wrong = {check["database"] for check in seen["pgq_check"]["checks"] if check["status"] == "problem"}
        assert (seen["pgq_check"]["status"], wrong) == ("problem", {away}), seen["pgq_check"]
        assert {each["database"]: "away" in each for each in seen["pgq_info"]["databases"]} == {
            away: True,
            there: False,
        }
        monitored = seen["pgq_monitor"]["databases"]
        assert "away" in monitored[away]
        assert len(monitored[there]["pools"]) == 1
        assert seen["health"] == [503, {"status": "problem", "databases": {away: "away", there: "ok"}}]
        before = count(there)
        wait_for(lambda there=there, before=before: count(there) > before + 20, f"tasks of {there} go on", 20)
        servers[away].start()
        before = count(away)
        wait_for(lambda away=away, before=before: count(away) > before + 20, f"tasks of {away} go on", 60)
    feed.ended.set()
    feed.join()
    wait_for(lambda: feed.committed.keys() <= _marks(shop).keys(), "all that was committed has run", 60)
    assert pools.poll() is None
    os.kill(pools.pid, signal.SIGTERM)
    assert pools.wait(30) == 0
    marks = _marks(shop)
    assert {mark: times for mark, times in marks.items() if times > 1 and " -1" not in mark} == {}


#: What waits, does so in both databases.
WAIT = """
import asyncio
from pgq.tasks import *
from shop.tasks import mark
ids = [async_task(mark, number, "both", queue=queue, group="both") for number, queue in enumerate(("mail", "reports"))]
assert len(fetch_group("both", count=2, wait=20_000)) == 2
ids = [async_task(mark, number, "both", queue=queue, group="2") for number, queue in enumerate(("reports", "mail"))]
assert len(asyncio.run(afetch_group("2", count=2, wait=20_000))) == 2
assert [fetch(id)._state.db for id in ids] == ["second", "default"]
assert fetch("0" * 32, wait=300) is None and asyncio.run(afetch("0" * 32, wait=300)) is None
"""
#: Seconds after which systemd would kill. A busy machine turns a loop late.
WATCHDOG = 2.0


@pytest.mark.slow
def test_the_process_that_has_several_pools(project, new_database, notify_socket, tmp_path):
    """It speaks to systemd for all, starts anew what died, hands on signals; and without it nothing stays."""
    port, systemd = free_port(2), notify_socket(tmp_path / "notify")
    dsns = {"second": new_database()}
    shop = project(SETTINGS.format(second=dsns["second"], port=port), apps={"shop": {"tasks.py": TASKS}})
    (shop.folder / "project/urls.py").write_text(URLS)
    dsns["default"] = shop.dsn
    shop.manage("migrate", "pgq", "--database=second")

    def pid(alias):
        with psycopg.connect(dsns[alias], autocommit=True) as session:
            rows = session.execute(
                "SELECT pid FROM pgq_worker WHERE heartbeat > now() - interval '20 s' ORDER BY started_at DESC"
            ).fetchall()
        return rows[0][0] if rows else 0

    def says(line):
        return lambda message: message.get(line) == "1"

    env = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
    with _pools(shop, env) as pools:
        ready = systemd.wait_for(says("READY"))
        assert "default: 1 workers" in ready["STATUS"]
        assert "second: 1 workers" in ready["STATUS"]
        pids = {alias: pid(alias) for alias in dsns}
        assert len({0, pools.pid, *pids.values()}) == 4
        assert [ask(port)[0], ask(port + 1)[0]] == [200, 200]
        shop.python(WAIT)

        systemd.empty()
        systemd.wait_for(says("WATCHDOG"))
        os.kill(pids["second"], signal.SIGSTOP)
        systemd.empty()
        until = time.monotonic() + 2 * WATCHDOG
        while (message := systemd.next(until - time.monotonic())) is not None:
            assert "WATCHDOG" not in message
        os.kill(pids["second"], signal.SIGCONT)
        systemd.wait_for(says("WATCHDOG"))

        os.kill(pids["second"], signal.SIGKILL)
        wait_for(lambda: pid("second") not in (0, pids["second"]), "the pool that died is there anew")
        assert pid("default") == pids["default"]

        os.kill(pools.pid, signal.SIGHUP)
        systemd.wait_for(says("RELOADING"))
        systemd.wait_for(says("READY"))
        wait_for(lambda: b"--database" in Path(f"/proc/{pids['default']}/cmdline").read_bytes(), "it was executed anew")

        os.kill(pools.pid, signal.SIGKILL)
        wait_for(lambda: not _others(pools.pid), "no pool is left without it", 30)


def _others(pid):
    return [other for other in processes_of_session(pid) if other != pid]


@contextlib.contextmanager
def _pools(shop, env=None):
    log = shop.folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "pgq_worker"],
            cwd=shop.folder,
            env=clean_environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    except BaseException:
        sys.stderr.write(log.read_text()[-6000:])
        raise
    finally:
        for pid in processes_of_session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not processes_of_session(process.pid), "nothing is left", 10)
