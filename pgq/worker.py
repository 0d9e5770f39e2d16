"""A worker: claims tasks, runs them in its main thread or beside it, settles them with the next claim.

    until told to stop: settle what has finished and claim more; run it; if there was nothing, sleep until woken

A second thread, the guard, reads the pipe, and while a task runs long it settles what has finished before it and
gives back what was claimed after it, so that nothing waits behind a slow task. Both use one connection to PostgreSQL,
one at a time; user code never touches it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TypeVar
from uuid import UUID, uuid4

import psycopg

from pgq import child, db, execute, hygiene, orphans, protocol, registry, settling, signals, store, traits
from pgq.atomic import Atomic
from pgq.board import Slot
from pgq.conf import Settings, get_settings
from pgq.gate import Gate
from pgq.protocol import ChildConfig
from pgq.records import Claim, Receipt, Succeeded
from pgq.slots import Slots, run_to_end

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

#: Seconds that a claim or a receipt may take.
_PATIENCE = 30.0

#: Seconds between two looks of the guard at what takes long.
_GUARD_TICK = 0.01
#: Seconds between two looks while no task does, at most. Each look takes the interpreter from the main thread: of 64
#: workers busy with short tasks, the quick ticks took a sixth of the processor time.
_CALM_TICK = 0.04
#: Seconds that a worker which is too large from the start works, or starting others would take all the time there is.
_LEAST_LIFE = 1.0


class Sizer:
    """How many tasks to claim: as many as run in `claim_ms`, going by the last ones; one until something is known."""

    def __init__(self, claim_ms: float) -> None:
        self.budget = claim_ms / 1000
        self.average = self.budget
        self.size = 1

    def next_size(self, most: float = math.inf) -> int:
        """Return one of CLAIM_SIZES, for `most` tasks at most."""
        wanted = self.budget / max(self.average, 1e-6)
        # At most double, so that one lucky claim does not fetch what other workers could start at once.
        wanted = min(wanted, self.size * 2, most)
        self.size = max(size for size in store.CLAIM_SIZES if size <= max(wanted, 1))
        return self.size

    def ran(self, count: int, seconds: float) -> None:
        """Note that so many tasks took so long."""
        mean = seconds / count
        # Up at once, down slowly: a slow task costs others their time, a fast one only a round trip.
        self.average = mean if mean > self.average else self.average + (mean - self.average) * 0.5


class Worker:
    """One worker process."""

    def __init__(self, config: ChildConfig, pipe: Connection, slot: Slot, gate: Gate, settings: Settings) -> None:
        self.config, self.pipe, self.slot, self.gate, self.settings = config, pipe, slot, gate, settings
        #: The `worker` of our claims.
        self.id = config.id
        #: A claim was sent and not confirmed, so rows may be ours of which we do not know.
        self.in_doubt = False
        #: The connection broke. The next one may lead to a standby that never heard of our last receipts.
        self.broke = False
        self.sizer = Sizer(settings.claim_ms)
        #: Claimed and not started. The guard may take from it.
        self.waiting: deque[Claim] = deque()
        #: Run and not settled. The guard may take from it.
        self.finished: deque[Receipt] = deque()
        #: To be given back, and PostgreSQL has not confirmed it yet.
        self.returning: list[Claim] = []
        self.running: Claim | None = None
        self.running_since = 0.0
        #: The queue that has its turn last in our next claim.
        self.after: str | None = None
        #: When the supervisor kills us for what runs in the main thread (monotonic); 0: never.
        self.deadline = 0.0
        self.succeeded = self.failed = 0
        self.stopping = False
        self.asleep = False
        self.woken = threading.Event()
        #: Held by whoever uses the connection.
        self.connection_lock = threading.Lock()
        self.connection: db.Connection | None = None
        self.connection_file: tuple[int, int] | None = None
        #: Kept, since it would close its descriptor if it were forgotten.
        self.abandoned: db.Connection | None = None
        self.backoff = db.Backoff()
        self.pipe_file = traits.identity(pipe.fileno())
        self.surroundings = hygiene.Surroundings([pipe.fileno()], threads=settings.threads - 1)
        self.atomic = Atomic(config.database, config.pool, settings)
        self.slots = Slots(settings, config.database, config.pool, self._landed, self._show)
        #: The last task that was started beside the main thread, until nothing is in flight and a look was taken.
        self.beside: Claim | None = None
        #: Held by whoever counts or writes to the board, once something runs beside the main thread.
        self.showing = threading.Lock()
        #: Something has finished that is to be settled at once.
        self.urgent = False
        self.started = time.monotonic()
        self.large_from_the_start = settings.max_rss is not None and _peak_memory() > settings.max_rss

    # --------------------------------------------------------------------------------------------- main thread

    def run(self) -> None:
        """Work until told to stop, or until it is time for a fresh process."""
        hygiene.forked.watch(self._lifelines)
        registry.on_found.append(self.surroundings.adopt)
        threading.Thread(target=self._guard, name="pgq guard", daemon=True).start()
        self._tell(protocol.READY)
        if self.large_from_the_start:
            self._tell(protocol.LARGE + _peak_memory().to_bytes(8))
        while not self.stopping and not self._worn_out():
            if self.slots.used:
                self._wait_for_room()
            if self._exchange():
                hygiene.refresh_connections()
                self._run_waiting()
            elif not self.stopping:
                self._sleep()
        self._finish()

    def _exchange(self) -> bool:
        """Settle what has finished and claim more, in one transaction; return whether to go on without sleeping."""
        if self.returning:
            self._give_back(insist=False)
        if self.in_doubt or self.broke:
            self._disown()
        size = self.sizer.next_size(self.slots.room() if self.slots.flights else math.inf)
        try:
            with self.gate.passage(self.slot, max(size, len(self.finished))):
                claims = self._write_finished(lambda cursor: self._claim(cursor, size))
        except psycopg.Error as error:
            self._wait_for_postgresql(error)
            return True
        self.in_doubt = False
        if len(claims) == size:
            # There may be more than we took: another worker should look.
            self._tell(protocol.MORE)
        self.waiting.extend(store.in_order(claims))
        return bool(claims)

    def _claim(self, cursor: db.Cursor, size: int) -> list[Claim]:
        self.in_doubt = True
        if self.after is None:
            self.after = store.some_queue(cursor)
        claims = store.claim(
            cursor, limit=size, worker=self.id, receipt=uuid4(), queues=self.config.queues, after=self.after
        )
        if claims:
            self.after = store.behind([(claim.priority, claim.queue) for claim in claims], after=self.after)
        return claims

    def _disown(self) -> None:
        """Settle what we hold, then go on under a new id, and have the supervisor release what the old one holds.

        The commit of a claim may have taken place though nobody told us, and may yet. Those rows carry our id, so their
        leases would be renewed for as long as we live, and nobody would run them.
        """
        self._give_back(insist=True)
        self._settle(insist=True)
        id = uuid4()
        self._take_along(id)
        self.id = id
        self._tell(protocol.RENAMED + self.id.bytes)
        self.in_doubt = self.broke = False

    def _take_along(self, id: UUID) -> None:
        """Bring what is in flight under our new id: released with the old one, it would run twice."""
        while flights := list(self.slots.flights.values()):
            try:
                with self.connection_lock:
                    store.rename(self._connected().cursor(), [flight.claim for flight in flights], worker=id)
                return
            except psycopg.Error as error:
                self._wait_for_postgresql(error)

    def _wait_for_room(self) -> None:
        """Before more is claimed: others could run what we would only hold."""
        self.slots.wait_until(lambda: self.stopping or bool(self.returning) or self.slots.room() > 0)
        if self.beside is not None and not self.slots.flights:
            self.surroundings.look_closely(self.beside)
            self.beside = None

    def _run_waiting(self) -> None:
        began = time.monotonic()
        count = 0
        while not self.stopping and not self.surroundings.spoiled:
            try:
                claim = self.waiting.popleft()
            except IndexError:
                break
            count += 1
            if not self._run_one(claim):
                # Whoever has a place should have it. The guard gives back only behind a task that runs here.
                self.waiting.appendleft(claim)
                self._give_back(insist=False)
                break
        if count:
            self.sizer.ran(count, time.monotonic() - began)
            if not self.slots.flights:
                self.surroundings.look_closely(claim)

    def _run_one(self, claim: Claim) -> bool:
        """Run a task here, or start it beside the main thread; return False if there is no place for it."""
        started, timeout = time.monotonic(), claim.timeout
        self.deadline = started + timeout + self.settings.kill_after if timeout is not None else 0.0
        self.running_since, self.running = started, claim
        # Before anything that the row could spoil: an import may kill us too.
        self._show()
        try:
            end = self._run(claim)
        finally:
            self.running = None
        if isinstance(end, bool):
            self._show()
            return end
        receipt, settled = end
        self._landed(receipt, settled)
        self._show()
        self.surroundings.clean_up(claim, receipt.stopped - started, alone=not self.slots.flights)
        if self.urgent:
            self._settle(insist=True)
        return True

    def _run(self, claim: Claim) -> tuple[Receipt, bool] | bool:
        """Return a receipt and whether it is settled; or, of a task that belongs elsewhere, whether it was started."""
        call = execute.ready(claim, self.settings)
        if isinstance(call, Receipt):
            return call, False
        place = self.slots.place_for(call)
        if place is not None:
            self.beside = claim
            return self.slots.start(call, place, patience=self.settings.claim_ms / 1000)
        if claim.crashes and self.slots.flights:
            # It may take us down: whoever is in flight would be charged for it.
            self.slots.wait_until(lambda: self.stopping or not self.slots.flights)
            if self.stopping:
                return False
        return run_to_end(call, self.atomic)

    def _sleep(self) -> None:
        """Wait until the supervisor knows of work. It looks once more itself, before and while we sleep."""
        self.woken.clear()
        self.asleep = True
        self._tell(protocol.IDLE)
        # Being told to stop may have come just before the clear.
        if not self.stopping:
            self.woken.wait()
        self.asleep = False

    def _worn_out(self) -> bool:
        done = self.succeeded + self.failed
        if self.settings.recycle and done >= self.settings.recycle:
            logger.info("worker %d is replaced after %d tasks", self.config.number, done)
            return True
        if self.settings.max_rss is not None and done and self._is_too_large(self.settings.max_rss):
            logger.info(
                "worker %d is replaced: %d kB of memory are more than max_rss", self.config.number, _peak_memory()
            )
            return True
        # Whoever spoiled it was told in the log.
        return self.surroundings.spoiled is not None

    def _is_too_large(self, limit: int) -> bool:
        # The next one would be no smaller, so this one is of use first.
        if self.large_from_the_start and time.monotonic() - self.started < _LEAST_LIFE:
            return False
        return _peak_memory() > limit

    def settle_anyway(self) -> None:
        """After an exception in our own code, as by a signal handler that a task left: its outcome must not be lost.

        Else it would run again, and do so again, with nobody to blame.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(Exception):
            self._settle(insist=False)

    def _finish(self) -> None:
        """Leave nothing behind: give back, settle, say goodbye."""
        if self.in_doubt or self.broke:
            self._disown()
        self._give_back(insist=True)
        # The guard settles what lands meanwhile.
        self.slots.wait_until(lambda: not self.slots.flights)
        self._settle(insist=True)
        self._tell(protocol.BYE)

    def has_pipe(self) -> bool:
        """Whether the pipe to the supervisor is there. A task can close it, and another file may have its number."""
        return traits.identity(self.pipe.fileno()) == self.pipe_file

    # --------------------------------------------------------------------------------------------- guard thread

    def _guard(self) -> None:
        poll = select.poll()
        poll.register(self.pipe.fileno(), select.POLLIN)
        calm = min(_CALM_TICK, max(_GUARD_TICK, min(self.settings.claim_ms, self.settings.settle_ms) / 1000))
        seen: Claim | None = None
        while True:
            # While asleep there is nothing to guard, and an idle worker should not even tick.
            idle = self.asleep and not self.slots.flights and not self.finished
            running = self.running
            long = bool(self.slots.flights) or (running is not None and running is seen)
            seen = running
            if poll.poll(None if idle else 1000 * (_GUARD_TICK if long else calm)):
                try:
                    self._told(self.pipe.recv_bytes())
                except (EOFError, OSError):
                    if not self.has_pipe():
                        # A task closed it. What is in hand can still be settled; then the supervisor gets a new worker.
                        self.surroundings.spoiled = "a task closed its pipe"
                        self._wake_up()
                        return
                    # The supervisor is gone. Its leases will run out; without it, nobody renews ours.
                    os._exit(1)
            else:
                self._look_after(time.monotonic())

    def _told(self, message: bytes) -> None:
        if message == protocol.STOP:
            self.stopping = True
            self._wake_up()
        elif message == protocol.WAKE:
            self._wake_up()
        elif message.startswith(protocol.CANCEL):
            self._cancel(UUID(bytes=message[1:]))

    def _wake_up(self) -> None:
        # Here and not by the main thread, which may not run before the guard's next wait: that one must end by itself.
        self.asleep = False
        self.woken.set()
        if self.slots.used:
            self.slots.look_again()

    def _look_after(self, now: float) -> None:
        """While tasks run, do for the others what cannot wait for them."""
        running = self.running is not None
        if not running and not self.slots.used:
            return
        if self.finished and (self.urgent or now - self.finished[0].stopped > self.settings.settle_ms / 1000):
            self._settle(insist=False)
        if running and (self.waiting or self.returning) and now - self.running_since > self.settings.claim_ms / 1000:
            self._give_back(insist=False)
        self.slots.interrupt_overdue(now)

    def _cancel(self, task: UUID) -> None:
        """Stop that task, if it is still running here."""
        running = self.running
        if running is not None and running.id == task:
            execute.cancel_running(task)
        # It may have just been started beside the main thread, which still names it.
        self.slots.cancel(task)

    # --------------------------------------------------------------------------------------------- any thread

    def _landed(self, receipt: Receipt, settled: bool) -> None:
        """Take what came of a task."""
        if type(receipt.outcome) is Succeeded:
            with self.showing:
                self.succeeded += 1
        else:
            with self.showing:
                self.failed += 1
            settling.report(receipt)
            # With all that the frames of its traceback hold.
            receipt = receipt._replace(error=None)
        claim = receipt.claim
        if not settled:
            self.finished.append(receipt)
            if claim.options != "{}" and execute.options_of(claim).get("ack") == "task":
                self.urgent = True

    def _show(self) -> None:
        """Write to the board what runs, and what of it is to be killed first."""
        if not self.slots.used:
            # Nobody but the main thread comes here, for each task twice.
            self._show_running(self.running, 1)
            return
        with self.showing:
            count = len(self.slots.flights) + (self.running is not None)
            flight = self.slots.most_urgent() if self.slots.flights else None
            if flight is None or (self.running is not None and not flight.is_due_before(self.deadline)):
                self._show_running(self.running, count)
            else:
                self.slot.write(
                    flight.call.started, flight.deadline, flight.claim.id.bytes, self.succeeded, self.failed, count
                )  # fmt: skip

    def _show_running(self, claim: Claim | None, count: int) -> None:
        if claim is None:
            self.slot.idle(self.succeeded, self.failed)
        else:
            self.slot.write(
                self.running_since, self.deadline, claim.id.bytes, self.succeeded, self.failed, count
            )  # fmt: skip

    def _settle(self, *, insist: bool) -> None:
        """Settle what has finished. `insist`: until PostgreSQL takes it."""
        self.urgent = False
        while self.finished or (insist and self._was_put_back()):
            try:
                self._write_finished(lambda cursor: None)
            except psycopg.Error as error:
                self._wait_for_postgresql(error)
                if not insist:
                    return

    def _was_put_back(self) -> bool:
        """Wait for what the other thread may have in hand: if we ended now, it would not be settled."""
        with self.connection_lock:
            return bool(self.finished)

    def _give_back(self, *, insist: bool) -> None:
        """Release what was claimed and not started. `insist`: until PostgreSQL takes it."""
        while self.waiting or self.returning:
            try:
                with self.connection_lock:
                    # Not to be started any more, even if it fails: nobody knows then whether they are still ours.
                    self.returning += _taken(self.waiting)
                    store.release(self._connected().cursor(), self.returning)
                    self.returning = []
            except psycopg.Error as error:
                # Their leases are renewed as long as this process lives, so it must not be forgotten.
                self._wait_for_postgresql(error)
                if not insist:
                    return
            else:
                self._tell(protocol.MORE)

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
                if receipts and self._takes_writes():
                    self._settle_one_by_one(receipts, error)
                else:
                    self.finished.extendleft(reversed(receipts))
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
        logger.error(
            "a batch of %d receipts was refused, so they are settled one by one: %s", len(receipts), db.message(error)
        )
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

    def _takes_writes(self) -> bool:
        """Whether it was a receipt that PostgreSQL refused: out of transaction ids, it refuses all in such words."""
        try:
            store.begin_writing(self._connected().cursor())
        except psycopg.Error:
            return False
        return True

    def _connected(self) -> db.Connection:
        """Return the connection, opened anew if it is gone. The caller holds its lock."""
        if self.connection is not None and not self.connection.closed and self._is_cut_off(self.connection):
            self.abandoned, self.connection = self.connection, None
        if self.connection is None or self.connection.closed:
            self.connection = db.connect(self.config.database, "pgq worker", patience=_PATIENCE, pins=db.BY_INDEX)
            self.connection_file = traits.identity(self.connection.fileno())
        return self.connection

    def _is_cut_off(self, connection: db.Connection) -> bool:
        """Whether a task closed our file. The number may be another's by now, so nothing is said there any more."""
        if traits.identity(connection.fileno()) == self.connection_file:
            return False
        self.surroundings.spoiled = self.surroundings.spoiled or "a task closed its connection to PostgreSQL"
        return True

    def _lifelines(self) -> list[int]:
        """The descriptors that no fork of this process may keep."""
        connection = self.connection
        files = [self.pipe.fileno()]
        return files if connection is None or connection.closed else [*files, connection.fileno()]

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            self.broke = True
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def _wait_for_postgresql(self, error: psycopg.Error) -> None:
        """Pause, longer each time, before the next attempt to reach PostgreSQL."""
        with self.connection_lock:
            self._disconnect()
        # Not `woken`: being told to stop does not make PostgreSQL come back.
        time.sleep(self.backoff.failed(error))

    def _tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(message)


