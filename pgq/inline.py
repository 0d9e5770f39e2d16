"""Running tasks in the caller's process and transaction: ``sync=True``, and the tests of whoever uses pgq.

The same steps as in a worker, by the same statements: enqueue, claim, execute, settle, follow-ons.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from django.db import transaction

from pgq import enqueue, execute, settling, store
from pgq.conf import get_settings
from pgq.db import callers_cursor
from pgq.enqueue import announce
from pgq.records import Claim, Failed, NewTask, Receipt, Retried

#: The worker that these claims name: nobody, whose leases nobody renews.
_NOBODY = UUID(int=0)


def run(task: NewTask) -> UUID:
    """Run a task now, and all that follows from it; return its id.

    Raises:
        Exception: What the function raised. Then nothing is written, as in Django-Q.
    """
    announce(task)
    settings = get_settings()
    with transaction.atomic(using=settings.database), callers_cursor(settings.database) as cursor:
        store.enqueue(cursor, task)
        claim = store.claim_one(cursor, task.id, worker=_NOBODY, receipt=uuid4())
        assert claim is not None, "the row was written a moment ago"
        receipt = run_claim(claim)
        if isinstance(receipt.outcome, Failed | Retried) and receipt.error is not None:
            raise receipt.error
        settling.write(cursor, [receipt], settings.name)
        followers = [new.id for new in getattr(receipt.outcome, "follow_ons", ())]
    settling.announce(receipt)
    for id in followers:
        run_queued(id)
    return task.id


def run_queued(id: UUID) -> Receipt | None:
    """Run a queued task now, whatever it waits for, and all that follows; None if it is gone or runs already.

    A failure is settled as a worker would settle it, not raised.
    """
    settings = get_settings()
    with transaction.atomic(using=settings.database), callers_cursor(settings.database) as cursor:
        claim = store.claim_one(cursor, id, worker=_NOBODY, receipt=uuid4())
        if claim is None:
            return None
        receipt = run_claim(claim)
        settling.write(cursor, [receipt], settings.name)
    settling.announce(receipt)
    for follower in getattr(receipt.outcome, "follow_ons", ()):
        run_queued(follower.id)
    return receipt


def drain(limit: int = 1000) -> list[Receipt]:
    """Run what is ready, in the order in which a worker would, until nothing is; return the receipts.

    Raises:
        RuntimeError: More than `limit` tasks ran: they seem to enqueue each other without end.
    """
    settings = get_settings()
    receipts: list[Receipt] = []
    while True:
        with transaction.atomic(using=settings.database), callers_cursor(settings.database) as cursor:
            claims = store.claim(cursor, limit=1, worker=_NOBODY, receipt=uuid4(), queues=settings.queues)
            if not claims:
                return receipts
            receipt = run_claim(claims[0])
            settling.write(cursor, [receipt], settings.name)
        settling.announce(receipt)
        receipts.append(receipt)
        if len(receipts) > limit:
            raise RuntimeError(f"drain: more than {limit} tasks ran; they seem to enqueue each other without end")


def run_claim(claim: Claim) -> Receipt:
    """Execute a claim inside a savepoint, so that a task which fails leaves the caller's transaction usable."""
    settings = get_settings()
    point = transaction.savepoint(using=settings.database)
    receipt = execute.run(claim, settings)
    if isinstance(receipt.outcome, Failed | Retried):
        transaction.savepoint_rollback(point, using=settings.database)
        transaction.set_rollback(False, using=settings.database)
    else:
        transaction.savepoint_commit(point, using=settings.database)
    return receipt


# So that functions with @task, which stand below, can be run at once too.
enqueue.run_now = run
