"""The hub: one session of PostgreSQL and one thread serve all of this process that wait for results.

It listens on the channel pgq_settled, and keeps the flag raised without which no settlement notifies
(await_settled.sql). Where no notification arrives, it polls. Where it gets no session at all, waiters look for
themselves.

It looks once after each waiter that is added: what was settled before that is found. What a settlement writes that had
begun before the flag was raised is found by the looks after it, whose pauses grow from 10 ms to 1 s.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from pgq.models import Task
from pgq.store import connection as store_connection
from pgq.store import results
from pgq.store.connection import Connection
from pgq.tasks.hub_session import Session, readable
from pgq.tasks.waiters import Place, ThreadWaiter, Waiter, wake

logger = logging.getLogger("pgq")

#: As which PostgreSQL shows the session.
APPLICATION = "pgq waiting for results"
#: Seconds that the thread and its session outlive the last waiter. PostgreSQL has DROP DATABASE, with which a test run
#: ends, wait 5 s for sessions to go.
LINGER = 2.0
#: Seconds between two looks without a reason: each pause is twice the one before it.
_FIRST_PAUSE, _LAST_PAUSE = 0.01, 1.0
#: Seconds that a statement may take. Waiters that waited longer for it look for themselves.
_PATIENCE = 10.0
#: Seconds that the end of the process, or a fork, waits for the thread.
_JOIN = 1.0


@contextlib.contextmanager
def _session(alias: str, django: BaseDatabaseWrapper) -> Iterator[Session]:
    def connect() -> Connection:
        return store_connection.connect(alias, APPLICATION, patience=_PATIENCE, django=django)

    connection = connect()
    number = connection.fileno()
    try:
        with _lock:
            _sessions[number] = connection
        yield Session(connection, connect)
    finally:
        # Together: a fork closes what it finds there.
        with _lock:
            _sessions.pop(number, None)
            with contextlib.suppress(psycopg.Error):
                connection.close()


class _Hub:
    """The thread that serves the waiters of one database."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.django = place.django.copy()
        #: These three are read and written under `_lock`.
        self.waiters: set[Waiter] = set()
        self.added = False
        self.stopping = False
        self.poked, self._poke = os.pipe()
        os.set_blocking(self.poked, False)
        os.set_blocking(self._poke, False)
        self.thread = threading.Thread(target=self._run, name="pgq waiting", daemon=True)

    def poke(self) -> None:
        """End the wait of the thread. Called under the lock, while the hub is in `_hubs`: its pipe is open."""
        # Full: it has been poked.
        with contextlib.suppress(BlockingIOError):
            os.write(self._poke, b"x")

    def close_pipe(self) -> None:
        os.close(self.poked)
        os.close(self._poke)

    def _run(self) -> None:
        # A signal that this thread takes would leave the main thread in its system call.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                with _session(self.place.alias, self.django) as session:
                    self._serve(session)
                return
            except Exception as error:
                logger.debug("waiting for results without a session: %s", error)
            if time.monotonic() > began + _LAST_PAUSE:
                pause = _FIRST_PAUSE
            with _lock:
                if self._end():
                    return
                threads = {waiter for waiter in self.waiters if isinstance(waiter, ThreadWaiter)}
                self.waiters -= threads
            # Coroutines go on waiting: each look of theirs might take a session more.
            wake((waiter, None) for waiter in threads)
            # Not ended by a poke: each waiter that was woken just now comes back.
            time.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)

    def _end(self) -> bool:
        """End unless there are waiters; return whether it has. From then on, a new waiter gets a new hub."""
        if self.waiters and not self.stopping:
            return False
        if _hubs.get(self.place.key) is self:
            del _hubs[self.place.key]
        self.close_pipe()
        wake((waiter, None) for waiter in self.waiters)
        return True

    def _serve(self, session: Session) -> None:
        """Look whenever there is a reason to, until no waiter has been left for a while."""
        pause, heard = _FIRST_PAUSE, False
        #: When to look without a reason, and when to end.
        look_at, end_at = 0.0, float("inf")
        while True:
            now = time.monotonic()
            with _lock:
                waiters, added, self.added = list(self.waiters), self.added, False
                with contextlib.suppress(BlockingIOError):
                    os.read(self.poked, 4096)
                end_at = float("inf") if waiters else min(end_at, now + LINGER)
                if (self.stopping or now >= end_at) and self._end():
                    return
            if not waiters:
                readable(end_at - now, self.poked)
                look_at = 0.0
                continue
            if session.keep_flag(now) or (added and not session.hears):
                pause, look_at = _FIRST_PAUSE, now
            is_due = now >= look_at
            if is_due:
                look_at = now + pause
                pause = min(pause * 2, _LAST_PAUSE)
            wake(self._look(session, waiters, heard or is_due, thorough=is_due))
            # Notifications may come by the thousand: looking takes half of the time at most.
            time.sleep(min(time.monotonic() - now, 0.01))
            heard = session.wait(self.poked, look_at - time.monotonic())

    def _look(
        self, session: Session, waiters: list[Waiter], news: bool, *, thorough: bool
    ) -> list[tuple[Waiter, Task | None]]:
        """Return who is to be woken, and with what; they are no longer waiters.

        Args:
            news: Something may have been settled since the last look.
            thorough: Look for each text that may be an id as a name, too. Nearly none is one.
        """
        wanted_ids = {(waiter.wanted.whole, waiter.wanted.id) for waiter in waiters if not waiter.wanted.cached}
        tasks: dict[tuple[bool, UUID | None], Task] = {}
        for whole in (True, False):
            ids = [id for needs_whole, id in wanted_ids if needs_whole is whole and id is not None]
            found = session.finished(self.place.alias, ids, whole=whole) if ids else {}
            tasks.update(((whole, id), task) for id, task in found.items())
        names, groups = _arrived(session, waiters, thorough)
        woken: list[tuple[Waiter, Task | None]] = []
        for waiter in waiters:
            wanted = waiter.wanted
            task = None if wanted.cached else tasks.get((wanted.whole, wanted.id))
            came = wanted.name in names or (wanted.group, wanted.count) in groups or (news and wanted.is_vague)
            if task is not None or came:
                woken.append((waiter, task))
            waiter.looked = True
        with _lock:
            self.waiters.difference_update(waiter for waiter, _ in woken)
        return woken


