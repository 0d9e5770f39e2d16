"""Keys by every door: computed at enqueue, stored, signed; and what is wrong is said at once."""

from __future__ import annotations

import pytest
from django.test import override_settings

from pgq.codec import signing
from pgq.enqueue import write
from pgq.errors import EnqueueError
from pgq.models import Limit, QueuedTask, Task
from pgq.schedules.fire import run_now
from pgq.tasks import (
    Rate,
    async_task,
    drop_limit,
    enqueue_from,
    enqueue_many,
    fetch,
    left_limits,
    retry,
    schedule,
    set_limit,
    task,
)
from pgq.testing import drain
from tests.app.models import Note
from tests.functions import limits as functions

pytestmark = pytest.mark.django_db(transaction=True)


def keys() -> list[str | None]:
    rows = list(QueuedTask.objects.order_by("position"))
    for row in rows:
        assert row.signature is None or signing.verify_row(row), "the key is signed"
    return [row.task_key for row in rows]


def test_the_argument_that_task_names_is_the_key_behind_the_name_of_the_limit():
    functions.for_account.enqueue(42)
    functions.for_account.enqueue(account=43)
    functions.for_account.using(key="other").enqueue(1)
    functions.for_account.using(key=None).enqueue(1)
    async_task(functions.for_account, 44)
    enqueue_many(functions.for_account, [(45,), {"account": 46}])
    path = functions.for_account.path
    assert keys() == [f"{path}:{key}" for key in (42, 43, "other")] + [path] + [f"{path}:{key}" for key in (44, 45, 46)]


def test_a_function_of_the_arguments_is_the_key():
    functions.by_function.enqueue("ab", more=3)
    functions.by_function.enqueue("", more=3)
    assert keys() == ["AB3", None]


def test_a_limit_without_a_key_is_one_for_all_calls():
    functions.named.enqueue()
    functions.alone.enqueue()
    assert keys() == ["stripe", functions.alone.path]


def test_any_call_may_have_a_key():
    functions.plain.using(key="k").enqueue(1)
    async_task(functions.plain, 1, q_options={"key": 7})
    async_task("tests.functions.limits.plain", 1, q_options={"key": "k"})
    # A keyword argument of that name is the function's, as in Django-Q.
    async_task(functions.with_key, key="its own", q_options={"key": "k"})
    assert keys() == ["k", "7", "k", "k"]
    assert QueuedTask.objects.order_by("position").last().kwargs == {"key": "its own"}


def test_rows_from_a_query(django_assert_num_queries):
    notes = [Note.objects.create(text=text) for text in "ab"]
    assert enqueue_from(functions.for_account, Note.objects.order_by("pk"), args=["pk"]) == 2
    assert enqueue_from(functions.plain, Note.objects.order_by("pk"), args=["pk"], key="k") == 2
    assert keys() == [*(f"{functions.for_account.path}:{note.pk}" for note in notes), "k", "k"]


def test_the_tasks_of_a_schedule_have_its_key():
    for given in (schedule(functions.for_account, 9), schedule(functions.plain, 1, q_options={"key": "k"})):
        run_now(given)
    assert keys() == [f"{functions.for_account.path}:9", "k"]


def test_a_task_that_is_run_again_has_its_key_again():
    id = async_task(functions.for_account, 42)
    drain()
    assert fetch(id).task_key == f"{functions.for_account.path}:42"
    assert retry(id)
    assert keys() == [f"{functions.for_account.path}:42"]
    drain()
    assert Task.objects.get(pk=id).success


def test_psql_gives_a_key(session):
    session().execute("INSERT INTO pgq_queue (func, key) VALUES ('tests.functions.limits.nothing', 'k')")
    session().execute("SELECT pgq_enqueue('tests.functions.limits.nothing', key => 'k')")
    assert keys() == ["k", "k"]
    assert len(drain()) == 2


def test_a_changed_key_is_no_longer_signed(session):
    async_task(functions.plain, 1, q_options={"key": "k"})
    session().execute("UPDATE pgq_queue SET key = 'l'")
    [row] = QueuedTask.objects.all()
    assert not signing.verify_row(row)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: task(key="none")(functions.plain_function), "key"),
        (lambda: task(key=3), "key"),
        (lambda: task(concurrency=-1), "concurrency"),
        (lambda: task(concurrency="five"), "concurrency"),
        (lambda: task(concurrency=("a:b", 5)), "concurrency"),
        (lambda: task(rate="fast"), "rate"),
        (lambda: task(rate=Rate(5, 0)), "rate"),
        (lambda: task(order="lifo"), "order"),
        (lambda: task(concurrency=("a", 1), rate=("b", "1/s"))(functions.plain_function), "rate"),
        (lambda: async_task(functions.plain, 1, q_options={"key": ["list"]}), "key"),
        (lambda: async_task(functions.plain, 1, q_options={"key": "x" * 1001}), "key"),
        (lambda: functions.for_account.enqueue(["no", "key"]), "key"),
        (lambda: functions.failing.enqueue(1), "key"),
        (lambda: set_limit("a:b", concurrency=1), "name"),
        (lambda: set_limit("a", concurrency=-1), "concurrency"),
        (lambda: set_limit("a", rate="1/y"), "rate"),
        (lambda: set_limit("a", scope="tenant"), "scope"),
        (lambda: drop_limit("a", scope="tenant"), "scope"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(call, field):
    with pytest.raises(EnqueueError) as error:
        call()
    assert error.value.field == field
    assert not QueuedTask.objects.exists()
    assert not Limit.objects.exists()


def test_code_writes_its_limits_but_not_over_an_operators():
    with override_settings(PGQ={"queue_limits": {"mail": {"concurrency": 10, "rate": "1000/h"}}}):
        drain()
        mail = Limit.objects.get(scope="queue", name="mail")
        assert (mail.concurrency, mail.rate, mail.period, mail.pinned) == (10, 1000, 3600, False)
        account = Limit.objects.get(scope="key", name=functions.for_account.path)
        assert (account.concurrency, account.rate, account.strict) == (2, None, False)
        stripe = Limit.objects.get(scope="key", name="stripe")
        assert (stripe.concurrency, stripe.rate, stripe.period) == (5, 100, 60)
        set_limit("mail", concurrency=3, scope="queue")
        set_limit("stripe", concurrency=4, pin=False)
        drain()
        mail.refresh_from_db()
        stripe.refresh_from_db()
        assert (mail.concurrency, mail.rate) == (3, None)
        assert stripe.concurrency == 5, "it is not pinned"
    assert drop_limit("mail", scope="queue")
    assert not drop_limit("mail", scope="queue")


def test_a_limit_that_code_gives_no_more_is_told_until_it_is_dropped():
    with override_settings(PGQ={"queue_limits": {"mail": {"concurrency": 10}}}):
        drain()
        assert left_limits.finding().status == "ok"
    found = left_limits.finding()
    assert (found.status, "queue mail" in found.detail) == ("warning", True)
    assert "drop_limit('mail', scope='queue')" in found.advice
    set_limit("mail", concurrency=10, scope="queue")
    assert left_limits.finding().status == "ok", "it is an operator's now"
    set_limit("mail", concurrency=10, scope="queue", pin=False)
    assert left_limits.finding().status == "warning"
    drop_limit("mail", scope="queue")
    assert left_limits.finding().status == "ok"


def test_enqueue_of_a_task_without_a_key_names_no_column_of_limits(monkeypatch):
    texts = []
    monkeypatch.setattr(write, "execute_often", lambda alias, call, new: texts.append(new))
    async_task(functions.plain, 1)
    assert texts[0].key is None
