"""Atomic tasks: what the function writes, its result and its receipt are one commit on Django's connection.

So the effects on that database happen exactly once: a run that was killed leaves nothing, and one whose lease was lost
(frozen, cut off, rescued elsewhere) is rolled back, since its last statement before the commit finds its receipt gone.
That statement locks the row of the queue, so nobody can rescue the task between it and the commit.
"""

from __future__ import annotations

import contextlib
import logging

from django.db import DataError, IntegrityError, NotSupportedError, ProgrammingError, connections, transaction
from django.db.transaction import TransactionManagementError
from psycopg.pq import TransactionStatus

from pgq import execute, settling
from pgq.conf import Settings
from pgq.db import callers_cursor
from pgq.records import Receipt, Succeeded

logger = logging.getLogger("pgq")

#: What PostgreSQL says to a result that it will never take.
_REFUSED = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
#: Why there is nothing to commit.
_WHY = {
    TransactionStatus.IDLE: "the task ended its transaction, so it was not atomic",
    TransactionStatus.INERROR: "a statement failed, and after that PostgreSQL commits nothing, though the task went on",
}


class Atomic:
    """The transaction of one atomic task after the other: begun right before the function, ended with its receipt.

    Args:
        database: Alias of the database that has pgq's tables. Writes to other databases are not part of it.
        pool: Name of the pool, kept with the results.
    """

    def __init__(self, database: str, pool: str, settings: Settings) -> None:
        self.database, self.pool, self.settings = database, pool, settings
        self._transaction: contextlib.ExitStack | None = None
        self._committed = False

    @property
    def is_open(self) -> bool:
        """Whether a transaction has been begun and waits for its receipt."""
        return self._transaction is not None

    def begin(self) -> None:
        """Begin the transaction of a task."""
        stack = contextlib.ExitStack()
        # Durable: it would mean nothing inside somebody else's transaction.
        stack.enter_context(transaction.atomic(using=self.database, durable=True))
        self._transaction, self._committed = stack, False
        transaction.on_commit(self._note_commit, using=self.database)

    def _note_commit(self) -> None:
        self._committed = True

    def end(self, receipt: Receipt) -> tuple[Receipt, bool]:
        """Commit the transaction with its receipt, or roll it back.

        Returns:
            The receipt, and whether it is dealt with. If not, nothing was written and the receipt is to be settled as
            any other: the function failed, or PostgreSQL refused the commit.
        """
        assert self._transaction is not None
        block, self._transaction = self._transaction, None
        try:
            with block:
                settled = isinstance(receipt.outcome, Succeeded) and self._settle(receipt)
                if not settled:
                    transaction.set_rollback(True, using=self.database)
        except Exception as error:
            if not self._committed:
                # A deferred constraint, a serialization failure, a broken transaction: the attempt failed.
                return execute.failed(receipt.claim, error, self.settings, receipt.started), False
            logger.exception("task %s: a function it left to on_commit failed", receipt.claim.id.hex)
            settled = True
        if not isinstance(receipt.outcome, Succeeded):
            return receipt, False
        settling.conclude(receipt, settled)
        return receipt, True

    def _settle(self, receipt: Receipt) -> bool:
        """Write the receipt; return whether the lease still held."""
        with callers_cursor(self.database) as cursor:
            status = connections[self.database].connection.info.transaction_status
            if status != TransactionStatus.INTRANS:
                raise TransactionManagementError(_WHY.get(status, "the task lost its connection to PostgreSQL"))
            try:
                with transaction.atomic(using=self.database):
                    return bool(settling.write(cursor, [receipt], self.pool, ours=True))
            except _REFUSED as error:
                # The result, not what the function wrote.
                less = settling.without_what_was_refused(receipt, error)
                return bool(settling.write(cursor, [less], self.pool, ours=True))