def _arrived(session: Session, waiters: list[Waiter], thorough: bool) -> tuple[set[str], set[tuple[str, int]]]:
    """Return the names and groups of `waiters` that have come."""
    all_wanted = [waiter.wanted for waiter in waiters if not waiter.wanted.is_vague]
    names = {wanted.name for wanted in all_wanted if wanted.name is not None and (thorough or wanted.id is None)}
    groups = {(wanted.group, wanted.count) for wanted in all_wanted if wanted.group is not None}
    if not names and not groups:
        return set(), set()
    return results.arrived(session.connection.cursor(), names, groups)


# ------------------------------------------------------------------------------------------------- the process

#: The hubs of this process. Process-wide because what waits may be any thread and any loop.
_hubs: dict[tuple[str, ...], _Hub] = {}
#: Reentrant, since a signal handler may interrupt a thread that holds it.
_lock = threading.RLock()
#: The open sessions by their descriptors.
_sessions: dict[int, Connection] = {}
#: What a fork has of its parent's: never used, and never closed, since the sessions are the parent's. It is kept, since
#: psycopg warns of each open connection that is deleted.
_inherited: list[Any] = []


@contextlib.contextmanager
def waiting(place: Place, waiter: Waiter) -> Iterator[None]:
    """Have the hub serve a waiter inside of this block."""
    with _lock:
        hub = _hubs.get(place.key)
        if hub is None:
            hub = _Hub(place)
            hub.thread.start()
            _hubs[place.key] = hub
        hub.waiters.add(waiter)
        if not hub.added:
            hub.added = True
            hub.poke()
    try:
        yield
    finally:
        with _lock:
            hub.waiters.discard(waiter)


def stop() -> None:
    """End all hubs. What waits goes on by a new one."""
    _stop(list(_hubs.values()))


def _stop(hubs: Sequence[_Hub]) -> None:
    with _lock:
        for hub in hubs:
            hub.stopping = True
            if _hubs.get(hub.place.key) is hub:
                hub.poke()
                del _hubs[hub.place.key]
    for hub in hubs:
        if hub.thread is not threading.current_thread():
            hub.thread.join(_JOIN)


def _before_fork() -> None:
    # Nothing waits there: so the fork need not have any of it.
    _stop([hub for hub in list(_hubs.values()) if not hub.waiters])
    # No session is being opened or closed while the process is copied.
    _lock.acquire()


def _after_fork_in_child() -> None:
    global _lock
    for hub in _hubs.values():
        hub.close_pipe()
    for number in _sessions:
        # This process must not keep the session of its parent open.
        with contextlib.suppress(OSError):
            os.close(number)
    _inherited.extend((*_hubs.values(), *_sessions.values()))
    _hubs.clear()
    _sessions.clear()
    _lock = threading.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=lambda: _lock.release(), after_in_child=_after_fork_in_child)
atexit.register(stop)
