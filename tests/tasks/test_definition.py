"""@task: one object with two doors, `using`, many calls, a schedule; and the id that comes back."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import pickle
import sys
from datetime import timedelta
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import override_settings

import pgq
from pgq import codec, testing
from pgq.errors import EnqueueError, UnknownOption, WrongCall
from pgq.models import QueuedTask, Schedule, Task
from pgq.records.options import CALL_OPTIONS, TASK_OPTIONS
from pgq.tasks import TaskCall, TaskId, async_chain, async_task, enqueue_many, fetch, result, task
from pgq.tasks.typed import CallOptions, DecoratorOptions, ManyOptions, ScheduleOptions
from pgq.testing import drain, enqueued, fire_schedules
from tests.app.models import Note
from tests.functions import common, typed

pytestmark = pytest.mark.django_db


def chosen(row):
    return (row.queue, row.priority, row.timeout, row.max_attempts, row.options.get("backoff"))


OWN = ("mail", 5, 30.0, 3, [1, 2])

# ------------------------------------------------------------------------------------------------- one object


def test_called_it_runs_here_and_enqueued_in_a_worker():
    assert typed.add(1, 2) == 3
    assert asyncio.run(typed.double(4)) == 8
    assert typed.with_context(None, 5) == 5
    ids = [typed.add.enqueue(1, y=2), typed.add.delay(3), typed.double.enqueue(4)]
    assert [chosen(row) for row in enqueued()[:2]] == [OWN, OWN]
    drain()
    assert [id.result() for id in ids] == [3, 4, 8]


def test_the_package_has_it_too():
    assert pgq.task is task
    with pytest.raises(AttributeError):
        pgq.tusk


def test_it_has_what_djangos_task_has():
    found = (typed.add.name, typed.add.module_path, typed.add.priority, typed.add.queue_name, typed.add.run_after)
    assert found == ("add", "tests.functions.typed.add", 5, "mail", None)
    bound = typed.add.using(priority=None, queue_name="other", run_after=60)
    assert (bound.name, bound.priority, bound.queue_name, bound.run_after) == ("add", 0, "other", 60)
    assert (typed.add.takes_context, typed.with_context.takes_context) == (False, True)
    assert typed.add.func(2, 2) == 4
    with override_settings(PGQ={"default_queue": "q"}):
        assert typed.double.queue_name == "q"


def test_it_is_copied_and_pickled_as_its_function_is():
    assert pickle.loads(pickle.dumps(typed.add)) is typed.add
    assert copy.deepcopy([typed.add]) == [typed.add]
    assert pickle.loads(pickle.dumps(typed.add.using(priority=1))).priority == 1


# ------------------------------------------------------------------------------------------------- using


def test_none_takes_away_what_the_decorator_says():
    nothing = dict.fromkeys(("queue_name", "priority", "timeout", "max_attempts", "backoff"))
    with override_settings(PGQ={"timeout": 7, "max_attempts": 2, "default_queue": "q"}):
        typed.add.using(**nothing).enqueue(1)
        typed.add.using(timeout=None).using(priority=1).enqueue(1)
        typed.add.using(timeout=None).using(timeout=9).enqueue(1)
        typed.add.using(timeout=9).using(timeout=None).enqueue_many([1])
    assert [chosen(row) for row in enqueued()] == [
        ("q", 0, 7.0, 2, None),
        ("mail", 1, 7.0, 3, [1, 2]),
        ("mail", 5, 9.0, 3, [1, 2]),
        ("mail", 5, 7.0, 3, [1, 2]),
    ]


def test_a_bound_task_has_the_same_methods_and_changes_nothing_of_the_task():
    bound = typed.add.using(priority=9, group="g")
    bound.enqueue(1)
    bound.delay(2)
    bound.enqueue_many([3, (4, 5)], priority=8)
    async_to_sync(bound.aenqueue)(6)
    typed.add.enqueue(7)
    assert [(row.priority, row.group) for row in enqueued()] == [(9, "g")] * 2 + [(8, "g")] * 2 + [(9, "g"), (5, None)]


@pytest.mark.parametrize("wrong", [{"prioritty": 1}, {"prioritty": None}, {"atomic": True}, {"takes_context": True}])
def test_unknown_options_are_refused_at_once(wrong):
    for ask in (typed.add.using, typed.add.using(priority=1).using):
        with pytest.raises(UnknownOption):
            ask(**wrong)
    with pytest.raises(UnknownOption):
        typed.add.enqueue_many([1], **wrong)
    with pytest.raises(UnknownOption):
        typed.add.schedule(minutes=5, **wrong)


def test_an_option_under_both_of_its_names_is_refused():
    with pytest.raises(EnqueueError, match="backoff: is another name of retry_backoff, which is given as well"):
        typed.add.using(backoff=1, retry_backoff=None)


def test_type_checkers_know_all_options():
    names = CALL_OPTIONS | {"backoff", "queue_name"}
    assert DecoratorOptions.__annotations__.keys() | {"takes_context"} == TASK_OPTIONS | {"backoff", "queue_name"}
    assert CallOptions.__annotations__.keys() == names
    assert ManyOptions.__annotations__.keys() == names | {"then", "chunk"}
    assert ScheduleOptions.__annotations__.keys() == names - {"run_after", "name"} | {"task_name"}


# ------------------------------------------------------------------------------------------------- many calls


def test_many_calls_in_every_form():
    ids = typed.add.enqueue_many([1, (2,), (3, 4), {"x": 5, "y": 6}, typed.add.call_of(7, y=8)])
    assert all(type(id) is TaskId for id in ids)
    assert [chosen(row) for row in enqueued()] == [OWN] * 5
    drain()
    assert [id.result() for id in ids] == [2, 3, 7, 11, 15]
    more = async_to_sync(typed.add.aenqueue_many)([(1, 1)], then=common.falsy)
    assert [ran.result for ran in drain()][0] == 2
    assert fetch(more[0]).group


def test_a_call_is_a_record_that_fits():
    call = typed.add.using(priority=1).call_of(1, y=2)
    assert isinstance(call, TaskCall)
    assert (call.task, call.args, call.kwargs, call.options.priority) == (typed.add, (1,), {"y": 2}, 1)
    assert call == typed.add.using(priority=1).call_of(1, y=2)
    with pytest.raises(WrongCall):
        typed.add.call_of()
    with pytest.raises(AttributeError):
        call.args = ()
    with pytest.raises(EnqueueError, match="calls: holds a call with options of its own"):
        typed.add.enqueue_many([call])
    with pytest.raises(EnqueueError, match=r"calls: holds a call of tests\.functions\.typed\.add, which is another"):
        enqueue_many(common.multiply, [typed.add.call_of(1, 2)])
    assert QueuedTask.objects.count() == 0


def test_a_call_is_a_link_of_a_chain():
    last = typed.add.using(priority=1).call_of(5)
    async_chain([typed.add.call_of(1, 2), (common.multiply, (2,)), last], pass_results=True)
    assert chosen(enqueued()[0]) == OWN
    ran = drain()
    assert [one.result for one in ran] == [3, 6, 11]


def test_rows_of_a_query():
    for number in range(3):
        Note.objects.create(text=str(number))
    assert typed.add.using(priority=None).enqueue_from(Note.objects.all(), "pk", timeout=3) == 3
    assert [chosen(row) for row in enqueued()] == [("mail", 0, 3.0, 3, [1, 2])] * 3
    with pytest.raises(WrongCall):
        typed.add.enqueue_from(Note.objects.all(), "pk", "pk", "pk")


def test_inline_runs_all_at_once():
    notes = [Note.objects.create(text=text) for text in ("one", "two")]
    with testing.inline():
        assert typed.add.enqueue_from(Note.objects.order_by("pk"), "pk") == 2
        assert sorted(row.args for row in Task.objects.all()) == [(note.pk,) for note in notes]
        assert typed.add.enqueue(1).result() == 2
        assert [id.result() for id in typed.add.enqueue_many([1, (2, 3)], then=common.falsy)] == [2, 5]
        assert async_to_sync(typed.add.aenqueue)(1, 1).result() == 2
        assert [id.result() for id in async_to_sync(typed.double.using(priority=1).aenqueue_many)([4])] == [8]
    assert QueuedTask.objects.count() == 0


# ------------------------------------------------------------------------------------------------- on a schedule


def test_a_schedule_has_the_tasks_options():
    row = typed.add.schedule(cron="0 3 * * *", name="nightly", args=(1,), kwargs={"y": 2})
    assert (row.name, row.schedule_type, row.func) == ("nightly", "C", "tests.functions.typed.add")
    typed.add.using(priority=None, max_attempts=9).schedule(
        minutes=5, kwargs={"x": 3}, name="often", task_name="t", timeout=None, group="g", intended_date_kwarg="y"
    )
    again = typed.add.schedule(cron="0 4 * * *", name="nightly", args=(1,), update=True)
    assert (Schedule.objects.count(), again.pk, again.cron) == (2, row.pk, "0 4 * * *")
    for found in Schedule.objects.all():
        found.next_run -= timedelta(days=2)
        found.save()
    fire_schedules()
    rows = {row.group: row for row in enqueued()}
    assert chosen(rows["nightly"]) == OWN
    assert (*chosen(rows["g"]), rows["g"].name) == ("mail", 0, None, 9, [1, 2], "t")
    assert rows["g"].kwargs.keys() == {"x", "y"}


def test_a_schedule_warns_its_caller():
    with pytest.warns(UserWarning, match="the sixth field is the second") as warned:
        typed.add.schedule(cron="0 15 10 * * *", args=(1,))
    assert [warning.filename for warning in warned] == [__file__]


def test_a_schedule_refuses_a_wrong_call():
    with pytest.raises(WrongCall):
        typed.add.schedule(minutes=5)
    assert Schedule.objects.count() == 0


#: Until Python 3.13 annotations are evaluated with their function, unless a module says this.
LATE = ["from __future__ import annotations\n", *([""] if sys.version_info >= (3, 14) else [])]
TYPED_FOR_CHECKERS = """
from typing import TYPE_CHECKING
from pgq import task
from pgq.config import Unique
if TYPE_CHECKING:
    from shop.models import Order

