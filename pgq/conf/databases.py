"""The database at hand: which of the databases that PGQ["databases"] names a piece of code is about.

A process is about PGQ["database"], but for the workers and the upkeep of a pool that serves another one. A reader that
has to look into each database does so inside of `at`, as does a page of the admin that shows one of them. Where a new
task goes does not depend on it: that is decided by its queue alone (`pgq.conf.database_of`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

#: Whether any has been at hand yet but that of the settings: each call of `get_settings` asks, and mostly none has.
in_use = False
_at: ContextVar[str | None] = ContextVar("pgq_database", default=None)
#: The database that this process serves; None: that of the settings. Process-wide because a pool's process serves one.
_serving: str | None = None
#: The same for a task that is run in the process of its caller, as by PGQ["sync"] or in a test.
_served: ContextVar[str | None] = ContextVar("pgq_served", default=None)


def _use() -> None:
    global in_use
    in_use = True


@contextlib.contextmanager
def at(alias: str) -> Iterator[None]:
    """Have a database at hand: inside, `get_settings().database` and queries on pgq's models mean this one.

    Args:
        alias: Key in DATABASES.
    """
    _use()
    token = _at.set(alias)
    try:
        yield
    finally:
        _at.reset(token)


def chosen() -> str | None:
    """Return the alias that code has chosen by `at`; None: none."""
    return _at.get()


def at_hand() -> str | None:
    """Return the alias of the database at hand; None: that of the settings."""
    return _at.get() or serving()


def serve(alias: str) -> None:
    """Have a database at hand in all of this process, in each thread and each task."""
    global _serving
    _use()
    _serving = alias


@contextlib.contextmanager
def served(alias: str) -> Iterator[None]:
    """Have the same inside of this block."""
    _use()
    token = _served.set(alias)
    try:
        yield
    finally:
        _served.reset(token)


def serving() -> str | None:
    """Return the alias of the database whose tasks run here; None: that of the settings, or none do."""
    return _served.get() or _serving
