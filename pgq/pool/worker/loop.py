"""A worker: claims tasks, runs them in its main thread or in slots beside it, settles them with the next claim.

    until told to stop: settle what has finished and claim more; run it; if there was nothing, sleep until woken

Two threads work on this: the main thread, and the guard (guard.py). Tasks in slots end in threads of their own.

=============================  ===============================================================================
main thread only               Worker: sizer, wear, atomic, connections, surroundings (but `spoiled`), beside
                               Exchange: _id, _after, in_doubt
written by the main thread,    Worker: running, running_since, deadline; Slots: used
read by the guard and slots
written by the guard,          Guard: stopping
read by the main thread
main thread and guard          Exchange: waiting (a deque); Guard: _asleep, _woken; Surroundings: spoiled
the same, under the            Exchange: returning, broke, _connection, _file, _abandoned, _backoff
exchange's lock
all threads                    Exchange: finished (a deque), urgent
all threads, under a lock      Worker: succeeded, failed, cell (`_showing`, once there is a task in a slot)
                               Slots: running, _deadlines (`_changing`)
=============================  ===============================================================================
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
import signal
import sys
import threading
import time
from functools import partial
from multiprocessing.connection import Connection

import psycopg

from pgq import signals
from pgq.conf import Settings, get_settings
from pgq.enqueue.keys import limits_in_code
from pgq.execution import call as calling
from pgq.execution import prepare, settle
from pgq.execution.atomic import Atomic
from pgq.ground import chance, events
from pgq.pool import child, orphans, protocol
from pgq.pool.activity import ActivityCell
from pgq.pool.allowance import Allowance, Share
from pgq.pool.gate import Gate
from pgq.pool.protocol import ChildConfig
from pgq.pool.worker.connections import Connections
from pgq.pool.worker.exchange import Exchange, flush_tally
from pgq.pool.worker.forks import Forks, offer_to_oom_killer
from pgq.pool.worker.guard import Guard
from pgq.pool.worker.slots import Begun, Slots
from pgq.pool.worker.strands import Strands
from pgq.pool.worker.surroundings import Surroundings
from pgq.records import Claim, Report, Succeeded
from pgq.store import queue
from pgq.store.limits import write_limits

logger = logging.getLogger("pgq")

#: Seconds that a worker which is too large from the start works at least: else the pool would only start workers.
_LEAST_LIFE = 1.0
#: Seconds, from and to, until a worker tries again that found others claiming from the same keys. If they tried sooner,
#: a dozen workers of one key would take a processor for nothing.
_BUSY_PAUSE = 0.01, 0.02


class Sizer:
    """How many tasks to claim: as many as run in `claim_ms`, going by the last ones; one until something is known."""

    def __init__(self, claim_ms: float) -> None:
        self.budget = claim_ms / 1000
        self.average = self.budget
        self.size = 1

    def next_size(self, most: float = math.inf) -> int:
        """Return one of CLAIM_SIZES, for `most` tasks at most."""
        wanted = self.budget / max(self.average, 1e-6)
        # At most double, so that one lucky claim does not take what other workers could start at once.
        wanted = min(wanted, self.size * 2, most)
        self.size = max(size for size in queue.CLAIM_SIZES if size <= max(wanted, 1))
        return self.size

    def ran(self, count: int, seconds: float) -> None:
        """Note that so many tasks took so long."""
        mean = seconds / count
        # Up at once, down slowly: a slow task costs others their time, a fast one only a round trip.
        self.average = mean if mean > self.average else self.average + (mean - self.average) * 0.5


class Wear:
    """Whether a worker has run as many tasks as it may, or has become too large."""

    def __init__(self, settings: Settings) -> None:
        self.recycle, self.max_rss = settings.recycle, settings.max_rss
        self.started = time.monotonic()
        self.large_from_the_start = self.max_rss is not None and _peak_memory() > self.max_rss

    def why(self, done: int) -> str | None:
        """Return why a worker is to be replaced that has run so many tasks; None: it is not."""
        if self.recycle and done >= self.recycle:
            return f"after {done} tasks"
        if self.max_rss is None or not done or _peak_memory() <= self.max_rss:
            return None
        # The next worker would be as large, so this one works for a while first.
        if self.large_from_the_start and time.monotonic() - self.started < _LEAST_LIFE:
            return None
        return f"since {_peak_memory()} kB of memory are more than max_rss"


class Worker:
    """One worker process: its main thread, and what that shares with the other threads (see the table above).

    Args:
        cell: Shows the supervisor what runs here.
        connections: Django's connections of this process, watched since before any was opened.
        allowance: How many tasks the pool may start; None: there is no limit.

    Attributes:
        running: The task that runs in the main thread, since `running_since` (monotonic).
        deadline: When the supervisor kills the worker for that task (monotonic); 0: never.
        logs_successes: Whether the level of the log asks for a line for each task. Decided once.
        beside: The last task that was started in a slot, until no slot is in use and the surroundings were checked.
        in_slots: Whether the last task was started in a slot.
    """

    def __init__(
        self,
        config: ChildConfig,
        pipe: Connection,
        cell: ActivityCell,
        gate: Gate,
        settings: Settings,
        connections: Connections,
        allowance: Allowance | None = None,
    ) -> None:
        self.config, self.cell, self.settings, self.connections = config, cell, settings, connections
        self.post = partial(_post, pipe)
        self.sizer = Sizer(settings.claim_ms)
        self.surroundings = Surroundings([pipe.fileno()], threads=settings.threads - 1)
        self.share = Share(allowance, config.number) if allowance is not None else None
        self.exchange = Exchange(config, cell, gate, self.surroundings, self.post, self.share)
        self.forks = Forks(lambda: [pipe.fileno(), *self.exchange.session.files()])
        self.atomic = Atomic(config.database, config.pool, settings)
        self.slots = Slots(
            settings, config.database, config.pool, connections, self.forks, ended=self._ended, changed=self._show
        )
        self.guard = Guard(self, pipe, self.post, self.exchange, self.slots, self.surroundings, settings)
        self.strands = Strands(self.exchange, self.slots, settings.claim_ms / 1000, lambda: self.guard.stopping)
        self.running: Claim | None = None
        self.running_since = self.deadline = 0.0
        self.beside: Claim | None = None
        self.in_slots = False
        self.succeeded = self.failed = 0
        self.logs_successes = logger.isEnabledFor(logging.DEBUG)
        self._showing = threading.Lock()
        self.wear = Wear(settings)

    def run(self) -> None:
        """Work until told to stop, or until it is time for a fresh process."""
        self.forks.watch()
        self.guard.start()
        _write_limits(self)
        self.post(protocol.READY)
        if self.wear.large_from_the_start:
            self.post(protocol.LARGE + _peak_memory().to_bytes(8))
        while not self.guard.stopping and not self._worn_out():
            if self.slots.used:
                self._wait_for_room()
            if self._exchange():
                self.connections.refresh()
                self._run_waiting()
            elif not self.guard.stopping:
                self._rest()
        self._finish()

    def _rest(self) -> None:
        """Wait until there is work; only for a moment if other workers were just claiming what this one could have."""
        if self.exchange.turns.busy:
            time.sleep(chance.between(*_BUSY_PAUSE))
        else:
            self.guard.sleep()

    def _wait_for_room(self) -> None:
        """Before more is claimed, wait for a free slot: other workers could run what this one would only hold."""
        exchange, slots = self.exchange, self.slots
        slots.wait_until(lambda: self.guard.stopping or bool(exchange.returning) or slots.room() > 0)
        if self.beside is not None and not slots.running:
            self.surroundings.check_closely(self.beside)
            self.beside = None

    def _exchange(self) -> bool:
        """Settle what has finished and claim more; return whether to go on without sleeping."""
        exchange = self.exchange
        if exchange.returning:
            exchange.give_back(insist=False)
        exchange.disown(self.slots.claims)
        size = self.sizer.next_size(self.slots.room() if self.slots.running else math.inf)
        try:
            claim = exchange.settle_and_claim if self.share is None else partial(self.share.claim, exchange)
            claimed = claim(size, self.slots.room() if self.in_slots else 1)
        except psycopg.Error as error:
            exchange.wait_for_postgresql(error)
            return True
        if exchange.turns.more:
            # There may be more tasks than this worker took: so the supervisor wakes another worker.
            self.post(protocol.MORE)
        return claimed > 0

    def _run_waiting(self) -> None:
        """Run what was claimed, one task after the other, or start it in slots."""
        began = time.monotonic()
        count = 0
        guard, strands = self.guard, self.strands
        while not guard.stopping and not self.surroundings.spoiled:
            following = strands.next()
            if following is None:
                break
            claim = following
            count += 1
            if not self._run_one(claim):
                # No slot is free here, so release the claimed tasks at once for other workers. (The guard would not: it
                # only releases while a task runs in the main thread.)
                self.exchange.waiting.appendleft(claim)
                self.exchange.give_back(insist=False)
                break
        strands.give_back()
        if count:
            self.sizer.ran(count, time.monotonic() - began)
            if not self.slots.running:
                self.surroundings.check_closely(claim)

    def _run_one(self, claim: Claim) -> bool:
        """Run a task here, or start it in a slot; return False if no slot is free for it."""
        started, timeout = time.monotonic(), claim.timeout
        self.deadline = started + timeout + self.settings.kill_after if timeout is not None else 0.0
        self.running_since, self.running = started, claim
        # Before anything that the row could spoil: an import may kill the worker, too.
        self._show()
        try:
            end = self._run(claim)
        finally:
            self.running = None
        match end:
            case Report():
                self._ended(end)
                self._show()
                if self.connections.main:
                    self.connections.clean(claim)
                if not self.slots.running:
                    self.surroundings.clean_up(claim, end.stopped - started)
                if self.exchange.urgent:
                    self.exchange.settle(insist=True)
                return True
            case Begun():
                self._show()
                return end is Begun.STARTED

    def _run(self, claim: Claim) -> Report | Begun:
        call = prepare.ready(claim, self.settings)
        if len(sys.modules) > self.surroundings.modules:
            # What modules did at their import stays. What the function does from now on does not.
            self.surroundings.adopt()
        if isinstance(call, Report):
            if self.share is not None:
                self.share.give_back(1)
            return call
        kind = self.slots.kind_for(call)
        self.in_slots = kind is not None
        if kind is not None:
            self.beside = claim
            begun = self.slots.start(call, kind, patience=self.settings.claim_ms / 1000)
            if self.share is not None and begun is Begun.STARTED:
                self.share.start()
            return begun
        # Those that are put off must not wait for this one.
        self.strands.give_back()
        if claim.crashes and self.slots.running:
            # This task may kill the worker, and the tasks in slots would be charged a crash as well.
            self.slots.wait_until(lambda: self.guard.stopping or not self.slots.running)
            if self.guard.stopping:
                return Begun.NO_ROOM
        if self.share is not None:
            self.share.start()
        return self.atomic.run(call, self.forks.leave)

    # --------------------------------------------------------------------------------------------- any thread

    def _ended(self, report: Report) -> None:
        """Count what came of a task, tell and log it, and keep the report until it is settled."""
        if events.end.listeners:
            events.end.tell(report)
        if type(report.outcome) is Succeeded:
            with self._showing:
                self.succeeded += 1
            if self.logs_successes:
                settle.log_success(report)
        else:
            with self._showing:
                self.failed += 1
            settle.log_failure(report)
            # The exception's traceback would keep alive all that the function had in hand.
            report = report._replace(error=None)
        if not report.settled:
            self.exchange.finished.append(report)
            if report.options.ack == "task":
                self.exchange.urgent = True

    def _show(self) -> None:
        """Write to the cell what runs here, and for which task the worker is to be killed first."""
        slots = self.slots
        if not slots.used:
            # Only the main thread comes here, twice for each task.
            self._show_main(1)
            return
        with self._showing:
            count = len(slots.running) + (self.running is not None)
            first = slots.most_urgent() if slots.running else None
            if first is None or (self.running is not None and not first.is_due_before(self.deadline)):
                self._show_main(count)
            else:
                started, deadline, id = first.call.started, first.deadline, first.claim.id.bytes
                self.cell.write(started, deadline, id, self.succeeded, self.failed, count)

    def _show_main(self, count: int) -> None:
        claim = self.running
        if claim is None:
            self.cell.idle(self.succeeded, self.failed)
        else:
            self.cell.write(self.running_since, self.deadline, claim.id.bytes, self.succeeded, self.failed, count)

    # --------------------------------------------------------------------------------------------- the end

    def _worn_out(self) -> bool:
        why = self.wear.why(self.succeeded + self.failed)
        if why is not None:
            logger.info("worker %d is replaced %s", self.config.number, why)
        # The log names the task that spoiled the surroundings.
        return why is not None or self.surroundings.spoiled is not None

    def _finish(self) -> None:
        """Give back what has not started, settle what runs, and tell the supervisor that this worker leaves."""
        self.exchange.disown(self.slots.claims)
        self.exchange.give_back(insist=True)
        # The guard settles what ends meanwhile.
        self.slots.wait_until(lambda: not self.slots.running)
        self.exchange.settle(insist=True)
        flush_tally(self.exchange, attempts=3)
        self.post(protocol.BYE)

    def settle_anyway(self) -> None:
        """After an exception in pgq's code, as by a signal handler that a task left: settle what has finished.

        Else those tasks would run again, and raise it again, and no task would be charged.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(Exception):
            self.exchange.settle(insist=False)


