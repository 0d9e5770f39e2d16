"""Examples of what tasks do, each with what must come of it; test_outcomes.py has each runner run them all."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import close_old_connections, connection, transaction
from django.utils import translation

from pgq.errors import Discard, Retry
from pgq.tasks import current_task, task
from tests.app.models import Note

#: The runners that run in the caller's transaction, as in Django's TestCase; those that raise what a task raises.
IN_A_TRANSACTION = ("drain in a test", "inline in a test")
RAISING = ("inline in a test", "sync")

FAILED, SUCCEEDED = "failed", "succeeded"
VALUE_ERROR, TYPE_ERROR, RUNTIME_ERROR = "builtins.ValueError", "builtins.TypeError", "builtins.RuntimeError"
BROKEN = "django.db.transaction.TransactionManagementError"


@dataclass(frozen=True)
class Outcome:
    """What came of a task: its state, result and error, its attempts, and the notes it has left, sorted."""

    state: str
    result: Any = None
    error: str | None = None
    attempts: int = 1
    wrote: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Case:
    """A function, what a worker makes of it, and where that differs by nature: runner -> (why, what comes there).

    None: it is not run there.
    """

    func: Callable[..., Any]
    outcome: Outcome
    options: dict[str, Any]
    unlike: dict[str, tuple[str, Outcome | None]]
    cancelled: bool = False

    @property
    def name(self) -> str:
        return getattr(self.func, "__name__", str(self.func))


CASES: list[Case] = []


@dataclass
class Unlike:
    """Where another outcome is right, and why."""

    why: str
    runners: tuple[str, ...]
    outcome: Outcome | None


def case(
    outcome: Outcome, *unlike: Unlike, atomic: bool | None = None, cancelled: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Enter a function into the table; `atomic`: register it, and so."""

    def enter(func: Callable[..., Any]) -> Any:
        registered = func if atomic is None else task(atomic=atomic)(func)
        others = {runner: (entry.why, entry.outcome) for entry in unlike for runner in entry.runners}
        CASES.append(Case(registered, outcome, options, others, cancelled))
        return registered

    return enter


def write(text: str) -> None:
    Note.objects.create(text=f"{current_task().id} {text}")


def on_commit(text: str, fail: bool = False) -> None:
    """Leave a function to on_commit that writes."""
    id = current_task().id

    def function() -> None:
        Note.objects.create(text=f"{id} {text}")
        if fail:
            raise ValueError("after the commit")

    transaction.on_commit(function)


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def divide_by_zero() -> None:
    execute("SELECT 1/0")


# -------------------------------------------------------------------------------- plain


@case(Outcome(SUCCEEDED, 42, wrote=("a",)))
def plain() -> int:
    write("a")
    return 42


@case(Outcome(SUCCEEDED))
def does_nothing() -> None: ...


@case(Outcome(FAILED, error=VALUE_ERROR, wrote=("a",)))
def writes_and_raises() -> None:
    write("a")
    raise ValueError("on purpose")


@case(Outcome(FAILED, error="builtins.SystemExit", wrote=("a",)))
def leaves() -> None:
    write("a")
    raise SystemExit(0)


FIRST_ATTEMPT = "what the first attempt raises is raised in the caller"


@case(
    Outcome(SUCCEEDED, 2, attempts=2, wrote=("1", "2")),
    Unlike(FIRST_ATTEMPT, RAISING, Outcome(FAILED, error=VALUE_ERROR, wrote=("1",))),
    max_attempts=3,
    retry_backoff=0,
)
def fails_first() -> int:
    attempt = current_task().attempt
    write(str(attempt))
    if attempt == 1:
        raise ValueError("the first time")
    return attempt


@case(
    Outcome(FAILED, error="pgq.errors.Retry", attempts=2, wrote=("1", "2")),
    Unlike(FIRST_ATTEMPT, RAISING, Outcome(FAILED, error="pgq.errors.Retry", wrote=("1",))),
    max_attempts=2,
)
def asks_again() -> None:
    write(str(current_task().attempt))
    raise Retry(0)


@case(Outcome(FAILED, error="pgq.errors.Discard", wrote=("a",)), max_attempts=5)
def gives_up() -> None:
    write("a")
    raise Discard("no use")


@case(Outcome(FAILED, error="pgq.errors.TaskTimeout", wrote=("a",)), timeout=0.2)
def takes_too_long() -> None:
    write("a")
    while True:
        time.sleep(0.01)


@case(
    Outcome(FAILED, error="pgq.errors.TaskCancelled", attempts=0),
    Unlike("it runs before anybody can cancel it", RAISING, Outcome(SUCCEEDED)),
    cancelled=True,
)
def is_cancelled() -> None: ...


@case(Outcome(SUCCEEDED, "<object, not stored>"))
def returns_what_cannot_be_stored() -> Any:
    return object()


