"""A finished task that a row of another table refers to stays; all beside it go, and are settled, as ever."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import override_settings

from pgq.conf import Settings
from pgq.enqueue.make import make_task
from pgq.enqueue.write import enqueue_all
from pgq.errors import StillReferenced
from pgq.execution import settle
from pgq.models import Task
from pgq.store import results
from pgq.tasks import async_task, schedule
from pgq.tasks.control import retry
from pgq.upkeep.chores import Upkeep
from pgq.upkeep.retention import Retention
from tests.support.hand import Hand, claim, run
from tests.support.retention import DAYS, finish, look_at_all, there

pytestmark = pytest.mark.django_db(transaction=True)

KEEPER = "shop_order (constraint shop_order_task)"


@pytest.fixture
def own(session: Any) -> psycopg.Connection[Any]:
    return session()


@pytest.fixture
def orders(own: psycopg.Connection[Any]) -> Iterator[Any]:
    """A table of another app, as Django makes it for a ForeignKey to Task; refers to the tasks that it is told."""
    own.execute(
        "CREATE TABLE shop_order (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, task_id uuid, CONSTRAINT"
        " shop_order_task FOREIGN KEY (task_id) REFERENCES pgq_task DEFERRABLE INITIALLY DEFERRED)"
    )

    def refer(*ids: Any) -> None:
        own.execute("INSERT INTO shop_order (task_id) SELECT unnest(%s::uuid[])", [list(ids)])

    yield refer
    own.execute("ROLLBACK; SET statement_timeout = 0; DROP TABLE shop_order")


def succeeded(session: psycopg.Connection[Any], count: int, func: str = "f") -> list[Any]:
    rows = session.execute(
        "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue)"
        " SELECT pgq_uuid7(), true, now(), now(), now(), %s, 'q' FROM generate_series(1, %s) RETURNING id",
        [func, count],
    )
    return sorted(row[0] for row in rows)


def left(session: psycopg.Connection[Any]) -> list[Any]:
    return sorted(row[0] for row in session.execute("SELECT id FROM pgq_task"))


@pytest.mark.parametrize("per", [None, "func"])
def test_pruning_deletes_the_others_and_names_the_table_once(per, own, orders, caplog, monkeypatch):
    monkeypatch.setattr("pgq.upkeep.pruning.ROWS_PER_STATEMENT", 3)
    tasks = succeeded(own, 20)
    orders(*tasks[10:18:2], *tasks[4:8])
    upkeep = Upkeep(Settings(save_limit=2, save_limit_per=per, tick=60.0), "default")
    with caplog.at_level(logging.WARNING, "pgq"):
        for _ in range(2):
            upkeep.pruning.prune(own)
    assert left(own) == sorted({*tasks[10:18:2], *tasks[4:8], *tasks[-2:]})
    assert [record.getMessage().count(KEEPER) for record in caplog.records] == [1]


def test_pruning_goes_when_nobody_refers_any_more(own, orders):
    tasks = succeeded(own, 3)
    orders(*tasks)
    assert results.prune(own.cursor(), keep=0, limit=10) == results.Deleted(None, 0, [KEEPER] * 3)
    own.execute("DELETE FROM shop_order")
    assert results.prune(own.cursor(), keep=0, limit=10) == results.Deleted(None, 3, [])


def test_a_table_that_the_role_may_not_read_keeps_its_rows_too(own, orders):
    tasks = succeeded(own, 9)
    orders(tasks[2], tasks[5])
    role = f"pgq_blind_{own.info.backend_pid}"
    own.execute(f"CREATE ROLE {role}")
    try:
        own.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        own.execute(f"REVOKE ALL ON shop_order FROM {role}")
        own.execute(f"SET ROLE {role}")
        deleted = results.prune(own.cursor(), keep=0, limit=10)
    finally:
        own.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert deleted.count == 7
    assert ["shop_order" in reference for reference in deleted.kept] == [True, True]
    assert left(own) == [tasks[2], tasks[5]]


def test_a_reference_that_is_being_written_is_not_waited_for(own, orders, session):
    tasks = succeeded(own, 3)
    other = session(autocommit=False)
    # So it has locked what it refers to; Django's constraints do that at the commit.
    other.execute("SET CONSTRAINTS ALL IMMEDIATE")
    other.execute("INSERT INTO shop_order (task_id) VALUES (%s)", [tasks[1]])
    own.execute("SET statement_timeout = '5s'")
    assert results.prune(own.cursor(), keep=0, limit=10).count == 2
    other.commit()
    assert left(own) == [tasks[1]]


@pytest.mark.parametrize(("action", "orders_left"), [("CASCADE", [None]), ("SET NULL", [None, None])])
def test_a_database_that_is_told_what_to_do_then_does_it(action, orders_left, own, orders):
    own.execute("ALTER TABLE shop_order DROP CONSTRAINT shop_order_task")
    own.execute(f"ALTER TABLE shop_order ADD FOREIGN KEY (task_id) REFERENCES pgq_task ON DELETE {action}")
    orders(*succeeded(own, 1), None)
    assert results.prune(own.cursor(), keep=0, limit=10).count == 1
    assert [row[0] for row in own.execute("SELECT task_id FROM shop_order")] == orders_left


def test_pgq_clean_says_what_stays(own, orders):
    tasks = succeeded(own, 5)
    orders(tasks[1])

    def clean(*arguments: str) -> str:
        out = io.StringIO()
        call_command("pgq_clean", "--keep", "0", *arguments, stdout=out)
        return out.getvalue()

    assert KEEPER in " ".join(clean("--dry-run").split())
    said = " ".join(clean().split())
    assert "4 results deleted" in said
    assert f"1 results stay, since rows of another table refer to them: {KEEPER}." in said
    assert json.loads(clean("--json"))["kept"] == {KEEPER: 1}
    with override_settings(PGQ={"save_limit": 1, "save_limit_per": "func"}):
        orders(*succeeded(own, 3))
        out = io.StringIO()
        call_command("pgq_clean", "--json", stdout=out)
        assert json.loads(out.getvalue())["kept"] == {KEEPER: 3}


@pytest.mark.parametrize("command", [False, True])
def test_keep_days_deletes_what_can_go_and_drops_the_rest_later(command, own, orders, weeks, monkeypatch):
    first, _, last = finish(own, 4, 3)
    finish(own, 3, 3)
    orders(first, last)
    kept = Retention(DAYS, rest=0.0)
    monkeypatch.setattr("pgq.upkeep.retention._REFERENCED_REST_SECONDS", 0.0)

    def retain() -> None:
        if command:
            with override_settings(PGQ={"keep_days": DAYS, "save_limit": 0}):
                call_command("pgq_clean", "--verbosity=0")
        else:
            # A statement for each partition, and one that finds it done.
            for _ in range(6):
                kept.step(own.cursor())
            kept.drop(own)

    retain()
    assert left(own) == sorted([first, last])
    assert there(own) & set(weeks) == {weeks[0]} | ({weeks[2]} & there(own))
    own.execute("DELETE FROM shop_order")
    retain()
    assert not there(own) & {weeks[0], weeks[1]}


def test_a_reference_that_is_new_keeps_a_partition_from_being_dropped(own, weeks):
    ids = finish(own, 4, 2)
    kept = Retention(DAYS, rest=0.0)
    look_at_all(kept, own)
    own.execute("CREATE TABLE shop_order (task_id uuid REFERENCES pgq_task)")
    own.execute("INSERT INTO shop_order VALUES (%s)", [ids[0]])
    try:
        kept.drop(own)
        for _ in range(3):
            kept.step(own.cursor())
        assert left(own) == [ids[0]]
        assert weeks[0] in there(own)
    finally:
        own.execute("DROP TABLE shop_order")


def test_retry_says_who_keeps_a_task_and_runs_the_others(own, orders):
    kept, other = succeeded(own, 2, "tests.app.tasks.noop")
    orders(kept)
    with transaction.atomic():
        with pytest.raises(StillReferenced, match=f"{kept.hex}.*shop_order .constraint shop_order_task."):
            retry(kept.hex)
        # It was nobody's transaction that failed, now or at its end.
        assert retry(other.hex)
    assert left(own) == [kept]
    warnings = []
    own.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    assert own.execute("SELECT pgq_retry(id) FROM pgq_task").fetchall() == [(None,)]
    assert KEEPER in warnings[0]


def test_a_hook_may_refer_to_a_task_whose_result_nobody_wants(own, orders):
    """Results of save=False that a hook reads are deleted when it has ended, in the settlement of others."""
    async_task("tests.app.tasks.noop", save=False, hook="tests.app.tasks.note")
    hand = Hand()
    try:
        [claimed] = claim(own)
        settling_of(own, run(claimed))
        [kept] = left(own)
        orders(kept)
        enqueue_all([make_task("tests.app.tasks.noop", ())])
        reports = [run(claimed) for claimed in claim(own)]
        settling_of(own, *reports)
    finally:
        hand.close()
    assert len(reports) == 2
    assert kept in left(own)
    assert len(left(own)) == 3
    assert own.execute("SELECT count(*) FROM pgq_queue").fetchone() == (0,)


def settling_of(session: psycopg.Connection[Any], *reports: Any) -> None:
    with settle.transaction(session, reports, "tests"):
        pass


def test_a_reference_to_a_queued_task_spoils_no_other(own):
    """It cannot leave the queue, so it is parked with its reason; the others of its batch are settled."""
    own.execute("CREATE TABLE shop_order (task_id uuid REFERENCES pgq_queue DEFERRABLE INITIALLY DEFERRED)")
    for number in range(3):
        async_task("tests.app.tasks.noop", task_name=str(number))
    own.execute("INSERT INTO shop_order SELECT id FROM pgq_queue WHERE name = '1'")
    hand = Hand()
    try:
        hand.work()
        assert {task.name for task in Task.objects.all()} == {"0", "2"}
        [(name, parked)] = own.execute("SELECT name, parked FROM pgq_queue")
        assert name == "1"
        assert "shop_order" in parked
    finally:
        hand.close()
        own.execute("DROP TABLE shop_order")


MODELS = """
from django.db import models
from pgq.models import QueuedTask, Schedule, Task


