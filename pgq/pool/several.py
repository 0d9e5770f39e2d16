"""A process that has a pool for each of several databases: it starts them, hands signals on, and waits for their ends.

Each pool is a process of its own with its own supervisor, so none waits for the PostgreSQL of another one. This process
connects to no database. A pool that dies is started anew; one that has ended well, as with ``--run-once``, is not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgq.pool import child
from pgq.pool.orphans import end_with_parent
from pgq.pool.relay import Relay
from pgq.pool.signalled import SIGNALS, as_events

logger = logging.getLogger("pgq")

#: Seconds until a pool that died is started anew: at first, and at most. Each is twice the one before it.
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 30.0
#: A pool that lived so many seconds has not died at its start.
_LIVED = 60.0


@dataclass(eq=False)
class _Pool:
    alias: str
    pid: int | None = None
    #: When (monotonic) it was started, or is to be started anew.
    at: float = 0.0
    pause: float = _FIRST_PAUSE
    #: Exit code; None: it has not ended for good.
    code: int | None = None


class Several:
    """The pools of one pgq_worker.

    Args:
        aliases: Of their databases, keys in DATABASES.
        run: Runs the pool of a database, in a process of its own; returns its exit code.
    """

    def __init__(self, aliases: Sequence[str], run: Callable[[str], int]) -> None:
        self.pools = [_Pool(alias) for alias in aliases]
        self._run = run
        self.selector = selectors.DefaultSelector()
        self.relay = Relay(aliases, self.selector)
        self.stopping = False

    def run(self) -> list[str]:
        """Run all pools until each has ended; return the aliases of those that failed."""
        with as_events(self.selector, self._signalled, signal.SIGCHLD):
            for pool in self.pools:
                self._start(pool)
            while any(pool.code is None for pool in self.pools):
                now = time.monotonic()
                due = [pool.at for pool in self.pools if pool.pid is None and pool.code is None]
                for key, _ in self.selector.select(max(0.0, min(due) - now) if due else None):
                    key.data()
                self._reap()
                for pool in self.pools:
                    if pool.pid is None and pool.code is None and time.monotonic() >= pool.at:
                        self._start(pool)
        self.relay.close()
        return [pool.alias for pool in self.pools if pool.code]

    def _start(self, pool: _Pool) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # Until the new process has handlers of its own, a signal to it would reach this one, by the pipe they share.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pool.pid, pool.at = os.fork(), time.monotonic()
        if pool.pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return
        # A pool that fails so is started anew; by 1 it says that it cannot run.
        code = 2
        try:
            end_with_parent(signal.SIGTERM)
            # A group of its own: a terminal's Ctrl-C reaches this process's parent alone, which hands it on once.
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (*SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self.selector.close()
            self.relay.speak_for(pool.alias)
            code = self._run(pool.alias)
        except BaseException:
            logger.exception("the pool of the database %r fails", pool.alias)
        finally:
            child.end(code)

    def _reap(self) -> None:
        for pool in self.pools:
            if pool.pid is None:
                continue
            pid, status = os.waitpid(pool.pid, os.WNOHANG)
            if pid == 0:
                continue
            code, pool.pid = os.waitstatus_to_exitcode(status), None
            now = time.monotonic()
            if self.stopping or code in (0, 1):
                # A signal may come before a new pool listens for it.
                pool.code = 0 if self.stopping and -code in SIGNALS else code
                if code and not self.stopping:
                    logger.error("the pool of the database %r has ended with exit code %d", pool.alias, code)
                self.relay.ended(pool.alias)
                continue
            pool.pause = _FIRST_PAUSE if now > pool.at + _LIVED else min(pool.pause * 2, _LAST_PAUSE)
            pool.at = now + pool.pause
            logger.error(
                "the pool of the database %r died (exit code %d); it starts anew in %.0f s",
                pool.alias,
                code,
                pool.pause,
            )

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number not in SIGNALS:
                continue
            if number != signal.SIGHUP:
                self.stopping = True
            for pool in self.pools:
                if pool.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pool.pid, number)
                elif self.stopping and pool.code is None:
                    pool.code = 1
