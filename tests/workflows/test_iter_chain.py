"""async_iter, Iter, async_chain and Chain."""

from __future__ import annotations

import pytest
from django.test import override_settings

from pgq.errors import EnqueueError
from pgq.models import QueuedTask, Task
from pgq.tasks import Chain, Iter, async_chain, async_iter, count_group, fetch, fetch_group, result, result_group
from pgq.testing import drain, enqueued
from tests.functions import common as functions
from tests.functions.common import TaskError

pytestmark = pytest.mark.django_db


# ------------------------------------------------------------------------------------------------- iter


def test_iter_results_are_one_list_in_order():
    id = async_iter(functions.multiply, [(1, 1), (2, 2), (3, 3)])
    assert len(id) == 32
    assert result(id) is None
    drain()
    assert result(id) == [1, 4, 9]
    # The parts are forgotten: one task is left.
    assert Task.objects.count() == 1
    assert fetch(id).success


def test_iter_of_single_arguments_and_of_a_generator():
    id = async_iter("math.floor", (x + 0.5 for x in range(4)))
    drain()
    assert result(id) == [0, 1, 2, 3]
    lists = async_iter(functions.count_letters, [["a", "bc"], ["def"]])
    drain()
    assert result(lists) == [3, 3]


def test_iter_keyword_arguments_are_for_each_call():
    id = async_iter(functions.call_out, [("a", "b"), ("c", "d")], loud=True)
    drain()
    assert result(id) == ["a b!", "c d!"]


def test_iter_of_nothing():
    id = async_iter(functions.multiply, [])
    drain()
    assert result(id) == []
    assert fetch(id).success


def test_iter_part_that_fails_stands_as_its_text():
    id = async_iter(functions.count_letters, [(["a"],), (2,), (["abc"],)])
    drain()
    one, text, three = result(id)
    assert (one, three) == (1, 3)
    assert "TypeError" in text


def test_iter_hook_is_of_the_whole():
    id = async_iter(functions.multiply, [(1, 1), (2, 2)], hook=functions.hook)
    drain()
    assert functions.seen == [(id, True, [1, 4])]


def test_iter_options():
    id = async_iter(functions.multiply, [(1, 1), (2, 2)], q_options={"task_name": "squares", "cluster": "c"})
    assert {row.queue for row in enqueued()} == {"c"}
    drain()
    assert fetch("squares").id == id


def test_iter_cached():
    id = async_iter(functions.multiply, [(1, 1), (2, 2)], cached=60)
    drain()
    assert result(id, cached=True) == [1, 4]
    assert Task.objects.count() == 0


def test_iter_sync():
    id = async_iter(functions.multiply, [(1, 1), (2, 2)], sync=True)
    assert result(id) == [1, 4]
    assert QueuedTask.objects.count() == 0


def test_iter_class():
    whole = Iter(functions.multiply)
    assert (whole.id, whole.started, whole.length(), whole.result(), whole.fetch()) == ("", False, 0, None, None)
    assert whole.append(1, 2) == 1
    assert whole.append(3, 4) == 2
    id = whole.run()
    assert (whole.id, whole.started) == (id, True)
    drain()
    assert whole.result() == [2, 12]
    assert whole.fetch().id == id
    whole.append(5, 6)
    assert whole.started is False
    assert whole.run() != id
    drain()
    assert whole.result(wait=10) == [2, 12, 30]


def test_iter_class_arguments():
    whole = Iter("math.floor", args=[1.5, 2.5], kwargs={"group": "ignored"}, cached=60, sync=True)
    whole.run()
    assert whole.result() == [1, 2]
    assert whole.fetch().success
    with pytest.raises(EnqueueError, match="func"):
        Iter().run()


# ------------------------------------------------------------------------------------------------- chain


def test_chain_one_after_the_other():
    name = async_chain([(functions.note, ("a",)), ("tests.functions.common.note", ("b",)), (functions.nothing,)])
    assert len(enqueued()) == 1
    assert len(name) == 32
    drain()
    assert functions.seen == ["a", "b"]
    assert count_group(name) == 3


def test_chain_links_and_their_forms():
    links = [
        "tests.functions.common.nothing",
        functions.nothing,
        (functions.nothing,),
        (functions.multiply, (2, 3)),
        (functions.echo, (1,), {"x": 2}),
        (functions.echo, (), {"q_options": {"task_name": "last"}, "y": 3}),
    ]
    before = list(links)
    name = async_chain(links, group="c")
    assert (name, links) == ("c", before)
    drain()
    assert result_group("c") == [((), {"y": 3}), ((1,), {"x": 2}), 6, None, None, None]
    assert fetch("last").group == "c"