class Order(models.Model):
    task = models.OneToOneField(Task, null=True, on_delete=models.SET_NULL)
    plan = models.ForeignKey(Schedule, null=True, on_delete=models.CASCADE)


class Paper(models.Model):
    task = models.ForeignKey(Task, on_delete=models.DO_NOTHING)


class Ticket(models.Model):
    task = models.ForeignKey(QueuedTask, null=True, on_delete=models.SET_NULL)
    other = models.ForeignKey(
        QueuedTask, null=True, on_delete=models.SET_NULL, db_constraint=False, related_name="+"
    )
"""
ORDERS = """
from django.db import IntegrityError
from pgq.models import Success, Task
from pgq.tasks import async_task, delete_group
from pgq.testing import drain
from shop.models import Order, Paper

for group in "abc":
    async_task("math.hypot", 3, 4, group=group)
drain()
for task in Task.objects.all():
    Order.objects.create(task=task)
Paper.objects.create(task=Task.objects.get(group="c"))
print(delete_group("a", True)[0])
try:
    delete_group("c", True)
except IntegrityError as error:
    print(type(error).__name__)
print(sorted((order.task.group if order.task else "") for order in Order.objects.all()))
"""


def test_models_that_refer_to_tasks(project):
    """Django's on_delete holds for what the ORM deletes, and only there; upkeep leaves what is referred to."""
    shop = project(apps={"shop": {"models.py": MODELS}}, migrate=False, warm=True)
    warned = shop.manage("makemigrations", "shop").stderr
    assert "shop.Ticket: (pgq.W006) shop.Ticket.task is a foreign key to QueuedTask" in warned
    assert "Ticket.other" not in warned
    shop.manage("migrate", "--verbosity=0")
    assert shop.python(ORDERS).stdout.split("\n")[:-1] == ["1", "IntegrityError", "['', 'b', 'c']"]
    said = shop.manage("pgq_clean", "--keep", "0").stdout
    assert "0 results deleted" in said
    assert "shop_order" in said


def test_a_schedule_that_is_referred_to_is_not_removed_and_the_command_says_so(own):
    schedule("tests.app.tasks.noop", name="kept", schedule_type="D")
    own.execute(
        "CREATE TABLE shop_plan (plan_id bigint CONSTRAINT shop_plan_plan REFERENCES pgq_schedule"
        " DEFERRABLE INITIALLY DEFERRED)"
    )
    try:
        own.execute("INSERT INTO shop_plan SELECT id FROM pgq_schedule")
        with pytest.raises(CommandError, match=r'"shop_plan_plan" on table "shop_plan"'):
            call_command("pgq_schedules", "remove", "kept")
    finally:
        own.execute("DROP TABLE shop_plan")
