"""Reading results: by id and name, waiting, groups, the cache."""

from __future__ import annotations

import threading
import time

import pytest
from django.core.cache import cache, caches
from django.db import connection
from django.test import override_settings

from pgq.models import Failure, Success, Task
from pgq.tasks import (
    async_task,
    count_group,
    count_group_cached,
    delete_cached,
    delete_group,
    delete_group_cached,
    fetch,
    fetch_cached,
    fetch_group,
    fetch_group_cached,
    result,
    result_cached,
    result_group,
    result_group_cached,
)
from pgq.testing import drain
from tests.functions import common as functions

pytestmark = pytest.mark.django_db


class Later:
    """Does something on a thread, so with a connection of its own, a little later."""

    def __init__(self, do, seconds=0.15):
        self.began = time.monotonic()
        self.error = None
        self.thread = threading.Thread(target=self._run, args=(do, seconds))

    def _run(self, do, seconds):
        time.sleep(seconds)
        try:
            do()
        except Exception as error:
            self.error = error
        finally:
            connection.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.thread.join()
        assert self.error is None

    @property
    def elapsed(self):
        return time.monotonic() - self.began


def group(*funcs, name="g", **options):
    ids = [async_task(func, *args, group=name, **options) for func, *args in funcs]
    drain()
    return ids


# ------------------------------------------------------------------------------------------------- one task


def test_by_id_and_by_name():
    id = async_task(functions.multiply, 2, 3, task_name="product")
    drain()
    for key in (id, "product"):
        assert result(key) == 6
        assert fetch(key).id == id
    assert Task.get_task("product").id == Task.get_task(id).id == id
    assert Task.get_result("product") == Task.get_result(id) == 6


def test_by_the_four_words_of_an_unnamed_task():
    id = async_task(functions.multiply, 2, 3)
    other = async_task(functions.multiply, 2, 4)
    drain()
    words = fetch(id).name
    assert len(words.split("-")) == 4
    assert (result(words), result(fetch(other).name)) == (6, 8)
    assert fetch("acid-acre-aero-alarm") is None


def test_of_several_of_a_name_the_newest():
    for x in (1, 2, 3):
        async_task(functions.multiply, x, x, task_name="square")
    drain()
    assert result("square") == 9


def test_name_of_32_characters():
    async_task(functions.multiply, 1, 2, task_name="n" * 32)
    async_task(functions.multiply, 1, 3, task_name="a" * 32)
    drain()
    assert (result("n" * 32), result("a" * 32)) == (2, 3)


def test_what_is_not_there():
    assert result("0" * 32) is None
    assert fetch("nobody") is None
    assert Task.get_task("0" * 32) is None
    with pytest.raises(TypeError, match="id or name"):
        fetch(7)


def test_not_finished_is_none():
    id = async_task(functions.multiply, 1, 1)
    assert (result(id), fetch(id)) == (None, None)


@pytest.mark.parametrize("value", [0, "", [], {}, False])
def test_falsy_results(value):
    id = async_task(functions.falsy, value)
    drain()
    assert result(id, wait=20) == value


def test_none_is_a_result_and_waiting_for_it_ends():
    id = async_task(functions.nothing)
    drain()
    assert result(id, wait=-1) is None
    assert fetch(id, wait=-1).success


def test_result_of_a_failure_is_its_text_and_traceback():
    id = async_task(functions.fail, "loudly")
    drain()
    finished = fetch(id)
    assert not finished.success
    assert finished.result.startswith("loudly : Traceback")
    assert "in fail" in result(id)
    assert finished.exception == "tests.functions.common.TaskError"
    assert finished.message == "loudly"


# ------------------------------------------------------------------------------------------------- waiting


@pytest.mark.django_db(transaction=True)
def test_wait_is_in_milliseconds_and_gives_up():
    id = async_task(functions.multiply, 1, 1)
    began = time.monotonic()
    assert result(id, wait=120) is None
    assert 0.1 < time.monotonic() - began < 5


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("wait", [30_000, -1])
def test_wait_ends_when_the_task_has(wait):
    id = async_task(functions.multiply, 6, 7)
    with Later(drain) as later:
        assert result(id, wait=wait) == 42
        assert later.elapsed < 20


@pytest.mark.django_db(transaction=True)
def test_wait_for_ever_for_a_count():
    for x in range(3):
        async_task(functions.multiply, x, 2, group="g")

    def finish():
        async_task(functions.fail, group="g")
        drain()

    with Later(finish):
        # The failure counts, and is left out of what is returned.
        assert result_group("g", wait=-1, count=4) == [4, 2, 0]


@pytest.mark.django_db(transaction=True)
def test_wait_zero_with_a_count_waits_for_ever():
    async_task(functions.multiply, 1, 2, group="g")
    with Later(drain):
        assert result_group("g", count=1) == [2]


def test_count_is_at_least():
    group((functions.multiply, 1, 1), (functions.multiply, 1, 2), (functions.multiply, 1, 3))
    assert result_group("g", count=2, wait=-1) == [3, 2, 1]


def test_count_out_of_reach_returns_what_there_is():
    group((functions.multiply, 1, 1))
    assert result_group("g", count=5, wait=80) == [1]
    assert [task.result for task in fetch_group("g", count=5, wait=80)] == [1]


# ------------------------------------------------------------------------------------------------- groups


def test_group_functions():
    group((functions.multiply, 1, 1), (functions.fail,), (functions.multiply, 2, 2))
    assert result_group("g") == [4, 1]
    assert len(result_group("g", failures=True)) == 3
    assert [task.success for task in fetch_group("g")] == [True, False, True]
    assert [task.result for task in fetch_group("g", failures=False)] == [4, 1]
    assert (count_group("g"), count_group("g", failures=True)) == (3, 1)


