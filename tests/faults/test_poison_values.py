"""F32-F34: results that cannot be stored, exceptions that bite, payloads that cannot be read."""

from __future__ import annotations

import base64
import re
import zlib
from typing import Any

import pytest

from pgq import codec
from pgq.codec import signing
from pgq.enqueue.make import make_task
from pgq.store import queue
from tests.support import poison
from tests.support.mixing import POISON, Mixture
from tests.support.pools import wait_for


def zlib_of(data: bytes) -> str:
    return f'''[{{"$zlib": "{base64.b64encode(zlib.compress(data, 9)).decode()}"}}]'''


@pytest.mark.fault("F32", short=1, full=3)
@pytest.mark.parametrize("allow_pickle", [False, True], ids=["JSON", "pickle"])
def test_a_task_succeeds_whatever_it_returns(site, rounds, note, allow_pickle):
    site.start(workers=2, allow_pickle=allow_pickle)
    for _ in range(rounds):
        mixture = Mixture(site, "give", poison.RESULTS, canaries=5, traced=False, timeout=60)
        site.drain()
        wrong = mixture.judge(dict.fromkeys(poison.RESULTS, ""))
        wrong += [f"{name} ran again: {ended}" for name, ended in mixture.ended().items() if ended.starts != 1]
        for name, id in mixture.ids.items():
            wrong += result_is_wrong(site, name, id)
        note.round(wrong, site.recovery())
        site.drain()
    note.violations += site.stop()


def result_is_wrong(site: Any, name: str, id: str) -> list[str]:
    make, readable = poison.RESULTS[name]
    text = site.value("SELECT result::text FROM pgq_task WHERE id = %s", id)
    if text is None:
        return [f"the result of {name} is gone"]
    shown = codec.decode_for_display(text)
    if readable is True:
        got = codec.decode(text)
        return [] if got == make() else [f"{name} came back as {str(got)[:200]}"]
    if '"$pickle"' in text:
        return []
    if not isinstance(shown, codec.Unstorable):
        return [] if readable == "" else [f"{name} was stored as {text[:200]}"]
    if readable and readable not in f"{shown.reason} {shown.type}":
        return [f"{name}: {shown}"]
    return [] if len(text) < 10_000 else [f"{name}: {len(text)} characters say why it was not stored"]


