"""For django-health-check (4.x): whether tasks are run as they should be::

from health_check.views import HealthCheckView

path("health/", HealthCheckView.as_view(checks=["pgq.contrib.health_check.PgqHealthCheck"])),
# or with options: checks=[("pgq.contrib.health_check.PgqHealthCheck", {"max_oldest_ready": 60})]
"""

from __future__ import annotations

import dataclasses

import psycopg
from django.db import Error, connections
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from pgq.conf import get_settings, places
from pgq.status import findings
from pgq.status.snapshot import queue_depths
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor

__all__ = ["PgqHealthCheck"]


@dataclasses.dataclass
class PgqHealthCheck(HealthCheck):  # type: ignore[misc]  # the package is not typed
    """Checks what `manage.py pgq_check` checks: all pools together, and the tables, in each database.

    The page may be open to all, so messages have the names of checks, and no names of queues or hosts.
    """

    #: Seconds that the first ready task of a queue may wait; None: any. Queues that are paused do not count.
    max_oldest_ready: float | None = None
    #: Only these queues count for `max_oldest_ready`; none: all.
    queues: tuple[str, ...] = ()
    #: Whether it is a problem that no pool runs: False where pools are started on demand.
    need_pool: bool = True
    #: Whether warnings make the check fail, too: it will hurt, but tasks run.
    warnings: bool = False

    def run(self) -> None:
        """Check, in a thread of django-health-check's.

        Raises:
            ServiceUnavailable: Tasks are not run as they should be, or PostgreSQL does not answer.
            ServiceWarning: There are warnings, and `warnings` is set.
        """
        places.each(self._check_here)

    def _check_here(self) -> None:
        alias = get_settings().database
        was_open = connections[alias].connection is not None
        try:
            with callers_cursor(alias) as cursor:
                self._check(cursor)
        except (Error, psycopg.Error) as error:
            raise ServiceUnavailable("PostgreSQL does not answer, or the tables of pgq are missing") from error
        finally:
            # Else it stays with the thread, which may live on.
            if not was_open:
                connections[alias].close()

    def _check(self, cursor: Cursor) -> None:
        found = [one for one in findings.findings(cursor) if self.need_pool or one.check != "pools"]
        problems = [one.check for one in found if one.status == findings.PROBLEM]
        if problems:
            raise ServiceUnavailable(f"problems: {', '.join(problems)}; manage.py pgq_check says more")
        if self.max_oldest_ready is not None:
            ages = [
                queue.oldest
                for queue in queue_depths(cursor)
                if queue.oldest is not None and not queue.paused and (not self.queues or queue.queue in self.queues)
            ]
            if max(ages, default=0.0) > self.max_oldest_ready:
                raise ServiceUnavailable(
                    f"a task has been ready for {max(ages):.0f} s, more than {self.max_oldest_ready:g} s"
                )
        warned = [one.check for one in found if one.status == findings.WARNING]
        if warned and self.warnings:
            raise ServiceWarning(f"warnings: {', '.join(warned)}; manage.py pgq_check says more")