def _peak_memory() -> int:
    """Return the kilobytes that this process has taken. Memory that Python gave back will be needed again."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _taken(items: deque[T]) -> Iterator[T]:
    with contextlib.suppress(IndexError):
        while True:
            yield items.popleft()


def main(config: ChildConfig, pipe: Connection, slot: Slot, gate: Gate) -> None:
    """Entry point of a worker process."""
    settings = get_settings()
    hygiene.watch_connections()
    hygiene.offer_to_oom_killer()
    orphans.adopt_orphans()
    with contextlib.suppress(OSError):
        # A group of its own, so that a task's kill(0, ...) hits nobody but the worker and its children.
        os.setpgid(0, 0)
    execute.allow_cancelling()
    _bind_to_cpus(config.number, settings.cpu_affinity)
    signals.send(signals.post_spawn, proc_name=f"pgq worker {config.number}")
    code = 1
    worker = Worker(config, pipe, slot, gate, settings)
    try:
        worker.run()
        code = 0
    except BaseException:
        logger.exception("worker %d fails", config.number)
        worker.settle_anyway()
    finally:
        child.leave(code, pipe if worker.has_pipe() else None, f"pgq worker {config.number}")


def _bind_to_cpus(number: int, count: int) -> None:
    if count and hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(
            0, {cpus[(number * count + offset) % len(cpus)] for offset in range(min(count, len(cpus)))}
        )
