"""Running tasks in the caller's process and transaction: ``sync=True``, and the tests of projects that use pgq.

The same steps as in a worker, by the same statements: enqueue, claim, execute, settle, follow-ons. And what a task does
has the same end as in a worker: a function runs in a transaction only if it is atomic or the caller is in one, what a
plain function wrote stays when it fails, and it sees no context variable that the caller has set.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

from asgiref.sync import async_to_sync
from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import TransactionStatus

from pgq import records
from pgq.conf import Settings, at, database_of, get_settings, served
from pgq.enqueue import registry, unique
from pgq.enqueue.keys import limits_in_code
from pgq.enqueue.watched import watched
from pgq.enqueue.write import announce
from pgq.execution import call as calling
from pgq.execution import ending, outcome, prepare, settle
from pgq.execution.atomic import Atomic
from pgq.ground import events
from pgq.records import Claim, Failed, NewTask, Report, Retried, Succeeded
from pgq.recurrence import moments
from pgq.store import queue
from pgq.store import unique as store_unique
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor
from pgq.store.limits import write_limits
from pgq.store.turns import Turns

logger = logging.getLogger("pgq")

#: The `worker` of these claims. It is the id of no process, so no supervisor renews their leases.
_NO_WORKER = UUID(int=0)


def run(task: NewTask) -> UUID:
    """Run a task now, and all that follows from it; return its id, or that of the task that has its unique key.

    Its row is written when the function has returned: should this process be killed before that, no worker runs the
    task again behind the caller's back.

    Raises:
        Exception: What the function raised. Then nothing is written of the task, as in Django-Q; what the function
            itself had written stays, as in a worker, unless the task is atomic.
    """
    found = taken(task)
    if found is not None:
        return found
    report = run_settled(task, _raises_all)
    return report.claim.id


def taken(task: NewTask) -> UUID | None:
    """Return the id of the task that has the unique key of this one, and do to it what this one wants; None: none has.

    Raises:
        NotUnique: One has it, and the call is to be refused then.
    """
    if task.unique is None:
        return None
    with at(database_of(task.queue)), _transaction(get_settings()) as cursor:
        return unique.resolve(cursor, task)


def _raises_all(error: BaseException) -> bool:
    return True


def run_settled(task: NewTask, raises: Callable[[BaseException], bool]) -> Report:
    """Run a task now as `run` does, but settle a failure as a worker would: the task has failed, or is tried again.

    Args:
        raises: Whether the caller wants an exception of the function raised. Then nothing is written of the task.
    """
    with at(database_of(task.queue)):
        return _run_settled(task, raises)


def _run_settled(task: NewTask, raises: Callable[[BaseException], bool]) -> Report:
    announce(task)
    settings = get_settings()
    with watched((task,), settings.database) as writing:
        [task] = writing.tasks
    claim = _claim_of(task)

    def write_row(cursor: Cursor) -> None:
        queue.enqueue(cursor, task)
        if task.unique is not None and not isinstance(task.unique.until, str):
            store_unique.take_key(cursor, task.unique.key, task.id, seconds=task.unique.until)
        queue.claim_one(cursor, task.id, worker=_NO_WORKER, receipt=claim.receipt)

    report = _execute(claim, settings, write_row)
    if isinstance(report.outcome, Failed | Retried) and report.error is not None and raises(report.error):
        if events.end.listeners:
            events.end.tell(report)
        raise report.error
    _tell(report)
    if not report.settled:
        with _transaction(settings) as cursor:
            write_row(cursor)
            settle.write(cursor, [report], settings.name)
        settle.conclude(report, True)
    _run_followers(report)
    return report


def _claim_of(task: NewTask) -> Claim:
    """Return the claim that `store.claim_one` will return once the row of this task is there."""
    return Claim(
        task.id,
        task.priority,
        0,
        task.queue,
        task.func,
        task.args,
        task.kwargs,
        task.options,
        task.name,
        task.group,
        task.hook,
        task.timeout,
        attempts=1,
        crashes=0,
        max_attempts=task.max_attempts,
        schedule=task.schedule,
        enqueued_at=moments.now(),
        signature=task.signature,
        cancelled=False,
        last_error=None,
        ctid="(0,0)",
        history=None,
        expired=task.expires_at is not None and task.expires_at <= moments.now(),
        key=task.key,
        strand=None,
        waited=0.0,
        receipt=uuid4(),
        worker=_NO_WORKER,
    )


def run_queued(id: UUID) -> Report | None:
    """Run a queued task now, whatever it waits for, and all that follows; None if it is gone or runs already.

    A failure is settled as a worker would settle it, not raised.
    """
    settings = get_settings()
    with _transaction(settings) as cursor:
        claim = queue.claim_one(cursor, id, worker=_NO_WORKER, receipt=uuid4())
    if claim is None:
        return None
    report = _run_claim(claim, settings)
    _run_followers(report)
    return report


def _run_followers(report: Report) -> None:
    for follower in getattr(report.outcome, "follow_ons", ()):
        run_queued(follower.id)


def drain(limit: int = 1000) -> list[Report]:
    """Run what is ready, in the order in which a worker would, until nothing is; return the reports.

    What a task left to ``transaction.on_commit`` runs when it has ended, also inside a transaction of the caller.

    Raises:
        RuntimeError: More than `limit` tasks ran: they seem to enqueue each other without end. Or a task ended the
            transaction of the caller.
    """
    settings = get_settings()
    with _transaction(settings) as cursor:
        # As upkeep does.
        reports = ending.settle_ended(cursor, settings, limit=limit)
    for report in reports:
        ending.announce(report)
    turns = Turns(settings.served)
    if limits := limits_in_code(settings):
        # As a worker does before its first claim.
        with _transaction(settings) as cursor:
            write_limits(cursor, limits)
    while True:
        with _transaction(settings) as cursor:
            claims = turns.claim(cursor, limit=1, worker=_NO_WORKER, receipt=uuid4())
        if not claims:
            return reports
        reports.append(_run_claim(claims[0], settings, commits=True))
        if len(reports) > limit:
            raise RuntimeError(f"drain: more than {limit} tasks ran; they seem to enqueue each other without end")


def _run_claim(claim: Claim, settings: Settings, *, commits: bool = False) -> Report:
    """Run a claim, whose row is there, and settle it. `commits`: run what it left to on_commit, too."""
    report = _execute(claim, settings, commits=commits)
    _tell(report)
    if not report.settled:
        with _transaction(settings) as cursor:
            settle.write(cursor, [report], settings.name)
        settle.conclude(report, True)
    return report


def _tell(report: Report) -> None:
    """Tell what came of a task, as a worker does."""
    if events.end.listeners:
        events.end.tell(report)
    if not isinstance(report.outcome, Succeeded):
        settle.log_failure(report)
    elif logger.isEnabledFor(logging.DEBUG):
        settle.log_success(report)


@contextlib.contextmanager
def _transaction(settings: Settings) -> Iterator[Cursor]:
    with transaction.atomic(using=settings.database), callers_cursor(settings.database) as cursor:
        yield cursor


# ------------------------------------------------------------------------------------------------- as in a worker


def _execute(
    claim: Claim,
    settings: Settings,
    write_row: Callable[[Cursor], None] = lambda cursor: None,
    *,
    commits: bool = False,
) -> Report:
    """Run a claim as a worker would; return its report, `settled` if the task is atomic.

    Args:
        write_row: See `Atomic`.
        commits: Whether what the task left to on_commit runs now, though the caller's transaction goes on.
    """
    call = prepare.ready(claim, settings)
    if isinstance(call, Report):
        return call
    registered = {connection: len(connection.run_on_commit) for connection in _in_transactions()}
    with _spared(claim):
        report = _context().run(_run_call, call, settings, write_row)
    if commits:
        try:
            with _spared(claim):
                _run_on_commit(registered)
        except Exception as error:
            if report.settled:
                # As in a worker: the task had been committed.
                logger.exception("task %s: a function it left to on_commit failed", claim.id.hex)
            elif isinstance(report.outcome, Succeeded):
                # Without a transaction it is called at once, inside the function.
                report = outcome.failed(report, error, settings)
    return report


def _context() -> contextvars.Context:
    """Return an empty context: what a request or a test has put into its own is not there in a worker."""
    if not _is_loops_thread():
        return contextvars.Context()
    # There Django keeps its connections in the context: the caller's are to be used, and found again by the caller.
    connections.all()
    return contextvars.copy_context()


def _is_loops_thread() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_call(call: records.Call, settings: Settings, write_row: Callable[[Cursor], None]) -> Report:
    with served(settings.database):
        return _run_served(call, settings, write_row)


def _run_served(call: records.Call, settings: Settings, write_row: Callable[[Cursor], None]) -> Report:
    if registry.is_async(call.func):
        report: Report = _wait(calling.run_coroutine(call, settings))
        return report
    durable = transaction.get_autocommit(using=settings.database)
    atomic = Atomic(settings.database, settings.name, settings, durable=durable, write_row=write_row)
    return atomic.run(call._replace(finish=_wait))


def _wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, so that what it has done by `sync_to_async`, as the ORM has, is done in this thread.

    That has the caller's connections: else it would see nothing of the caller's transaction.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def run() -> Any:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))  # type: ignore[arg-type]  # there is one
        return await coroutine

    if _is_loops_thread():
        # Nothing can come back to this thread while it waits.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(contextvars.copy_context().run, asyncio.run, run()).result()
    try:
        return async_to_sync(run)()
    except BaseException:
        # If a timeout interrupted this thread, the coroutine still runs.
        for loop, task in running:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        raise


# ------------------------------------------------------------------------------------------------- transactions


def _in_transactions() -> list[BaseDatabaseWrapper]:
    # Without autocommit, but in no block, a task may commit by itself, as in a worker.
    return [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]


@contextlib.contextmanager
def _spared(claim: Claim) -> Iterator[None]:
    """Keep the caller's transactions usable: if a statement of the task has spoiled one, take back what the task did.

    In a worker such a statement fails alone, since a plain task is in no transaction. Whatever spoils none stays, as in
    a worker, also if the task fails.

    Raises:
        RuntimeError: The task ended a transaction, or closed a connection, that the caller was in.
    """
    points: list[tuple[BaseDatabaseWrapper, Any]] = [
        (connection, connection.savepoint()) for connection in _in_transactions()
    ]
    try:
        yield
    finally:
        for connection, point in points:
            try:
                if _is_spoiled(connection):
                    connection.needs_rollback = False
                    connection.savepoint_rollback(point)
                connection.savepoint_commit(point)
            except Error as error:
                raise RuntimeError(
                    f"task {claim.id.hex} ({claim.func}) ended the transaction that its caller is in on"
                    f" {connection.alias!r}, or closed the connection; run it outside of a transaction"
                ) from error


def _is_spoiled(connection: BaseDatabaseWrapper) -> bool:
    info = getattr(connection.connection, "info", None)
    return connection.needs_rollback or (info is not None and info.transaction_status == TransactionStatus.INERROR)


def _run_on_commit(registered: dict[BaseDatabaseWrapper, int]) -> None:
    """Run what was left to on_commit since, and will not run before the caller's transaction ends."""
    for connection, count in registered.items():
        left: list[Any] = connection.run_on_commit[count:]
        del connection.run_on_commit[count:]
        for _, function, robust in left:
            try:
                function()
            except Exception:
                if not robust:
                    raise
                logger.exception("a function left to on_commit failed")
