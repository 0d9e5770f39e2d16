"""The upkeep process of a pool: runs the chores of `pgq.upkeep`, one after the other, for ever."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection

import psycopg

from pgq.conf import get_settings
from pgq.conf.queues import is_pattern
from pgq.execution import ending
from pgq.pool import child
from pgq.pool.protocol import READY, TICKED, ChildConfig
from pgq.schedules import automatic
from pgq.status import findings
from pgq.store import connection as store_connection
from pgq.store import lanes
from pgq.store.outage import Backoff
from pgq.upkeep.chores import Upkeep

logger = logging.getLogger("pgq")

#: Seconds that a chore's statement may take.
_STATEMENT_SECONDS = 30.0


def _name_unused(connection: store_connection.Connection, queues: Sequence[str]) -> None:
    """Log the queues that no task was ever enqueued to: their names may be mistakes."""
    unused = lanes.unused_queues(connection.cursor(), queues)
    if unused:
        logger.info("nothing has been enqueued yet to %s: this pool waits for it", ", ".join(map(repr, unused)))


def main(config: ChildConfig, pipe: Connection) -> None:
    """Entry point of the upkeep process."""
    # What the command line says of queues holds for schedules as well.
    settings = dataclasses.replace(get_settings(), queues=config.queues, exclude_queues=config.exclude_queues)
    unnamed = [queue for queue in settings.served.only or () if not is_pattern(queue)]
    upkeep = Upkeep(settings, config.database, functools.partial(ending.for_upkeep, settings))
    connection: store_connection.Connection | None = None
    backoff = Backoff()
    is_synced = False
    pipe.send_bytes(READY)
    while True:
        try:
            if connection is None or connection.closed:
                connection = store_connection.connect(config.database, "pgq upkeep", patience=_STATEMENT_SECONDS)
                findings.require_tables(connection.cursor(), config.database)
            is_synced = is_synced or automatic.at_start()
            pause = upkeep.tick(connection)
            backoff.succeeded()
            pipe.send_bytes(TICKED)
            if unnamed:
                _name_unused(connection, unnamed)
                unnamed = []
        except psycopg.Error as error:
            if connection is not None:
                with contextlib.suppress(psycopg.Error):
                    connection.close()
                connection = None
            pause = backoff.failed(error, "upkeep: PostgreSQL")
        except OSError:
            os._exit(1)
        try:
            # The pipe brings only STOP, or breaks when the supervisor has ended.
            if pipe.poll(pause):
                pipe.recv_bytes()
                break
        except (EOFError, OSError):
            os._exit(1)
    child.leave(0, pipe, "pgq upkeep")
