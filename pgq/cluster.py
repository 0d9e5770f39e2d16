"""Django-Q's `Cluster`: a pool of workers started and stopped by a program, as a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from uuid import UUID, uuid4

from django.db import connections

from pgq import status
from pgq.conf import aliases, get_settings
from pgq.errors import PgqError
from pgq.ground import ids
from pgq.pool import boot
from pgq.status import Stat, Status
from pgq.store import pools
from pgq.store.caller import callers_cursor

__all__ = ["Cluster"]

logger = logging.getLogger("pgq")

#: Seconds a pool may take until its row is in pgq_worker.
_BOOT = 30.0
#: In the environment of a pool that a `Cluster` has started: the pid of the process with the Cluster.
_STARTED_BY = "PGQ_CLUSTER_STARTED_BY"


class Cluster:
    """A pool of workers: ``pgq_worker`` with the settings module of this process, or the function that PGQ_SETUP names.

    It uses the databases of this process, so in a test those of the test. What else this process has changed in its
    settings (``override_settings``) does not reach the pool.

    Args:
        broker: Ignored; the broker is PostgreSQL.
        arguments: Of pgq_worker: ``["--queues", "mail"]``. Without ``--database`` it serves PGQ["database"] alone.
        env: Environment variables for it, besides those of this process.
    """

    def __init__(
        self, broker: Any = None, *, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.broker = None
        self.arguments, self.env = list(arguments), dict(env or {})
        #: The pool's once it runs; before that a random one.
        self.cluster_id: UUID = uuid4()
        self.host = socket.gethostname()
        self.process: subprocess.Popen[bytes] | None = None
        self._asked_to_stop = False

    @property
    def pid(self) -> int:
        """Of the supervisor; before the start, as in Django-Q, of this process."""
        return self.process.pid if self.process is not None else os.getpid()

    def start(self) -> int:
        """Start the pool and wait until it is there; return the supervisor's pid.

        Raises:
            PgqError: It ended at once, or did not appear within 30 seconds. Its output is on stderr. Or this process
                itself belongs to a pool that a Cluster has started, or the caller is inside a transaction.
        """
        if self.process is not None and self.process.poll() is None:
            return self.process.pid
        if _STARTED_BY in os.environ:
            # From AppConfig.ready() each pool would start the next, without end: the pool boots the project too.
            raise PgqError(
                "a Cluster was started in a process of a pool that a Cluster has started; do not start one where each "
                "process of the project passes, such as AppConfig.ready(), but in wsgi.py, asgi.py or a command"
            )
        if connections[get_settings().database].in_atomic_block:
            raise PgqError(
                "a Cluster sees only what is committed, and this process is inside a transaction, as in a TestCase: "
                "use pgq.testing.drain(), or a TransactionTestCase (pytest.mark.django_db(transaction=True))"
            )
        is_one = len(aliases()) == 1 or "--database" in self.arguments
        database = [] if is_one else ["--database", get_settings().database]
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._asked_to_stop = False
        self.process = subprocess.Popen(  # noqa: S603  # this interpreter and pgq's command
            [sys.executable, "-m", "pgq", "pgq_worker", *self.arguments, *database],
            env={
                **os.environ,
                **boot.database_variables(),
                "PYTHONPATH": path,
                **self.env,
                _STARTED_BY: str(os.getpid()),
            },
            stdin=subprocess.DEVNULL,
        )
        until = time.monotonic() + _BOOT
        while (id := self._find()) is None:
            if self.process.poll() is not None:
                raise PgqError(f"the pool ended with exit code {self.process.returncode} before it had started")
            if time.monotonic() > until:
                self.stop()
                raise PgqError(f"the pool did not report within {_BOOT:.0f} s and was stopped")
            time.sleep(0.05)
        self.cluster_id = id
        logger.info("pool %s has started, pid %d", self.name, self.pid)
        return self.pid

    def _find(self) -> UUID | None:
        """Return the id of the pool's row in pgq_worker, if it is there."""
        with callers_cursor(get_settings().database) as cursor:
            for pool in pools.pools(cursor):
                # Its heartbeat is recent, or it would be another pool that had this pid once.
                if (pool.host, pool.pid) == (self.host, self.pid) and pool.silent < status.ALIVE:
                    return pool.id
        return None

    def stop(self) -> bool:
        """Let running tasks finish, and wait for the end; return whether there was something to stop."""
        if self.process is None or self.process.poll() is not None:
            return False
        self._asked_to_stop = True
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        logger.info("pool %s has stopped", self.name)
        return True

    @property
    def stat(self) -> Stat | Status:
        """The pool, as its row in pgq_worker has it."""
        return Stat.get(pid=self.pid, cluster_id=self.cluster_id)

    @property
    def name(self) -> str:
        """The id in four words."""
        return ids.task_name(self.cluster_id)

    @property
    def _lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_starting(self) -> bool:
        """Whether it was started and does not run tasks yet."""
        return self._lives and not self._asked_to_stop and self.stat.status in (status.STARTING, status.STOPPED)

    @property
    def is_running(self) -> bool:
        """Whether it lives and has not been told to stop."""
        return self._lives and self.stat.status in (status.WORKING, status.IDLE)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop and has not ended yet."""
        return self._lives and (self._asked_to_stop or self.stat.status == status.STOPPING)

    @property
    def has_stopped(self) -> bool:
        """Whether it ran and has ended."""
        return self.process is not None and self.process.poll() is not None

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