# -------------------------------------------------------------------------------- plain, and the database

SPOILS = "in a transaction nothing is possible after an error, and what stood before it is rolled back with it"


@case(
    Outcome(FAILED, error="django.db.utils.DataError", wrote=("a",)),
    Unlike(SPOILS, IN_A_TRANSACTION, Outcome(FAILED, error="django.db.utils.DataError")),
)
def fails_in_the_database() -> None:
    write("a")
    divide_by_zero()


@case(
    Outcome(SUCCEEDED, wrote=("a", "b")),
    Unlike(SPOILS, IN_A_TRANSACTION, Outcome(FAILED, error="django.db.utils.InternalError")),
)
def goes_on_after_an_error() -> None:
    write("a")
    try:
        divide_by_zero()
    except Exception:
        write("b")


@case(Outcome(SUCCEEDED, wrote=("a", "c")))
def goes_on_after_an_error_in_a_block() -> None:
    write("a")
    try:
        with transaction.atomic():
            write("b")
            divide_by_zero()
    except Exception:
        write("c")


@case(Outcome(SUCCEEDED, wrote=("a",)))
def has_a_durable_block() -> None:
    with transaction.atomic(durable=True):
        write("a")


@case(
    Outcome(FAILED, error=BROKEN),
    Unlike("there is a transaction, as Django says of its TestCase", IN_A_TRANSACTION, Outcome(SUCCEEDED)),
)
def locks_without_a_transaction() -> None:
    Note.objects.select_for_update().first()


WAITS = "it waits for the commit of the caller, whose transaction this is"


@case(
    Outcome(SUCCEEDED, wrote=("a", "committed")),
    Unlike(WAITS, ("inline in a test",), Outcome(SUCCEEDED, wrote=("a",))),
)
def leaves_something_to_on_commit() -> None:
    on_commit("committed")
    write("a")


@case(
    Outcome(FAILED, error=VALUE_ERROR, wrote=("a", "committed")),
    Unlike(WAITS, ("inline in a test",), Outcome(SUCCEEDED, wrote=("a",))),
)
def leaves_a_failure_to_on_commit() -> None:
    write("a")
    on_commit("committed", fail=True)


@case(Outcome(SUCCEEDED, wrote=("a",)))
def leaves_something_to_on_commit_in_vain() -> None:
    write("a")
    with transaction.atomic():
        on_commit("never")
        transaction.set_rollback(True)


ENDS = "it is in the test's transaction, which is gone; the test is told"
TOLD = Outcome("refused", error=RUNTIME_ERROR)


@case(Outcome(SUCCEEDED, wrote=("a", "b")), Unlike(ENDS, IN_A_TRANSACTION, TOLD))
def closes_its_connection() -> None:
    write("a")
    connection.close()
    if not connection.in_atomic_block:
        write("b")


@case(Outcome(SUCCEEDED, wrote=("a", "b")), Unlike(ENDS, IN_A_TRANSACTION, TOLD))
def closes_old_connections() -> None:
    write("a")
    close_old_connections()
    if not connection.in_atomic_block:
        write("b")


# -------------------------------------------------------------------------------- atomic


@case(Outcome(SUCCEEDED, 1), atomic=True)
def atomic_without_a_statement() -> int:
    return 1


@case(Outcome(SUCCEEDED, wrote=("committed",)), Unlike(WAITS, ("inline in a test",), Outcome(SUCCEEDED)), atomic=True)
def atomic_with_on_commit_only() -> None:
    on_commit("committed")


@case(Outcome(SUCCEEDED, wrote=("committed",)), Unlike(WAITS, ("inline in a test",), Outcome(SUCCEEDED)), atomic=True)
def atomic_with_a_failure_left_to_on_commit() -> None:
    on_commit("committed", fail=True)


@case(Outcome(SUCCEEDED, 1, wrote=("a",)), atomic=True)
def atomic_that_writes() -> int:
    write("a")
    return 1


@case(Outcome(FAILED, error=VALUE_ERROR), atomic=True)
def atomic_that_writes_and_raises() -> None:
    on_commit("never")
    write("a")
    raise ValueError("on purpose")


@case(
    Outcome(SUCCEEDED, 2, attempts=2, wrote=("2",)),
    Unlike(FIRST_ATTEMPT, RAISING, Outcome(FAILED, error=VALUE_ERROR)),
    atomic=True,
    max_attempts=2,
    retry_backoff=0,
)
def atomic_that_fails_first() -> int:
    write(str(current_task().attempt))
    if current_task().attempt == 1:
        raise ValueError("the first time")
    return 2


@case(Outcome(FAILED, error=BROKEN), atomic=True)
def atomic_that_swallows_an_error() -> None:
    write("a")
    try:
        divide_by_zero()
    except Exception:
        return


@case(Outcome(FAILED, error=BROKEN), atomic=True)
def atomic_that_marks_for_rollback() -> None:
    write("a")
    transaction.set_rollback(True)


