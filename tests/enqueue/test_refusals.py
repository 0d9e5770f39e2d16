"""What is refused at the enqueue: the message names the argument, and nothing is written."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import override_settings

from pgq.errors import EnqueueError, NotStorable, UnknownFunction, UnknownOption
from pgq.models import QueuedTask
from pgq.tasks import async_task, enqueue_many, queue_size, task
from tests.functions import oracle as oracle_tasks
from tests.support.hand import MARK

pytestmark = pytest.mark.django_db


def generate():
    yield


async def agenerate():
    yield


WRONG = [
    ("nowhere.at_all", {}, UnknownFunction, "func: 'nowhere.at_all': there is no module 'nowhere'"),
    ("tests.app.tasks.missing", {}, UnknownFunction, "func: .* has no missing"),
    ("tests.app.models.models", {}, UnknownFunction, "func: .* cannot be called"),
    ("plain", {}, UnknownFunction, "func: 'plain' is not a dotted path"),
    ("", {}, UnknownFunction, "func: "),
    ("a\x00.b", {}, UnknownFunction, "func: "),
    (3, {}, UnknownFunction, "func: 3 is not a function"),
    (lambda: None, {}, UnknownFunction, "func: <lambda> is a lambda"),
    ("tests.enqueue.test_refusals.generate", {}, UnknownFunction,
     "func: generate has a yield: to call it runs nothing"),
    ("tests.enqueue.test_refusals.agenerate", {}, UnknownFunction, "func: agenerate has a yield"),
    (MARK, {"hook": "tests.enqueue.test_refusals.generate"}, UnknownFunction, "hook: generate has a yield"),
    (MARK, {"q_options": {"prioritty": 1}}, EnqueueError, "q_options: there is no option prioritty"),
    (MARK, {"q_options": 5}, EnqueueError, "q_options: must be a dict"),
    (MARK, {"hook": "nowhere.at_all"}, UnknownFunction, "hook: 'nowhere.at_all'"),
    (MARK, {"hook": 3}, UnknownFunction, "hook: 3 is not a function"),
    (MARK, {"priority": 101}, EnqueueError, "priority: .*-100 to 100, got 101"),
    (MARK, {"priority": -101}, EnqueueError, "priority: "),
    (MARK, {"priority": 1.5}, EnqueueError, "priority: "),
    (MARK, {"priority": True}, EnqueueError, "priority: "),
    (MARK, {"timeout": 0}, EnqueueError, "timeout: "),
    (MARK, {"timeout": -2}, EnqueueError, "timeout: "),
    (MARK, {"timeout": "3"}, EnqueueError, "timeout: "),
    (MARK, {"timeout": float("nan")}, EnqueueError, "timeout: "),
    (MARK, {"timeout": float("inf")}, EnqueueError, "timeout: "),
    (MARK, {"timeout": 10**400}, EnqueueError, "timeout: "),
    (MARK, {"timeout": True}, EnqueueError, "timeout: "),
    (MARK, {"max_attempts": -1}, EnqueueError, "max_attempts: "),
    (MARK, {"max_attempts": 2**31}, EnqueueError, "max_attempts: "),
    (MARK, {"max_attempts": 1.5}, EnqueueError, "max_attempts: "),
    (MARK, {"run_after": "tomorrow"}, EnqueueError, "run_after: "),
    (MARK, {"run_after": float("nan")}, EnqueueError, "run_after: "),
    (MARK, {"run_after": 1e30}, EnqueueError, "run_after: "),
    (MARK, {"run_after": timedelta.max}, EnqueueError, "run_after: "),
    (MARK, {"run_after": datetime.max}, EnqueueError, "run_after: "),
    (MARK, {"retry_backoff": -1}, EnqueueError, "retry_backoff: "),
    (MARK, {"retry_backoff": []}, EnqueueError, "retry_backoff: "),
    (MARK, {"retry_backoff": lambda: 1}, UnknownFunction, "retry_backoff: <lambda>"),
    (MARK, {"retry_on": 5}, EnqueueError, "retry_on: "),
    (MARK, {"no_retry_on": [5]}, EnqueueError, "no_retry_on: "),
    (MARK, {"ack": "never"}, EnqueueError, "ack: "),
    (MARK, {"queue": "a\x00"}, EnqueueError, "queue: "),
    (MARK, {"queue": 5}, EnqueueError, "queue: "),
    (MARK, {"group": "x" * 1001}, EnqueueError, "group: "),
    (MARK, {"group": "".join(chr(0x4E00 + 7 * number % 20000) for number in range(1000))}, EnqueueError, "group: "),
    (MARK, {"task_name": "\ud800"}, EnqueueError, "name: "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("func", "options", "kind", "message"), WRONG, ids=[f"{number}-{case[3][:20]}" for number, case in enumerate(WRONG)]
)
def test_wrong_option_is_named_and_nothing_is_written(func, options, kind, message):
    with pytest.raises(kind, match=f"^{message}") as caught:
        async_task(func, **options)
    assert isinstance(caught.value, EnqueueError)
    assert QueuedTask.objects.count() == 0


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((object(),), {}, r"args\[0\] is a object"),
        ((1, {"x": [1, object()]}), {}, r"args\[1\]\['x'\]\[1\] is a object"),
        ((), {"key": object()}, r"kwargs\['key'\] is a object"),
        (("a\x00b",), {}, r"args\[0\] holds a NUL"),
        ((["\ud800"],), {}, r"args\[0\]\[0\] holds a lone surrogate"),
        ((float("nan"),), {}, r"args\[0\] is nan"),
        ((), {"key": float("-inf")}, r"kwargs\['key'\] is -inf"),
        (("x" * 2000,), {}, r"args\[0\] .* 1,000 bytes"),
    ],
    ids=["object", "nested", "keyword", "nul", "surrogate", "nan", "infinity", "large"],
)
def test_argument_without_stored_form_is_named_and_nothing_is_written(args, kwargs, message):
    with override_settings(PGQ={"max_payload": 1000}), pytest.raises(NotStorable, match=f"^{message}"):
        async_task(MARK, *args, **kwargs)
    assert QueuedTask.objects.count() == 0


@pytest.mark.parametrize("func", [generate, agenerate])
def test_a_generator_function_is_no_task(func):
    with pytest.raises(UnknownFunction, match="has a yield"):
        task(func)


def test_unknown_option_of_the_decorator():
    with pytest.raises(UnknownOption, match=r"^nonsense: "):
        oracle_tasks.registered.using(nonsense=1).enqueue(2)
    assert QueuedTask.objects.count() == 0


def test_enqueue_many_writes_no_chunk_with_a_wrong_call():
    with pytest.raises(NotStorable, match=r"^args\[0\]"):
        enqueue_many(MARK, [1, 2, object()])
    assert QueuedTask.objects.count() == 0


def test_longest_texts_are_stored():
    longest = "é" * 500
    id = async_task(MARK, queue=longest, group=longest, task_name=longest)
    row = QueuedTask.objects.get(pk=id)
    assert (row.queue, row.group, row.name) == (longest, longest, longest)


@pytest.mark.parametrize(
    "columns",
    [
        "func = ''", "queue = ''", "args = '{}'", "kwargs = '[]'", "options = '1'", "timeout = 0", "timeout = -1",
        "max_attempts = -1", "crashes = 1", "lock = now()", "worker = gen_random_uuid()",
        "receipt = gen_random_uuid()", "schedule = 1", "slot = now()",
        "lock = now(), worker = gen_random_uuid(), receipt = gen_random_uuid(), parked = 'x'",
        "enqueued_at = 'infinity'", "enqueued_at = '-infinity'", "enqueued_at = '0044-03-15 BC'",
        "run_after = 'infinity'", "run_after = '12000-01-01'",
    ],
)  # fmt: skip
def test_table_refuses_bad_states(columns):
    id = async_task(MARK)
    with pytest.raises(IntegrityError, match="check"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE pgq_queue SET {columns} WHERE id = %s", (id,))


def test_delayed_task_waits_for_its_time():
    soon = async_task(MARK, run_after=3600)
    past = async_task(MARK, run_after=-5)
    assert QueuedTask.objects.get(pk=soon).state == "waiting"
    # Its time has come by the clock of the database: no tick is needed.
    assert QueuedTask.objects.get(pk=past).state == "ready"
    assert queue_size() == 1


def test_caller_in_an_aborted_transaction_is_told():
    with transaction.atomic():
        with pytest.raises(Exception, match="nonsense"), connection.cursor() as cursor:
            cursor.execute("SELECT nonsense")
        with pytest.raises(Exception, match=r"atomic|aborted"):
            async_task(MARK)
        transaction.set_rollback(True)
    assert QueuedTask.objects.count() == 0
