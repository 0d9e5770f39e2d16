"""Leadership: one upkeep at a time, by a transaction's advisory lock."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from pgq.store import connection as store_connection
from pgq.store import pools

logger = logging.getLogger("pgq")

#: Seconds for which another session may hold the key before upkeep leads without it: longer than any leader leads.
WAIT_FOR_KEY_SECONDS = 10.0
#: Seconds between two warnings that name the session.
_REMIND_SECONDS = 60.0


class Leadership:
    """The leader's key, as one upkeep process sees it.

    A leader holds the key for one short transaction, and PostgreSQL ends the session of a leader that is silent for
    5 s. But any session can take the key and keep it. Then upkeep leads without it: the key only spares several pools
    the same work; the locks of the rows and the fence of each schedule's slot keep it from being done twice.
    """

    def __init__(self) -> None:
        self.refused_since: float | None = None
        self.warned_at = float("-inf")

    @contextlib.contextmanager
    def leading(self, connection: store_connection.Connection) -> Iterator[store_connection.Cursor | None]:
        """Begin a transaction as the leader; yield a cursor, or None if another process leads at the moment."""
        with connection.transaction():
            cursor = connection.cursor()
            if pools.lead(cursor):
                self.refused_since = None
                yield cursor
            else:
                yield cursor if self._lead_without(cursor) else None

    def _lead_without(self, cursor: store_connection.Cursor) -> bool:
        """Note that another session has the key; return whether to lead without it."""
        now = time.monotonic()
        if self.refused_since is None:
            self.refused_since = now
        if now - self.refused_since < WAIT_FOR_KEY_SECONDS:
            return False
        holders = pools.leader_holder(cursor)
        if not holders or any(
            holder.seconds is not None and holder.seconds < WAIT_FOR_KEY_SECONDS for holder in holders
        ):
            return False
        if now - self.warned_at >= _REMIND_SECONDS:
            self.warned_at = now
            logger.warning(
                "upkeep: another session has held the leader's key for %.0f s or more, and does not lead: %s. Upkeep "
                "goes on without the key. Find out what it is for, and end it: SELECT pg_terminate_backend(pid)",
                now - self.refused_since,
                ", ".join(f"pid {holder.pid} of {holder.user} ({holder.application})" for holder in holders),
            )
        return True