@task(takes_context=True)
def context_and(context: Context, order: Order) -> Order:
    return order

@task(key="order")
def keyed(order: Order = 1) -> Order:
    return order

@task(unique=Unique())
def unique(order: Order, *more: Order, **named: Order) -> Order:
    return order

class Callable:
    def __call__(self, order: Order) -> Order:
        return order

class_call = Callable()
def plain(order: Order) -> Order:
    return order
"""


@pytest.mark.parametrize("late", LATE, ids=["future", "3.14"][: len(LATE)])
def test_annotations_may_name_what_only_type_checkers_import(late, tmp_path, monkeypatch):
    module = f"typed_for_checkers_{len(late)}"
    (tmp_path / f"{module}.py").write_text(late + TYPED_FOR_CHECKERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    tasks = importlib.import_module(module)
    ids = [each.enqueue(7) for each in (tasks.context_and, tasks.keyed, tasks.unique)]
    ids += [async_task(f"{module}.{name}", 7) for name in ("plain", "class_call")]
    with pytest.raises(WrongCall, match=r"plain\(order\)"):
        async_task(tasks.plain, 7, 8)
    schedule = tasks.context_and.schedule(args=(7,), name="typed", minutes=5)
    drain()
    assert [result(id) for id in ids] == [7] * 5
    assert schedule.pk


# ------------------------------------------------------------------------------------------------- the id


def test_an_id_is_a_text_everywhere():
    id = typed.add.enqueue(1)
    assert (type(id), len(id), id.created, UUID(id).hex) == (TaskId, 32, True, id)
    for same in (pickle.loads(pickle.dumps(id)), copy.copy(id), copy.deepcopy([id])[0]):
        assert (type(same), same) == (TaskId, id)
    assert json.loads(json.dumps({"id": id})) == {"id": id}
    assert codec.encode([id], where="id") == f'["{id}"]'
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::text, %s::uuid", [id, id])
        assert cursor.fetchone() == (id, UUID(id))
    assert QueuedTask.objects.get(pk=id).pk == id
    other = async_task(common.echo, id, key=id)
    drain()
    (args, kwargs) = result(other)
    assert (type(args[0]), args[0], kwargs) == (str, id, {"key": id})
    assert id.fetch().result == 2
    assert TaskId(id).result() == 2
    assert typed.add.enqueue(1).cancel() == "queued"