@pytest.mark.fault("F33", short=1, full=3)
def test_a_task_fails_whatever_it_raises(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        mixture = Mixture(site, "fail", poison.ERRORS, timeout=60)
        site.drain()
        wrong = mixture.judge({name: kind for name, (_, kind) in poison.ERRORS.items()})
        wrong += [f"I5: {name}: {ended}" for name, ended in mixture.ended().items() if ended.starts != 1]
        note.round(wrong, site.recovery())
        site.drain()
    longest = "SELECT max(length(message)), max(length(traceback)) FROM pgq_task WHERE func = %s"
    with site.session() as session:
        message, traceback = session.execute(longest, (f"{POISON}.fail",)).fetchone()
    assert message <= 10_000
    assert traceback <= 100_000
    log = pool.log()
    # Each line of the log is pgq's own: nobody can forge one, nor speak to the terminal.
    assert not re.search(r"^2026 ERROR forged", log, re.MULTILINE)
    assert not re.search(r"[\x1b\u202e\r]", log)
    assert "died" not in log
    note.violations += site.stop()


REGISTERED = "tests.faults.tasks.registered"
#: What somebody writes into the row of a task (REGISTERED, with no arguments), and why it is parked then.
PAYLOADS = {
    "function of another module": ("func = 'tests.faults.gone.task'", "NotAllowed"),
    "another function": ("func = 'os.system'", "NotAllowed"),
    "signature of nobody": ("signature = decode(repeat('00', 32), 'hex')", "NotAllowed"),
    "half a signature": ("signature = substring(signature for 5)", "NotAllowed"),
    "argument changed": ("args = '[1]'", "NotAllowed"),
    "timeout changed": ("timeout = 12345", "NotAllowed"),
    "no function of ours": ("signature = NULL, func = 'rm -rf /'", "NotAllowed"),
    "unknown tag": ("signature = NULL, args = '[{\"$future\": 1}]'", "NotDecodable"),
    "bytes that are none": ('signature = NULL, args = \'[{"$bytes": "?"}]\'', "NotDecodable"),
    "truncated": ('signature = NULL, args = \'[{"$zlib": "eJw="}]\'', "NotDecodable"),
    "zlib bomb": (f"signature = NULL, args = '{zlib_of(bytes(100_000_000))}'", "NotDecodable"),
    "a row that is gone": ('signature = NULL, args = \'[{"$model": ["auth.user", 0, "default"]}]\'', "NotAllowed"),
    "a class": ('signature = NULL, args = \'[{"$class": "subprocess.Popen"}]\'', "NotAllowed"),
}
UNPARKED = "SELECT count(*) FROM pgq_queue WHERE parked IS NULL"


@pytest.mark.fault("F34", short=1, full=4)
def test_a_payload_that_cannot_be_read_stays_and_says_why(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        tasks = {name: make_task(REGISTERED, ()) for name in PAYLOADS}
        with site.session(autocommit=False) as session:
            queue.enqueue_many(session.cursor(), list(tasks.values()))
            columns = "func, args, timeout, signature"
            originals = {
                row[0]: row[1:]
                for row in session.execute(f"SELECT id, {columns}::text FROM pgq_queue".replace("args,", "args::text,"))
            }
            for name, (change, _) in PAYLOADS.items():
                session.execute(f"UPDATE pgq_queue SET {change} WHERE id = %s", (tasks[name].id,))
        canaries = Mixture(site, "canary", [], canaries=0)
        site.enqueue(f"{POISON}.canary", 20 * len(PAYLOADS), False)
        wait_for(lambda: site.left() == len(PAYLOADS), "all others have ended", 60)
        wait_for(lambda: not site.value(UNPARKED), "they are parked", 60)
        with site.session() as session:
            rows = {id: rest for id, *rest in session.execute("SELECT id, parked, attempts FROM pgq_queue")}
        wrong = []
        for name, (_, why) in PAYLOADS.items():
            parked, attempts = rows[tasks[name].id]
            if why not in (parked or "") or attempts:
                wrong.append(f"{name}: parked {parked!r} after {attempts} attempts")
        # Mended and released, each runs.
        with site.session() as session:
            for task, (func, args, timeout, signature) in originals.items():
                session.execute(
                    "UPDATE pgq_queue SET func = %s, args = %s::jsonb, timeout = %s, signature = %s::bytea,"
                    " parked = NULL WHERE id = %s", (func, args, timeout, signature, task),
                )  # fmt: skip
                site.acknowledged.append(task.hex)
        note.round(wrong, site.recovery())
        site.drain()
        note.violations += canaries.judge({})
    assert "died" not in pool.log()
    note.violations += site.stop()


@pytest.mark.fault("F34")
def test_what_this_code_does_not_know_is_left_to_other_workers_and_burns_no_attempt(site, note):
    site.start(workers=1)
    task = make_task(REGISTERED, ())._replace(func=f"{POISON}.of_the_next_release")
    task = task._replace(signature=signing.sign_task(task))
    with site.session() as session:
        queue.enqueue_many(session.cursor(), [task])
        history = "SELECT history::text FROM pgq_queue WHERE id = %s AND run_after IS NOT NULL AND attempts = 0"
        assert "UnknownFunction" in wait_for(lambda: site.value(history, task.id), "it was given back")
        session.execute("DELETE FROM pgq_queue WHERE id = %s", (task.id,))
    note.round(recovery=site.recovery())
    site.drain()
    note.violations += site.check().violations + site.stop()
