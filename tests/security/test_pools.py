"""What tasks, other sessions and wrong keys could do to a running pool."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from pgq.conf import get_settings
from pgq.management import output
from pgq.pool import logs
from pgq.store import pools, queue
from pgq.upkeep import leadership
from pgq.upkeep.chores import Upkeep
from tests.functions import oracle as oracle_tasks
from tests.functions import security as security_tasks
from tests.support.pools import ROOT, wait_for
from tests.support.site import Site

ATTACKS = "tests.functions.security"
OLD, NEW, STRANGE = (
    f"a key for the tests of rotation, the {name} one, long enough" for name in ("old", "new", "third")
)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stop the pools as an operator would: none was harmed so much that it leaves something behind."""
    site = request.getfixturevalue("site") if "site" in request.fixturenames else None
    yield
    assert site is None or site.stop() == []


# ------------------------------------------------------------------------------------------------- keys


@pytest.mark.fault("S6")
def test_a_rotation_under_running_pools_loses_nothing(site: Site) -> None:
    """First the workers know both keys, then the producers change, then the workers; the old one stays a fallback."""

    def enqueue(key: str) -> None:
        with override_settings(SECRET_KEY=key):
            site.enqueue("work", 20, 0.002)

    first = site.start(workers=1, django={"SECRET_KEY": OLD, "SECRET_KEY_FALLBACKS": [NEW]})
    enqueue(OLD)
    enqueue(NEW)
    site.start(workers=1, django={"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": [OLD]})
    enqueue(OLD)
    first.stop()
    enqueue(OLD)
    enqueue(NEW)
    site.drain()
    site.check().assert_clean()


@pytest.mark.fault("S6")
def test_a_wrong_key_parks_and_the_right_one_runs_what_is_released(site: Site) -> None:
    wrong = site.start(workers=1, django={"SECRET_KEY": STRANGE})
    ids = site.enqueue("work", 5)
    wait_for(lambda: site.value("SELECT count(*) FROM pgq_queue WHERE parked IS NOT NULL") == 5)
    assert site.value("SELECT parked FROM pgq_queue_depth") == 5
    assert site.value("SELECT sum(attempts) FROM pgq_queue") == 0
    assert wrong.log().count("is parked: NotAllowed") == 5
    wrong.stop()
    site.start(workers=1)
    assert site.value("SELECT count(pgq_retry(id)) FROM pgq_queue") == 5
    site.drain()
    assert sorted(site.runs()) == sorted(ids)
    site.check().assert_clean()


@pytest.mark.fault("S6")
@pytest.mark.parametrize(
    "keys", [{"SECRET_KEY": ""}, {"SECRET_KEY_FALLBACKS": [""]}, {"SECRET_KEY_FALLBACKS": [OLD, ""]}], ids=repr
)
def test_a_pool_does_not_start_on_an_empty_key(keys: dict[str, Any]) -> None:
    with override_settings(**keys), pytest.raises(CommandError, match=r"SECRET_KEY.* must"):
        call_command("pgq_worker")


# ------------------------------------------------------------------------------------------------- secrets, logs

FORGED = "no\r\n12:00:00.000 INFO    1 all is well\x1b[2J\x1b]0;x\x07\u202e\u2028\x85\nTraceback"
PLAIN_LINE = re.compile(
    r"(\d\d:\d\d:\d\d\.\d{3} [A-Z]+ +\d+ |    )[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]*"
)