@case(Outcome(FAILED, error=BROKEN, wrote=("a",)), Unlike(ENDS, IN_A_TRANSACTION, TOLD), atomic=True)
def atomic_that_commits() -> None:
    write("a")
    execute("COMMIT")


@case(Outcome(FAILED, error=BROKEN, wrote=("a",)), Unlike(ENDS, IN_A_TRANSACTION, TOLD), atomic=True)
def atomic_that_commits_and_goes_on() -> None:
    write("a")
    connection.connection.commit()
    write("b")


@case(Outcome(FAILED, error=BROKEN), Unlike(ENDS, IN_A_TRANSACTION, TOLD), atomic=True)
def atomic_that_commits_before_its_first_statement() -> None:
    connection.connection.commit()


@case(Outcome(FAILED, error=BROKEN), Unlike(ENDS, IN_A_TRANSACTION, TOLD), atomic=True)
def atomic_that_rolls_back() -> None:
    write("a")
    connection.connection.rollback()


@case(Outcome(FAILED, error="django.db.utils.OperationalError"), Unlike(ENDS, IN_A_TRANSACTION, TOLD), atomic=True)
def atomic_that_closes_its_connection() -> None:
    write("a")
    connection.close()


@case(Outcome(FAILED, error=BROKEN), atomic=True)
def atomic_that_sets_autocommit() -> None:
    transaction.set_autocommit(True)


@case(
    Outcome(SUCCEEDED, "repeatable read"),
    Unlike(
        "SET TRANSACTION is only for the beginning of one",
        IN_A_TRANSACTION,
        Outcome(FAILED, error="django.db.utils.InternalError"),
    ),
    atomic=True,
)
def atomic_that_sets_its_isolation_level() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SHOW transaction_isolation")
        return str(cursor.fetchone()[0])


# -------------------------------------------------------------------------------- coroutines, generators


@case(Outcome(SUCCEEDED, 1, wrote=("a",)))
async def coroutine() -> int:
    await asyncio.sleep(0)
    await Note.objects.acreate(text=f"{current_task().id} a")
    return await Note.objects.filter(text=f"{current_task().id} a").acount()


@case(Outcome(FAILED, error=VALUE_ERROR, wrote=("a",)))
async def coroutine_that_raises() -> None:
    await Note.objects.acreate(text=f"{current_task().id} a")
    raise ValueError("on purpose")


@case(Outcome(FAILED, error="pgq.errors.TaskTimeout"), timeout=0.2)
async def coroutine_that_takes_too_long() -> None:
    await asyncio.sleep(20)


@case(Outcome(SUCCEEDED, 1, wrote=("a",)))
def returns_a_coroutine() -> Any:
    return coroutine()


@case(
    Outcome(FAILED, error="pgq.errors.TaskTimeout"),
    Unlike("only the main thread can be interrupted while it waits: here the worker is killed", ("threads",), None),
    timeout=0.2,
)
def returns_a_coroutine_that_takes_too_long() -> Any:
    return coroutine_that_takes_too_long()


def logged(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def function() -> Any:
        return func()

    return function


@case(Outcome(FAILED, error=TYPE_ERROR))
@logged
def has_a_yield() -> Iterator[None]:
    write("never")
    yield


@case(Outcome(FAILED, error=TYPE_ERROR))
@logged
async def has_a_yield_in_a_coroutine() -> Any:
    write("never")
    yield


@case(Outcome(SUCCEEDED, "<generator, not stored>", wrote=("a",)))
def returns_a_generator() -> Any:
    write("a")
    return (number for number in range(3))


# -------------------------------------------------------------------------------- what it finds, and leaves

#: What the test sets before it enqueues.
CALLERS: contextvars.ContextVar[str | None] = contextvars.ContextVar("callers", default=None)
_OURS: contextvars.ContextVar[str | None] = contextvars.ContextVar("ours", default=None)


@case(Outcome(SUCCEEDED, None))
def sees_the_callers_variable() -> str | None:
    return CALLERS.get()


def _leave_and_look() -> list[str | None]:
    found = [_OURS.get(), translation.get_language()]
    _OURS.set("left")
    translation.activate("de")
    return found


@case(Outcome(SUCCEEDED, [None, "en-us"]))
def leaves_variables() -> list[str | None]:
    return _leave_and_look()


@case(Outcome(SUCCEEDED, [None, "en-us"]))
def finds_variables() -> list[str | None]:
    return _leave_and_look()


@case(Outcome(SUCCEEDED, [None, "en-us"]))
async def leaves_variables_in_a_coroutine() -> list[str | None]:
    return _leave_and_look()


@case(Outcome(SUCCEEDED, [None, "en-us"]))
async def finds_variables_in_a_coroutine() -> list[str | None]:
    return _leave_and_look()
