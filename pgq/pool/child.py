"""A child process of a pool: how it is set up, entered and ended."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import logging
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from pgq.ground import private
from pgq.pool.orphans import die_with_parent
from pgq.pool.protocol import ENDING, ChildConfig, Kind
from pgq.pool.signalled import SIGNALS


def set_up(config: ChildConfig) -> None:
    """Prepare a child process: signals, death with its parent, Django, logging."""
    # Handlers, not SIG_IGN, since programs that a task starts would inherit SIG_IGN: the supervisor gets the terminal's
    # Ctrl-C as well, and stops its children by the pipe.
    for number in SIGNALS:
        signal.signal(number, _ignore)
    die_with_parent()
    # Imported only now: importing Django takes time, and before the handlers above are set a signal ends this process.
    from pgq.pool import boot, logs

    boot.boot(config.configured)
    boot.forget()
    boot.use_databases(config.databases)
    boot.forget_connections()
    logs.set_up_logging(config.log_format, config.log_level)
    _serve(config.database)


def _serve(alias: str) -> None:
    """Have what runs in this process look into the database that the pool serves, if that is not the settings' own."""
    from django.core.exceptions import ImproperlyConfigured

    from pgq import conf

    with contextlib.suppress(ImproperlyConfigured):
        # Wrong settings are reported where they are used.
        if conf.get_settings().database != alias:
            conf.serve(alias)


def enter(kind: Kind, config: ChildConfig, *rest: Any) -> None:
    """Entry point of each child. Imports what it runs by name: with "spawn" Django is not set up before."""
    set_up(config)
    importlib.import_module(kind.value).main(config, *rest)


def leave(code: int, pipe: Connection | None, name: str) -> NoReturn:
    """End this process, and before that let what was meant for its end run, as Python would.

    This is what was given to `pgq.ground.events.before_exit`, the receivers of `pre_exit`, the threads that are no
    daemons, functions registered with atexit in this process, and files that are still open. The supervisor gets
    ENDING, and kills a process that takes longer for them than `END_WITHIN_SECONDS`. Nothing else would, so a process
    whose pipe is broken runs only the first, which has a bound of its own.

    Args:
        code: The exit code.
        pipe: To the supervisor; None: it is broken.
        name: Of this process, for `pre_exit`.
    """
    # Imported here for the same reason as in `set_up`.
    from pgq import signals
    from pgq.ground import events

    try:
        if pipe is not None:
            pipe.send_bytes(ENDING)
        # First, since all else may take as long as it likes. They are bounded, so they run without a supervisor, too.
        events.run_before_exit()
        if pipe is not None:
            signals.send(signals.pre_exit, proc_name=name)
            # As multiprocessing does at the end of a process.
            private.end_threads()
            private.run_exit_functions()
            _flush_files()
    except BaseException:
        logging.getLogger("pgq").exception("%s: at its end", name)
    finally:
        end(code)


def end(code: int) -> NoReturn:
    """End this process at once, but for what its logs and streams hold."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _flush_files() -> None:
    """Write what open files hold in their buffers. What the fork server had open is frozen, and so not found here."""
    for found in gc.get_objects():
        if type(found) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):
            with contextlib.suppress(OSError, ValueError):
                found.flush()


def _ignore(signum: int, frame: object) -> None:
    """Do nothing: the supervisor decides."""
