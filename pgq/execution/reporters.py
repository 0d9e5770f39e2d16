"""Error reporters: Rollbar, Sentry and the like get each failed attempt.

A reporter is a class whose instances have a method ``report()``, called inside an ``except`` block, so that
``sys.exc_info()`` is the failure. ``PGQ["error_reporter"]`` names them, with their arguments::

    PGQ = {"error_reporter": {"sentry": {"dsn": "https://..."}}}

The name is that of an entry point in the group ``pgq.errorreporters`` or Django-Q's ``djangoq.errorreporters``, or
the dotted path of the class. Reporters are loaded at the first failure, once in each process. One that cannot be
loaded, raises or hangs is logged and does no harm: each report runs in a thread of its own, which is waited for only a
few seconds; while one hangs, that reporter gets no other failure.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from django.db import connections

from pgq.conf import Settings
from pgq.errors import Control, TaskCancelled

logger = logging.getLogger("pgq")

#: Groups of entry points, pgq's first.
GROUPS = ("pgq.errorreporters", "djangoq.errorreporters")
#: Seconds a worker waits for one reporter.
WAIT_FOR_REPORTER_SECONDS = 5.0


class Reporter:
    """A configured reporter, loaded at its first report."""

    def __init__(self, name: str, arguments: Mapping[str, Any] | None) -> None:
        self.name, self.arguments = name, arguments or {}
        self._report: Callable[[], object] | None = None
        self._thread: threading.Thread | None = None
        self._broken = False

    def send(self, error: BaseException) -> None:
        """Have the reporter report this exception. Never raises."""
        if self._broken:
            return
        if self._thread is not None and self._thread.is_alive():
            logger.error("error reporter %r still hangs: it is not told of a failure", self.name)
            return
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run, error), name=f"pgq reporter {self.name}", daemon=True
        )
        self._thread.start()
        self._thread.join(WAIT_FOR_REPORTER_SECONDS)
        if self._thread.is_alive():
            logger.error("error reporter %r hangs: it is not waited for", self.name)

    def _run(self, error: BaseException) -> None:
        try:
            if self._report is None:
                self._report = find(self.name)(**self.arguments).report
        except BaseException as trouble:
            self._broken = True
            logger.error("error reporter %r is not used: %s: %s", self.name, type(trouble).__name__, trouble)
            return
        where = error.__traceback__
        try:
            # `sys.exc_info()` is that of a thread: raised again here, the error is in this thread's.
            raise error
        except BaseException:
            # Without the frame of this thread on top.
            error.__traceback__ = where
            try:
                self._report()
            except BaseException as trouble:
                logger.error("error reporter %r raised %s: %s", self.name, type(trouble).__name__, trouble)
        finally:
            connections.close_all()


#: The reporters, and the setting that they were made from. Process-wide because a reporter is loaded once in a process.
_made: tuple[Mapping[str, Any], list[Reporter]] | None = None


def report(error: BaseException, settings: Settings) -> None:
    """Tell the reporters of a failed attempt. Never raises, and takes a few seconds at most.

    What a task did on purpose (`Retry`, `Discard`) or was done to it on purpose (cancelling) is no error.
    """
    global _made
    configured = settings.error_reporter
    if not configured or isinstance(error, Control | TaskCancelled):
        return
    # Another mapping means that the settings were changed, by a test.
    if _made is None or _made[0] is not configured:
        _made = configured, [Reporter(name, arguments) for name, arguments in configured.items()]
    for reporter in _made[1]:
        try:
            reporter.send(error)
        except RuntimeError as trouble:
            logger.error("error reporter %r cannot be called: %s", reporter.name, trouble)


def find(name: str) -> Callable[..., Any]:
    """Load the class of a reporter.

    Raises:
        LookupError: No package offers it by that name.
        Exception: What its module raises when it is imported.
    """
    for group in GROUPS:
        for entry in entry_points(group=group, name=name):
            found: Callable[..., Any] = entry.load()
            return found
    if "." in name:
        from django.utils.module_loading import import_string

        imported: Callable[..., Any] = import_string(name)
        return imported
    raise LookupError(f"no installed package offers it as an entry point of {' or '.join(GROUPS)}")
