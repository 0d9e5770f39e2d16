"""What somebody who can write to the tables could do to us: real rows, claimed, run and settled as workers do it."""

from __future__ import annotations

import base64
import decimal
import hashlib
import hmac
import json
import pickle
import resource
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.cache import caches
from django.test import override_settings
from psycopg import sql

from pgq.conf import get_settings
from pgq.enqueue.make import make_task
from pgq.errors import NotStorable
from pgq.models import QueuedTask, Task
from pgq.records import Parked
from pgq.tasks import async_iter, async_task, control, enqueue_many, fetch, queue_size
from pgq.tasks.async_task import submit
from pgq.upkeep import chores
from tests.support.hand import MARK, claim, run, run_all, settle, value

pytestmark = pytest.mark.django_db
REGISTERED = "tests.functions.oracle.registered"
EVIL = ["os.system", "subprocess.call", "builtins.eval", "builtins.exec", "tests.app.tasks.note"]


def insert(own: psycopg.Connection[Any], **columns: Any) -> str:
    """Write a row as an attacker with DML would; return its id."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    places = sql.SQL(", ").join(sql.Placeholder() * len(columns))
    statement = sql.SQL("INSERT INTO pgq_queue ({}) VALUES ({}) RETURNING id").format(names, places)
    row = own.execute(statement, list(columns.values())).fetchone()
    assert row is not None
    return str(row[0].hex)


def copy(own: psycopg.Connection[Any], table: str, of: str, /, **changes: Any) -> None:
    """Put a copy of a row into the queue, with its signature, and with some columns changed."""
    fixed = ("id", "func", "args", "kwargs", "options", "queue", "priority", "name", "group", "hook", "timeout",
             "max_attempts", "signature")  # fmt: skip
    columns = sql.SQL(", ").join(map(sql.Identifier, [*fixed, *(set(changes) - set(fixed))]))
    values = [
        sql.SQL("{}::text::jsonb").format(sql.Literal(changes[name]))
        if name in ("args", "kwargs", "options") and name in changes
        else sql.Literal(changes[name]) if name in changes else sql.Identifier(name)
        for name in [*fixed, *(set(changes) - set(fixed))]
    ]  # fmt: skip
    own.execute(
        sql.SQL("INSERT INTO pgq_queue ({}) SELECT {} FROM {} WHERE id = {}").format(
            columns, sql.SQL(", ").join(values), sql.Identifier(table), sql.Literal(of)
        )
    )


def parked(own: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in own.execute("SELECT parked FROM pgq_queue WHERE parked IS NOT NULL ORDER BY id")]


# ------------------------------------------------------------------------------------------------- what may run


@pytest.mark.fault("S1", "S4")
@pytest.mark.parametrize("func", [*EVIL, f"{REGISTERED}.func", "tests.functions.oracle.mark.__globals__", "a.b"])
def test_a_row_that_nobody_signed_runs_only_what_is_registered(session: Any, oracle: Any, func: str) -> None:
    own = session()
    insert(own, func=func, args='["touch /nowhere"]')
    for signature in (b"", b"x" * 32, hashlib.sha256(func.encode()).digest()):
        insert(own, func=func, args='["id"]', signature=signature)
    good = insert(own, func=REGISTERED, args='["fine"]')
    reports = run_all(own)
    assert [type(report.outcome) for report in reports if report.claim.id.hex != good] == [Parked] * 4
    # Neither run nor deleted: there, with the reason, for people and for monitors to see.
    assert len(parked(own)) == 4
    assert value(own, "SELECT parked FROM pgq_queue_depth WHERE queue = 'default'") == 4
    assert oracle.ends("fine") == 1


@pytest.mark.fault("S4")
def test_nothing_of_an_unsigned_row_is_imported(session: Any, oracle: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, tag in enumerate(("callable", "class", "enum", "dataclass", "namedtuple")):
        (tmp_path / f"trap{number}.py").write_text("raise SystemExit('imported')")
        content = json.dumps([f"trap{number}:X", None, 1])
        insert(session(), func=REGISTERED, args=f'[{{"${tag}": {content}}}]')
        insert(session(), func=REGISTERED, args=f'[{{"${tag}": "trap{number}:X"}}]')
    own = session()
    insert(own, func="trap0.x", hook="trap1.x")
    insert(own, func=REGISTERED, args='["hook"]', hook="trap1.x")
    insert(own, func="tests.functions.oracle.fail", options='{"backoff": {"callable": "trap2.x"}}', max_attempts=3)
    run_all(own)
    run_all(own)
    assert not [name for name in sys.modules if name.startswith("trap")]
    assert oracle.count("end") == {"hook": 1}


@pytest.mark.fault("S5")
def test_a_pickle_is_not_read_while_pickles_are_off_nor_from_a_row_nobody_signed(session: Any, oracle: Any) -> None:
    bomb = base64.b64encode(pickle.dumps(subprocess.Popen)).decode()
    own = session()
    with override_settings(PGQ={"allow_pickle": True}):
        made = async_task(REGISTERED, {1, frozenset({2})}, object)
        pickled = async_task(REGISTERED, decimal.Context(prec=3))
        insert(own, func=REGISTERED, args=json.dumps([{"$pickle": f"{'0' * 64}:{bomb}"}]))
        insert(own, func=REGISTERED, args=json.dumps([{"$pickle": bomb}]))
        assert value(own, "SELECT count(*) FROM pgq_queue WHERE args::text LIKE '%%$pickle%%'") >= 3
    run_all(own)
    left = [row.pk for row in QueuedTask.objects.exclude(parked=None)]
    assert pickled in left
    assert made not in left
    assert len(left) == 3
    # A result is read by whoever asks for it: one that no worker sealed loads nothing.
    id = async_task(MARK, "x")
    run_all(own)
    own.execute("UPDATE pgq_task SET result = %s WHERE id = %s", (json.dumps({"$pickle": bomb}), id))
    with override_settings(PGQ={"allow_pickle": True}):
        assert not isinstance(fetch(id).result, type)
    with pytest.raises(NotStorable):
        async_task(MARK, decimal.Context(prec=3))


# ----------------------------------------------------------------------------------------------- replay, splice, tamper

SPLICED = {
    "id": "01a20394-1224-7deb-adc6-ecd56c9497fa", "queue": "other", "func": REGISTERED, "args": '["b"]',
    "kwargs": '{"x": 1}', "options": '{"ack": "task"}', "hook": REGISTERED, "group": "g", "timeout": 99.0,
    "max_attempts": 9,
}  # fmt: skip


@pytest.mark.fault("S2", "S3")
@pytest.mark.parametrize("column", SPLICED)
def test_a_copy_with_anything_changed_is_refused(session: Any, oracle: Any, column: str) -> None:
    own = session()
    id = async_task(MARK, "a")
    own.execute("CREATE TEMP TABLE stolen AS SELECT * FROM pgq_queue")
    own.execute("DELETE FROM pgq_queue")
    copy(own, "stolen", id, **{column: SPLICED[column]})
    run_all(own)
    assert "signature does not fit" in parked(own)[0]
    assert not oracle.lines()


@pytest.mark.fault("S2")
def test_two_rows_cannot_swap_what_they_do(session: Any, oracle: Any) -> None:
    own = session()
    one, two = async_task(MARK, "one"), async_task(MARK, "two")
    own.execute(
        "UPDATE pgq_queue q SET (func, args, kwargs, options, signature) = (o.func, o.args, o.kwargs, o.options,"
        " o.signature) FROM pgq_queue o WHERE q.id <> o.id"
    )
    run_all(own)
    assert len(parked(own)) == 2
    assert {row.pk for row in QueuedTask.objects.all()} == {one, two}
    assert not oracle.lines()


@pytest.mark.fault("S2")
def test_a_replay_of_a_finished_task_changes_no_result(session: Any, oracle: Any) -> None:
    """It is run again, as by pgq_retry, which who can write to all tables could call; see docs/explain/security.md."""
    own = session()
    id = async_task(MARK, "a", group="g")
    own.execute("CREATE TEMP TABLE stolen AS SELECT * FROM pgq_queue")
    run_all(own)
    before = Task.objects.values().get()
    for changes in ({}, {"signature": None, "func": REGISTERED, "args": '["forged"]'}, {"cancelled": True}):
        copy(own, "stolen", id, **changes)
        run_all(own)
        after = Task.objects.values().get()
        seen = after.pop("history")
        assert {**after, "history": []} == before
    assert len(seen) == 3
    assert "its outcome is not kept" in seen[0]["message"]
    # An operator's retry is no forgery: it takes the finished row away, and the new result counts.
    assert control.retry(id)
    run_all(own)
    assert Task.objects.get().stopped > before["stopped"]


@pytest.mark.fault("S2")
@override_settings(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "security"}}
)
def test_a_row_put_in_by_hand_changes_no_cached_result(session: Any, oracle: Any) -> None:
    own = session()
    caches["default"].clear()
    id = async_task(MARK, "a", cached=600)
    run_all(own)
    insert(own, id=UUID(id), func=REGISTERED, args='["forged"]', options='{"cached": 600}')
    insert(own, func=REGISTERED, args='["forged"]', name=id, options='{"cached": 600}')
    run_all(own)
    assert oracle.ends("forged") == 2
    found = fetch(id, cached=True)
    assert found is not None
    assert found.result == "a"


@pytest.mark.fault("S2")
def test_an_unsigned_row_counts_for_no_collector_that_is_signed(session: Any, oracle: Any) -> None:
    own = session()
    whole = async_iter(MARK, ["a", "b"])
    for more in ({}, {"signature": b"x" * 32, "cancelled": True}, {"cancelled": True}):
        options = json.dumps({"collector": whole, "index": 0})
        insert(own, func=REGISTERED, args='["forged"]', priority=1, group=whole, options=options, **more)
    # The three, and then together with one of those that are waited for.
    for limit, remaining in ((2, 2), (2, 1)):
        settle(own, *(run(claimed) for claimed in claim(own, limit)))
        assert value(own, "SELECT remaining FROM pgq_queue WHERE id = %s", whole) == remaining
    run_all(own)
    run_all(own)
    # Nor is its result among those that are collected.
    assert fetch(whole).result == ["a", "b"]


@pytest.mark.fault("S2")
def test_an_unsigned_collector_counts_unsigned_rows(session: Any, oracle: Any) -> None:
    own = session()
    collector = insert(own, func=REGISTERED, args='["all"]', remaining=2)
    for key in ("a", "b"):
        insert(own, func=REGISTERED, args=json.dumps([key]), options=json.dumps({"collector": collector}))
    run_all(own)
    assert oracle.ends("all") == 0
    run_all(own)
    assert oracle.ends("all") == 1


@pytest.mark.fault("S3")
def test_no_byte_of_a_signature_may_differ_and_no_other_scheme_serves(session: Any, oracle: Any) -> None:
    own = session()
    id = async_task(MARK, "a")
    own.execute("CREATE TEMP TABLE stolen AS SELECT * FROM pgq_queue")
    own.execute("DELETE FROM pgq_queue")
    good = value(own, "SELECT signature FROM stolen")
    secret = b"a key for the tests, long enough for Django's own checks of it"
    wrong = [good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :] for place in range(len(good))]
    wrong += [good[:-1], good + b"\0", b"", hmac.digest(secret, b"a", "sha1"), hmac.digest(secret, b"a", "sha256")]
    for signature in wrong:
        copy(own, "stolen", id, signature=signature)
        run_all(own)
        assert "signature does not fit" in parked(own)[0]
        own.execute("DELETE FROM pgq_queue")
    copy(own, "stolen", id, signature=None)
    run_all(own)
    assert "not signed" in parked(own)[0]
    own.execute("DELETE FROM pgq_queue")
    assert not oracle.lines()
    copy(own, "stolen", id)
    run_all(own)
    assert oracle.ends("a") == 1


@pytest.mark.fault("S3", "S19")
def test_what_is_not_signed_is_not_inflated(session: Any, oracle: Any, monkeypatch: Any) -> None:
    own = session()
    with override_settings(PGQ={"compress": True}):
        async_task(MARK, "a" * 100_000)
    own.execute("UPDATE pgq_queue SET signature = set_byte(signature, 0, get_byte(signature, 0) # 1)")
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("it was inflated before it was verified"))
    run_all(own)
    assert "signature does not fit" in parked(own)[0]


# ------------------------------------------------------------------------------------------------ injection, exhaustion

HOSTILE = [
    "'\"; DROP TABLE pgq_queue; --",
    "%s%(id)s%",
    "{limit}",
    "x" * 1000,
    "\u202e\U0001f4a5",
    "$$",
    "a\\'b",
    "a,b}",
]


@pytest.mark.fault("S7")
@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_data(session: Any, oracle: Any, text: str) -> None:
    own = session()
    options = {"queue": text, "group": text, "task_name": text}
    ids = [async_task(MARK, "k", **options)]
    ids += enqueue_many(MARK, ["l"], queue=text, group=text)
    assert queue_size() == 2
    control.pause(text)
    assert claim(own, queues=[text]) == []
    control.resume(text)
    run_all(own)
    assert {fetch(id).queue for id in ids} == {text}
    assert fetch(text).name == text
    assert Task.get_group_count(text) == 2
    assert Task.delete_group(text, objects=True) is not None
    assert value(own, "SELECT count(*) FROM pgq_task") == 0
    chores.Upkeep(get_settings(), "default").tick(own)


@pytest.mark.fault("S19")
def test_arguments_are_measured_before_they_are_written(session: Any) -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    with override_settings(PGQ={"max_payload": 10_000}):
        for argument in ("x" * 10_001, list(range(10_000)), deep, {"k": "é" * 6000}):
            with pytest.raises(NotStorable):
                async_task(MARK, argument)
        with override_settings(PGQ={"max_payload": 10_000, "compress": True}), pytest.raises(NotStorable):
            async_task(MARK, "x" * 10_001)
    assert QueuedTask.objects.count() == 0


@pytest.mark.fault("S19")
def test_bombs_in_rows_harm_only_their_task(session: Any, oracle: Any) -> None:
    own = session()
    bomb = base64.b64encode(zlib.compress(b"[[" + b"0," * 40_000_000 + b"0], {}]", 9)).decode()
    assert len(bomb) < 300_000
    insert(own, func=REGISTERED, args=json.dumps([{"$zlib": bomb}]))
    insert(own, func=REGISTERED, args="[" * 3000 + "]" * 3000)
    insert(own, func=REGISTERED, args="[" + "9" * 100_000 + "]")
    insert(own, func=REGISTERED, args='["fine"]')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reports = run_all(own)
    assert len(reports) == 4
    assert oracle.ends("fine") == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"
    assert value(own, "SELECT count(*) FROM pgq_queue WHERE lock IS NOT NULL") == 0


@pytest.mark.fault("S19")
def test_a_result_too_large_is_told_and_not_stored(session: Any, oracle: Any) -> None:
    own = session()
    id = async_task(MARK, "x" * 3000)
    with override_settings(PGQ={"max_payload": 1000}):
        run_all(own)
    task = fetch(id)
    assert task.success
    assert value(own, "SELECT length(result::text) FROM pgq_task") < 2000
    assert submit(make_task(MARK, ("y",)), False)
