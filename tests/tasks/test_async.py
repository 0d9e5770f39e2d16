"""Coroutines enqueue, read, wait and cancel, by the caller's connection or by the hub's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from uuid import UUID

import psycopg
import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.test import TestCase, override_settings

from pgq import tasks, testing
from pgq.errors import EnqueueError, NotCommitted
from pgq.ground.ids import task_name
from pgq.models import Task
from pgq.tasks import (
    acancel,
    aenqueue,
    aenqueue_many,
    afetch,
    afetch_group,
    aresult,
    aresult_group,
    aretry,
    hub,
)
from tests.app.models import Note
from tests.functions import common as functions
from tests.support.environment import environment
from tests.support.hand import run_all, value
from tests.support.pools import wait_for

MULTIPLY = functions.multiply


async def count_and_note(text):
    await Note.objects.acreate(text=text)
    return await Note.objects.acount()


class InTestCase(TestCase):
    """All of it is in the test's transaction."""

    async def test_the_callers_transaction(self):
        await Note.objects.acreate(text="the test's")
        id = await aenqueue(count_and_note, "the task's", group="g", task_name="n")
        many = await aenqueue_many(MULTIPLY, [(1, 2), (3, 4)], group="h")
        assert [row.id for row in await sync_to_async(testing.enqueued)()] == [id, *many]
        began = time.monotonic()
        for wait in (
            lambda: id.aresult(wait=60_000),
            lambda: id.afetch(wait=-1),
            lambda: afetch("n", wait=60_000),
            lambda: afetch_group("g", count=1),
            lambda: aresult_group("g", wait=60_000),
            lambda: aresult(id, wait=60_000, cached=True),
        ):
            with pytest.raises(NotCommitted, match=r"drain\(\)"):
                await wait()
        assert time.monotonic() - began < 20
        assert await id.aresult() is None
        assert await acancel(many[0]) == "queued"
        assert len(await testing.adrain()) == 2
        assert await id.aresult(wait=60_000) == 2
        assert (await id.afetch()).success
        assert await aresult_group("h", wait=60_000) == [12]
        assert len(await afetch_group("h", wait=-1, count=2)) == 2
        assert await afetch_group("x") is None
        assert await aretry(id) is True
        assert await id.acancel() == "queued"

    async def test_inline(self):
        await Note.objects.acreate(text="the test's")
        with testing.inline():
            assert await aresult(await aenqueue(count_and_note, "a")) == 2
        assert await aresult(await aenqueue(count_and_note, "b", sync=True)) == 3
        assert await aresult((await aenqueue_many(count_and_note, ["c"], sync=True))[0]) == 4
        assert await Note.objects.acount() == 4

    @testing.inline()
    async def test_inline_decorator(self):
        assert await aresult(await aenqueue(count_and_note, "a")) == 1
        assert await testing.adrain() == []

    async def test_error_before_anything_is_written(self):
        with pytest.raises(EnqueueError):
            await aenqueue("nowhere.at_all")

    def test_nothing_is_left(self):
        assert (Task.objects.count(), Note.objects.count()) == (0, 0)

    def test_async_view_in_sync_code(self):
        Note.objects.create(text="the test's")

        async def view():
            return await aresult(await aenqueue(count_and_note, "a", sync=True))

        assert async_to_sync(view)() == 2


@pytest.fixture
def observer(session):
    """A session of PostgreSQL that is not in this process's way."""
    return session()


@pytest.fixture
def hubs():
    """No hub is left of an earlier test; what is left of this one ends."""
    hub.stop()
    yield hub._hubs
    hub.stop()
    assert not hub._sessions


def sessions(observer):
    ours = "application_name = %s AND datname = current_database()"
    return value(observer, f"SELECT count(*) FROM pg_stat_activity WHERE {ours}", hub.APPLICATION)


def run(main):
    """Run a coroutine in a loop of its own, and leave no connection behind, which would keep the test's database."""

    async def closing():
        try:
            return await main()
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(closing())


async def until(condition, what):
    await asyncio.to_thread(wait_for, condition, what)


def waiters_number():
    return sum(len(each.waiters) for each in list(hub._hubs.values()))


def are_waiting(number):
    """Whether so many wait, and the hub has looked for each of them."""
    waiters = [waiter for each in list(hub._hubs.values()) for waiter in list(each.waiters)]
    return len(waiters) == number and all(waiter.looked for waiter in waiters)


