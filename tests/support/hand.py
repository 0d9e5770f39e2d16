"""What the tests of the core share: single steps of a worker's way, taken by hand."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from pgq.conf import Queues, get_settings
from pgq.enqueue.make import make_task
from pgq.enqueue.write import enqueue_all
from pgq.execution import call as calling
from pgq.execution import prepare
from pgq.execution import settle as settling
from pgq.pool.activity import ActivityCell
from pgq.pool.gate import Gate
from pgq.pool.protocol import ChildConfig
from pgq.pool.worker.connections import Connections
from pgq.pool.worker.loop import Worker
from pgq.pool.worker.surroundings import Surroundings
from pgq.records import Claim, Report
from pgq.records.options import TaskOptions
from pgq.store import leases, queue
from pgq.store.turns import Turns
from tests.support.pools import wait_for

MARK = "tests.functions.oracle.mark"
WORKER = UUID("00000000-0000-4000-8000-0000000000aa")


def claim(
    session: psycopg.Connection[Any],
    limit: int = 512,
    *,
    queues: Sequence[str] | None = None,
    excluded: Sequence[str] = (),
    after: str = "",
    worker: UUID = WORKER,
) -> list[Claim]:
    """Claim as a worker does, and return the tasks as it would run them."""
    served = Queues(queues, excluded)
    claims = queue.claim(session.cursor(), limit=limit, worker=worker, receipt=uuid4(), queues=served, after=after)
    return queue.in_order(claims)


def take(session: psycopg.Connection[Any], count: int, turns: Turns | None = None, *, places: int = 1) -> list[Claim]:
    """Claim tasks with keys, too, as a worker does where keys are in use."""
    return (turns or Turns()).claim(session.cursor(), limit=count, worker=WORKER, receipt=uuid4(), places=places)


def run(claimed: Claim) -> Report:
    call = prepare.ready(claimed, get_settings())
    return call if isinstance(call, Report) else calling.run_call(call, get_settings())


def expire(session: psycopg.Connection[Any], *, since: datetime = leases.BEFORE_ALL_LEASES) -> list[UUID]:
    """Rescue all that is claimed, as if its lease had run out; return the ids."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    freed = leases.rescue_expired(session.cursor(), since=since, before=tomorrow, age=-60, error="{}")
    return [one.id for one in freed]


def settle(session: psycopg.Connection[Any], *reports: Report) -> None:
    with settling.transaction(session, reports, "tests"):
        pass


def run_all(session: psycopg.Connection[Any]) -> list[Report]:
    """Claim what is ready, run it, settle it."""
    reports = [run(claimed) for claimed in claim(session)]
    settle(session, *reports)
    return reports


class Hand(Worker):
    """A worker in this process, of which a test takes one step after the other. Its supervisor never speaks."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.supervisor, theirs = context.Pipe()
        config = ChildConfig(uuid4(), 0, "tests", "default", None, (), "plain", "INFO")
        super().__init__(config, theirs, ActivityCell(), Gate(), get_settings(), Connections())

    def work(self) -> None:
        """Run what is ready and settle it."""
        # The test may have changed its own surroundings since this was made.
        self.surroundings = Surroundings()
        while self._exchange():
            self._run_waiting()

    def close(self) -> None:
        self.exchange.session.disconnect()


def fill(count: int, *, func: str = MARK, **options: Any) -> list[UUID]:
    """Enqueue that many tasks; return their ids in order."""
    return enqueue_all(make_task(func, (number,), options=TaskOptions.of(**options)) for number in range(count))


def fill_mixed(session: psycopg.Connection[Any], *, queues: int, each: int) -> None:
    """Put that many tasks into each of the queues, in turns: the next task of a queue lies `queues` rows further on."""
    session.execute(
        "INSERT INTO pgq_queue (func, queue) SELECT 'by.hand', 'queue' || n %% %s FROM generate_series(1, %s) n",
        (queues, queues * each),
    )


def begin_at(session: psycopg.Connection[Any], place: int) -> None:
    """Give the next task that place, 0 to 8191, in one of the windows of claim.sql, which decide what a claim takes.

    Tests before this one have drawn any number of positions.
    """
    session.execute("SELECT setval('pgq_position', (nextval('pgq_position') / 8192 + 1) * 8192 + %s, false)", (place,))


def value(session: psycopg.Connection[Any], sql: str, *parameters: Any) -> Any:
    row = session.execute(sql, parameters).fetchone()
    return row[0] if row else None


def until_waiting(session: psycopg.Connection[Any], count: int = 1) -> None:
    """Wait until `count` sessions of this database wait for locks."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    wait_for(lambda: value(session, waiting) >= count, f"{count} sessions wait for locks")


def in_background(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def wait_until_it_waits(session: psycopg.Connection[Any], pid: int) -> None:
    wait_for(
        lambda: value(session, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", pid),
        "the other session waits for a lock",
    )
