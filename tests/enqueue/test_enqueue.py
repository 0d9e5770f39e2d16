"""The way in: part of the caller's transaction, or an error that names what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F

from pgq.enqueue.make import make_task
from pgq.enqueue.write import enqueue
from pgq.errors import EnqueueError
from pgq.models import QueuedTask, Task
from pgq.records.options import TaskOptions
from pgq.tasks import async_task, enqueue_from, enqueue_many, fetch
from tests.app.models import Note
from tests.functions import oracle as oracle_tasks
from tests.functions import signatures
from tests.support.hand import MARK, Hand, run_all, value
from tests.support.pools import wait_for

REGISTERED = "tests.functions.oracle.registered"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hand():
    hand = Hand()
    yield hand
    hand.close()


# ------------------------------------------------------------------------------------------------- transactions


def test_rolled_back_transaction_enqueues_nothing():
    with transaction.atomic():
        async_task(MARK, "one")
        enqueue_many(MARK, [1, 2, 3])
        Note.objects.create(text="x")
        enqueue_from(REGISTERED, Note.objects.all(), ["text"])
        assert QueuedTask.objects.count() == 5
        transaction.set_rollback(True)
    assert QueuedTask.objects.count() == 0


def test_rolled_back_savepoint_enqueues_nothing():
    with transaction.atomic():
        kept = async_task(MARK, "kept")
        with transaction.atomic():
            async_task(MARK, "dropped")
            transaction.set_rollback(True)
        also = async_task(MARK, "also")
    assert list(QueuedTask.objects.order_by("position").values_list("id", flat=True)) == [kept, also]


def test_task_is_not_seen_before_its_commit(pool, oracle, session):
    pool(workers=2)
    other = session()
    # A lane that is new would be this transaction's to make, and everybody else's tasks would wait for it.
    assert fetch(async_task(MARK, "first"), wait=20_000)
    with transaction.atomic():
        id = async_task(MARK, "open")
        Note.objects.create(text="of the same transaction")
        # Others come and go meanwhile, after it in the queue; so the pool did look.
        for number in range(5):
            other.execute("INSERT INTO pgq_queue (func, args) VALUES (%s, %s)", (REGISTERED, f"[{number}]"))
            wait_for(lambda number=number: oracle.ends(number) == 1)
        assert oracle.starts("open") == 0
    assert fetch(id, wait=20_000).result == "open"
    assert oracle.starts("open") == 1


# ------------------------------------------------------------------------------------------------- from SQL and the ORM


def test_insert_by_hand_runs(pool, oracle, session):
    pool(workers=1)
    by_psql = value(
        session(), "INSERT INTO pgq_queue (func, args) VALUES (%s, '[\"psql\"]') RETURNING id", REGISTERED
    ).hex
    by_orm = QueuedTask.objects.create(func=REGISTERED, args=["orm"]).id
    assert fetch(by_psql, wait=20_000).result == "psql"
    assert fetch(by_orm, wait=20_000).result == "orm"
    assert (oracle.starts("psql"), oracle.starts("orm")) == (1, 1)


def test_only_func_is_needed(session, oracle):
    own = session()
    id = value(own, "INSERT INTO pgq_queue (func) VALUES (%s) RETURNING id", REGISTERED)
    assert [report.claim.id for report in run_all(own)] == [id]
    assert fetch(id).result == "registered"


def test_unregistered_function_is_parked_with_the_reason(pool, oracle, session):
    pool(workers=1)
    by_psql = value(session(), "INSERT INTO pgq_queue (func, args) VALUES (%s, '[1]') RETURNING id", MARK).hex
    by_orm = QueuedTask.objects.create(func="os.abort").id
    for id in (by_psql, by_orm):
        row = wait_for(lambda id=id: QueuedTask.objects.filter(pk=id).exclude(parked=None).first())
        assert "not signed" in row.parked
        assert "@task" in row.parked
        assert (row.state, row.attempts, row.lock) == ("parked", 0, None)
    assert oracle.lines() == []
    assert Task.objects.count() == 0


CHAIN = (
    '{"chain": [{"func": "tests.functions.oracle.mark", "args": "[\\"intruder\\"]", "kwargs": "{}", "options": "{}", '
    '"queue": "default", "priority": 0, "name": null, "group": null, "hook": null, "timeout": null, '
    '"max_attempts": 1}], "chain_on_failure": true}'
)


@pytest.mark.parametrize(
    "columns",
    [
        {"options": CHAIN},
        {"hook": MARK},
        # Never run, so never verified, but settled all the same.
        {"options": CHAIN, "cancelled": True, "signature": b"false"},
        {"options": CHAIN, "attempts": 5, "crashes": 5, "signature": b"false"},
        {"hook": MARK, "cancelled": True, "signature": b"false"},
        # Too many arguments: it fails, so its backoff is asked for.
        {
            "func": signatures.registered.path,
            "options": '{"backoff": {"callable": "tests.functions.oracle.say"}}',
            "max_attempts": 3,
            "args": "[1, 2, 3]",
        },
    ],
    ids=lambda columns: ",".join(columns),
)
def test_unsigned_row_gets_nothing_run_that_it_may_not_name(columns, session, hand, oracle):
    """Neither by what follows it nor by its policies: or whoever writes to the table could run anything."""
    columns = {"func": REGISTERED, **columns}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    value(session(), f"INSERT INTO pgq_queue ({names}) VALUES ({marks}) RETURNING id", *columns.values())
    hand.work()
    hand.work()
    assert {line[1] for line in oracle.lines()} <= {"registered"}
    for row in QueuedTask.objects.filter(func=MARK):
        assert "not signed" in row.parked


def test_what_follows_a_signed_row_runs(session, hand, oracle):
    enqueue(make_task(MARK, ("first",), options=TaskOptions.parse(CHAIN)))
    hand.work()
    assert (oracle.starts("first"), oracle.starts("intruder")) == (1, 1)


def test_changed_row_is_parked(session):
    id = async_task(MARK, "mine")
    own = session()
    own.execute("UPDATE pgq_queue SET args = '[\"theirs\"]' WHERE id = %s", (id,))
    run_all(own)
    assert "signature" in QueuedTask.objects.get(pk=id).parked


def test_parked_row_runs_once_it_is_released(pool, session):
    pool(workers=1, tick=0.1)
    own = session()
    id = value(own, "INSERT INTO pgq_queue (func) VALUES ('nowhere.at_all') RETURNING id")
    wait_for(lambda: QueuedTask.objects.filter(pk=id.hex, parked__isnull=False).exists())
    # Watermarks have passed its position by then: it has to be found all the same.
    async_task(MARK, "later")
    low = wait_for(lambda: value(own, "SELECT low FROM pgq_lane l JOIN pgq_queue q USING (queue, priority) "
                                      "WHERE q.id = %s AND l.low >= q.position", id))  # fmt: skip
    assert low
    own.execute("UPDATE pgq_queue SET parked = NULL, func = %s WHERE id = %s", (REGISTERED, id))
    assert fetch(id, wait=30_000).result == "registered"


HOSTILE: list[dict[str, Any]] = [
    {"options": '{"collector": "no id"}'},
    {"options": '{"collector": 5}'},
    {"options": '{"chain": "no list", "chain_on_failure": true}'},
    {"options": '{"chain": [5], "chain_on_failure": true}'},
    {"options": '{"hook_of": "no id"}'},
    {"options": '{"hook_of": [1]}'},
    {"options": '{"save": "maybe", "ack": 7, "cached": [], "backoff": "x", "retry_on": 5, "no_retry_on": {}}'},
    {"options": '{"backoff": "x", "ack_failure": [0]}', "max_attempts": 3, "args": "[1, 2, 3, 4]"},
    {"options": '{"retry_on": 5}', "max_attempts": 3, "args": "[1, 2, 3, 4]"},
    {"timeout": "NaN"},
    {"timeout": "Infinity"},
    {"timeout": "1e300"},
    {"attempts": 32767, "max_attempts": 0},
    {"attempts": 32767, "crashes": 32767},
    {"hook": "nowhere.at_all"},
    {"hook": ""},
    {"history": "5", "attempts": 1},
    {"history": "[5]", "attempts": 1},
    {"history": "[5]", "attempts": 3, "crashes": 3},
    {"args": '[{"$model": 5}]'},
    {"kwargs": '{"key": {"$datetime": "never"}}'},
    {"kwargs": '{"": 1}'},
    {"options": '{"cached": "for a while"}'},
    {"options": '{"cached": [1], "collector": 1, "chain": 1, "forget": true}'},
    {"options": '{"forget": true}'},
    {"options": '{"collects": 5}'},
    {"options": '{"collects": [5], "hook_of": 7, "index": []}'},
    {"func": "nowhere"},
]


def test_rows_of_any_content_end_and_take_no_worker_with_them(session, hand, oracle):
    """Whoever may write to the table must not be able to stop the pool with a row."""
    own = session()
    ids = {}
    for columns in HOSTILE:
        columns = {"func": REGISTERED, **columns}
        names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
        sql = f"INSERT INTO pgq_queue ({names}) VALUES ({marks}) RETURNING id"
        ids[value(own, sql, *columns.values()).hex] = columns
    others = enqueue_many(MARK, ["one", "two"])
    hand.work()
    assert [Task.objects.get(pk=id).result for id in others] == ["one", "two"]
    left = QueuedTask.objects.in_bulk(list(ids))
    assert all(row.lock is None and (row.parked or row.run_after) for row in left.values())
    assert set(Task.objects.filter(pk__in=list(ids)).values_list("id", flat=True)) == set(ids) - set(left)


# ------------------------------------------------------------------------------------------------- many at once


def test_enqueue_many_takes_a_generator_in_chunks():
    seen = []

    def calls():
        for number in range(25):
            # What stands in the table already when the next call is asked for.
            seen.append(QueuedTask.objects.count())
            yield number

    ids = enqueue_many(MARK, calls(), chunk=10, queue="bulk", priority=7)
    assert seen == [0] * 10 + [10] * 10 + [20] * 5
    rows = QueuedTask.objects.order_by("position")
    assert [row.id for row in rows] == ids
    assert [row.args for row in rows] == [(number,) for number in range(25)]
    assert {(row.queue, row.priority) for row in rows} == {("bulk", 7)}
    assert len(set(ids)) == 25


def test_enqueue_many_takes_tuples_dicts_and_single_values(session, oracle):
    enqueue_many(MARK, [("tuple",), {"key": "dict"}, "single"])
    reports = run_all(session())
    assert [report.value for report in reports] == ["tuple", "dict", "single"]


AWKWARD = ["\t", "\n\r", "\\N", "\\.", "a\\b", "é☃𝄞", "'\"", ",{}", ""]


def test_many_rows_are_what_single_ones_would_be(hand, oracle):
    """All options, and texts that mean something to COPY."""
    options = {"queue": "a\tb", "priority": -3, "group": "g\\", "hook": MARK, "timeout": 1.5, "max_attempts": 4,
               "task_name": "n\n", "sensitive": True}  # fmt: skip
    singles = [async_task(MARK, text, **options) for text in AWKWARD]
    many = enqueue_many(MARK, AWKWARD, **options)
    fields = [field.name for field in QueuedTask._meta.fields]
    for name in {"id", "position", "enqueued_at", "signature"}:
        fields.remove(name)
    rows = {row.pop("id"): row for row in QueuedTask.objects.values("id", *fields)}
    assert [rows[id] for id in many] == [rows[id] for id in singles]
    hand.work()
    assert [Task.objects.get(id=id).result for id in many] == AWKWARD


def test_many_with_a_time_that_has_come_are_ready():
    ids = enqueue_many(MARK, [1, 2], run_after=-5)
    assert set(QueuedTask.objects.filter(run_after=None).values_list("id", flat=True)) == set(ids)


def test_what_postgresql_refuses_of_many_is_an_error_of_django_s(session):
    session().execute("ALTER TABLE pgq_queue ADD CONSTRAINT none_of_it CHECK (func <> 'math.sqrt')")
    try:
        with pytest.raises(IntegrityError), transaction.atomic():
            enqueue_many("math.sqrt", [1, 2])
        assert not QueuedTask.objects.exists()
    finally:
        session().execute("ALTER TABLE pgq_queue DROP CONSTRAINT none_of_it")


def test_enqueue_many_of_nothing():
    assert enqueue_many(MARK, []) == []
    assert QueuedTask.objects.count() == 0


def test_enqueue_from_is_one_statement(session, oracle, django_assert_num_queries):
    Note.objects.bulk_create(Note(text=f"note {number}") for number in range(50))
    notes = Note.objects.filter(text__endswith="7").order_by("pk")
    with django_assert_num_queries(1):
        assert enqueue_from(REGISTERED, notes, ["text"], queue="notes", priority=3, group="all") == 5
    rows = list(QueuedTask.objects.order_by("position"))
    assert [row.args for row in rows] == [(note.text,) for note in notes]
    assert {(row.queue, row.priority, row.group) for row in rows} == {("notes", 3, "all")}
    assert sorted(report.value for report in run_all(session())) == sorted(note.text for note in notes)


def test_enqueue_from_takes_annotations_and_parameters(session, oracle):
    Note.objects.bulk_create(Note(text=text) for text in ("50 % off", "it's", "a {brace}"))
    found = Note.objects.annotate(twice=F("pk") * 2).filter(text__contains="%")
    assert enqueue_from(REGISTERED, found, ["twice"]) == 1
    (report,) = run_all(session())
    assert report.value == Note.objects.get(text="50 % off").pk * 2
    assert oracle_tasks.registered.enqueue_from(Note.objects.exclude(text__contains="%"), "text") == 2
    assert {report.value for report in run_all(session())} == {"it's", "a {brace}"}


def test_enqueue_from_refuses_what_no_worker_would_run():
    with pytest.raises(EnqueueError, match=r"^func: .*registered with @task"):
        enqueue_from(MARK, Note.objects.all(), ["text"])