@pytest.mark.django_db(transaction=True)
def test_many_wait_by_one_session(observer, hubs):
    ids = tasks.enqueue_many(MULTIPLY, [(n, 2) for n in range(60)])
    named = tasks.async_task(MULTIPLY, 1, 2, task_name="n", group="g")
    words = task_name(UUID(tasks.async_task(MULTIPLY, 1, 3)))

    async def main():
        # Each with a thread and connections of its own, as requests have them under ASGI.
        async def request(id):
            async with ThreadSensitiveContext():
                return await aresult(id, wait=60_000)

        found = [asyncio.create_task(request(id)) for id in ids]
        found += [
            asyncio.create_task(each) for each in (aresult(words, -1), afetch("n", -1), afetch_group("g", wait=60_000))
        ]
        await until(lambda: are_waiting(63), "all wait")
        assert sessions(observer) == 1
        # The fixture's, the hub's and this test's.
        assert value(observer, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") <= 4
        # A coroutine that no longer waits is no waiter.
        found.pop(0).cancel()
        await until(lambda: are_waiting(62), "one less waits")
        run_all(observer)
        *results, of_words, task, [member] = await asyncio.gather(*found)
        assert results == [n * 2 for n in range(1, 60)]
        assert (of_words, task.id, member.id) == (3, named, named)
        assert are_waiting(0)

    run(main)


@pytest.mark.django_db(transaction=True)
def test_the_hub_reads_what_the_orm_reads(observer, hubs):
    id = tasks.async_task(MULTIPLY, 2, 3, task_name="n", group="g", hook=functions.hook, timeout=9)
    bad = tasks.async_task(functions.fail, "loudly", max_attempts=2, retry_backoff=0)

    async def main():
        waiting = asyncio.gather(afetch(id, 60_000), afetch(bad, 60_000), aresult(bad, 60_000))
        await until(lambda: are_waiting(3), "they wait")
        await sync_to_async(testing.drain)()
        return await waiting

    for use_tz in (True, False):
        with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Kathmandu"):
            good, failed, text = run(main)
            for found in (good, failed):
                expected = Task.objects.get(pk=found.id)
                fields = [field.attname for field in Task._meta.concrete_fields]
                assert {name: getattr(found, name) for name in fields} == {
                    name: getattr(expected, name) for name in fields
                }
                assert (found._state.adding, found._state.db) == (False, "default")
            assert text == failed.result
            assert text.startswith("loudly")
            assert good.result == 6
        tasks.retry(id)
        tasks.retry(bad)


@pytest.mark.django_db(transaction=True)
def test_several_loops_and_threads(observer, hubs):
    ids = tasks.enqueue_many(MULTIPLY, [(n, 2) for n in range(6)])
    found = {}

    def in_a_thread(id):
        found[id] = tasks.result(id, wait=60_000)
        connection.close()

    def on_a_loop(id):
        async def main():
            found[id] = await aresult(id, wait=60_000)

        run(main)

    threads = [
        threading.Thread(target=(in_a_thread, on_a_loop)[number % 2], args=(id,)) for number, id in enumerate(ids)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: are_waiting(6), "all wait")
    assert sessions(observer) == 1
    run_all(observer)
    for thread in threads:
        thread.join()
    assert [found[id] for id in ids] == [0, 2, 4, 6, 8, 10]


@pytest.mark.django_db(transaction=True)
def test_times_are_in_milliseconds(hubs):
    id = tasks.async_task(MULTIPLY, 2, 3)

    async def main():
        for wait in (1, 150):
            began = time.monotonic()
            assert await aresult(id, wait=wait) is None
            assert wait / 1000 <= time.monotonic() - began < wait / 1000 + 5
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.1):
                await aresult(id, wait=-1)

    run(main)


@pytest.mark.django_db(transaction=True)
def test_cached(hubs):
    id = tasks.async_task(MULTIPLY, 2, 3, cached=60, group="g")

    async def main():
        waiting = asyncio.gather(aresult(id, 60_000, cached=True), aresult_group("g", wait=60_000, cached=True))
        await until(lambda: are_waiting(2), "they wait")
        await sync_to_async(testing.drain)()
        return await waiting

    assert run(main) == [6, [6]]