@pytest.mark.fault("S13", "S14", "S17")
def test_arguments_are_in_no_title_log_or_notification_and_an_event_is_a_line(site: Site) -> None:
    pool = site.start("--log-level", "DEBUG", workers=2, log_level="DEBUG")
    with site.session() as listener:
        for channel in ("pgq_wake", "pgq_control", "pgq_settled"):
            listener.execute(f'LISTEN "{channel}"')
        with site.session() as waiter:
            queue.await_settled(waiter.cursor(), milliseconds=10_000)
        (id,) = site.enqueue(f"{ATTACKS}.leak", 1, "hunter2", FORGED, name=FORGED)
        wait_for(lambda: id in site.runs())
        titles = [
            (Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/comm").read_bytes()).decode()
            for pid in pool.processes()
        ]
        others = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        queries = [row[0] for row in listener.execute(others)]
        site.drain()
        told = list(listener.notifies(timeout=0.5))
    assert len(titles) >= 4
    assert "hunter2" not in "".join(titles)
    assert "hunter2" not in "".join(map(str, queries))
    assert told
    assert {notification.payload for notification in told} == {""}
    log = pool.log()
    assert "hunter2" not in log
    assert "\\r\\n12:00" in log or "\\x0d\\n12:00" in log
    for line in log.split("\n"):
        assert not line or PLAIN_LINE.fullmatch(line), repr(line)


@pytest.mark.fault("S14")
def test_an_event_is_one_line_of_json_and_of_the_monitors() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        record = logging.LogRecord("pgq", logging.ERROR, __file__, 1, "task %s", (FORGED,), sys.exc_info())
    text = logs.JsonFormatter().format(record)
    assert text.isascii()
    assert not re.search(r"[\x00-\x1f\x7f]", text)
    assert json.loads(text)["message"] == f"task {FORGED}"
    plain = logs.PlainFormatter().format(record)
    assert all(PLAIN_LINE.fullmatch(line) for line in plain.split("\n"))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e\u2028]", output.visible(FORGED))


# ------------------------------------------------------------------------------------------------- other sessions


@pytest.mark.fault("S17")
def test_forged_notifications_cost_a_look_each_at_most(site: Site) -> None:
    pool = site.start(workers=2)
    with site.session() as forger:
        for _ in range(20):
            forger.execute(
                "SELECT pg_notify(channel, repeat('x', 7000) || n || %s)"
                "  FROM generate_series(1, 100) n, unnest(ARRAY['pgq_wake', 'pgq_control', 'pgq_settled']) channel",
                (FORGED,),
            )
    assert site.recovery() < 5
    assert pool.report()
    assert "xxx" not in pool.log()
    assert [row["restarts"] for row in pool.report()] == [0, 0]


SQUAT = "SELECT pg_advisory_lock(hashtextextended('pgq tick ' || 'pgq_schedule'::regclass::oid, 0))"


@pytest.mark.fault("S18")
def test_who_squats_on_the_leaders_key_is_named_and_stops_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leadership, "WAIT_FOR_KEY_SECONDS", 0.3)
    monkeypatch.setattr(logging.getLogger("pgq"), "propagate", True)
    with site.session() as squatter, site.session() as own:
        squatter.execute("SET application_name = 'nobody knows'")
        squatter.execute(SQUAT)
        pid = squatter.info.backend_pid
        holders = pools.leader_holder(own.cursor())
        assert [(holder.pid, holder.application, holder.seconds) for holder in holders] == [(pid, "nobody knows", None)]
        own.execute(
            "INSERT INTO pgq_schedule (name, func, schedule_type) VALUES ('s', %s, 'H')", [oracle_tasks.registered.path]
        )
        own.execute("INSERT INTO pgq_queue (func, run_after) VALUES ('x', now() - interval '1 second')")
        chores = Upkeep(get_settings(), "default")
        chores.tick(own)
        assert site.left() == 1, "one tick is nothing yet"
        wait_for(lambda: chores.tick(own) >= 0 and site.left() == 2, "the schedule fires all the same", 10)
        wait_for(lambda: chores.tick(own) >= 0 and site.value("SELECT count(run_after) FROM pgq_queue") == 0, "", 10)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert f"pid {pid} of " in warnings[0]
        assert "nobody knows" in warnings[0]
        squatter.execute("SELECT pg_advisory_unlock_all()")
        with chores.leadership.leading(own) as cursor:
            assert cursor is not None
            assert chores.leadership.refused_since is None
        assert pools.leader_holder(own.cursor()) == []


