"""A worker: claims tasks, runs them in its main thread, settles them with the next claim.

    until told to stop: settle what has finished and claim more; run it; if there was nothing, sleep until woken

A second thread, the guard, reads the pipe, and while a task runs long it settles what has finished before it and
gives back what was claimed after it, so that nothing waits behind a slow task. Both use one connection to PostgreSQL,
one at a time; user code never touches it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TypeVar
from uuid import UUID, uuid4

import psycopg

from pgq import child, db, execute, hygiene, settling, signals, store
from pgq.board import Slot
from pgq.child import ChildConfig
from pgq.conf import Settings, get_settings
from pgq.records import Claim, Receipt, Succeeded

logger = logging.getLogger("pgq")

T = TypeVar("T")

#: What PostgreSQL says to a receipt that it will never take.
_REFUSED = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.NotSupportedError,
    psycopg.errors.ProgramLimitExceeded,
)

#: Seconds between two looks of the guard while the worker is awake.
_GUARD_TICK = 0.01


class Sizer:
    """How many tasks to claim: as many as run in `claim_ms`, going by the last ones; one until something is known."""

    def __init__(self, claim_ms: float) -> None:
        self.budget = claim_ms / 1000
        self.average = self.budget
        self.size = 1

    def next_size(self) -> int:
        """Return one of CLAIM_SIZES."""
        wanted = self.budget / max(self.average, 1e-6)
        # At most double, so that one lucky claim does not fetch what other workers could start at once.
        wanted = min(wanted, self.size * 2)
        self.size = max(size for size in store.CLAIM_SIZES if size <= max(wanted, 1))
        return self.size

    def ran(self, count: int, seconds: float) -> None:
        """Note that so many tasks took so long."""
        mean = seconds / count
        # Up at once, down slowly: a slow task costs others their time, a fast one only a round trip.
        self.average = mean if mean > self.average else self.average + (mean - self.average) * 0.5


class Worker:
    """One worker process."""

    def __init__(self, config: ChildConfig, pipe: Connection, slot: Slot, settings: Settings) -> None:
        self.config, self.pipe, self.slot, self.settings = config, pipe, slot, settings
        self.sizer = Sizer(settings.claim_ms)
        #: Claimed and not started. The guard may take from it.
        self.waiting: deque[Claim] = deque()
        #: Run and not settled. The guard may take from it.
        self.finished: deque[Receipt] = deque()
        self.running: Claim | None = None
        self.running_since = 0.0
        self.succeeded = self.failed = self.turn = 0
        self.stopping = False
        self.asleep = False
        self.woken = threading.Event()
        #: Held by whoever uses the connection.
        self.connection_lock = threading.Lock()
        self.connection: db.Connection | None = None
        self.backoff = db.Backoff()

    # --------------------------------------------------------------------------------------------- main thread

    def run(self) -> None:
        """Work until told to stop, or until it is time for a fresh process."""
        threading.Thread(target=self._guard, name="pgq guard", daemon=True).start()
        self._tell(child.READY)
        while not self.stopping and not self._worn_out():
            if self._exchange():
                self._run_waiting()
            elif not self.stopping:
                self._sleep()
        self._finish()

    def _exchange(self) -> bool:
        """Settle what has finished and claim more, in one transaction; return whether to go on without sleeping."""
        size = self.sizer.next_size()
        self.turn += 1
        try:
            claims = self._write_finished(
                lambda cursor: store.claim(
                    cursor,
                    limit=size,
                    worker=self.config.id,
                    receipt=uuid4(),
                    queues=self.config.queues,
                    turn=self.turn,
                )
            )
        except psycopg.Error as error:
            self._wait_for_postgresql(error)
            return True
        if len(claims) == size:
            # There may be more than we took: another worker should look.
            self._tell(child.MORE)
        self.waiting.extend(claims)
        return bool(claims)

    def _run_waiting(self) -> None:
        began = time.monotonic()
        count = 0
        while not self.stopping:
            try:
                claim = self.waiting.popleft()
            except IndexError:
                break
            self._run_one(claim)
            count += 1
        if count:
            self.sizer.ran(count, time.monotonic() - began)

    def _run_one(self, claim: Claim) -> None:
        started = time.monotonic()
        timeout = claim.timeout
        deadline = started + timeout + self.settings.kill_after if timeout is not None else 0.0
        self.slot.write(started, deadline, claim.id.bytes, self.succeeded, self.failed)
        self.running_since, self.running = started, claim
        try:
            receipt = execute.run(claim, self.settings)
        finally:
            self.running = None
        if type(receipt.outcome) is Succeeded:
            self.succeeded += 1
        else:
            self.failed += 1
            settling.report(receipt)
        self.finished.append(receipt)
        self.slot.idle(self.succeeded, self.failed)
        hygiene.clean_up(claim.id.hex)
        if claim.options != "{}" and execute.options_of(claim).get("ack") == "task":
            self._settle(insist=True)

    def _sleep(self) -> None:
        """Wait until the supervisor knows of work. It looks once more itself, before and while we sleep."""
        self.woken.clear()
        self.asleep = True
        self._tell(child.IDLE)
        # Being told to stop may have come just before the clear.
        if not self.stopping:
            self.woken.wait()
        self.asleep = False

    def _worn_out(self) -> bool:
        done = self.succeeded + self.failed
        if self.settings.recycle and done >= self.settings.recycle:
            logger.info("worker %d is replaced after %d tasks", self.config.number, done)
            return True
        # Peak, not present: memory that Python gave back was still needed once, and will be again.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if self.settings.max_rss else 0
        if self.settings.max_rss and peak > self.settings.max_rss:
            logger.info("worker %d is replaced: %d kB of memory are more than max_rss", self.config.number, peak)
            return True
        return False

    def _finish(self) -> None:
        """Leave nothing behind: give back, settle, say goodbye."""
        self._give_back()
        self._settle(insist=True)
        self._tell(child.BYE)

    # --------------------------------------------------------------------------------------------- guard thread

    def _guard(self) -> None:
        poll = select.poll()
        poll.register(self.pipe.fileno(), select.POLLIN)
        while True:
            # While asleep there is nothing to guard, and an idle worker should not even tick.
            if poll.poll(None if self.asleep else _GUARD_TICK * 1000):
                try:
                    self._told(self.pipe.recv_bytes())
                except (EOFError, OSError):
                    # The supervisor is gone. Its leases will run out; without it, nobody renews ours.
                    os._exit(1)
            elif self.running is not None:
                self._look_after(self.running, time.monotonic() - self.running_since)

    def _told(self, message: bytes) -> None:
        if message == child.STOP:
            self.stopping = True
            self._wake_up()
        elif message == child.WAKE:
            self._wake_up()
        elif message.startswith(child.CANCEL):
            self._cancel(UUID(bytes=message[1:]))

    def _wake_up(self) -> None:
        # Here and not by the main thread, which may not run before the guard's next wait: that one must end by itself.
        self.asleep = False
        self.woken.set()

    def _look_after(self, running: Claim, seconds: float) -> None:
        """A task has been running for so long: do for the others what cannot wait for it."""
        if self.finished and time.monotonic() - self.finished[0].stopped > self.settings.settle_ms / 1000:
            self._settle(insist=False)
        if self.waiting and seconds > self.settings.claim_ms / 1000:
            self._give_back()

    def _cancel(self, task: UUID) -> None:
        """Stop that task, if it is still running here."""
        running = self.running
        if running is not None and running.id == task:
            execute.cancel_running(task)

    # --------------------------------------------------------------------------------------------- either thread

    def _settle(self, *, insist: bool) -> None:
        """Settle what has finished. `insist`: until PostgreSQL takes it."""
        while self.finished:
            try:
                self._write_finished(lambda cursor: None)
            except psycopg.Error as error:
                self._wait_for_postgresql(error)
                if not insist:
                    return

    def _give_back(self) -> None:
        """Release what was claimed and not started."""
        claims = list(_taken(self.waiting))
        if not claims:
            return
        try:
            with self.connection_lock:
                store.release(self._connected().cursor(), claims)
        except psycopg.Error as error:
            # The supervisor releases them when this process ends, or their leases run out.
            logger.warning("%d tasks could not be given back: %s", len(claims), error)
            self._disconnect()
        self._tell(child.MORE)

    def _write_finished(self, then: Callable[[db.Cursor], T]) -> T:
        """Settle what has finished, and do something more in the same transaction.

        Raises:
            psycopg.Error: Nothing was written and nothing is lost: what had finished is still in `finished`.
        """
        with self.connection_lock:
            receipts = list(_taken(self.finished))
            try:
                with settling.transaction(self._connected(), receipts, self.config.pool) as cursor:
                    answer = then(cursor)
            except _REFUSED as error:
                self._settle_one_by_one(receipts, error)
                raise
            except psycopg.Error:
                self.finished.extendleft(reversed(receipts))
                raise
            except Exception as error:
                # Ours to find: what a row holds must not take the worker down.
                self._settle_one_by_one(receipts, error)
                raise psycopg.DataError(f"{type(error).__name__}: {error}") from error
            except BaseException:
                self.finished.extendleft(reversed(receipts))
                raise
            self.backoff.succeeded()
            return answer

    def _settle_one_by_one(self, receipts: list[Receipt], error: Exception) -> None:
        """Something that one of these receipts holds is refused: find it, so that it spoils no other."""
        logger.error("a batch of %d receipts was refused, so they are settled one by one: %s", len(receipts), error)
        for receipt in receipts:
            less = receipt
            for lessen in (settling.without_what_was_refused, settling.without_options, settling.parked, None):
                try:
                    with settling.transaction(self._connected(), [less], self.config.pool):
                        break
                except Exception as refused:
                    if isinstance(refused, psycopg.Error) and not isinstance(refused, _REFUSED):
                        # The connection, not the receipt.
                        self.finished.append(receipt)
                        break
                    if lessen is not None:
                        less = lessen(less, refused)
                    else:
                        logger.exception("task %s cannot be settled at all", receipt.claim.id.hex)

    def _connected(self) -> db.Connection:
        """Return the connection, opened anew if it is gone. The caller holds its lock."""
        if self.connection is None or self.connection.closed:
            self.connection = db.connect(self.config.database, "pgq worker")
        return self.connection

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def _wait_for_postgresql(self, error: psycopg.Error) -> None:
        """Pause, longer each time, before the next attempt to reach PostgreSQL."""
        self._disconnect()
        pause = self.backoff.next_pause()
        logger.warning("PostgreSQL: %s; trying again in %.2f s", str(error).strip() or type(error).__name__, pause)
        # Not `woken`: being told to stop does not make PostgreSQL come back.
        time.sleep(pause)

    def _tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(message)


def _taken(items: deque[T]) -> Iterator[T]:
    with contextlib.suppress(IndexError):
        while True:
            yield items.popleft()


def main(config: ChildConfig, pipe: Connection, slot: Slot) -> None:
    """Entry point of a worker process."""
    settings = get_settings()
    hygiene.watch_connections()
    execute.allow_cancelling()
    _bind_to_cpus(config.number, settings.cpu_affinity)
    signals.send(signals.post_spawn, proc_name=f"pgq worker {config.number}")
    code = 1
    try:
        Worker(config, pipe, slot, settings).run()
        code = 0
    except BaseException:
        logger.exception("worker %d fails", config.number)
    finally:
        logging.shutdown()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        # Threads that tasks left behind must not keep the process.
        os._exit(code)


def _bind_to_cpus(number: int, count: int) -> None:
    if count and hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(
            0, {cpus[(number * count + offset) % len(cpus)] for offset in range(min(count, len(cpus)))}
        )
