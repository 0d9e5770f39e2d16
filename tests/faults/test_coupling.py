"""F38: an enqueue is there if and only if the transaction it was made in has committed (I12), and then runs once."""

from __future__ import annotations

import contextlib
import random
from itertools import count

import psycopg
import pytest
from django.db import connections, transaction

from pgq.enqueue.make import make_task
from pgq.models import QueuedTask, Task
from pgq.store import queue
from pgq.tasks import async_chain, async_task, enqueue_many
from tests.functions.oracle import mark
from tests.support.pools import wait_for

TASKS = "tests.faults.tasks"


class Oops(Exception):
    """Raised on purpose, to roll back."""


class Business:
    """Does what applications do, at random, and knows which of its enqueues must be there afterwards."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.keys = count()
        self.made: set[str] = set()

    def transaction(self, depth: int = 0) -> set[str]:
        """Open a transaction, or a savepoint in one, enqueue, perhaps roll back; return what has been kept."""
        kept: set[str] = set()
        with contextlib.suppress(Oops), transaction.atomic():
            for _ in range(self.random.randint(1, 4)):
                kept |= self.step(depth)
            if self.random.random() < 0.4:
                kept = set()
                raise Oops
        return kept

    def step(self, depth: int) -> set[str]:
        do = self.random.choice([self.one, self.many, self.chain, self.later, self.nested])
        return do(depth)

    def new(self) -> str:
        key = f"k{next(self.keys)}"
        self.made.add(key)
        return key

    def one(self, depth: int) -> set[str]:
        key = self.new()
        async_task(mark, key)
        return {key}

    def many(self, depth: int) -> set[str]:
        keys = [self.new() for _ in range(3)]
        enqueue_many(mark, keys)
        return set(keys)

    def chain(self, depth: int) -> set[str]:
        keys = [self.new() for _ in range(2)]
        async_chain([(mark, (key,)) for key in keys])
        return set(keys)

    def later(self, depth: int) -> set[str]:
        key = self.new()
        transaction.on_commit(lambda: async_task(mark, key))
        return {key}

    def nested(self, depth: int) -> set[str]:
        return self.transaction(depth + 1) if depth < 3 else self.one(depth)


@pytest.mark.fault("F38", short=30, full=1000)
def test_what_was_rolled_back_is_not_there_and_what_was_committed_is(pool, oracle, rounds, note):
    pool(workers=2, poll=0.2)
    seed = random.randrange(10**6)
    business = Business(seed)
    expected: set[str] = set()
    for _ in range(rounds):
        expected |= business.transaction()
        note.round()
    wait_for(lambda: not QueuedTask.objects.exists(), "the queue is empty", 120)
    starts = oracle.count("start")
    note.violations += [
        f"I1: {key} was committed and never ran (seed {seed})" for key in sorted(expected - set(starts))
    ]
    note.violations += [f"I2: {key} was rolled back and ran (seed {seed})" for key in sorted(set(starts) - expected)]
    note.violations += [f"I5: {key} ran {times} times (seed {seed})" for key, times in starts.items() if times > 1]
    assert expected
    assert business.made - expected


@pytest.mark.fault("F38")
def test_what_a_failing_task_has_enqueued_goes_with_its_transaction(pool, oracle, note):
    pool(workers=1, poll=0.2)
    # As the task, its end, and whether what it has enqueued is there then.
    cases = [
        ("plain", "return", True), ("plain", "raise", True), ("plain", "die", True),
        ("in_transaction", "return", True), ("in_transaction", "raise", False), ("in_transaction", "die", False),
        ("atomic", "return", True), ("atomic", "raise", False), ("atomic", "die", False),
    ]  # fmt: skip
    for how, end, _ in cases:
        # Settled by itself: else one that waits for that would run again when the next one dies.
        async_task(f"{TASKS}.enqueue_{how}", f"{how}-{end}", end, ack="task")
    wait_for(lambda: not QueuedTask.objects.exists(), "the queue is empty", 60)
    for how, end, expected in cases:
        # One that dies is started anew, three times in all.
        times = (3 if end == "die" else 1) if expected else 0
        ran = sum(task.args[0] == f"{how}-{end}" for task in Task.objects.filter(func="tests.functions.oracle.mark"))
        note.round([f"I12: {how}, {end}: {ran} tasks that it enqueued have run, not {times}"] if ran != times else ())


@pytest.mark.fault("F38")
@pytest.mark.django_db(transaction=True)
def test_a_transaction_on_another_alias_does_not_matter(note):
    other = connections["other"] = connections["default"].copy("other")
    try:
        with contextlib.suppress(Oops), transaction.atomic(using="other"):
            async_task(mark, "kept")
            raise Oops
        assert QueuedTask.objects.count() == 1
        with contextlib.suppress(Oops), transaction.atomic(), transaction.atomic(using="other"):
            async_task(mark, "lost")
            raise Oops
        assert QueuedTask.objects.count() == 1
    finally:
        other.close()
        del connections["other"]
    note.round()


@pytest.mark.fault("F38", short=0, full=10)
def test_an_enqueue_that_an_outage_cuts_off_is_not_there(own_site, rounds, note):
    site, server = own_site
    site.start(workers=1)
    for _ in range(rounds):
        site.enqueue("work", 20)
        with pytest.raises(psycopg.OperationalError), site.session(autocommit=False) as session:  # noqa: PT012
            # Neither acknowledged nor unknown: whatever of these runs is a phantom (I2).
            queue.enqueue_many(session.cursor(), [make_task(f"{TASKS}.work") for _ in range(20)])
            server.crash()
            session.commit()
        with pytest.raises(psycopg.OperationalError):
            site.enqueue("work", 20)
        server.start()
        note.round(recovery=site.recovery())
    site.drain()
    note.violations += site.check().violations + site.stop()
