"""The supervisor: one loop that waits for children, signals, notifications and the clock, and acts on them.

It runs no user code, and has one thread: that thread alone touches `Supervisor`, `Session`, `Sleepers`, `Children` and
`Pulse`. What it shares with other processes are the pipes, the cells, the gate and the allowance.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from uuid import UUID

from pgq.conf import Settings
from pgq.pool import signalled
from pgq.pool.children import Children, python_path
from pgq.pool.former_ids import FormerId
from pgq.pool.liveness import Pulse
from pgq.pool.protocol import BYE, HELD, IDLE, LARGE, MORE, READY, RENAMED, STOP, TICKED
from pgq.pool.seats import Child, State
from pgq.pool.session import Clock, Session
from pgq.pool.sleepers import Sleepers
from pgq.pool.watchers import Watchers

logger = logging.getLogger("pgq")

#: Seconds between two logs of why nothing runs.
_COMPLAIN_AGAIN_SECONDS = 60.0
#: Seconds between two readings of the cells while a task may run: they show what is overdue, and wake no process.
_CELLS_SECONDS = 0.1


def _is_over(children: Children) -> bool:
    """Once all tasks were started, let the workers leave when these have ended; return whether all have left.

    Upkeep goes on until then.
    """
    allowance = children.allowance
    if allowance is None:
        return False
    if not children.closing and allowance.is_used_up():
        logger.info("%d tasks were started: the workers leave when these have ended", allowance.tasks)
        children.close(upkeep=False)
    return children.closing and not children.workers()


class Supervisor:
    """One pool: its loop, its signals, its start and its end.

    Args:
        settings: With the values of the command line already put in.
        run_once, max_tasks: Stop as soon as nothing is ready any more; once so many tasks were started and have ended.
        log_format, log_level: From the command line; None: not given there.
        reload: Asked once a second; True means that the code has changed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_once: bool = False,
        max_tasks: int | None = None,
        log_format: str | None = None,
        log_level: str | None = None,
        reload: Callable[[], bool] | None = None,
    ) -> None:
        self.settings, self.run_once, self.reload = settings, run_once, reload
        self.selector = selectors.DefaultSelector()
        self.children = Children(settings, log_format, log_level, self.selector, self._heard, self._func_of, max_tasks)
        self.sleepers = Sleepers(self.children, settings)
        beat = max(0.5, min(settings.retry / 4, 5.0))
        self.pulse = Pulse(self.children, settings, beat)
        self.watchers = Watchers(settings, self.children, self.pulse, self.selector)
        self.session = Session(
            settings,
            self.selector,
            self.children,
            self.sleepers,
            self.pulse,
            every=beat,
            # While a lock on a table keeps a statement waiting, a probe needs its answer most.
            meanwhile=self.watchers.tell,
        )
        self.second = Clock(1.0)
        #: The last logged reason why nothing runs, and when (monotonic) to log it again.
        self.complaint = ""
        self.complain_at = 0.0
        #: Why a pool that runs once could run nothing; None: it could.
        self.failed: str | None = None
        #: How often the pool was told to stop; and when (monotonic) to kill what still runs.
        self.stops = 0
        self.kill_at: float | None = None
        #: Whether it is to be started anew.
        self.restart = False
        #: Upkeep has done its chores once.
        self.ticked = False
        self.logged_large = False

    # ------------------------------------------------------------------------------------------- the loop

    def run(self) -> bool:
        """Run the pool until it is told to stop; return whether it should be started anew (SIGHUP)."""
        signals = signalled.as_events(self.selector, self._signalled, goes_on=lambda: self.restart)
        with signals, python_path(), self.watchers.systemd.hidden():
            logger.info(
                "pool %s: %d workers on %s, queues %s, pid %d",
                self.settings.name,
                self.settings.workers,
                self.settings.database,
                self.settings.served,
                os.getpid(),
            )
            self.children.adopt_orphans()
            try:
                while not self._has_ended():
                    if self.session.has_worked:
                        self.children.fill()
                    self._wait()
                    self._do_what_is_due()
            finally:
                self._leave()
        return self.restart

    def _has_ended(self) -> bool:
        return self.stops > 0 and not self.children.all()

    def _wait(self) -> None:
        """Wait for a child, a signal or a notification, and act on it; or for the next thing that is to be done."""
        now = time.monotonic()
        times = [*self.children.next_end(), *self.session.next_times()]
        if self.session.has_worked:
            times += self.children.next_start()
        if self.reload:
            times.append(self.second.next)
        if self.kill_at is not None:
            times.append(self.kill_at)
        times.append(self.watchers.systemd.next)
        if self.children.orphaned or self.children.is_working():
            times.append(now + _CELLS_SECONDS)
        for key, _ in self.selector.select(max(0.0, min(times) - now)):
            key.data()

    def _do_what_is_due(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        self.watchers.tell()
        self.children.kill_overdue(now)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = None
            self.children.kill_all("the pool was told to hurry")
        if self.reload and self.second.due(now) and not self.stops and self.reload():
            logger.info("the code has changed: reloading")
            self._ask_to_restart()
        self.session.do_what_is_due(now)
        if self.children.orphaned:
            self.children.kill_orphans()
        if not self.stops and _is_over(self.children):
            self._stop("--max-tasks: all have ended")
        if self.run_once and self.ticked and not self.stops and self._is_drained():
            self._stop("nothing is left to do")
        if not self.stops and (why := self._why_nothing_runs(now)) is not None:
            self._complain(why, now)

    def _leave(self) -> None:
        self.children.end_all()
        self.session.leave()
        self.watchers.close()
        self.selector.close()
        logger.info("pool %s has stopped", self.settings.name)

    def _is_drained(self) -> bool:
        """Whether all workers sleep and nothing is ready."""
        workers = self.children.workers()
        if len(workers) < self.settings.workers or self.sleepers.missed_wake:
            return False
        if any(worker.state is not State.ASLEEP for worker in workers) or self.children.is_running():
            return False
        return self.session.is_drained()

    def _why_nothing_runs(self, now: float) -> str | None:
        """Return why nothing runs, and will not unless it is mended; None: something does, or may soon."""
        return self.session.hopeless(now) if self.session.trouble is not None else self.children.hopeless()

    def _complain(self, why: str, now: float) -> None:
        if self.run_once:
            self.failed = why
            self._stop("nothing can be run")
        elif why != self.complaint or now >= self.complain_at:
            self.complaint, self.complain_at = why, now + _COMPLAIN_AGAIN_SECONDS
            logger.error("nothing can be run: %s", why)

    # ------------------------------------------------------------------------------------------- children

    def _heard(self, child: Child, message: bytes) -> None:
        if message == READY:
            child.state = State.AWAKE
            # So that pgq_worker shows a new worker at once.
            self.session.heartbeat.next = 0.0
            if self.stops:
                child.post(STOP)
        elif message in (IDLE, HELD):
            self.sleepers.fell_asleep(child, held=message == HELD)
        elif message == MORE and self.children.any_worker(State.ASLEEP):
            self.sleepers.wake(1)
        elif message == TICKED:
            self.ticked = True
            self.pulse.ticked()
        elif message.startswith(RENAMED):
            self._rename(child, UUID(bytes=message[1:]))
        elif message.startswith(LARGE):
            self._log_large(int.from_bytes(message[1:]))
        elif message == BYE:
            child.state = State.LEAVING

    def _rename(self, worker: Child, id: UUID) -> None:
        if any(child.id == id for child in self.children.workers()):
            raise ValueError("it says to be another worker")
        self.children.lost.append(FormerId(worker.id))
        worker.id = id
        self.session.renewal.next = 0.0

    def _log_large(self, kilobytes: int) -> None:
        if self.logged_large:
            return
        self.logged_large = True
        logger.warning(
            "max_rss is %d kB, and a worker takes %d kB before its first task: each is replaced after a second and a "
            "task at least. max_rss is in kilobytes",
            self.settings.max_rss,
            kilobytes,
        )

    def _func_of(self, task: UUID) -> str | None:
        return self.session.func_of(task)

    # ------------------------------------------------------------------------------------------- signals, stopping

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number != signal.SIGHUP:
                # A pool that is stopped while it reloads must not start again.
                self.restart = False
            if number == signal.SIGHUP:
                logger.info("SIGHUP: reloading")
                self._ask_to_restart()
            elif number == signal.SIGQUIT:
                self._stop("SIGQUIT")
                self.children.kill_all("the pool was told to quit")
            elif number in (signal.SIGINT, signal.SIGTERM):
                self._stop(signal.Signals(number).name)

    def _ask_to_restart(self) -> None:
        if not self.stops:
            self.restart = True
            self._stop("reload")

    def _stop(self, why: str) -> None:
        """Stop. First call: when running tasks have ended. Second: `kill_after` seconds later. Third: now."""
        self.stops += 1
        now = time.monotonic()
        if self.stops == 1:
            logger.info("stopping (%s): running tasks finish, the others are given back", why)
            self.children.close()
            if self.settings.grace is not None:
                self.kill_at = now + self.settings.grace
        elif self.stops == 2:
            logger.warning("stopping (%s): running tasks have %.0f s left", why, self.settings.kill_after)
            self.kill_at = now + self.settings.kill_after
        else:
            logger.warning("stopping (%s): now", why)
            self.children.kill_all("the pool was told to stop now")
        self.watchers.systemd.stopping(restart=self.restart, kill_at=self.kill_at)
