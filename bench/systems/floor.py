"""The floor: pgq's own claim and settle statements in a loop with nothing around them, and the barest statements.

No codec, no signatures, no supervisor, no upkeep, no functions. Whoever uses these statements from psycopg cannot be
faster, so the distance from here is what pgq's Python costs.
"""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import uuid4

from bench.systems.base import database, django_setup
from bench.systems.pgq import Pgq

#: Where claim.sql returns it.
_CTID = 20


class Floor(Pgq):
    name = "floor"
    batch = 512
    settings = f"pgq's claim and settle in a bare psycopg loop, {batch} at a time"
    kinds = ("noop",)
    limited = {}
    picks_up = False
    rescues = False
    rate = 20000.0

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        return [[python, "-m", "bench.floor", str(self.batch)]] * workers

    def open(self) -> None:
        django_setup()
        import psycopg

        from pgq import tasks
        from pgq.enqueue import make

        self._tasks = tasks
        self._connection = psycopg.connect(**database(), autocommit=True, prepare_threshold=1)
        new = make.make_task("bench.tasks.noop", (), {})
        #: The row that an enqueue of a no-op writes, but for its id.
        self._row = (new.func, new.args, new.kwargs, new.signature)

    def enqueue_one(self, task: str, *args: int) -> None:
        self._connection.execute(
            "INSERT INTO pgq_queue (id, func, args, kwargs, signature) VALUES (%s, %s, %s, %s, %s)",
            (_new_id(), *self._row),
        )

    def copy(self, *, seconds: float) -> dict[str, Any]:
        """COPY the same rows, for so long."""
        count, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            with self._connection.cursor() as cursor:
                command = "COPY pgq_queue (id, func, args, kwargs, signature) FROM STDIN"
                with cursor.copy(command) as copy:
                    for _ in range(self.chunk):
                        copy.write_row((_new_id(), *self._row))
            count += self.chunk
        return {"count": count, "seconds": time.monotonic() - began}

    def notify(self, *, seconds: float) -> dict[str, Any]:
        """Send notifications from one connection to another for so long; return the round trips in nanoseconds."""
        import psycopg

        trips = []
        with psycopg.connect(**database(), autocommit=True) as listener:
            listener.execute("LISTEN bench")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                began = time.monotonic_ns()
                self._connection.execute("SELECT pg_notify('bench', '')")
                list(listener.notifies(timeout=5, stop_after=1))
                trips.append(time.monotonic_ns() - began)
        return {"trips": trips}


class Floor100(Floor):
    name = "floor-100"
    batch = 100
    settings = f"the same, {batch} at a time"
    rate = 15000.0


def _new_id() -> str:
    from pgq.ground.ids import new_id

    return new_id().hex


def as_a_worker(connection: Any) -> None:
    """Set what the sessions of workers have set, see `pgq.store.connection`."""
    from pgq.store.connection import BY_INDEX

    for name, value in {"enable_bitmapscan": "off", "jit": "off", **BY_INDEX}.items():
        connection.execute(f"SET {name} = {value}")
    connection.commit()


class Batches:
    """Claims and settles, one batch after the other; whoever has the cursor commits."""

    def __init__(self, cursor: Any, batch: int) -> None:
        from pgq.store import queue, statement

        self.cursor, self.batch, self.behind = cursor, batch, queue.behind
        self.claiming, self.settling = queue.claim_text(batch), statement.sql("settle")
        self.worker, self.receipt, self.after = uuid4(), uuid4(), ""

    def claim(self, *, before: str = "") -> list[tuple[Any, ...]]:
        """Claim a batch; `before` the statement there may be an EXPLAIN, and its rows are returned."""
        self.receipt = uuid4()
        parameters = {"queues": None, "after": self.after, "worker": self.worker, "receipt": self.receipt}
        self.cursor.execute(before + self.claiming, parameters)
        rows: list[tuple[Any, ...]] = self.cursor.fetchall()
        if rows and not before:
            self.after = self.behind([(row[1], row[3]) for row in rows], after=self.after)
        return rows

    def settle(self, claimed: list[tuple[Any, ...]], *, before: str = "") -> list[tuple[Any, ...]]:
        """Settle what was claimed, each with a result."""
        count = len(claimed)
        # Arrays as literals, as pgq itself writes them: the fastest that there is.
        parameters = {
            "id": _array([row[0].hex for row in claimed]),
            "receipt": _array([self.receipt.hex] * count),
            "success": _array(["t"] * count),
            "keep": _array(["t"] * count),
            "started": _array(["0"] * count),
            "stopped": _array(["0"] * count),
            "result": _array(['"null"'] * count),
            # Too short for the others, which unnest makes up for with NULL.
            "exception": "{}",
            "message": "{}",
            "traceback": "{}",
            "ctid": '{"' + '","'.join([row[_CTID] for row in claimed]) + '"}',
            "cluster": "floor",
            "idle_limit": "10000",
        }
        self.cursor.execute(before + self.settling, parameters)
        rows: list[tuple[Any, ...]] = self.cursor.fetchall()
        if not before and len(rows) != count:
            raise RuntimeError("a receipt was refused")
        return rows


def loop(batch: int) -> None:
    """Claim and settle for ever. The next claim goes with the settling, as in pgq's worker: one transaction a batch."""
    import psycopg
    from django.conf import settings as django_settings

    if not django_settings.configured:
        django_setup()
    with psycopg.connect(**database(), prepare_threshold=1) as connection:
        as_a_worker(connection)
        batches = Batches(connection.cursor(), batch)
        claimed: list[tuple[Any, ...]] = []
        while True:
            if claimed:
                batches.settle(claimed)
            claimed = batches.claim()
            connection.commit()
            if not claimed:
                if os.getppid() == 1:
                    return
                time.sleep(0.01)


def _array(elements: list[str]) -> str:
    return "{" + ",".join(elements) + "}"
