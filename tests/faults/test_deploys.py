"""F28: two releases at once, of an application and of pgq; migrations while workers work; keys that change."""

from __future__ import annotations

import importlib
import io
import re
import subprocess
import tarfile
import time
from pathlib import Path

import psycopg
import pytest

from pgq.codec.signing import signed
from pgq.enqueue.make import make_task
from pgq.records import NewTask
from pgq.store import queue
from tests.support.pools import ROOT, wait_for
from tests.support.site import MIGRATIONS, QUICK, Site

#: A release of an application, and the next one: a function more, a module more, a class more, a new stored form.
OLD = {"faults_shop.py": "from tests.faults.tasks import work\n\ndef known(*args):\n    return work()\n"}
NEW = {
    "faults_shop.py": OLD["faults_shop.py"] + (
        "\nfrom dataclasses import dataclass\nfrom pgq.codec import read\n"
        "read._READERS['$money'] = int\n"
        "def fresh(*args):\n    return work()\n"
        "@dataclass\nclass Price:\n    amount: int = 1\n"
    ),
    "faults_shop_more.py": "from faults_shop import known as fresh\n",
}  # fmt: skip


def application(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """Write an application; return the environment of a pool that runs it."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def add(site: Site, tasks: list[NewTask]) -> list[str]:
    """Enqueue tasks as the web process of the new release does."""
    with site.session() as session:
        queue.enqueue_many(session.cursor(), tasks)
    site.acknowledged += [task.id.hex for task in tasks]
    return [task.id.hex for task in tasks]


def count(site: Site, condition: str) -> int:
    return int(site.value(f"SELECT count(*) FROM pgq_queue WHERE {condition}"))


@pytest.fixture
def releases(tmp_path, monkeypatch):
    """The environments of a pool of the old release, and of one of the new release, in which the test is too."""
    old, new = application(tmp_path / "old", OLD), application(tmp_path / "new", NEW)
    monkeypatch.syspath_prepend(str(tmp_path / "new"))
    yield old, new
    from pgq.codec import read

    read._READERS.pop("$money", None)


@pytest.mark.fault("F28", short=5, full=200)
def test_an_old_worker_gives_back_what_only_the_new_release_knows(site, rounds, note, releases):
    old, new = releases
    shop = importlib.import_module("faults_shop")
    unknown = [
        task
        for _ in range(rounds)
        for task in (
            make_task("faults_shop.fresh"),
            make_task("faults_shop_more.fresh"),
            make_task("faults_shop.known", [shop.Price(3)]),
            signed(make_task("faults_shop.known")._replace(args='[{"$money": 3}]')),
        )
    ]
    leaving = site.start(env=old, workers=1)
    strange = add(site, unknown)
    known = add(site, [make_task("faults_shop.known") for _ in range(rounds)])
    wait_for(lambda: not count(site, "history = '[]'"), "the old release has seen them all")
    assert count(site, "parked IS NOT NULL") == 0
    assert count(site, "history -> -1 ->> 'exception' IN ('pgq.errors.UnknownFunction', 'pgq.codec.read.NotDecodable')"
                       " AND jsonb_array_length(history) = 1") == len(strange)  # fmt: skip
    assert set(site.runs()) <= set(known)

    site.start(env=new, workers=1)
    began = time.monotonic()
    leaving.stop()
    note.round(recovery=site.drain())
    # What is given back for the second time waits for 2 s, for the third time 4 s, and so on.
    assert time.monotonic() - began < 30
    assert site.value("SELECT max(attempt_count) FROM pgq_task") == 1
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F28")
def test_what_no_release_knows_is_parked_in_the_end(site, note):
    site.start(workers=1)
    task = make_task("tests.faults.tasks.work")._replace(func="faults_shop_to_come.sell")
    add(site, [signed(task)])
    seen = "history -> -1 ->> 'postponed' = '{}' AND attempts = 0 AND run_after IS NOT NULL"
    wait_for(lambda: count(site, seen.format(1)), "it is given back")
    with site.session() as session:
        # A quarter of an hour later.
        session.execute("UPDATE pgq_queue SET history = jsonb_set(history, '{-1,postponed}', '19'), run_after = now()")
        wait_for(lambda: count(site, seen.format(20)), "it is given back for the last time")
        session.execute("UPDATE pgq_queue SET run_after = now()")
        reason = wait_for(lambda: site.value("SELECT parked FROM pgq_queue"), "it is parked")
        assert "there is no module 'faults_shop_to_come'" in reason
        assert "given back 20 times" in reason
        assert count(site, "attempts = 0 AND jsonb_array_length(history) = 1") == 1
        # Whoever releases it gives it another quarter of an hour.
        session.execute("SELECT pgq_retry(id) FROM pgq_queue")
        wait_for(lambda: count(site, seen.format(1)), "it is given back anew")
        session.execute("DELETE FROM pgq_queue")
    assert not site.starts()
    note.round(site.stop())


@pytest.mark.fault("F28", "S6")
def test_a_wrong_key_parks_and_deletes_nothing(site, note):
    stranger = site.start(workers=1, django={"SECRET_KEY": "a key of another release, as long as the one it replaces"})
    site.enqueue("work", 20)
    wait_for(lambda: count(site, "position('signature' IN parked) > 0 AND attempts = 0") == 20, "all are parked")
    stranger.stop()
    site.start(workers=1)
    with site.session() as session:
        session.execute("SELECT pgq_retry(id) FROM pgq_queue")
    note.round(recovery=site.drain())
    note.violations += site.check(max_starts=1).violations + site.stop()


def earlier_release(folder: Path) -> dict[str, str]:
    """Unpack pgq as of the last tag, or else of the last commit; return the environment of a pool that runs it."""
    git = ["git", "-C", str(ROOT)]
    tag = subprocess.run([*git, "describe", "--tags", "--abbrev=0"], capture_output=True, text=True, check=False)
    packed = subprocess.run(
        [*git, "archive", tag.stdout.strip() or "HEAD", "pgq", "migrations_sql"], capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip("needs a checkout with its history: the release before this one is taken from it")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    # Safe: the current directory, which holds the new release, is not on the path.
    # And without tests.faults among its apps, whose tasks use what is new.
    return {
        "PYTHONPATH": f"{folder}:{ROOT}",
        "PYTHONSAFEPATH": "1",
        "DJANGO_SETTINGS_MODULE": "tests.support.pool_settings",
    }


def where_pgq_is(site: Site) -> str:
    """Have a worker say which pgq it runs."""
    task = make_task("pgq.store.schema.directory")
    with site.session() as session:
        queue.enqueue_many(session.cursor(), [task])
    return str(wait_for(lambda: site.value("SELECT result FROM pgq_task WHERE id = %s", task.id)))


#: An application that both releases of pgq can run.
APPLICATION = {
    "faults_both.py": """
import os, time
try:
    from pgq.execution.call import running_claim
except ImportError:
    from pgq.tasks import current_task as running_claim

def say(event):
    claim = running_claim()
    words = event, claim.id.hex, claim.receipt.hex, os.getpid(), time.monotonic_ns(), claim.attempts
    with open(os.environ["PGQ_TEST_ORACLE"], "a") as trace:
        trace.write(" ".join(map(str, words)) + "\\n")
    return claim.receipt.hex

def work(seconds=0.0):
    say("start")
    time.sleep(seconds)
    return say("end")

def fail():
    work()
    raise ValueError
"""
}


@pytest.mark.fault("F28", short=0, full=6)
def test_the_release_before_works_beside_this_one(site, rounds, note, tmp_path, monkeypatch):
    env = application(tmp_path / "both", APPLICATION)
    before = earlier_release(tmp_path / "before")
    before["PYTHONPATH"] = f"{tmp_path / 'both'}:{before['PYTHONPATH']}"
    monkeypatch.syspath_prepend(str(tmp_path / "both"))
    with site.session() as session:
        session.execute("INSERT INTO pgq_schedule (func, schedule_type, seconds) VALUES ('faults_both.work', 'S', 0.2)")
    for number in range(rounds):
        # Upgrade, downgrade, upgrade ...: the other one is there before this one goes.
        site.start(workers=2, allowed=["faults_both.work"], env=before if number % 2 else env)
        if number:
            site.enqueue("faults_both.work", 100, 0.01)
            site.enqueue("faults_both.fail", 5, max_attempts=2, retry_backoff=0)
            site.kill(site.busy_pid())
            site.pools[-2].stop()
        assert (str(tmp_path / "before") in where_pgq_is(site)) == bool(number % 2)
        note.round(recovery=site.recovery("faults_both.work"))
    with site.session() as session:
        session.execute("UPDATE pgq_schedule SET paused = true")
        site.drain()
        rows = session.execute("SELECT id FROM pgq_task WHERE schedule IS NOT NULL").fetchall()
        site.acknowledged += [row[0].hex for row in rows]
    assert len(rows) > 5
    note.violations += site.check(may_fail=True).violations + site.stop()


def migrate(site: Site, direction: str = "up") -> None:
    """Run all files as psql -1 does, each in a transaction."""
    files = (
        MIGRATIONS if direction == "up" else [Path(str(path).replace(".up.", ".down.")) for path in MIGRATIONS[::-1]]
    )
    for path in files:
        with site.session(autocommit=False) as session:
            session.execute(path.read_text())


@pytest.mark.fault("F28", short=0, full=30)
def test_migrations_hold_up_nobody_while_workers_work(site, rounds, note):
    site.start(workers=2)
    longest = 0.0
    for _ in range(rounds):
        site.enqueue("work", 50, 0.01)
        began = time.monotonic()
        migrate(site)
        longest = max(longest, time.monotonic() - began)
        note.round(recovery=site.recovery())
    assert longest < 1.0, f"the tables were locked for up to {longest:.1f} s"
    site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F28", short=0)
def test_a_migration_gives_up_rather_than_have_all_wait_behind_it(site, note):
    site.start(workers=2)
    with site.session(autocommit=False) as producer:
        # A business transaction that takes its time.
        queue.enqueue_many(producer.cursor(), [make_task("tests.faults.tasks.work")])
        began = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            migrate(site)
        waited = time.monotonic() - began
        producer.rollback()
    assert waited < 10
    note.round(recovery=site.recovery())
    site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()


@pytest.mark.fault("F28", short=0)
def test_a_pool_that_is_there_before_its_tables_begins_once_they_are(site, note):
    migrate(site, "down")
    pool = site.start(workers=1, ready=False)
    pool.wait_for(lambda: "run manage.py migrate pgq" in pool.log(), "it says what is missing")
    before = len(re.findall("^[0-9]{2}:", pool.log(), re.MULTILINE))
    time.sleep(2 * QUICK["poll"])
    # No hot loop (I11): 5 messages a second for each of its three processes, no more.
    assert len(re.findall("^[0-9]{2}:", pool.log(), re.MULTILINE)) - before <= 3 * 5 * 2 * QUICK["poll"]
    migrate(site)
    pool.wait_until_ready()
    site.enqueue("work", 5)
    note.round(recovery=site.recovery())
    site.drain()
    note.violations += site.check(max_starts=1).violations + site.stop()
