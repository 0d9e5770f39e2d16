"""Where rows lie among the databases of PGQ["databases"]: new ones go where their queue lies, and of one of which only
the id is known, each database is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError

from pgq import conf

T = TypeVar("T")


def of_row(model: str | None, queue: Any) -> str:
    """Return the alias of the database for a new row that belongs to a queue.

    Args:
        model: The name of its model, in lower case.
        queue: As the row has it: a text, or what stands for the default.
    """
    if not isinstance(queue, str) or not queue:
        # The column's default; a schedule that names no queue enqueues to the default one.
        queue = conf.get_settings().default_queue if model == "schedule" else "default"
    return conf.database_of(queue)


def first(read: Callable[[], T | None]) -> T | None:
    """Return the first answer that is not None, of the databases one after the other; None: none has one.

    A database that cannot be reached does not keep the others from being asked.

    Args:
        read: Asks the database at hand (`pgq.conf.at`).

    Raises:
        OperationalError, InterfaceError: One cannot be reached, and no other has an answer: so it is not known.
    """
    aliases = conf.asked()
    if len(aliases) == 1:
        return read()
    away: OperationalError | InterfaceError | None = None
    for alias in aliases:
        try:
            with conf.at(alias):
                found = read()
        except (OperationalError, InterfaceError) as error:
            away = away or error
        else:
            if found is not None:
                return found
    if away is not None:
        raise away
    return None


def here(read: Callable[[], T]) -> T:
    """Return the answer of the database at hand, whatever others there are.

    Args:
        read: As for `first`. What it returns is not read later than this.
    """
    if len(conf.asked()) == 1:
        return read()
    with conf.at(conf.get_settings().database):
        return read()


def each(read: Callable[[], T]) -> list[T]:
    """Return the answer of each database, that of the one at hand first.

    Args:
        read: As for `first`.

    Raises:
        OperationalError, InterfaceError: One cannot be reached.
    """
    aliases = conf.asked()
    if len(aliases) == 1:
        return [read()]
    answers = []
    for alias in aliases:
        with conf.at(alias):
            answers.append(read())
    return answers
