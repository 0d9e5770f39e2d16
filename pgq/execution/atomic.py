"""Atomic tasks: what the function writes, its result and its receipt are one commit on Django's connection.

So the effects on that database happen exactly once: a run that was killed leaves nothing, and one whose lease was lost
(frozen, cut off, rescued elsewhere) is rolled back, since its last statement before the commit finds its receipt gone.
That statement locks the row of the queue, so no rescue comes between it and the commit.

Django sends BEGIN with the first statement, and a task need not have any. So BEGIN is sent before the function runs: a
transaction that is not there at the end was ended by the task.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from django.db import DataError, IntegrityError, NotSupportedError, ProgrammingError, connections, transaction
from django.db.transaction import TransactionManagementError
from psycopg.pq import TransactionStatus

from pgq import records
from pgq.conf import Settings
from pgq.execution import call as calling
from pgq.execution import outcome, settle
from pgq.records import Report, Succeeded
from pgq.store import queue
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor

logger = logging.getLogger("pgq")

#: PostgreSQL's errors for a result that it will never take.
_REFUSED = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
_ENDED = "the task ended its transaction, so it was not atomic"
#: Why there is nothing to commit.
_WHY = {
    TransactionStatus.IDLE: _ENDED,
    TransactionStatus.INERROR: "a statement failed, and after that PostgreSQL commits nothing, though the task went on",
}


class Atomic:
    """Runs one task after the other; an atomic one in a transaction, begun before the function, ended with its report.

    Args:
        database: Alias of the database that has pgq's tables. Writes to other databases are not part of it.
        pool: Name of the pool, kept with the results.
        durable: The transaction must be the outermost one: inside another its commit means nothing. False: the caller
            runs tasks inside its own transaction, as a test does, and the task's is a savepoint in that.
        write_row: Called before the report is written, for a caller that has not enqueued the task before.
    """

    def __init__(
        self,
        database: str,
        pool: str,
        settings: Settings,
        *,
        durable: bool = True,
        write_row: Callable[[Cursor], None] = lambda cursor: None,
    ) -> None:
        self.database, self.pool, self.settings, self.durable = database, pool, settings, durable
        self._write_row = write_row
        self._transaction: contextlib.ExitStack | None = None
        self._committed = False

    def run(self, call: records.Call, returned: Callable[[], None] = lambda: None) -> Report:
        """Run a call to its end in this thread; return its report, `settled` if the task is atomic. Never raises.

        Args:
            returned: Called when the function has returned, before anything is sent to PostgreSQL.
        """
        report = calling.run_call(call, self.settings, self.begin)
        returned()
        return self.end(report) if self._transaction is not None else report

    def begin(self) -> None:
        """Begin the transaction of a task."""
        with contextlib.ExitStack() as stack:
            if self.durable:
                stack.enter_context(_in_autocommit(self.database))
            stack.enter_context(transaction.atomic(using=self.database, durable=self.durable))
            with callers_cursor(self.database) as cursor:
                queue.mark_transaction(cursor)
            self._committed = False
            if self.durable:
                transaction.on_commit(self._note_commit, using=self.database)
            self._transaction = stack.pop_all()

    def _note_commit(self) -> None:
        self._committed = True

    def end(self, report: Report) -> Report:
        """Commit the transaction with its report, or roll it back.

        Returns:
            The report: `settled`, or one that is to be settled as any other, since nothing was written: the function
            failed, or PostgreSQL refused the commit.
        """
        assert self._transaction is not None
        block, self._transaction = self._transaction, None
        try:
            with block:
                settled = isinstance(report.outcome, Succeeded) and self._settle(report)
                if not settled:
                    transaction.set_rollback(True, using=self.database)
        except Exception as error:
            if not self._committed:
                # A deferred constraint, a serialization failure, a broken transaction: the attempt failed.
                return outcome.failed(report, error, self.settings)
            logger.exception("task %s: a function it left to on_commit failed", report.claim.id.hex)
            settled = True
        if not isinstance(report.outcome, Succeeded):
            return report
        settle.conclude(report, settled)
        return report._replace(settled=True)

    def _settle(self, report: Report) -> bool:
        """Write the report; return whether the lease still held."""
        connection = connections[self.database]
        if connection.needs_rollback and not connection.closed_in_transaction:
            raise TransactionManagementError("the task marked its transaction to be rolled back, and returned")
        with callers_cursor(self.database) as cursor:
            status = connection.connection.info.transaction_status
            if status != TransactionStatus.INTRANS:
                raise TransactionManagementError(_WHY.get(status, "the task lost its connection to PostgreSQL"))
            if not queue.is_marked(cursor):
                raise TransactionManagementError(_ENDED)
            self._write_row(cursor)
            try:
                with transaction.atomic(using=self.database):
                    return bool(settle.write(cursor, [report], self.pool, ends_here=True))
            except _REFUSED as error:
                # PostgreSQL refused the result, not what the function wrote.
                less = settle.without_what_was_refused(report, error)
                return bool(settle.write(cursor, [less], self.pool, ends_here=True))


@contextlib.contextmanager
def _in_autocommit(alias: str) -> Iterator[None]:
    """Where DATABASES has AUTOCOMMIT = False, ``atomic()`` would neither begin a transaction nor commit it."""
    if transaction.get_autocommit(using=alias):
        yield
        return
    transaction.set_autocommit(True, using=alias)
    try:
        yield
    finally:
        if connections[alias].connection is not None:
            transaction.set_autocommit(False, using=alias)
