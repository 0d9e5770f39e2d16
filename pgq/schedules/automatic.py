"""Brings the schedules in step by itself, as PGQ["sync_schedules"] says: after ``migrate``, or when a pool starts.

Each process that sets Django up imports this module, and few sync: so `sync` is imported when it is needed.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from pgq.conf import aliases, at, get_settings

if TYPE_CHECKING:
    from pgq.schedules.sync import Synced

logger = logging.getLogger("pgq")


def after_migrate(sender: Any, using: str, verbosity: int = 1, **kwargs: Any) -> None:
    """Sync the schedules of the database that was migrated. A receiver of ``post_migrate``.

    Not after a flush, which sends the signal too, nor in a database for tests: there a test makes what it needs.
    """
    try:
        settings = get_settings()
    except ImproperlyConfigured:
        # Where the settings are wrong, `check` says so; a migration must be possible all the same.
        return
    is_migration, is_test = "plan" in kwargs, hasattr(mail, "outbox")
    if settings.sync_schedules != "migrate" or using not in aliases() or not is_migration or is_test:
        return
    try:
        kwargs["apps"].get_model("pgq", "Schedule")
    except LookupError:
        # The tables are not there yet, or not any more.
        return
    from pgq.schedules.sync import sync

    with at(using):
        done = sync(is_automatic=True)
    _log(done)
    stdout: Any = kwargs.get("stdout", sys.stdout)
    if done.refused is not None:
        stdout.write(f"  Schedules in code were not synced: {done.refused}\n")
    for change in done.changes:
        if verbosity >= 1 and change.differs:
            stdout.write(f"  Schedule {change.name}: {change.did}{f' ({change.note})' if change.note else ''}\n")


def at_start() -> bool:
    """Sync when a pool starts, if the settings say so; return False if PostgreSQL could not do it now."""
    settings = get_settings()
    if settings.sync_schedules != "start":
        return True
    from pgq.schedules.sync import sync

    try:
        # The other databases are for their own pools, which may be up while those are away.
        with at(settings.database):
            done = sync(is_automatic=True)
    except DatabaseError as error:
        logger.warning("the schedules in code could not be synced, and will be tried again: %s", error)
        return False
    finally:
        connections[settings.database].close()
    _log(done)
    for change in done.changes:
        if change.differs:
            logger.info("schedule %s: %s", change.name, change.did)
    return True


def _log(done: Synced) -> None:
    """Log what an operator has to decide."""
    from pgq.schedules.sync import Did

    if done.refused is not None:
        logger.error("the schedules in code were not synced: %s", done.refused)
    for change in done.changes:
        if change.did in (Did.DRIFT, Did.TAKEN):
            logger.warning("schedule %s: %s", change.name, change.did)
