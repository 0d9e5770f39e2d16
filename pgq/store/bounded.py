"""Reading within bounds: in a transaction that writes nothing, and by statements that end in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from pgq.store.caller import callers_cursor
from pgq.store.statement import one_row


@contextmanager
def reading(alias: str, *, seconds: float) -> Iterator[CursorWrapper]:
    """Yield a cursor on the caller's connection, in a read-only transaction of its own, or a savepoint of an open one.

    Args:
        seconds: Each statement may take so long, and is then cancelled.

    Raises:
        django.db.OperationalError: A statement took longer (QueryCanceled is its cause), or PostgreSQL is gone.
    """
    is_inner = connections[alias].in_atomic_block
    with transaction.atomic(using=alias), callers_cursor(alias) as cursor:
        before = _bound_reading(cursor, str(int(seconds * 1000)))
        yield cursor
        if is_inner:
            # What SET LOCAL has set outlives a savepoint that is released.
            _bound_reading(cursor, before)


def _bound_reading(cursor: CursorWrapper, milliseconds: str) -> str:
    """Make this transaction read-only and bound its statements; return the bound before."""
    return str(one_row(cursor, "bound_reading", {"milliseconds": milliseconds})[0])