@pytest.mark.django_db(transaction=True)
def test_the_session_is_lost_and_comes_back(observer, hubs):
    id = tasks.async_task(MULTIPLY, 2, 3)

    async def main():
        waiting = asyncio.gather(aresult(id, 60_000), sync_to_async(tasks.result, thread_sensitive=False)(id, 60_000))
        await until(lambda: are_waiting(2), "they wait")
        old = next(iter(hub._sessions.values()))
        # All but this one, as a restart of PostgreSQL does.
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        observer.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        await until(lambda: any(each is not old for each in hub._sessions.values()), "a new session")
        await until(lambda: sessions(observer) == 1, "it is there")
        run_all(observer)
        return await waiting

    try:
        assert run(main) == [6, 6]
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", ["SET default_transaction_read_only = on", "ALLOW_CONNECTIONS false"])
def test_without_notifications(change, observer, hubs, pg_dsn, monkeypatch):
    """The hub's session may not raise the flag, or there is none: they poll."""
    monkeypatch.setattr("pgq.tasks.waiting._TICK", 0.2)
    id = tasks.async_task(MULTIPLY, 2, 3, group="g")
    name = connection.settings_dict["NAME"]

    connected, changed = threading.Event(), threading.Event()

    def in_a_thread():
        try:
            Task.objects.count()
            connected.set()
            changed.wait(30)
            return tasks.result(id, 60_000)
        finally:
            connections.close_all()

    async def main():
        # Only new sessions are concerned.
        await Task.objects.acount()
        thread = asyncio.create_task(asyncio.to_thread(in_a_thread))
        await asyncio.to_thread(connected.wait, 30)
        with psycopg.connect(pg_dsn, autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" {change}')
            try:
                changed.set()
                waiting = asyncio.gather(aresult(id, 60_000), afetch_group("g", wait=60_000), thread)
                await until(lambda: waiters_number() >= 2, "they wait")
                run_all(observer)
                return await waiting
            finally:
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
                admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

    found, [member], in_thread = run(main)
    assert (found, member.result, in_thread) == (6, 6, 6)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_hears_of_what_others_settle(observer, hubs):
    id = tasks.async_task(MULTIPLY, 2, 3)

    def in_transaction():
        with transaction.atomic():
            Note.objects.count()
            return async_to_sync(aresult)(id, wait=60_000)

    async def main():
        waiting = asyncio.create_task(sync_to_async(in_transaction)())
        await until(lambda: are_waiting(1), "it waits")
        run_all(observer)
        return await waiting

    assert run(main) == 6


@pytest.mark.django_db(transaction=True)
def test_the_hub_ends_and_begins_anew(observer, hubs, monkeypatch):
    monkeypatch.setattr(hub, "LINGER", 0.1)
    id = tasks.async_task(MULTIPLY, 2, 3)
    for _ in range(2):
        assert run(lambda: aresult(id, wait=20)) is None
        [thread] = [each.thread for each in hubs.values()]
        thread.join(20)
        assert not hubs
        wait_for(lambda: not sessions(observer), "its session has ended")


FORK = """
import os, threading, time
import django
django.setup()
from django.db import connection
from pgq import tasks, testing
from pgq.tasks import hub

def wait_for(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)

id, never = tasks.async_task("operator.add", 2, 4), tasks.async_task("operator.add", 1, 1, run_after=9999)
threads = [threading.Thread(target=tasks.result, args=(each, -1), daemon=True) for each in (id, never)]
for thread in threads:
    thread.start()
wait_for(lambda: hub._sessions and [len(each.waiters) for each in hub._hubs.values()] == [2])
connection.close()
parent = os.getpid()
if os.fork() == 0:
    # The fork has none of it, and may wait by itself.
    assert not hub._hubs and not hub._sessions
    [ran] = testing.drain()
    assert tasks.result(id, wait=-1) == 6 and tasks.result(never, wait=100) is None
    hub.stop()
    wait_for(lambda: os.getppid() != parent)
    with connection.cursor() as cursor:
        def alone():
            ours = "application_name = %s AND datname = current_database()"
            cursor.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}", [hub.APPLICATION])
            return cursor.fetchone() == (0,)
        wait_for(alone)
    print("good", flush=True)
    os._exit(0)
threads[0].join(30)
assert not threads[0].is_alive() and threads[1].is_alive()
"""


@pytest.mark.django_db(transaction=True)
def test_forks_and_the_end_of_the_process():
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("good\n", "", 0)