@pytest.mark.fault("S18")
def test_a_leader_at_work_is_left_alone(site: Site) -> None:
    first, second = leadership.Leadership(), leadership.Leadership()
    with site.session() as one, site.session() as other, first.leading(one) as leader:
        assert leader is not None
        (holder,) = pools.leader_holder(other.cursor())
        assert holder.pid == one.info.backend_pid
        assert holder.seconds is not None
        second.refused_since = time.monotonic() - 100
        with second.leading(other) as refused:
            assert refused is None


# ------------------------------------------------------------------------------------------------- processes


@pytest.mark.fault("S20")
def test_what_a_task_writes_to_the_pipe_harms_only_its_own_worker(site: Site) -> None:
    pool = site.start(workers=2, max_crashes=1)
    for frame in security_tasks.FRAMES:
        started = site.starts()
        site.enqueue(f"{ATTACKS}.forge", 1, frame)
        wait_for(lambda before=started: site.starts() > before, "it has said it")
        assert site.recovery() < 5, frame
    site.drain()
    with site.session() as own:
        died = {row[0] for row in own.execute("SELECT args ->> 0 FROM pgq_task WHERE exception LIKE '%WorkerDied'")}
    # What cannot be read costs the worker that said it, and what means nothing costs nothing.
    assert died == {"half", "huge", "half a size", "no id"}
    assert pool.process.poll() is None
    assert not list(ROOT.glob("touched"))


@pytest.mark.fault("S20")
def test_a_task_that_never_stops_talking_does_not_hold_up_the_pool(site: Site) -> None:
    pool = site.start(workers=2)
    site.enqueue(f"{ATTACKS}.chatter", 1, 3.0)
    wait_for(site.runs)
    assert site.recovery() < 2
    beat = site.value("SELECT heartbeat FROM pgq_worker")
    wait_for(lambda: site.value("SELECT heartbeat > %s FROM pgq_worker", beat), "the supervisor lives", 5)
    site.drain()
    assert pool.process.poll() is None


@pytest.mark.fault("S20")
def test_a_worker_cannot_write_the_cell_of_another() -> None:
    """Each has pages of its own: a program that is given one cell has no mapping of the other."""
    text = (
        "import multiprocessing, os\n"
        "from pgq.pool.activity import ActivityCell\n"
        "def look(cell):\n"
        "    cell.write(1.0, 0.0, b'm' * 16, 7, 7)\n"
        "    own = [line for line in open('/proc/self/maps') if '/pym-' in line or 'pym' in line]\n"
        "    assert len(own) == 1, own\n"
        "if __name__ == '__main__':\n"
        "    mine, others = ActivityCell(), ActivityCell()\n"
        "    process = multiprocessing.get_context('spawn').Process(target=look, args=(mine,))\n"
        "    process.start(); process.join()\n"
        "    assert process.exitcode == 0\n"
        "    assert (mine.read().succeeded, others.read().succeeded) == (7, 0)\n"
    )
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    path = folder / f"pgq_slots_{os.getpid()}.py"
    path.write_text(text)
    try:
        done = subprocess.run(
            [sys.executable, str(path)], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    finally:
        path.unlink()
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("S20")
def test_nothing_that_crosses_between_processes_is_unpickled() -> None:
    """Connection.recv() would unpickle; there is only recv_bytes()."""
    sources = list((ROOT / "pgq").rglob("*.py"))
    assert len(sources) > 30
    # What is told to listeners stays in the process.
    texts = {path.name: re.sub(r"\bevents\.\w+\.send\(", "", path.read_text()) for path in sources}
    calls = [name for name, text in texts.items() if re.search(r"\.recv\(\)|\.send\((?!sig)", text)]
    between = {
        "children",
        "supervisor",
        "session",
        "sleepers",
        "loop",
        "guard",
        "exchange",
        "upkeep_process",
        "child",
        "protocol",
    }
    assert between.intersection(name.removesuffix(".py") for name in calls) == set()