def test_unknown_group():
    assert (result_group("x"), fetch_group("x"), count_group("x"), delete_group("x")) == (None, None, 0, 0)


def test_delete_group_takes_the_label_off():
    first, _ = group((functions.multiply, 1, 1), (functions.multiply, 1, 2))
    assert delete_group("g") == 2
    assert count_group("g") == 0
    assert fetch(first).group is None


def test_delete_group_with_tasks():
    group((functions.multiply, 1, 1), (functions.multiply, 1, 2))
    assert delete_group("g", tasks=True) == (2, {"pgq.Task": 2})
    assert Task.objects.count() == 0


def test_group_methods_of_a_task():
    [id, _] = group((functions.multiply, 1, 1), (functions.fail,))
    task = fetch(id)
    assert task.group_result() == [1]
    assert len(task.group_result(failures=True)) == 2
    assert (task.group_count(), task.group_count(failures=True)) == (2, 1)
    assert task.group_delete() == 2
    assert fetch(id).group_count() is None
    assert fetch(id).group_result() is None
    assert fetch(id).group_delete() is None


def test_group_methods_of_the_class():
    group((functions.multiply, 1, 1), (functions.fail,))
    assert Task.get_result_group("g") == [1]
    assert len(Task.get_result_group("g", failures=True)) == 2
    assert (Task.get_group_count("g"), Task.get_group_count("g", failures=True)) == (2, 1)
    assert Task.get_task_group("g").count() == 2
    assert Task.get_task_group("g", failures=False).count() == 1
    assert Task.delete_group("g", objects=True)[0] == 2


def test_success_and_failure():
    good, bad = group((functions.multiply, 1, 1), (functions.fail,))
    assert [task.id for task in Success.objects.all()] == [good]
    assert [task.id for task in Failure.objects.order_by("-stopped")[:10]] == [bad]
    assert [task.id for task in Task.objects.all()] == [bad, good]
    assert str(Success.objects.get()) == Success.objects.get().name
    assert Success._meta.proxy
    assert Failure._meta.proxy


# ------------------------------------------------------------------------------------------------- cache


def test_cached_result_is_in_the_cache_only():
    id = async_task(functions.multiply, 6, 7, cached=True)
    drain()
    assert result(id) is None
    assert result(id, cached=True) == result_cached(id) == 42
    found = fetch_cached(id)
    assert (found.id, found.success, found.args, found.func) == (id, True, (6, 7), "tests.functions.common.multiply")
    assert result_cached(found.name) == 42
    assert Task.objects.count() == 0


def test_saving_a_cached_task_makes_it_last():
    id = async_task(functions.multiply, 6, 7, cached=True)
    drain()
    fetch_cached(id).save()
    assert result(id) == 42


def test_cached_for_seconds(settings):
    id = async_task(functions.nothing, cached=1)
    drain()
    assert fetch_cached(id).success
    time.sleep(1.1)
    assert fetch_cached(id) is None


def test_cached_key_is_django_qs():
    id = async_task(functions.multiply, 1, 1, cached=60, group="g")
    drain()
    assert cache.get(f"default:{id}") is not None
    assert cache.get("default:g:keys") == [id]


def test_cached_failure_is_in_both():
    id = async_task(functions.fail, "loudly", cached=True)
    drain()
    assert result_cached(id).startswith("loudly")
    assert fetch(id).success is False


def test_cached_groups():
    ids = group((functions.multiply, 1, 1), (functions.fail,), (functions.multiply, 2, 2), cached=60)
    assert result_group_cached("g") == result_group("g", cached=True) == [4, 1]
    assert len(result_group_cached("g", failures=True)) == 3
    assert [task.id for task in fetch_group_cached("g")] == ids[::-1]
    assert len(fetch_group_cached("g", failures=False, count=3, wait=-1)) == 2
    assert (count_group_cached("g"), count_group_cached("g", failures=True)) == (3, 1)
    assert delete_cached(ids[0]) is True
    assert delete_cached(ids[0]) is False
    assert len(fetch_group_cached("g")) == 2
    assert delete_group_cached("g") == 3
    assert (fetch_group_cached("g"), count_group_cached("g"), delete_group_cached("x")) == (None, 0, 0)


def test_delete_group_in_the_cache():
    group((functions.multiply, 1, 1), cached=60)
    assert delete_group("g", cached=True) == 1
    assert count_group("g", cached=True) == 0


def test_cached_of_the_settings_and_an_explicit_false():
    with override_settings(PGQ={"cached": 60}):
        id = async_task(functions.multiply, 2, 2)
        explicit = async_task(functions.multiply, 3, 3, cached=False)
        drain()
        assert (result(id), result(id, cached=False)) == (4, None)
        assert result(explicit, cached=False) == 9


def test_cached_calls_its_hook():
    id = async_task(functions.multiply, 2, 2, cached=60, hook=functions.hook)
    drain()
    assert functions.seen == [(id, True, 4)]
    assert result_cached(id) == 4
    assert Task.objects.filter(pk=id).count() == 0


@override_settings(
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "results": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "results"},
    },
    PGQ={"cache": "results", "name": "shop"},
)
def test_cache_and_name_of_the_settings():
    id = async_task(functions.multiply, 1, 1, cached=True)
    drain()
    assert caches["results"].get(f"shop:{id}") is not None
    assert result_cached(id) == 1