def _write_limits(worker: Worker) -> None:
    """Write the limits that the code gives, before the first claim: until then a new one would not hold."""
    given = limits_in_code(worker.settings)
    while given and not worker.guard.stopping:
        try:
            worker.exchange.execute(lambda cursor: write_limits(cursor, given))
            return
        except psycopg.Error as error:
            worker.exchange.wait_for_postgresql(error)


def _post(pipe: Connection, message: bytes) -> None:
    """Send the supervisor a message. If the pipe is broken, the guard finds out."""
    with contextlib.suppress(OSError):
        pipe.send_bytes(message)


def _peak_memory() -> int:
    """Return the kilobytes that this process has taken. Memory that Python gave back will be needed again."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(config: ChildConfig, pipe: Connection, cell: ActivityCell, gate: Gate, allowance: Allowance | None) -> None:
    """Entry point of a worker process."""
    settings = get_settings()
    connections = Connections()
    connections.watch()
    offer_to_oom_killer()
    orphans.adopt_orphans()
    with contextlib.suppress(OSError):
        # A group of its own, so that a task's kill(0, ...) hits only the worker and its children.
        os.setpgid(0, 0)
    calling.allow_cancelling()
    _bind_to_cpus(config.number, settings.cpu_affinity)
    signals.send(signals.post_spawn, proc_name=f"pgq worker {config.number}")
    code = 1
    worker = Worker(config, pipe, cell, gate, settings, connections, allowance)
    events.settle.listen(worker.exchange.tally.note)
    try:
        worker.run()
        code = 0
    except BaseException:
        logger.exception("worker %d fails", config.number)
        worker.settle_anyway()
    finally:
        child.leave(code, pipe if worker.guard.has_pipe() else None, f"pgq worker {config.number}")


def _bind_to_cpus(number: int, count: int) -> None:
    if count and hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(
            0, {cpus[(number * count + offset) % len(cpus)] for offset in range(min(count, len(cpus)))}
        )
