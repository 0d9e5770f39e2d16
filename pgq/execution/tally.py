"""The tally: what a worker has settled since its last flush, by queue, function and outcome.

It listens to `events.settle`, so it counts what PostgreSQL has accepted, after the commit. What it holds goes to
pgq_metric_raw with a settlement, each ten seconds, and upkeep adds that up (`pgq.upkeep.metrics`). A worker that is
killed takes what it has counted since its last flush with it. Tasks that end without a worker are counted by
`pgq.execution.ending`.

A flush has a number, and stays as it is until its commit is known: sent again, it is counted once.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from uuid import uuid4

import psycopg

from pgq.ground import histogram
from pgq.records import Claim, Failed, Outcome, Parked, Retried, Settled, Succeeded
from pgq.store import metrics
from pgq.store.connection import Connection

logger = logging.getLogger("pgq")

#: Seconds between two flushes.
EVERY = 10.0
#: The same after one that PostgreSQL refused: the table is missing, or the role may not write it.
_AFTER_REFUSAL = 60.0
#: Pairs of queue and function that are told apart in one flush.
_PAIRS_AT_MOST = 1000

_LONGEST = histogram.LONGEST
_BY_EXCEPTION = {"pgq.errors.TaskCancelled": "cancelled", "pgq.errors.TaskTimeout": "timed_out"}


class _Entry:
    """What is known of one queue, function and outcome: times in microseconds, and how many per bucket."""

    __slots__ = ("not_run", "run_max", "run_sum", "runs", "wait_max", "wait_sum", "waits")

    def __init__(self) -> None:
        self.not_run = self.run_sum = self.run_max = self.wait_sum = self.wait_max = 0
        self.runs, self.waits = [0] * histogram.SIZE, [0] * histogram.SIZE

    def add(self, run: int, wait: int) -> None:
        """Count a task that ran."""
        self.run_sum += run
        self.run_max = max(self.run_max, run)
        self.runs[histogram.bucket(run)] += 1
        self.wait_sum += wait
        self.wait_max = max(self.wait_max, wait)
        self.waits[histogram.bucket(wait)] += 1

    def as_json(self) -> list[object]:
        runs, waits = (_dense(counts) for counts in (self.runs, self.waits))
        number = self.not_run + sum(self.runs)
        return [number, self.run_sum, self.run_max, runs, self.wait_sum, self.wait_max, waits]


def _dense(counts: list[int]) -> tuple[int | None, list[int] | None]:
    return histogram.dense(dict(enumerate(counts)))


def outcome_of(outcome: Outcome) -> str:
    """Return the name under which an outcome is counted: see docs/operate/metrics.md."""
    if type(outcome) is Succeeded:
        return "succeeded"
    if isinstance(outcome, Failed):
        return "discarded" if outcome.discarded else _BY_EXCEPTION.get(outcome.failure.exception, "failed")
    return "parked" if isinstance(outcome, Parked) else "retried"


class Tally:
    """Counts in all threads of a worker; written by the thread that uses the worker's connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker = uuid4()
        self._seq = 0
        self._entries: dict[tuple[str, str, str], _Entry] = {}
        #: A flush whose commit is not confirmed.
        self._body: str | None = None
        self._next = time.monotonic() + EVERY

    def note(self, settled: Settled) -> None:
        """Count reports that were accepted. A listener of `events.settle`.

        Each task pays for it, so nothing is called here for a task that succeeded, and the entry of the task before is
        kept: most tasks of a claim have the same queue and function. Half a microsecond a task.
        """
        with self._lock:
            entry: _Entry | None = None
            queue = func = ""
            for claim, outcome, started, stopped, _, _, _, _, _, _ in settled.accepted:
                if type(outcome) is not Succeeded:
                    self._note_other(claim, outcome, stopped - started)
                    continue
                if entry is None or claim.func != func or claim.queue != queue:
                    queue, func = claim.queue, claim.func
                    entry = self._entry(queue, func, "succeeded")
                    runs, waits = entry.runs, entry.waits
                run = int((stopped - started) * 1e6)
                entry.run_sum += run
                if run > entry.run_max:
                    entry.run_max = run
                # As histogram.bucket does.
                bits = run.bit_length()
                runs[2 * bits + (run >> (bits - 2) & 1) if bits > 1 else 2 * bits] += 1
                wait = int(claim.waited * 1e6)
                if not 0 <= wait <= _LONGEST:
                    wait = 0 if wait < 0 else _LONGEST
                entry.wait_sum += wait
                if wait > entry.wait_max:
                    entry.wait_max = wait
                bits = wait.bit_length()
                waits[2 * bits + (wait >> (bits - 2) & 1) if bits > 1 else 2 * bits] += 1

    def _note_other(self, claim: Claim, outcome: Outcome, seconds: float) -> None:
        entry = self._entry(claim.queue, claim.func, outcome_of(outcome))
        if _ran(outcome):
            entry.add(int(seconds * 1e6), min(max(int(claim.waited * 1e6), 0), _LONGEST))
        else:
            entry.not_run += 1

    def _entry(self, queue: str, func: str, outcome: str) -> _Entry:
        key = queue, func, outcome
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= _PAIRS_AT_MOST:
                key = metrics.OTHER, metrics.OTHER, outcome
            else:
                # A row from psql may name what it likes, at any length.
                key = queue[: metrics.LENGTH], func[: metrics.LENGTH], outcome
            entry = self._entries.setdefault(key, _Entry())
        return entry

    # ------------------------------------------------------------------------------------------- writing

    def due_at(self) -> float | None:
        """Return when there is something to write (monotonic); None: there is nothing."""
        return self._next if self._entries or self._body is not None else None

    def is_due(self, now: float) -> bool:
        """Whether there is something to write, and has been for long enough."""
        return now >= self._next and (bool(self._entries) or self._body is not None)

    def write(self, connection: Connection) -> bool:
        """Write what was counted, in the caller's transaction if there is one; return whether it was written.

        The caller calls `confirm` after the commit. A table that is missing, or a role that may not write it, must not
        keep tasks from being settled: then nothing is written, for a minute.

        Raises:
            psycopg.Error: The connection, or the caller's transaction, cannot be used any more.
        """
        if self._body is None:
            self._freeze()
        if self._body is None:
            return False
        try:
            # Inside the caller's transaction this is a savepoint.
            with connection.transaction():
                metrics.flush(connection.cursor(), worker=self._worker, seq=self._seq, body=self._body)
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.IntegrityError) as error:
            self._next = time.monotonic() + _AFTER_REFUSAL
            logger.warning("what this worker has counted cannot be written: %s", error)
            return False
        return True

    def write_all(self, connection: Connection) -> None:
        """Write what was counted; the caller is in no transaction.

        Raises:
            psycopg.Error: As for `write`. What was not confirmed is sent again by the next one.
        """
        # A flush that is not confirmed stays as it was, and what was counted since is the next one.
        while self.due_at() is not None and self.write(connection):
            self.confirm()

    def confirm(self) -> None:
        """Note that what `write` has written is committed."""
        self._body = None
        self._seq += 1
        self._next = time.monotonic() + EVERY

    def _freeze(self) -> None:
        with self._lock:
            entries, self._entries = self._entries, {}
        if entries:
            self._body = json.dumps([[*key, *entry.as_json()] for key, entry in entries.items()])


def _ran(outcome: Outcome) -> bool:
    """Whether the function was called. That of a parked row was not, nor one that this worker's code does not know."""
    return outcome.ran if isinstance(outcome, Failed) else isinstance(outcome, Succeeded | Retried)
