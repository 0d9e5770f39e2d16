"""Brings the schedules in step after ``migrate``, as PGQ["sync_schedules"] says."""

from __future__ import annotations

import logging
import sys
from typing import Any

from django.core import mail
from django.core.exceptions import ImproperlyConfigured

from pgq.conf import get_settings
from pgq.schedules.sync import Did, sync

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
    if settings.sync_schedules != "migrate" or using != settings.database or not is_migration or is_test:
        return
    try:
        kwargs["apps"].get_model("pgq", "Schedule")
    except LookupError:
        # The tables are not there yet, or not any more.
        return
    done = sync(is_automatic=True)
    stdout: Any = kwargs.get("stdout", sys.stdout)
    if done.refused is not None:
        logger.error("the schedules in code were not synced: %s", done.refused)
        stdout.write(f"  Schedules in code were not synced: {done.refused}\n")
    for change in done.changes:
        if change.did in (Did.DRIFT, Did.TAKEN):
            logger.warning("schedule %s: %s", change.name, change.did)
        if verbosity >= 1 and change.differs:
            stdout.write(f"  Schedule {change.name}: {change.did}{f' ({change.note})' if change.note else ''}\n")