def test_chain_stops_at_a_failure():
    name = async_chain([(functions.note, ("a",)), functions.fail, (functions.note, ("b",))])
    drain()
    assert functions.seen == ["a"]
    assert count_group(name) == 2


def test_chain_continue_on_failure_is_as_django_q():
    name = async_chain([functions.fail, (functions.note, ("b",))], continue_on_failure=True)
    drain()
    assert functions.seen == ["b"]
    assert count_group(name, failures=True) == 1


def test_chain_waits_for_a_retry_and_goes_on_once():
    name = async_chain([(functions.fail_first, (1,), {"max_attempts": 2}), (functions.note, ("b",))])
    drain(due=True)
    assert functions.seen == ["b"]
    assert count_group(name) == 2


def test_chain_pass_results():
    name = async_chain([(functions.multiply, (2, 3)), (functions.multiply, (4,)), (functions.echo,)], pass_results=True)
    drain()
    assert result_group(name)[:2] == [((24,), {}), 24]
    failing = async_chain([functions.fail, functions.echo], pass_results=True, continue_on_failure=True)
    drain()
    assert result_group(failing) == [((None,), {})]


def test_chain_whose_links_are_not_saved_goes_on():
    async_chain([(functions.note, ("a",), {"save": False}), (functions.note, ("b",))])
    with override_settings(PGQ={"save_limit": -1}):
        drain()
    assert functions.seen == ["a", "b"]


def test_chain_link_may_have_a_queue():
    async_chain([(functions.note, ("a",), {"cluster": "long"}), (functions.note, ("b",))])
    [row] = enqueued()
    assert row.queue == "long"
    drain()
    assert [task.queue for task in Task.objects.order_by("id")] == ["long", "default"]


def test_chain_sync():
    name = async_chain([(functions.multiply, (1, 2)), (functions.multiply, (3, 4))], sync=True)
    assert result_group(name) == [12, 2]
    with override_settings(PGQ={"sync": True}):
        name = async_chain([(functions.multiply, (1, 2)), (functions.multiply, (3, 4))])
    assert result_group(name) == [12, 2]
    with pytest.raises(TaskError):
        async_chain([functions.fail, functions.nothing], sync=True)


def test_chain_cached():
    name = async_chain([(functions.multiply, (1, 2)), (functions.multiply, (3, 4))], cached=60)
    drain()
    assert result_group(name, cached=True) == [12, 2]
    assert Task.objects.count() == 0


def test_chain_that_is_wrong():
    with pytest.raises(EnqueueError, match="at least one link"):
        async_chain([])
    with pytest.raises(EnqueueError, match="a link is"):
        async_chain([functions.nothing, 7])
    with pytest.raises(EnqueueError, match="a link is"):
        async_chain([(functions.nothing, (), {}, 1)])
    assert QueuedTask.objects.count() == 0


def test_chain_class():
    chain = Chain()
    assert (chain.started, chain.length()) == (False, 0)
    assert (chain.current(), chain.result(), chain.fetch()) == (None, None, None)
    assert chain.append(functions.multiply, 2, 3) == 1
    assert chain.append("tests.functions.common.echo", 1, x=2) == 2
    name = chain.run()
    assert (chain.group, chain.started) == (name, True)
    assert chain.current() == 0
    drain()
    assert chain.current() == chain.length() == 2
    assert chain.result() == [((1,), {"x": 2}), 6]
    assert chain.result(wait=-1) == chain.result()
    assert [task.success for task in chain.fetch()] == [True, True]
    # A chain that has run and gets another link runs anew, and its old results are no longer counted.
    assert chain.append(functions.nothing) == 3
    assert chain.started is False
    assert chain.run() == name
    drain()
    assert chain.current() == 3


def test_chain_class_arguments():
    chain = Chain([(functions.multiply, (2, 3)), (functions.fail,)], group="g", cached=60, sync=False)
    assert chain.run() == "g"
    drain()
    assert chain.result() == [6]
    assert len(chain.fetch()) == 2
    assert len(chain.fetch(failures=False)) == 1
    assert fetch_group("g", cached=True)[0].success is False
    passing = Chain([(functions.multiply, (2, 3)), functions.echo], pass_results=True)
    passing.run()
    drain()
    assert passing.result()[0] == ((6,), {})
    going_on = Chain([functions.fail, functions.nothing], continue_on_failure=True)
    going_on.run()
    drain()
    assert going_on.current() == 2
