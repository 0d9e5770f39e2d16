"""The guard: the second thread of a worker. It hears the supervisor, also while a task runs in the main thread.

While a task runs long, it settles what has finished before that task and gives back what was claimed after it, so that
nothing waits behind a slow task.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol
from uuid import UUID

import psycopg

from pgq.conf import Settings
from pgq.execution import call, progress
from pgq.execution import context as contexts
from pgq.ground import events
from pgq.pool import protocol
from pgq.pool.worker import process_state
from pgq.pool.worker.exchange import Exchange, flush_tally
from pgq.pool.worker.slots import Slots
from pgq.pool.worker.surroundings import Surroundings
from pgq.records import Claim

#: Seconds between two ticks of the guard while a task runs long.
_TICK = 0.01
#: The same while no task does, at most. Each tick takes the interpreter from the main thread: of 64 workers busy with
#: short tasks, the quick ticks took a sixth of the processor time.
_CALM_TICK = 0.04
#: Seconds that what was counted waits for a settlement to go with, once it is due.
_FLUSH_PATIENCE = 1.0


class MainThread(Protocol):
    """What the guard reads of the main thread."""

    running: Claim | None
    running_since: float


class Guard:
    """Hears the supervisor, and does what cannot wait for the task in the main thread.

    Args:
        post: Sends a message to the supervisor.

    Attributes:
        stopping: The supervisor has told the worker to stop.
    """

    def __init__(
        self,
        main: MainThread,
        pipe: Connection,
        post: Callable[[bytes], None],
        exchange: Exchange,
        slots: Slots,
        surroundings: Surroundings,
        settings: Settings,
    ) -> None:
        self.main, self.pipe, self.post, self.exchange, self.slots = main, pipe, post, exchange, slots
        self.surroundings, self.settings = surroundings, settings
        self.stopping = False
        self._asleep = False
        self._woken = threading.Event()
        #: Not before then (monotonic): each write is a transaction.
        self._write_after = 0.0
        self._pipe_file = process_state.identity(pipe.fileno())

    # --------------------------------------------------------------------------------------------- main thread

    def start(self) -> None:
        """Start the thread."""
        contexts.begin_writing()
        threading.Thread(target=self._run, name="pgq guard", daemon=True).start()

    def sleep(self) -> None:
        """Have the main thread wait until the supervisor wakes it, since there is work, or stops it."""
        self._woken.clear()
        self._asleep = True
        # The supervisor then polls the queue: a task that came just before this wakes the worker again.
        self.post(protocol.HELD if self.exchange.turns.has_rates else protocol.IDLE)
        # The message to stop may have come just before the clear.
        if not self.stopping:
            self._woken.wait()
        self._asleep = False

    def has_pipe(self) -> bool:
        """Whether the pipe to the supervisor is there. A task can close it, and another file may have its number."""
        return process_state.identity(self.pipe.fileno()) == self._pipe_file

    # --------------------------------------------------------------------------------------------- guard thread

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.pipe.fileno(), select.POLLIN)
        calm = min(_CALM_TICK, max(_TICK, min(self.settings.claim_ms, self.settings.settle_ms) / 1000))
        seen: Claim | None = None
        while True:
            # While the main thread sleeps and nothing runs beside it, the guard wakes up for messages only.
            idle = self._asleep and not self.slots.running and not self.exchange.finished
            running = self.main.running
            long = bool(self.slots.running) or (running is not None and running is seen)
            seen = running
            if not poll.poll(self._until_flush() if idle else 1000 * (_TICK if long else calm)):
                if idle:
                    flush_tally(self.exchange)
                else:
                    self._tick(time.monotonic())
                continue
            try:
                self._heard_supervisor(self.pipe.recv_bytes())
            except (EOFError, OSError):
                if self.has_pipe():
                    # The supervisor is gone. No process renews this worker's leases now, so they will run out.
                    os._exit(1)
                # What is in hand can still be settled; then the supervisor starts another worker.
                self.surroundings.spoiled = "a task closed its pipe"
                self._wake_up()
                return

    def _until_flush(self) -> float | None:
        """Return the milliseconds until what was counted is to be written; None: nothing was counted."""
        due = self.exchange.tally.due_at()
        return None if due is None else max(0.0, 1000 * (due - time.monotonic()))

    def _heard_supervisor(self, message: bytes) -> None:
        if message == protocol.STOP:
            self.stopping = True
            self._wake_up()
        elif message == protocol.WAKE:
            self._wake_up()
            if events.wake.listeners:
                events.wake.tell(self.exchange.config.number)
        elif message.startswith(protocol.CANCEL):
            self._cancel(UUID(bytes=message[1:]))

    def _wake_up(self) -> None:
        # Not left to the main thread: until that runs, the guard would believe it asleep and wait without a limit.
        self._asleep = False
        self._woken.set()
        if self.slots.used:
            self.slots.recheck()

    def _tick(self, now: float) -> None:
        """While tasks run, settle and give back what would wait for them, and interrupt those whose time is up."""
        running = self.main.running is not None
        if not running and not self.slots.used:
            return
        exchange, settings = self.exchange, self.settings
        if exchange.finished and (exchange.urgent or now - exchange.finished[0].stopped > settings.settle_ms / 1000):
            exchange.settle(insist=False)
        if (
            running
            and (exchange.waiting or exchange.returning)
            and now - self.main.running_since > settings.claim_ms / 1000
        ):
            exchange.give_back(insist=False)
        self.slots.interrupt_overdue(now)
        if exchange.tally.is_due(now - _FLUSH_PATIENCE):
            flush_tally(exchange)
        if contexts.is_anything_unwritten() and now >= self._write_after:
            self._write_progress()
            self._write_after = time.monotonic() + progress.EVERY

    def _write_progress(self) -> None:
        """Write what running tasks have said of themselves since the last time."""
        try:
            self.exchange.execute(progress.write_unwritten)
        except psycopg.Error as error:
            self.exchange.wait_for_postgresql(error)

    def _cancel(self, task: UUID) -> None:
        """Stop that task, if it is still running here."""
        running = self.main.running
        if running is not None and running.id == task:
            contexts.note_cancelled(running)
            call.cancel_running(task)
        # It may have just been started beside the main thread, which still names it as its own.
        self.slots.cancel(task)
